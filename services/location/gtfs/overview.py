"""What is imported for a tenant: the feed, its routes, and how many trips run on a day."""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg

_CONNECT_SECONDS = 10.0
_FEED = """
SELECT feed_id::text, agency_name, time_zone, first_date, last_date, warning_count, import_time,
  (SELECT count(*) FROM location.timetable_stops stop WHERE stop.feed_id = feed.feed_id) AS stops,
  (SELECT count(*) FROM location.timetable_trips trip WHERE trip.feed_id = feed.feed_id) AS trips
FROM location.timetable_feeds feed WHERE is_current
"""
# The same rule as in store/timetables.py: added, or weekly and not removed.
_ROUTES = """
SELECT route.route_id, route.short_name, route.long_name, count(trip.*) AS trips,
  count(trip.*) FILTER (WHERE $2 = ANY (service.added_dates)
    OR ($2 BETWEEN service.first_date AND service.last_date
      AND service.weekdays >> (extract(isodow FROM $2::date)::integer - 1) & 1 = 1
      AND NOT $2 = ANY (service.removed_dates))) AS trips_on_day
FROM location.timetable_routes route
LEFT JOIN location.timetable_trips trip USING (feed_id, route_id)
LEFT JOIN location.timetable_services service USING (feed_id, service_id)
WHERE route.feed_id = $1::uuid
GROUP BY route.route_id, route.short_name, route.long_name
ORDER BY route.short_name, route.route_id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """Is the tenant's timetable in figures; `routes` has one mapping per route."""

    feed: dict[str, Any]
    day: date
    routes: list[dict[str, Any]]


async def read_overview(
    dsn: str, *, tenant_id: str, day: date | None, now: datetime
) -> Overview | None:
    """Return the overview for a day, by default today where the agency is; None of nothing."""
    connection = await asyncpg.connect(dsn, timeout=_CONNECT_SECONDS)
    try:
        async with connection.transaction(readonly=True):
            await connection.execute("SELECT set_config('app.tenant_id', $1, true)", tenant_id)
            feed = await connection.fetchrow(_FEED)
            if feed is None:
                return None
            shown = day or now.astimezone(ZoneInfo(feed["time_zone"])).date()
            routes = await connection.fetch(_ROUTES, feed["feed_id"], shown)
    finally:
        await connection.close()
    return Overview(feed=dict(feed), day=shown, routes=[dict(route) for route in routes])


def is_over(last_date: date, time_zone: str, *, now: datetime | None = None) -> bool:
    """Say whether a timetable has ended where its agency is."""
    return last_date < (now or datetime.now(UTC)).astimezone(ZoneInfo(time_zone)).date()
