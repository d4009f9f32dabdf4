"""Moves a booking with its seats, tickets and events, in the turn at a trip. Pure.

Used by the changes of booking_changes.py and booking_overrides.py.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from services.booking.domain import booking as sagas
from services.booking.domain.booking import (
    BookingState,
    CancellationCause,
    Move,
)
from services.booking.domain.bookings import (
    Booking,
    BookingChanged,
    Cancellation,
    PassengerMoved,
    TicketsRevoked,
    moved,
    shows,
)
from services.booking.domain.holding import (
    BestAvailable,
    check_free,
    choose_best,
)
from services.booking.domain.issuing import (
    IssuedTicket,
    Signer,
    TicketedBooking,
    TicketedSeat,
    issue,
)
from services.booking.domain.passengers import BookedSeat, SealedPassenger
from services.booking.domain.seats import Cause, Hold, HoldState, SeatState, legs_between
from services.booking.domain.trips import Journey
from services.booking.domain.turns import Happening as Told
from services.booking.domain.turns import TripTurn
from services.booking.errors.holds import SeatsNotAvailableError
from services.shared.errors import DomainError

BOOKINGS = "bookings"


@dataclass(slots=True, kw_only=True)
class BookingsKnown:
    """Is what was read of bookings for a batch; those that are changed are locked.

    `used` holds the bookings of which somebody has boarded.
    """

    bookings: dict[str, Booking] = field(default_factory=dict)
    used: frozenset[str] = frozenset()


@dataclass(slots=True, kw_only=True)
class TripJourneys:
    """Is who travels on a trip: confirmed bookings by user, and the passengers of all of them.

    A note of the trip's turn: no booking is confirmed or ended without a change of seats.
    """

    bookings: Counter[str] = field(default_factory=Counter)
    passenger_count: int = 0

    def __len__(self) -> int:
        """Count the users."""
        return len(self.bookings)

    def add(self, booking: Booking) -> bool:
        """Count a booking that is confirmed; say whether it is its user's first one."""
        self.passenger_count += len(booking.seats)
        self.bookings[booking.user_id] += 1
        return self.bookings[booking.user_id] == 1

    def remove(self, booking: Booking) -> bool:
        """Count a booking no more; say whether it was its user's last one."""
        self.passenger_count -= len(booking.seats)
        self.bookings[booking.user_id] -= 1
        if self.bookings[booking.user_id] > 0:
            return False
        del self.bookings[booking.user_id]
        return True


@dataclass(slots=True, kw_only=True)
class BookingRow:
    """Is what is to be written of a booking: the row, and what goes with it."""

    booking: Booking
    is_new: bool = False
    passengers: Sequence[SealedPassenger] = ()
    issued: Sequence[IssuedTicket] = ()
    revoked: Sequence[str] = ()


def journey_of(hold: Hold) -> Journey:
    """Return the journey of a hold."""
    return Journey(hold.from_stop_index, hold.to_stop_index)


def seats_of(
    hold: Hold, passengers: Sequence[tuple[str, SealedPassenger]]
) -> tuple[BookedSeat, ...]:
    """Return a hold's seats with those who will sit there."""
    sits = {seat_number: sealed.passenger_id for seat_number, sealed in passengers}
    return tuple(
        BookedSeat(seat.seat_number, seat.seat_class_code, seat.price_minor, sits[seat.seat_number])
        for seat in hold.seats
    )


def hand_over(turn: TripTurn, booking: Booking, hold: Hold) -> None:
    """Give the seats of a live hold to its booking."""
    for seat in hold.seats:
        turn.seats.hand_over(
            seat.seat_number,
            hold.legs,
            SeatState.BOOKED,
            owner_ids=(hold.hold_id, booking.booking_id),
            cause=Cause.BOOKED,
        )
    turn.seats.put_hold(replace(hold, state=HoldState.BOOKED, booking_id=booking.booking_id))


def find_seats(turn: TripTurn, booking: Booking) -> Booking | None:
    """Give the booking seats: those it held, the same ones again, others of their classes.

    None if there are none for it, or nobody can get on any more.
    """
    trip = turn.trip
    journey = Journey(booking.from_stop_index, booking.to_stop_index)
    if trip.cancel_time is not None or turn.now >= trip.departure_time(journey):
        return None
    hold = turn.hold(booking.hold_id)
    if hold is not None and hold.live:
        hand_over(turn, booking, hold)
        return booking
    legs = legs_between(*journey)
    mark = turn.mark()
    try:
        check_free(turn, booking.seat_numbers, legs)
        chosen = booking.seat_numbers
    except DomainError:
        if not booking.allow_other_seats:
            return None
        try:
            chosen = _others(turn, booking, journey)
        except SeatsNotAvailableError:
            turn.undo(mark)
            return None
    for seat_number in chosen:
        if not turn.seats.claimed(seat_number) & legs:
            _take(turn, booking, seat_number, legs)
    seats = tuple(
        seat._replace(seat_number=seat_number)
        for seat, seat_number in zip(booking.seats, chosen, strict=True)
    )
    reseated = [seat.seat_number for seat in seats] != booking.seat_numbers
    return replace(booking, seats=seats, reseated=reseated)


def _others(turn: TripTurn, booking: Booking, journey: Journey) -> list[str]:
    """Take the best seats of each class, for as many as the booking had of it."""
    legs = legs_between(*journey)
    chosen: dict[str, list[str]] = {}
    for code, count in Counter(seat.seat_class_code for seat in booking.seats).items():
        best = choose_best(turn, journey, BestAvailable(count, seat_class_code=code))
        chosen[code] = [seat.seat_number for seat in best.seats]
        for seat_number in chosen[code]:
            _take(turn, booking, seat_number, legs)
    return [chosen[seat.seat_class_code].pop(0) for seat in booking.seats]


def _take(turn: TripTurn, booking: Booking, seat_number: str, legs: int) -> None:
    turn.seats.take(
        seat_number, legs, SeatState.BOOKED, owner_id=booking.booking_id, cause=Cause.BOOKED
    )


def free_hold(turn: TripTurn, booking: Booking, state: HoldState, cause: Cause) -> None:
    """Free what the hold of an unpaid booking keeps, if it still does."""
    hold = turn.hold(booking.hold_id)
    if hold is not None and hold.live:
        turn.seats.end_hold(hold, state, cause, cause_id=booking.booking_id)


def cancelled(
    turn: TripTurn,
    booking: Booking,
    move: Move,
    *,
    cause: CancellationCause,
    fee_minor: int,
    reason: str,
    override_id: str = "",
) -> Booking:
    """End a booking as `move` says, and say who did it and what it cost."""
    saga = move.saga
    kept = min(fee_minor, saga.amount_minor) if saga.amount_minor else 0
    if saga.payment_state is sagas.PaymentState.VOIDED:
        kept = 0
    cancellation = Cancellation(cause=cause, fee_minor=kept, reason=reason, cancel_time=turn.now)
    after = replace(moved(booking, saga, turn.now), cancellation=cancellation)
    return end(turn, booking, after, override_id=override_id)


def end(turn: TripTurn, before: Booking, after: Booking, *, override_id: str = "") -> Booking:
    """Free the seats of a booking and revoke its tickets."""
    if before.state is not BookingState.CONFIRMED:
        free_hold(turn, before, HoldState.RELEASED, Cause.CANCELLED)
        return write(turn, before, after)
    for seat in before.seats:
        turn.seats.free(
            seat.seat_number,
            legs_between(before.from_stop_index, before.to_stop_index),
            owner_id=before.booking_id,
            cause=Cause.OVERRIDDEN if override_id else Cause.CANCELLED,
            cause_id=override_id,
        )
    was_last = journeys_of(turn).remove(before)
    after = write(turn, before, after, revoked=before.ticket_ids)
    if was_last:
        _tell_moved(turn, before, joined=False)
    return after


def confirm(
    turn: TripTurn,
    before: Booking | None,
    after: Booking,
    signer: Signer,
    ticket_ids: Sequence[str],
    *,
    passengers: Sequence[SealedPassenger] = (),
) -> Booking:
    """Issue the tickets of a booking that has its seats."""
    seats = tuple(
        seat._replace(ticket_id=ticket_id)
        for seat, ticket_id in zip(after.seats, ticket_ids, strict=True)
    )
    after = replace(after, seats=seats, confirm_time=turn.now)
    issued = issue(signer, ticketed(turn, after), map(ticketed_seat, seats))
    is_first = journeys_of(turn).add(after)
    after = write(turn, before, after, passengers=passengers, issued=issued)
    if is_first:
        _tell_moved(turn, after, joined=True)
    return after


def journeys_of(turn: TripTurn) -> TripJourneys:
    """Return who travels on the trip."""
    journeys = turn.notes[BOOKINGS]
    if not isinstance(journeys, TripJourneys):
        raise TypeError("another part's note goes by the name of bookings")
    return journeys


def _tell_moved(turn: TripTurn, booking: Booking, *, joined: bool) -> None:
    turn.tell_of_trip(
        PassengerMoved(
            trip_id=booking.trip_id,
            user_id=booking.user_id,
            expected_count=journeys_of(turn).passenger_count,
            joined=joined,
        )
    )


def ticketed(turn: TripTurn, booking: Booking) -> TicketedBooking:
    """Return what the tickets of a booking have in common."""
    return TicketedBooking(
        booking_id=booking.booking_id,
        booking_code=booking.booking_code,
        trip_id=booking.trip_id,
        user_id=booking.user_id,
        from_stop_index=booking.from_stop_index,
        to_stop_index=booking.to_stop_index,
        currency_code=booking.currency_code,
        pays_cash=booking.saga.payment_state is sagas.PaymentState.DUE_ON_BOARD,
        end_time=turn.trip.stops[booking.to_stop_index].arrival_time,
    )


def ticketed_seat(seat: BookedSeat) -> TicketedSeat:
    """Return a seat as its ticket needs it."""
    return TicketedSeat(
        ticket_id=seat.ticket_id,
        passenger_id=seat.passenger_id,
        seat_number=seat.seat_number,
        price_minor=seat.price_minor,
    )


def write(
    turn: TripTurn,
    before: Booking | None,
    after: Booking,
    *,
    passengers: Sequence[SealedPassenger] = (),
    issued: Sequence[IssuedTicket] = (),
    revoked: Sequence[str] = (),
) -> Booking:
    """Have a booking written, with what goes with it and the events that tell of it."""
    bodies: list[object] = []
    if shows(before, after):
        bodies.append(BookingChanged(booking=after))
    if revoked:
        bodies.append(
            TicketsRevoked(booking_id=after.booking_id, trip_id=after.trip_id, ticket_ids=revoked)
        )
    version = after.event_version
    for body in bodies:
        version += 1
        turn.tell(Told("booking", after.booking_id, version, body))
    after = replace(after, event_version=version)
    known: BookingsKnown = turn.known.parts[BOOKINGS]
    known.bookings[after.booking_id] = after
    row = BookingRow(
        booking=after,
        is_new=before is None,
        passengers=passengers,
        issued=issued,
        revoked=revoked,
    )
    turn.write(BOOKINGS, row)
    return after
