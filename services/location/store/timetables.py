"""Reads imported timetables from PostgreSQL. Implements ports.timetables.TimetableStore.

Plans are immutable per feed, so the newest ones stay in this process. Which feed is the current one
is asked at most every few seconds: a new import is seen soon, and a burst of questions about known
plans costs no query each.
"""

import struct
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

from services.location.domain.timetable import (
    ShapePoint,
    TimetableStop,
    TimetableTrip,
    TripPlan,
    measured_shape,
    plan_trip,
)
from services.shared.errors import DependencyUnavailableError
from services.shared.postgres import Connection, Database, Session

_PLANS_MAX = 2_000
_SHAPES_MAX = 500
_TENANTS_MAX = 1_000
_FEED_SECONDS = 5.0
_DEGREES_PER_UNIT = 1e-7

_FEED = "SELECT feed_id::text, time_zone FROM location.timetable_feeds WHERE is_current"
# A service runs on a day that was added to it, or on one of its weekdays that was not removed.
_TRIP = """
SELECT trip.timetable_trip_id, trip.route_id, route.short_name AS route_short_name,
  trip.short_name, trip.headsign, trip.direction_id, trip.start_seconds, trip.shape_id,
  pattern.stop_ids, pattern.stop_sequences, pattern.arrival_seconds, pattern.departure_seconds,
  pattern.distances
FROM location.timetable_trips trip
JOIN location.timetable_routes route USING (feed_id, route_id)
JOIN location.timetable_patterns pattern USING (feed_id, pattern_number)
JOIN location.timetable_services service USING (feed_id, service_id)
WHERE trip.feed_id = $1::uuid AND trip.timetable_trip_id = $2
  AND ($3 = ANY (service.added_dates)
    OR ($3 BETWEEN service.first_date AND service.last_date
      AND service.weekdays >> (extract(isodow FROM $3::date)::integer - 1) & 1 = 1
      AND NOT $3 = ANY (service.removed_dates)))
"""
_STOPS = (
    "SELECT stop_id, display_name, latitude, longitude FROM location.timetable_stops"
    " WHERE feed_id = $1::uuid AND stop_id = ANY ($2::text[])"
)
_SHAPE = "SELECT points FROM location.timetable_shapes WHERE feed_id = $1::uuid AND shape_id = $2"

_PlanKey = tuple[str, str, date]
_ShapeKey = tuple[str, str]


class PostgresTimetableStore:
    """Reads the current timetable of each tenant; row-level security shows nobody another's."""

    def __init__(
        self,
        database: Database,
        *,
        plans_max: int = _PLANS_MAX,
        feed_seconds: float = _FEED_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read from `database`, and keep `plans_max` plans.

        Which feed is current is believed for `feed_seconds`.
        """
        self._database = database
        self._plans_max = plans_max
        self._feed_seconds = feed_seconds
        self._monotonic = monotonic
        self._feeds: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._plans: OrderedDict[_PlanKey, TripPlan] = OrderedDict()
        self._shapes: OrderedDict[_ShapeKey, tuple[ShapePoint, ...]] = OrderedDict()

    async def trip_plan(
        self, tenant_id: str, timetable_trip_id: str, service_date: date
    ) -> TripPlan | None:
        """Return the trip as it runs on the day, or None when the tenant's timetable has none."""
        known = self._feeds.get(tenant_id)
        plan: TripPlan | None = None
        if known is not None:
            plan = self._plans.get((known[1], timetable_trip_id, service_date))
            if plan is not None and self._monotonic() - known[0] < self._feed_seconds:
                return self._used(plan)
        try:
            async with self._database.transaction(Session(tenant_id=tenant_id)) as connection:
                return await self._read(connection, tenant_id, timetable_trip_id, service_date)
        except DependencyUnavailableError:
            # A plan that was right a moment ago is better than none.
            if plan is not None:
                return self._used(plan)
            raise

    async def _read(
        self, connection: Connection, tenant_id: str, timetable_trip_id: str, service_date: date
    ) -> TripPlan | None:
        feed = await connection.fetchrow(_FEED)
        if feed is None:
            self._feeds.pop(tenant_id, None)
            return None
        feed_id, time_zone = feed["feed_id"], ZoneInfo(feed["time_zone"])
        self._feeds[tenant_id] = (self._monotonic(), feed_id)
        _shrink(self._feeds, _TENANTS_MAX)
        plan = self._plans.get((feed_id, timetable_trip_id, service_date))
        if plan is not None:
            return self._used(plan)
        row = await connection.fetchrow(_TRIP, feed_id, timetable_trip_id, service_date)
        if row is None:
            return None
        stops = {
            stop["stop_id"]: stop
            for stop in await connection.fetch(_STOPS, feed_id, row["stop_ids"])
        }
        shape = await self._shape(connection, feed_id, row["shape_id"])
        plan = plan_trip(
            _trip_of(row, stops, shape),
            service_date=service_date,
            time_zone=time_zone,
            feed_id=feed_id,
        )
        return self._used(plan)

    async def _shape(
        self, connection: Connection, feed_id: str, shape_id: str | None
    ) -> tuple[ShapePoint, ...]:
        if shape_id is None:
            return ()
        shape = self._shapes.get((feed_id, shape_id))
        if shape is None:
            shape = unpack_shape(await connection.fetchval(_SHAPE, feed_id, shape_id))
            self._shapes[feed_id, shape_id] = shape
            _shrink(self._shapes, _SHAPES_MAX)
        return shape

    def _used(self, plan: TripPlan) -> TripPlan:
        key = (plan.feed_id, plan.timetable_trip_id, plan.service_date)
        self._plans[key] = plan
        self._plans.move_to_end(key)
        _shrink(self._plans, self._plans_max)
        return plan


def unpack_shape(points: bytes) -> tuple[ShapePoint, ...]:
    """Return the points of a shape as the table keeps them, measured along the way."""
    return measured_shape(
        [
            (latitude * _DEGREES_PER_UNIT, longitude * _DEGREES_PER_UNIT)
            for latitude, longitude in struct.iter_unpack("<ii", points)
        ]
    )


def _trip_of(
    row: Mapping[str, Any],
    stops: Mapping[str, Mapping[str, Any]],
    shape: tuple[ShapePoint, ...],
) -> TimetableTrip:
    count, start = len(row["stop_ids"]), row["start_seconds"]
    calls = zip(
        row["stop_ids"],
        row["stop_sequences"],
        row["arrival_seconds"],
        row["departure_seconds"],
        row["distances"] or [None] * count,
        strict=True,
    )
    return TimetableTrip(
        timetable_trip_id=row["timetable_trip_id"],
        route_id=row["route_id"],
        route_short_name=row["route_short_name"],
        short_name=row["short_name"],
        headsign=row["headsign"],
        direction_id=row["direction_id"],
        stops=tuple(
            TimetableStop(
                stop_id=stop_id,
                stop_sequence=sequence,
                display_name=stops[stop_id]["display_name"],
                latitude=stops[stop_id]["latitude"],
                longitude=stops[stop_id]["longitude"],
                arrival_seconds=start + arrival,
                departure_seconds=start + departure,
                distance_meters=distance,
            )
            for stop_id, sequence, arrival, departure, distance in calls
        ),
        shape=shape,
    )


def _shrink(cache: OrderedDict[Any, Any], most: int) -> None:
    while len(cache) > most:
        cache.popitem(last=False)
