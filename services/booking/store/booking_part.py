"""Reads and writes bookings in the transaction that changes their seats. A part of seat batches."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from services.booking.domain.booking_changes import BookingChange, Cancelling
from services.booking.domain.booking_turns import (
    BOOKINGS,
    BookingRow,
    BookingsKnown,
    TripJourneys,
)
from services.booking.domain.overriding import Override
from services.booking.domain.seats import SeatState
from services.booking.domain.turns import TripTurn, WantedChange
from services.booking.store import booking_rows, tickets

if TYPE_CHECKING:
    from services.shared.postgres import Connection

# In the order of their ids, after all locks of trips.
_LOCK = f"""
SELECT {booking_rows.COLUMNS} FROM (SELECT id FROM unnest($1::uuid[]) AS id ORDER BY id) AS wanted
CROSS JOIN LATERAL (
  SELECT * FROM booking.bookings WHERE booking_id = wanted.id FOR NO KEY UPDATE) AS b
"""  # noqa: S608 - constants of ours
_JOURNEYS = """
SELECT b.* FROM unnest($1::text::uuid[]) AS wanted (id)
CROSS JOIN LATERAL (
  SELECT trip_id::text, user_id::text, count(*), sum(passenger_count)::bigint
  FROM booking.bookings WHERE trip_id = wanted.id AND state = 'CONFIRMED'
  GROUP BY trip_id, user_id OFFSET 0) AS b
"""
_USED = """
SELECT DISTINCT booking_id::text FROM booking.tickets
WHERE booking_id = ANY ($1::uuid[]) AND use_time IS NOT NULL
"""
# One statement: the way to PostgreSQL is taken once. What is inserted is not what is changed.
_WRITE = f"""
WITH new_bookings AS ({booking_rows.insert_from("$2", "$1")}),
new_passengers AS (
  INSERT INTO booking.passengers (passenger_id, tenant_id, booking_id, sealed)
  SELECT passenger_id, $1, booking_id, sealed
  FROM json_to_recordset($3::json) AS n (passenger_id uuid, booking_id uuid, sealed bytea)
), new_tickets AS ({tickets.insert_from("$4", "$1")})
SELECT booking.write_bookings($5::json)
"""  # noqa: S608 - constants of ours


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
        ids: set[str] = set()
        turns: dict[str, TripTurn] = {}
        cancelling = []
        for one, turn in wanted:
            if isinstance(one, BookingChange):
                ids.add(one.booking_id)
                turns[one.trip_id] = turn
                if isinstance(one, Cancelling):
                    cancelling.append(one.booking_id)
            elif isinstance(one, Override):
                ids.update(_bookings_on(turn, one.seat_number))
                turns[one.trip_id] = turn
        if not ids:
            return known
        rows = await connection.fetch(_LOCK, list(ids))
        known.bookings = {row["booking_id"]: booking_rows.booking_of(row) for row in rows}
        await _note_journeys(connection, turns)
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
        # A passenger has one good ticket: the old one first.
        revoked = [ticket_id for row in rows for ticket_id in row.revoked]
        issued = [ticket for row in rows for ticket in row.issued]
        again = {ticket.ticket_id for ticket in issued} & set(revoked)
        early = [ticket_id for ticket_id in revoked if ticket_id not in again]
        if early:
            await tickets.revoke(connection, early, now=now)
        # Of several changes of one booking the last one stands.
        last = {row.booking.booking_id: row.booking for row in rows}
        new_ids = {row.booking.booking_id for row in rows if row.is_new}
        await connection.execute(
            _WRITE,
            tenant_id,
            booking_rows.rows_text(last[booking_id] for booking_id in new_ids),
            _passengers_text(rows),
            tickets.rows_text(issued),
            booking_rows.rows_text(one for id_, one in last.items() if id_ not in new_ids),
        )
        for row in rows:
            if row.issued and row.revoked:
                await tickets.hand_on_use(connection, row.revoked, row.issued)
        if again:
            await tickets.revoke(connection, list(again), now=now)


def _passengers_text(rows: Sequence[BookingRow]) -> str:
    """Return who travels as the text that is unfolded."""
    return json.dumps(
        [
            {
                "passenger_id": one.passenger_id,
                "booking_id": one.booking_id,
                "sealed": "\\x" + one.sealed.hex(),
            }
            for row in rows
            for one in row.passengers
        ]
    )


async def _note_journeys(connection: "Connection", turns: Mapping[str, TripTurn]) -> None:
    """Read who travels on those trips of which it is not known since their seats changed last."""
    unknown = [trip_id for trip_id, turn in turns.items() if BOOKINGS not in turn.notes]
    if not unknown:
        return
    found = {trip_id: TripJourneys() for trip_id in unknown}
    rows = await connection.fetch(_JOURNEYS, "{" + ",".join(unknown) + "}")
    for trip_id, user_id, bookings, passengers in rows:
        found[trip_id].bookings[user_id] = bookings
        found[trip_id].passenger_count += passengers
    for trip_id, journeys in found.items():
        turns[trip_id].notes[BOOKINGS] = journeys


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
