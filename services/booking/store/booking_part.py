"""Reads and writes bookings in the transaction that changes their seats. A part of seat batches."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from services.booking.domain.booking_changes import BookingChange, Cancelling
from services.booking.domain.booking_turns import BOOKINGS, BookingRow, BookingsKnown
from services.booking.domain.overriding import Override
from services.booking.domain.seats import SeatState
from services.booking.domain.turns import TripTurn, WantedChange
from services.booking.store import tickets
from services.booking.store.booking_rows import COLUMNS, INSERT, UPDATE, booking_of, rows_text

if TYPE_CHECKING:
    from services.shared.postgres import Connection

# In the order of their ids, after all locks of trips.
_LOCK = f"""
SELECT {COLUMNS} FROM (SELECT id FROM unnest($1::uuid[]) AS id ORDER BY id) AS wanted
CROSS JOIN LATERAL (
  SELECT * FROM booking.bookings WHERE booking_id = wanted.id FOR NO KEY UPDATE) AS b
"""  # noqa: S608 - constants of ours
_JOURNEYS = """
SELECT b.* FROM unnest($1::uuid[]) AS wanted (id)
CROSS JOIN LATERAL (
  SELECT trip_id::text, user_id::text, count(*), sum(passenger_count)::bigint
  FROM booking.bookings WHERE trip_id = wanted.id AND state = 'CONFIRMED'
  GROUP BY trip_id, user_id OFFSET 0) AS b
"""
_USED = """
SELECT DISTINCT booking_id::text FROM booking.tickets
WHERE booking_id = ANY ($1::uuid[]) AND use_time IS NOT NULL
"""
_PASSENGERS = """
INSERT INTO booking.passengers (passenger_id, tenant_id, booking_id, sealed)
SELECT passenger_id, $1, booking_id, sealed
FROM unnest($2::uuid[], $3::uuid[], $4::bytea[]) AS n (passenger_id, booking_id, sealed)
"""


class BookingPart:
    """Reads the bookings that changes are about, and writes what became of them."""

    name = BOOKINGS

    async def load(
        self,
        connection: "Connection",
        tenant_id: str,  # noqa: ARG002 - row-level security knows the tenant
        wanted: Sequence[tuple[WantedChange, TripTurn]],
    ) -> BookingsKnown:
        """Return what these changes need to know; the bookings stay locked until the end."""
        known = BookingsKnown()
        ids, trip_ids, cancelling = set(), set(), []
        for one, turn in wanted:
            if isinstance(one, BookingChange):
                ids.add(one.booking_id)
                trip_ids.add(one.trip_id)
                if isinstance(one, Cancelling):
                    cancelling.append(one.booking_id)
            elif isinstance(one, Override):
                ids.update(_bookings_on(turn, one.seat_number))
                trip_ids.add(one.trip_id)
        if not ids:
            return known
        rows = await connection.fetch(_LOCK, list(ids))
        known.bookings = {row["booking_id"]: booking_of(row) for row in rows}
        counted = await connection.fetch(_JOURNEYS, list(trip_ids))
        for trip_id, user_id, bookings, passengers in counted:
            known.journeys[trip_id, user_id] = bookings
            known.expected[trip_id] += passengers
        if cancelling:
            used = await connection.fetch(_USED, cancelling)
            known.used = frozenset(row[0] for row in used)
        return known

    async def write(
        self,
        connection: "Connection",
        tenant_id: str,
        rows: Sequence[BookingRow],
        now: datetime,
    ) -> None:
        """Write bookings, those who travel, and their tickets."""
        # Of several changes of one booking the last one stands.
        last = {row.booking.booking_id: row.booking for row in rows}
        new_ids = {row.booking.booking_id for row in rows if row.is_new}
        if new_ids:
            made = [last[booking_id] for booking_id in new_ids]
            await connection.execute(INSERT, tenant_id, rows_text(made))
        changed = [one for booking_id, one in last.items() if booking_id not in new_ids]
        if changed:
            await connection.execute(UPDATE, rows_text(changed))
        passengers = [one for row in rows for one in row.passengers]
        if passengers:
            await connection.execute(
                _PASSENGERS,
                tenant_id,
                [one.passenger_id for one in passengers],
                [one.booking_id for one in passengers],
                [one.sealed for one in passengers],
            )
        # A passenger has one good ticket: the old one first.
        revoked = [ticket_id for row in rows for ticket_id in row.revoked]
        issued = [ticket for row in rows for ticket in row.issued]
        again = {ticket.ticket_id for ticket in issued} & set(revoked)
        early = [ticket_id for ticket_id in revoked if ticket_id not in again]
        if early:
            await tickets.revoke(connection, early, now=now)
        if issued:
            await tickets.insert(connection, tenant_id, issued)
        for row in rows:
            if row.issued and row.revoked:
                await tickets.hand_on_use(connection, row.revoked, row.issued)
        if again:
            await tickets.revoke(connection, list(again), now=now)


def _bookings_on(turn: TripTurn, seat_number: str) -> set[str]:
    """Return the bookings that have the seat, or pay for it."""
    found = set()
    for claim in turn.seats.claims(seat_number):
        if claim.state is SeatState.BOOKED:
            found.add(claim.owner_id)
        hold = turn.seats.holds.get(claim.owner_id)
        if hold is not None and hold.booking_id:
            found.add(hold.booking_id)
    return found
