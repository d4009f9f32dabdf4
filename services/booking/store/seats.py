"""Keeps who has which seat of which trip. Implements ports.seats.SeatStore."""

from collections import OrderedDict
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from services.booking.domain.layouts import SeatLayout
from services.booking.domain.seats import Hold
from services.booking.domain.trips import Trip
from services.booking.ports.seats import SeatBatch
from services.booking.ports.trips import LayoutStore
from services.booking.store.holds import COLUMNS as HOLD_COLUMNS
from services.booking.store.holds import hold_of
from services.booking.store.seat_batch import PostgresSeatBatch, StorePart
from services.booking.store.trip_rows import COLUMNS as TRIP_COLUMNS
from services.booking.store.trip_rows import with_stops
from services.shared.gathering import Gathering
from services.shared.postgres import Database, Session

if TYPE_CHECKING:
    from services.shared.postgres import Connection

_MADE_MAX = 10_000
_SWEEPER = Session(role="SWEEPER")

_TRIPS = f"SELECT {TRIP_COLUMNS} FROM booking.trips t WHERE t.trip_id = ANY ($1::uuid[])"  # noqa: S608 - constants of ours
_HOLDS = f"SELECT {HOLD_COLUMNS} FROM booking.holds WHERE hold_id = ANY ($1::uuid[])"  # noqa: S608 - constants of ours
_LIVE = f"""
SELECT {HOLD_COLUMNS} FROM booking.holds
WHERE user_id = $1 AND state IN ('ACTIVE', 'PAYING') AND expire_time > $2
  AND ($3::uuid IS NULL OR trip_id = $3)
  AND ($4::timestamptz IS NULL OR (create_time, hold_id) < ($4, $5::uuid))
ORDER BY create_time DESC, hold_id DESC LIMIT $6
"""  # noqa: S608 - constants of ours
# Those of trips that were called off end as well; in an hour the last of them has run out.
_OVERDUE = """
(SELECT tenant_id::text, trip_id::text FROM booking.holds
WHERE state IN ('ACTIVE', 'PAYING') AND expire_time <= $1 ORDER BY expire_time LIMIT $2)
UNION ALL
(SELECT tenant_id::text, trip_id::text FROM booking.trips t
WHERE cancel_time BETWEEN $1::timestamptz - interval '1 hour' AND $1 AND EXISTS (
  SELECT 1 FROM booking.holds h WHERE h.trip_id = t.trip_id AND h.state = 'ACTIVE')
LIMIT $2)
"""


class PostgresSeatStore:
    """Opens transactions in which seats change; other tables take part by their parts."""

    def __init__(
        self, database: Database, layouts: LayoutStore, parts: Sequence[StorePart] = ()
    ) -> None:
        """Take the database of role wayfare_booking."""
        self._database = database
        self._layouts = layouts
        self._parts = {part.name: part for part in parts}
        self._made: OrderedDict[tuple[str, str], Hold] = OrderedDict()
        self._found = Gathering[tuple[str, str], Hold | None](self._find_holds)

    @asynccontextmanager
    async def batch(self, tenant_id: str) -> AsyncIterator[SeatBatch]:
        """Open a transaction; it commits when the block ends and rolls back when it raises."""
        async with self._database.transaction(_service(tenant_id)) as connection:
            trips = _Trips(tenant_id, self._layouts)
            batch = PostgresSeatBatch(connection, tenant_id, trips=trips, parts=self._parts)
            yield batch
        # It is committed: most holds are asked for soon, of the process that made them.
        for hold in batch.made:
            self._made[tenant_id, hold.hold_id] = hold
        while len(self._made) > _MADE_MAX:
            self._made.popitem(last=False)

    async def find_hold(self, tenant_id: str, hold_id: str) -> Hold | None:
        """Return a hold of the tenant, or None; maybe as it was when it was made."""
        made = self._made.get((tenant_id, hold_id))
        return made or await self._found.ask((tenant_id, hold_id))

    async def _find_holds(self, wanted: Sequence[tuple[str, str]]) -> list[Hold | None]:
        by_tenant: dict[str, list[str]] = {}
        for tenant_id, hold_id in wanted:
            by_tenant.setdefault(tenant_id, []).append(hold_id)
        found: dict[tuple[str, str], Hold] = {}
        for tenant_id, hold_ids in by_tenant.items():
            async with self._database.transaction(_service(tenant_id)) as connection:
                rows = await connection.fetch(_HOLDS, hold_ids)
            found |= {(tenant_id, row["hold_id"]): hold_of(row) for row in rows}
        return [found.get(one) for one in wanted]

    async def live_holds(
        self,
        tenant_id: str,
        user_id: str,
        *,
        trip_id: str,
        before: tuple[datetime, str] | None,
        now: datetime,
        most: int,
    ) -> list[Hold]:
        """Return a user's holds that keep seats, newest first; `trip_id` may be empty."""
        session = Session(tenant_id=tenant_id, user_id=user_id, role="PERSON")
        async with self._database.transaction(session) as connection:
            rows = await connection.fetch(
                _LIVE, user_id, now, trip_id or None, *(before or (None, None)), most
            )
        return [hold_of(row) for row in rows]

    async def overdue(self, *, now: datetime, most: int) -> dict[str, list[str]]:
        """Return by tenant the trips with holds whose time is over, the longest over first."""
        async with self._database.transaction(_SWEEPER) as connection:
            rows = await connection.fetch(_OVERDUE, now, most)
        found: dict[str, dict[str, None]] = {}
        for tenant_id, trip_id in rows:
            found.setdefault(tenant_id, {})[trip_id] = None
        return {tenant_id: list(trips) for tenant_id, trips in found.items()}


class _Trips:
    """Reads trips with their layouts in a batch's transaction."""

    def __init__(self, tenant_id: str, layouts: LayoutStore) -> None:
        self._tenant_id = tenant_id
        self._layouts = layouts

    async def read(
        self, connection: "Connection", trip_ids: Collection[str]
    ) -> dict[str, tuple[Trip, SeatLayout]]:
        """Return these trips by id."""
        rows = await connection.fetch(_TRIPS, list(trip_ids))
        found = {}
        for trip in await with_stops(connection, rows):
            layout = await self._layouts.find(self._tenant_id, trip.seat_layout_id)
            if layout is None:
                raise RuntimeError(f"trip {trip.trip_id} has no layout")
            found[trip.trip_id] = (trip, layout)
        return found


def _service(tenant_id: str) -> Session:
    return Session(tenant_id=tenant_id, role="SERVICE")
