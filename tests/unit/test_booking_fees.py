"""What cancelling costs, by the fee table of the contract's example."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.booking.domain.booking import (
    BookingState,
    PaymentState,
    Saga,
    Step,
)
from services.booking.domain.fees import fee_of, terms_at
from services.booking.domain.trips import CancellationFee, PaymentMethod

pytestmark = pytest.mark.unit

_DEPARTURE = datetime(2026, 12, 1, 12, tzinfo=UTC)
_TABLE = [
    CancellationFee(before_departure=timedelta(hours=24), fee_basis_points=0),
    CancellationFee(before_departure=timedelta(hours=2), fee_basis_points=2_500),
    CancellationFee(before_departure=timedelta(0), fee_basis_points=5_000),
]
_PAID = Saga(
    state=BookingState.CONFIRMED,
    method=PaymentMethod.WALLET,
    payment_state=PaymentState.PAID,
    step=Step.REST,
    amount_minor=1_001,
)


def _fee(before: timedelta, saga: Saga = _PAID) -> tuple[int, int] | None:
    terms = terms_at(_TABLE, saga, departure_time=_DEPARTURE, now=_DEPARTURE - before)
    return None if terms is None else (terms.fee_minor, terms.refund_minor)


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (timedelta(days=3), (0, 1_001)),
        (timedelta(hours=24, microseconds=1), (0, 1_001)),
        (timedelta(hours=24), (250, 751)),
        (timedelta(hours=2), (501, 500)),
        (timedelta(seconds=1), (501, 500)),
        (timedelta(0), None),
        (timedelta(hours=-1), None),
    ],
)
def test_the_first_line_whose_time_is_ahead_counts(
    before: timedelta, expected: tuple[int, int] | None
) -> None:
    assert _fee(before) == expected


def test_after_the_last_line_nothing_is_given_back() -> None:
    terms = terms_at(_TABLE[:1], _PAID, departure_time=_DEPARTURE, now=_DEPARTURE - timedelta(1))

    assert terms is not None
    assert (terms.fee_minor, terms.refund_minor) == (1_001, 0)
    assert terms.expire_time == _DEPARTURE


def test_the_offer_counts_until_its_line_ends() -> None:
    now = _DEPARTURE - timedelta(hours=3)

    terms = terms_at(_TABLE, _PAID, departure_time=_DEPARTURE, now=now)

    assert terms is not None
    assert terms.expire_time == _DEPARTURE - timedelta(hours=2)


def test_cash_that_was_not_taken_and_unpaid_bookings_cost_nothing() -> None:
    cash = replace(_PAID, method=PaymentMethod.CASH, payment_state=PaymentState.DUE_ON_BOARD)
    unpaid = replace(_PAID, state=BookingState.PENDING_PAYMENT, payment_state=PaymentState.PENDING)

    assert _fee(timedelta(hours=1), cash) == (0, 0)
    assert _fee(timedelta(hours=1), unpaid) == (0, 0)


def test_what_has_ended_has_no_offer() -> None:
    assert _fee(timedelta(days=3), replace(_PAID, state=BookingState.CANCELLED)) is None


def test_a_fee_is_rounded_half_up() -> None:
    assert [fee_of(amount, 2_500) for amount in (1, 2, 3, 10)] == [0, 1, 1, 3]
