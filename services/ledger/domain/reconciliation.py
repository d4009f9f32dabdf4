"""What a reconciliation checks and reports. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum

DISCREPANCIES_MAX = 1_000


class Check(StrEnum):
    """What is checked."""

    DEBITS_EQUAL_CREDITS = "DEBITS_EQUAL_CREDITS"
    BALANCES_EQUAL_ENTRIES = "BALANCES_EQUAL_ENTRIES"
    TRIPS_PAID = "TRIPS_PAID"
    GATEWAY_EQUALS_LEDGER = "GATEWAY_EQUALS_LEDGER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Discrepancy:
    """Is one thing that is not as it should be; amounts in minor units, None if it has none."""

    check: Check
    subject: str
    description: str
    currency_code: str = ""
    found_minor: int | None = None
    expected_minor: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayLine:
    """Is one line of a gateway's own report; the amount is negative if it was given back."""

    gateway: str
    gateway_payment_id: str
    deposit_id: str
    currency_code: str
    amount_minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedPayment:
    """Is what a completed trip is expected to have been paid; 0 and no currency for nothing."""

    tenant_id: str
    trip_id: str
    passenger_id: str
    payment_reference: str
    currency_code: str
    amount_minor: int
    complete_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Is the report of one reconciliation; `scheduled_date` is set if the clock made it."""

    reconciliation_id: str
    until_time: datetime
    create_time: datetime
    checks: Sequence[Check]
    transfer_count: int
    account_count: int
    discrepancy_count: int
    discrepancies: Sequence[Discrepancy]
    scheduled_date: date | None = None
