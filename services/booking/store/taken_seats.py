"""Knows which seats are taken, from the claims themselves. Implements ports.trips.TakenSeats."""

from collections.abc import Collection, Mapping
from datetime import datetime

from services.booking.domain.trips import Journey
from services.shared.postgres import Database, Session

# Trip by trip through the primary key of the claims, whatever the planner believes about arrays.
_TAKEN = """
SELECT j.trip_id, array_agg(DISTINCT c.seat_number) AS seat_numbers
FROM unnest($1::uuid[], $2::smallint[], $3::smallint[]) AS j (trip_id, from_index, to_index)
CROSS JOIN LATERAL (
  SELECT seat_number, state, owner_id FROM booking.seat_claims
  WHERE trip_id = j.trip_id AND leg_index >= j.from_index AND leg_index < j.to_index OFFSET 0) AS c
WHERE c.state <> 'HELD' OR EXISTS (
  SELECT 1 FROM booking.holds h WHERE h.hold_id = c.owner_id AND h.expire_time > $4)
GROUP BY j.trip_id
"""


class PostgresTakenSeats:
    """Counts in the database, one statement for all trips of a page."""

    def __init__(self, database: Database) -> None:
        """Take the database of role wayfare_booking."""
        self._database = database

    async def taken(
        self, tenant_id: str, journeys: Mapping[str, Journey], *, now: datetime
    ) -> Mapping[str, Collection[str]]:
        """Return by trip the seats that are taken on a leg of its journey; absent: none."""
        async with self._database.transaction(
            Session(tenant_id=tenant_id, role="SERVICE")
        ) as connection:
            rows = await connection.fetch(
                _TAKEN,
                list(journeys),
                [journey.from_index for journey in journeys.values()],
                [journey.to_index for journey in journeys.values()],
                now,
            )
        return {str(row["trip_id"]): frozenset(row["seat_numbers"]) for row in rows}
