"""Reads seat maps, and what happened to seats. Implements ports.seat_maps.SeatMapStore."""

from collections.abc import Collection, Sequence

from services.booking.domain.layouts import SeatLayout
from services.booking.domain.seat_maps import Masks, SeatStates
from services.booking.domain.trips import Trip
from services.booking.ports.seat_maps import TripHead
from services.booking.ports.trips import LayoutStore, TripStore
from services.shared.postgres import Database, Session

# One statement is one snapshot: version and claims belong together.
_STATES = """
SELECT t.seat_version, c.seat_number, c.blocked, c.booked, c.held
FROM booking.trips t LEFT JOIN LATERAL (
  SELECT seat_number,
    coalesce(sum(1::bigint << leg_index) FILTER (WHERE state = 'BLOCKED'), 0)::bigint AS blocked,
    coalesce(sum(1::bigint << leg_index) FILTER (WHERE state = 'BOOKED'), 0)::bigint AS booked,
    coalesce(sum(1::bigint << leg_index) FILTER (WHERE state = 'HELD'), 0)::bigint AS held
  FROM booking.seat_claims WHERE trip_id = t.trip_id GROUP BY seat_number OFFSET 0) AS c ON true
WHERE t.trip_id = $1
"""
_HEADS = """
SELECT t.* FROM unnest($1::uuid[]) AS wanted (id)
CROSS JOIN LATERAL (
  SELECT trip_id::text, seat_version, update_time FROM booking.trips
  WHERE trip_id = wanted.id OFFSET 0) AS t
"""
_AFTER = """
SELECT envelope FROM booking.events
WHERE aggregate_type = 'trip_seats' AND aggregate_id = $1 AND aggregate_version > $2
ORDER BY aggregate_version LIMIT $3
"""


class PostgresSeatMapStore:
    """Reads what the batches have committed."""

    def __init__(self, database: Database, trips: TripStore, layouts: LayoutStore) -> None:
        """Take the database of role wayfare_booking."""
        self._database = database
        self._trips = trips
        self._layouts = layouts

    async def trip(self, tenant_id: str, trip_id: str) -> tuple[Trip, SeatLayout] | None:
        """Return a trip of the tenant with its layout, or None."""
        trip = await self._trips.find(tenant_id, trip_id)
        if trip is None:
            return None
        layout = await self._layouts.find(tenant_id, trip.seat_layout_id)
        return None if layout is None else (trip, layout)

    async def states(self, tenant_id: str, layout: SeatLayout, trip_id: str) -> SeatStates:
        """Return the states of a trip's seats, all of one version."""
        async with self._database.transaction(_service(tenant_id)) as connection:
            rows = await connection.fetch(_STATES, trip_id)
        masks: dict[str, Masks] = {row[1]: (row[2], row[3], row[4]) for row in rows if row[1]}
        return SeatStates(layout, rows[0][0] if rows else 0, masks)

    async def heads(self, tenant_id: str, trip_ids: Collection[str]) -> dict[str, TripHead]:
        """Return how far these trips are."""
        async with self._database.transaction(_service(tenant_id)) as connection:
            rows = await connection.fetch(_HEADS, list(trip_ids))
        return {row[0]: TripHead(row[1], row[2]) for row in rows}

    async def envelopes_after(
        self, tenant_id: str, trip_id: str, version: int, *, most: int
    ) -> Sequence[bytes]:
        """Return the events of a trip's seats after a version, in order."""
        async with self._database.transaction(_service(tenant_id)) as connection:
            rows = await connection.fetch(_AFTER, trip_id, version, most)
        return [row[0] for row in rows]


def _service(tenant_id: str) -> Session:
    return Session(tenant_id=tenant_id, role="SERVICE")
