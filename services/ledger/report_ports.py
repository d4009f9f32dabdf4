"""What the daily report is, and what keeps it needs, as a Protocol."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class KindTotal:
    """Is what transfers of one kind and currency moved, in minor units."""

    kind: str
    currency_code: str
    transfer_count: int
    amount_minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountTotal:
    """Is what became of the accounts of one kind and currency, in minor units.

    Opening and closing are credits less debits; `debits_minor` and `credits_minor` are positive.
    """

    kind: str
    subject: str
    currency_code: str
    opening_minor: int
    debits_minor: int
    credits_minor: int
    closing_minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DailyReport:
    """Is what happened on a day of UTC; `preliminary` while it may still grow."""

    day: date
    kinds: Sequence[KindTotal]
    accounts: Sequence[AccountTotal]
    preliminary: bool


class ReportStore(Protocol):
    """Sums up what is recorded."""

    async def totals(
        self, tenant_id: str, *, start: datetime, end: datetime
    ) -> tuple[list[KindTotal], list[AccountTotal]]:
        """Return the sums from `start` until before `end`, all of one moment.

        Raises OverloadedError if that takes too long.
        """
        ...
