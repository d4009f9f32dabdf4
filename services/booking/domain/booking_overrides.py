"""Changes bookings for an ADMIN who changes seats by hand. Pure."""

from dataclasses import dataclass, replace

from services.booking.domain import booking as sagas
from services.booking.domain.booking import (
    CancellationCause,
)
from services.booking.domain.booking_turns import (
    BOOKINGS,
    BookingsKnown,
    cancelled,
    ticketed,
    ticketed_seat,
    write,
)
from services.booking.domain.bookings import (
    Booking,
)
from services.booking.domain.issuing import (
    Signer,
    issue,
)
from services.booking.domain.turns import TripTurn
from services.booking.errors.bookings import (
    BookingNotCancellableError,
    BookingNotYoursError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BookedSeatsByHand:
    """Changes bookings for an ADMIN's override. Implements overriding.BookedSeats."""

    signer: Signer
    reason: str
    ticket_id: str

    def cancel(self, turn: TripTurn, booking_id: str, override_id: str, /) -> None:
        """Cancel a booking whole, with all the money back; frees all its seats."""
        booking = _by_hand(turn, booking_id)
        move = sagas.cancel(booking.saga, refund_minor=booking.saga.amount_minor)
        if move is None:
            raise BookingNotCancellableError(booking_id, state=booking.state)
        cause = CancellationCause.OPERATOR
        cancelled(
            turn,
            booking,
            move,
            cause=cause,
            fee_minor=0,
            reason=self.reason,
            override_id=override_id,
        )

    def move(
        self,
        turn: TripTurn,
        booking_id: str,
        /,
        *,
        seat_number: str,
        target: str,
        override_id: str,
    ) -> None:
        """Give the passenger of a seat another one, and a ticket for it; the claim is moved."""
        del override_id
        booking = _by_hand(turn, booking_id)
        old = next(seat for seat in booking.seats if seat.seat_number == seat_number)
        new = old._replace(
            seat_number=target,
            seat_class_code=turn.layout.seats[target].seat_class_code,
            ticket_id=self.ticket_id,
        )
        after = replace(
            booking, seats=tuple(new if seat is old else seat for seat in booking.seats)
        )
        issued = issue(self.signer, ticketed(turn, after), [ticketed_seat(new)])
        write(turn, booking, after, issued=issued, revoked=[old.ticket_id])


def _by_hand(turn: TripTurn, booking_id: str) -> Booking:
    known: BookingsKnown = turn.known.parts[BOOKINGS]
    booking = known.bookings.get(booking_id)
    if booking is None:
        raise BookingNotYoursError(booking_id)
    return booking
