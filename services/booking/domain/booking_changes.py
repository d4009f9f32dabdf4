"""Decides what becomes of bookings and their seats together, in the turn at a trip. Pure.

Each class is a change that the SeatBatcher commits with many others: the claims, the hold, the
booking, its tickets and its events are of one transaction.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from services.booking.domain import booking as sagas
from services.booking.domain.booking import (
    BookingState,
    CancellationCause,
    Happening,
    SeatWish,
)
from services.booking.domain.booking_turns import (
    BOOKINGS,
    BookingsKnown,
    cancelled,
    confirm,
    end,
    find_seats,
    free_hold,
    hand_over,
    journey_of,
    seats_of,
    write,
)
from services.booking.domain.bookings import (
    Booking,
    Cancellation,
    moved,
)
from services.booking.domain.fees import terms_at
from services.booking.domain.holding import (
    check_active,
    own_hold,
)
from services.booking.domain.issuing import (
    Signer,
)
from services.booking.domain.passengers import SealedPassenger, seats_match
from services.booking.domain.seats import Cause, Hold, HoldState
from services.booking.domain.trips import CancellationFee, Journey, PaymentMethod, Trip
from services.booking.domain.turns import TripTurn, WantedChange
from services.booking.errors.bookings import (
    BookingNotCancellableError,
    BookingNotYoursError,
    CancellationFeeChangedError,
    PassengersMismatchError,
    PaymentMethodNotAllowedError,
)
from services.booking.errors.holds import HoldNotActiveError
from services.booking.errors.trips import TripCancelledError, TripDepartedError
from services.shared.errors import DomainError


@dataclass(frozen=True, slots=True, kw_only=True)
class BookingChange(WantedChange):
    """Is a change of one booking. `makes` says that it may be a new one."""

    booking_id: str

    def known(self, turn: TripTurn) -> BookingsKnown:
        """Return what was read of bookings."""
        known: BookingsKnown = turn.known.parts[BOOKINGS]
        return known

    def found(self, turn: TripTurn) -> Booking:
        """Return the booking as it is now. Raises BookingNotYoursError if there is none."""
        booking = self.known(turn).bookings.get(self.booking_id)
        if booking is None:
            raise BookingNotYoursError(self.booking_id)
        return booking

    def repeated(self, turn: TripTurn, resource_id: str) -> Booking:
        """Return the booking that the first call made or changed, as it is now."""
        return self.known(turn).bookings.get(resource_id) or self.found(turn)

    def resource_id(self, answer: Booking) -> str:
        """Return the booking's id."""
        return answer.booking_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning(BookingChange):
    """Wants to make a booking of a hold. What is paid later, or nothing, is confirmed at once.

    `saw` is told the trip, also when the booking was made before: nobody has to read it again.
    """

    hold_id: str
    user_id: str
    booking_code: str
    method: PaymentMethod
    gateway: str
    return_url: str
    allow_other_seats: bool
    passengers: Sequence[tuple[str, SealedPassenger]]  # seat number, and who sits there
    operator_fees: Sequence[CancellationFee]
    pending_margin_seconds: int
    signer: Signer
    ticket_ids: Sequence[str]
    saw: Callable[[Trip], None]

    def repeated(self, turn: TripTurn, resource_id: str) -> Booking:
        """Return the booking that the first call made, as it is now."""
        self.saw(turn.trip)
        return BookingChange.repeated(self, turn, resource_id)

    def decide(self, turn: TripTurn) -> Booking:
        """Begin. Raises the refusals of CreateBooking but PAYMENT_FAILED."""
        hold = own_hold(turn, self.hold_id, self.user_id)
        self._check(turn, hold)
        trip = turn.trip
        self.saw(trip)
        expire_time = min(
            turn.now + trip.terms.payment_duration,
            trip.departure_time(journey_of(hold)),
        )
        saga = sagas.begin(self.method, hold.amount_minor)
        booking = Booking(
            booking_id=self.booking_id,
            tenant_id=self.tenant_id,
            booking_code=self.booking_code,
            trip_id=self.trip_id,
            user_id=self.user_id,
            hold_id=self.hold_id,
            saga=saga,
            seats=seats_of(hold, self.passengers),
            currency_code=hold.currency_code,
            from_stop_index=hold.from_stop_index,
            to_stop_index=hold.to_stop_index,
            fees=trip.terms.cancellation_fees or tuple(self.operator_fees),
            gateway=self.gateway,
            return_url=self.return_url,
            allow_other_seats=self.allow_other_seats,
            pending_seconds=int((expire_time - turn.now).total_seconds())
            + self.pending_margin_seconds,
            expire_time=expire_time,
            create_time=turn.now,
        )
        paying = replace(
            hold,
            state=HoldState.PAYING,
            expire_time=expire_time,
            booking_id=self.booking_id,
        )
        turn.seats.put_hold(paying)
        passengers = [sealed for _, sealed in self.passengers]
        if not sagas.sells_at_once(self.method, hold.amount_minor):
            after = moved(booking, saga, turn.now)
            return write(turn, None, after, passengers=passengers)
        hand_over(turn, booking, paying)
        move = sagas.advance(saga, Happening.SEATED)
        after = moved(booking, saga if move is None else move.saga, turn.now)
        return confirm(turn, None, after, self.signer, self.ticket_ids, passengers=passengers)

    def _check(self, turn: TripTurn, hold: Hold) -> None:
        trip, journey = turn.trip, journey_of(hold)
        if hold.trip_id != trip.trip_id:
            raise HoldNotActiveError(hold.hold_id, state=hold.state, booking_id=hold.booking_id)
        if trip.cancel_time is not None:
            raise TripCancelledError(trip.trip_id)
        check_active(hold)
        if turn.now >= trip.departure_time(journey):
            raise TripDepartedError(trip.trip_id, departure_time=trip.departure_time(journey))
        if not trip.terms.allows(self.method):
            raise PaymentMethodNotAllowedError(trip.trip_id, payment_method=self.method)
        numbers = [seat.seat_number for seat in hold.seats]
        if not seats_match(numbers, [seat_number for seat_number, _ in self.passengers]):
            raise PassengersMismatchError(hold.hold_id, numbers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sale(BookingChange):
    """Wants the seats of a booking whose money is reserved: sold to it, or the money goes back."""

    signer: Signer
    ticket_ids: Sequence[str]

    def decide(self, turn: TripTurn) -> Booking:
        """Sell the seats it held, else others by its rule, else none."""
        booking = self.found(turn)
        move = sagas.advance(booking.saga, Happening.RESERVED)
        if move is None:
            return booking
        if move.seats is not SeatWish.TAKE:
            return write(turn, booking, moved(booking, move.saga, turn.now))
        seated = find_seats(turn, booking)
        happening = Happening.NO_SEAT if seated is None else Happening.SEATED
        move = sagas.advance(booking.saga, happening)
        if move is None:
            return booking
        if seated is None:
            free_hold(turn, booking, HoldState.RELEASED, Cause.CANCELLED)
            return write(turn, booking, moved(booking, move.saga, turn.now))
        after = replace(moved(seated, move.saga, turn.now), confirm_time=turn.now)
        return confirm(turn, booking, after, self.signer, self.ticket_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending(BookingChange):
    """Tells a booking what may cost it its seats: a refusal, or that its time is over."""

    happening: Happening
    failure_reason: str = ""
    attempt: int | None = None

    def decide(self, turn: TripTurn) -> Booking:
        """Free the seats if the booking ends by it."""
        booking = self.found(turn)
        # A refusal is of one attempt; a later one may have gone through.
        if self.attempt is not None and self.attempt != booking.saga.attempt:
            return booking
        if self.happening is Happening.TIME_OVER and not booking.is_overdue(turn.now):
            return booking
        move = sagas.advance(booking.saga, self.happening)
        if move is None:
            return booking
        after = moved(booking, move.saga, turn.now)
        after = replace(after, failure_reason=self.failure_reason)
        if booking.state is BookingState.CONFIRMED:
            cancelled = Cancellation(
                cause=CancellationCause.OPERATOR,
                fee_minor=0,
                reason="the payment could not be taken",
                cancel_time=turn.now,
            )
            return end(turn, booking, replace(after, cancellation=cancelled))
        expired = self.happening is Happening.TIME_OVER
        free_hold(
            turn,
            booking,
            HoldState.EXPIRED if expired else HoldState.RELEASED,
            Cause.EXPIRED if expired else Cause.CANCELLED,
        )
        return write(turn, booking, after)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelling(BookingChange):
    """Wants a booking to end. `user_id` is the passenger who asks, "" for the operator or trip."""

    user_id: str
    cause: CancellationCause
    reason: str
    max_fee_minor: int | None = None

    def decide(self, turn: TripTurn) -> Booking:
        """Cancel. Raises the refusals of CancelBooking."""
        booking = self.found(turn)
        if self.user_id and booking.user_id != self.user_id:
            raise BookingNotYoursError(self.booking_id)
        if booking.state is BookingState.CANCELLED:
            return booking
        fee = self._fee_minor(turn, booking)
        move = sagas.cancel(booking.saga, refund_minor=booking.saga.amount_minor - fee)
        if move is None:
            raise self._too_late(booking)
        return cancelled(turn, booking, move, cause=self.cause, fee_minor=fee, reason=self.reason)

    def _fee_minor(self, turn: TripTurn, booking: Booking) -> int:
        if self.cause is CancellationCause.TRIP:
            return 0
        journey = Journey(booking.from_stop_index, booking.to_stop_index)
        if booking.booking_id in self.known(turn).used:
            raise self._too_late(booking)
        terms = terms_at(
            booking.fees if self.cause is CancellationCause.PASSENGER else (),
            booking.saga,
            departure_time=turn.trip.departure_time(journey),
            now=turn.now,
        )
        if terms is None:
            raise self._too_late(booking)
        if self.cause is not CancellationCause.PASSENGER:
            return 0
        if self.max_fee_minor is not None and terms.fee_minor > self.max_fee_minor:
            raise CancellationFeeChangedError(
                fee_minor=terms.fee_minor,
                max_fee_minor=self.max_fee_minor,
                currency_code=booking.currency_code,
            )
        return terms.fee_minor

    def _too_late(self, booking: Booking) -> DomainError:
        return BookingNotCancellableError(booking.booking_id, state=booking.state)
