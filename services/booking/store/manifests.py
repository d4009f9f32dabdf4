"""Reads who travels on a trip. Implements ports.tickets.ManifestStore."""

from datetime import datetime

from services.booking.domain.boarding import BoardingState
from services.booking.ports.tickets import (
    ManifestLine,
    ManifestPage,
    ManifestPlace,
    StopLoad,
)
from services.booking.store.boarding import STATE, count_of
from services.booking.store.tickets import COLUMNS, ticket_of
from services.shared.postgres import Database, Session

_TRIP = """
SELECT t.seat_version, coalesce(b.stop_index, 0) AS stop_index,
  coalesce(b.unbooked_count, 0) AS unbooked_count
FROM booking.trips t LEFT JOIN booking.boardings b ON b.trip_id = t.trip_id
WHERE t.trip_id = $1
"""
_LINES = f"""
SELECT {", ".join(f"t.{name.strip()}" for name in COLUMNS.split(","))}, {STATE} AS boarding_state,
  CASE WHEN t.use_time IS NOT NULL THEN t.use_time
    WHEN m.state = 'BOARDED' THEN m.mark_time END AS board_time,
  EXISTS (SELECT 1 FROM booking.cash_takings c WHERE c.booking_id = t.booking_id) AS cash_taken
FROM booking.tickets t
LEFT JOIN booking.boarding_marks m ON m.trip_id = t.trip_id AND m.passenger_id = t.passenger_id
WHERE t.trip_id = $1 AND t.revoke_time IS NULL
  AND ($2::smallint IS NULL OR t.from_stop_index = $2)
  AND ($3::smallint IS NULL OR (t.from_stop_index, t.seat_number, t.ticket_id) > ($3, $4, $5::uuid))
ORDER BY t.from_stop_index, t.seat_number, t.ticket_id LIMIT $6
"""  # noqa: S608 - constants of ours
_LOADS = """
SELECT s.stop_index, count(*) FILTER (WHERE t.from_stop_index = s.stop_index) AS pickups,
  count(*) FILTER (WHERE t.to_stop_index = s.stop_index) AS drop_offs
FROM booking.trip_stops s
LEFT JOIN booking.tickets t ON t.trip_id = s.trip_id AND t.revoke_time IS NULL
  AND s.stop_index IN (t.from_stop_index, t.to_stop_index)
WHERE s.trip_id = $1 GROUP BY s.stop_index ORDER BY s.stop_index
"""


class PostgresManifestStore:
    """Reads tickets, marks and counts."""

    def __init__(self, database: Database) -> None:
        """Take the database of role wayfare_booking."""
        self._database = database

    async def page(
        self,
        tenant_id: str,
        trip_id: str,
        *,
        from_stop_index: int | None,
        after: ManifestPlace | None,
        most: int,
        now: datetime,
    ) -> ManifestPage:
        """Return who travels by stop to get on, then seat."""
        session = Session(tenant_id=tenant_id, role="SERVICE")
        async with self._database.transaction(session) as connection:
            trip = await connection.fetchrow(_TRIP, trip_id)
            if trip is None:
                raise LookupError("the trip was found before")
            rows = await connection.fetch(
                _LINES, trip_id, from_stop_index, *(after or (None, None, None)), most
            )
            loads = await connection.fetch(_LOADS, trip_id)
            counts = await count_of(
                connection,
                trip_id,
                stop_index=trip["stop_index"],
                unbooked_count=trip["unbooked_count"],
                now=now,
            )
        lines = [
            ManifestLine(
                ticket=ticket_of(row),
                boarding_state=BoardingState(state) if (state := row["boarding_state"]) else None,
                board_time=row["board_time"],
                cash_taken=row["cash_taken"],
            )
            for row in rows
        ]
        return ManifestPage(
            seat_version=trip["seat_version"],
            lines=lines,
            loads=[StopLoad(*row) for row in loads],
            counts=counts,
        )
