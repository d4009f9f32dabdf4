"""What a booking is: who travels on which seats, what it costs, and how far it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from services.booking.domain.booking import (
    BookingState,
    CancellationCause,
    Happening,
    Saga,
    SeatWish,
    Step,
    advance,
)
from services.booking.domain.passengers import BookedSeat
from services.booking.domain.trips import CancellationFee

# What a step is given until another process looks whether it was done.
PATIENCE = timedelta(seconds=4)
# How long after the end of a trip a phone that was offline may still tell of a fare.
CASH_AWAITED = timedelta(days=1)
CODE_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
CODE_LENGTH = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancellation:
    """Is how a booking was cancelled; amounts in minor units."""

    cause: CancellationCause
    fee_minor: int
    reason: str
    cancel_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """Says where a passenger pays at a gateway; the fields are to be POSTed there, if any."""

    deposit_id: str
    checkout_url: str
    form_fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Booking:
    """Is the sale of a hold's seats to one user.

    `deposit_state` is what the ledger told of the deposit, "" before; `next_time` when the saga is
    looked at again, None while it rests; `event_version` counts its events.
    """

    booking_id: str
    tenant_id: str
    booking_code: str
    trip_id: str
    user_id: str
    hold_id: str
    saga: Saga
    seats: Sequence[BookedSeat]
    currency_code: str
    from_stop_index: int
    to_stop_index: int
    fees: Sequence[CancellationFee]
    gateway: str
    return_url: str
    allow_other_seats: bool
    reseated: bool = False
    pending_seconds: int
    checkout: Checkout | None = None
    deposit_state: str = ""
    failure_reason: str = ""
    expire_time: datetime
    create_time: datetime
    confirm_time: datetime | None = None
    cancellation: Cancellation | None = None
    event_version: int = 0
    next_time: datetime | None = None
    try_count: int = 0

    @property
    def state(self) -> BookingState:
        """Return how far it is."""
        return self.saga.state

    @property
    def seat_numbers(self) -> list[str]:
        """Return the numbers on its seats."""
        return [seat.seat_number for seat in self.seats]

    @property
    def ticket_ids(self) -> list[str]:
        """Return the tickets that are good now."""
        if self.state is not BookingState.CONFIRMED:
            return []
        return [seat.ticket_id for seat in self.seats if seat.ticket_id]

    @property
    def hears_of_deposit(self) -> bool:
        """Say whether what became of its deposit means something to it that it does not know."""
        if self.saga.deposited:
            return False
        if self.deposit_state == "FAILED":
            return self.state is BookingState.PENDING_PAYMENT
        return self.deposit_state == "SUCCEEDED" and self.state in (
            BookingState.PENDING_PAYMENT,
            BookingState.EXPIRED,
            BookingState.PAYMENT_FAILED,
        )

    def is_overdue(self, now: datetime) -> bool:
        """Say whether the time for its payment is over, with no money on the way."""
        paid = self.saga.deposited or self.deposit_state == "SUCCEEDED"
        waits = self.state is BookingState.PENDING_PAYMENT and not paid
        return waits and now >= self.expire_time


@dataclass(frozen=True, slots=True, kw_only=True)
class BookingChanged:
    """Says that a booking came to another state, or its payment did."""

    booking: Booking


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketsRevoked:
    """Says that tickets of a booking cannot be used any more."""

    booking_id: str
    trip_id: str
    ticket_ids: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class PassengerMoved:
    """Says that a user has a confirmed booking on a trip (`joined`), or has none any more."""

    trip_id: str
    user_id: str
    expected_count: int
    joined: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PassengerCarried:
    """Says that a trip has ended for a booking; `amount_minor` is 0 when nothing is to be paid."""

    booking: Booking
    amount_minor: int
    complete_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Tell:
    """Is something that happened to a booking outside and that does not change its seats.

    It is told to the booking only while that is at `step` of `attempt`; None tells it in any case.
    """

    booking_id: str
    happening: Happening
    step: Step | None = None
    attempt: int = 0
    checkout: Checkout | None = None
    failure_reason: str = ""


def told(booking: Booking, tell: Tell, now: datetime) -> Booking | None:
    """Return the booking after what it is told; None if nothing follows, or seats would change."""
    saga = booking.saga
    if tell.step is not None and (saga.step, saga.attempt) != (tell.step, tell.attempt):
        return None
    move = advance(saga, tell.happening)
    if move is None or move.seats is not SeatWish.KEEP:
        return None
    after = moved(booking, move.saga, now)
    if tell.checkout is not None:
        after = replace(after, checkout=tell.checkout)
    return replace(after, failure_reason=tell.failure_reason or booking.failure_reason)


def moved(booking: Booking, saga: Saga, now: datetime) -> Booking:
    """Return the booking with its saga moved, to be looked at again when it is due."""
    return replace(booking, saga=saga, next_time=due_time(booking, saga, now), try_count=0)


def due_time(booking: Booking, saga: Saga, now: datetime) -> datetime | None:
    """Return when a saga is to be looked at; whoever moved it goes on by itself before that."""
    if saga.step is Step.REST:
        return None
    if saga.step is Step.AWAIT:
        return booking.expire_time
    return now + PATIENCE


def shows(before: Booking | None, after: Booking) -> bool:
    """Say whether others see a difference: of state, of payment, or of seats."""
    if before is None:
        return True
    return (
        before.state is not after.state
        or before.saga.payment_state is not after.saga.payment_state
        or before.saga.refunded_minor != after.saga.refunded_minor
        or before.seat_numbers != after.seat_numbers
        or before.ticket_ids != after.ticket_ids
    )


def code_of(number: int) -> str:
    """Return a name for people, of 40 bits in Crockford's base 32 digits."""
    digits = []
    for _ in range(CODE_LENGTH):
        number, digit = divmod(number, len(CODE_DIGITS))
        digits.append(CODE_DIGITS[digit])
    return "".join(reversed(digits))
