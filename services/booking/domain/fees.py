"""What cancelling costs: the fee table of a booking, and what it says at a moment. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from services.booking.domain.booking import BookingState, PaymentState, Saga
from services.booking.domain.trips import CancellationFee

_ALL = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CancellationTerms:
    """Is what cancelling costs now, in minor units, and until when that counts."""

    fee_minor: int
    refund_minor: int
    expire_time: datetime


def terms_at(
    table: Sequence[CancellationFee], saga: Saga, *, departure_time: datetime, now: datetime
) -> CancellationTerms | None:
    """Return what it costs a passenger to cancel at `now`, or None when it is too late.

    The first line whose time is still ahead counts, the lines being from the longest time before
    departure to the shortest; after the last nothing is given back. What was not taken yet costs
    nothing.
    """
    if now >= departure_time:
        return None
    if saga.state is BookingState.PENDING_PAYMENT:
        return CancellationTerms(fee_minor=0, refund_minor=0, expire_time=departure_time)
    if saga.state is not BookingState.CONFIRMED:
        return None
    if saga.payment_state is PaymentState.DUE_ON_BOARD:
        return CancellationTerms(fee_minor=0, refund_minor=0, expire_time=departure_time)
    for line in table:
        until = departure_time - line.before_departure
        if now < until:
            fee = fee_of(saga.amount_minor, line.fee_basis_points)
            return CancellationTerms(
                fee_minor=fee, refund_minor=saga.amount_minor - fee, expire_time=until
            )
    return CancellationTerms(
        fee_minor=saga.amount_minor, refund_minor=0, expire_time=departure_time
    )


def fee_of(amount_minor: int, basis_points: int) -> int:
    """Return the share of an amount, rounded half up to a minor unit."""
    return (amount_minor * basis_points + _ALL // 2) // _ALL
