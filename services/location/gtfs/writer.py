"""Writes a feed to PostgreSQL as one version, and makes it the current one, in one transaction.

Rows go in by INSERT: PostgreSQL refuses COPY FROM on tables with row-level security, and the
service's role may make no temporary tables.
"""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

import asyncpg

from services.location.gtfs.feed import ABSENT, Feed
from services.location.gtfs.patterns import Pattern, PatternFinder
from services.location.gtfs.table import Progress

_BATCH_ROWS = 2_000
_CONNECT_SECONDS = 10.0
_LOCK_SECONDS = 120


class ImportBusyError(Exception):
    """Says that another import of the same tenant takes too long to wait for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportResult:
    """Is the version that is current now; `is_new` is False when it was so before."""

    feed_id: str
    is_new: bool


async def write_feed(
    dsn: str,
    feed: Feed,
    *,
    tenant_id: str,
    now: datetime,
    warning_count: int,
    progress: Progress,
) -> ImportResult:
    """Make `feed` the timetable of a tenant, unless it is already.

    Imports of one tenant wait for each other. Until the end the tenant's older timetable stays,
    and when anything fails it stays for good. Raises ImportBusyError.
    """
    connection = await asyncpg.connect(dsn, timeout=_CONNECT_SECONDS)
    try:
        async with connection.transaction():
            await connection.execute("SELECT set_config('app.tenant_id', $1, true)", tenant_id)
            await _wait_for_others(connection, tenant_id)
            current = await connection.fetchval(
                "SELECT feed_id::text FROM location.timetable_feeds"
                " WHERE is_current AND sha256 = $1",
                feed.sha256,
            )
            if current is not None:
                return ImportResult(feed_id=current, is_new=False)
            writer = _FeedWriter(connection, feed, tenant_id=tenant_id, progress=progress)
            await writer.write(now=now, warning_count=warning_count)
            return ImportResult(feed_id=writer.feed_id, is_new=True)
    finally:
        await connection.close()


async def _wait_for_others(connection: asyncpg.Connection, tenant_id: str) -> None:
    await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'")
    try:
        await connection.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended('location.timetable:' || $1, 0))",
            tenant_id,
        )
    except asyncpg.LockNotAvailableError as error:
        raise ImportBusyError(
            f"Another import for this operator runs for more than {_LOCK_SECONDS} seconds."
        ) from error


class _FeedWriter:
    """Writes one feed over one transaction."""

    def __init__(
        self, connection: asyncpg.Connection, feed: Feed, *, tenant_id: str, progress: Progress
    ) -> None:
        self.feed_id = str(uuid.uuid4())
        self._connection = connection
        self._feed = feed
        self._tenant_id = tenant_id
        self._progress = progress
        self._patterns = PatternFinder(feed)
        self._numbers: dict[Pattern, int] = {}

    async def write(self, *, now: datetime, warning_count: int) -> None:
        feed = self._feed
        first_date, last_date = feed.span()
        await self._connection.execute(
            "INSERT INTO location.timetable_feeds"
            " (feed_id, tenant_id, sha256, is_current, agency_name, time_zone, first_date,"
            " last_date, stop_time_count, warning_count, import_time)"
            " VALUES ($1::uuid, $2::uuid, $3, false, $4, $5, $6, $7, $8, $9, $10)",
            self.feed_id,
            self._tenant_id,
            feed.sha256,
            feed.agency_name,
            feed.time_zone,
            first_date,
            last_date,
            len(feed.stop_times.stops),
            warning_count,
            now,
        )
        await self._insert("routes", "route_id, short_name, long_name, route_type", self._routes())
        await self._insert("stops", "stop_id, display_name, latitude, longitude", self._stops())
        await self._insert(
            "services",
            "service_id, weekdays, first_date, last_date, added_dates, removed_dates",
            self._services(),
        )
        await self._insert("shapes", "shape_id, points", self._shapes())
        # Trips bring their patterns: both are made in one pass, as the trips go by.
        await self._insert(
            "trips",
            "timetable_trip_id, route_id, service_id, pattern_number, shape_id, start_seconds,"
            " direction_id, short_name, headsign",
            self._trips(),
        )
        await self._insert(
            "patterns",
            "pattern_number, stop_ids, stop_sequences, arrival_seconds, departure_seconds,"
            " distances",
            self._pattern_rows(),
        )
        await self._switch()

    async def _insert(self, table: str, columns: str, rows: Iterable[Sequence[Any]]) -> None:
        places = ", ".join(f"${number + 3}" for number in range(columns.count(",") + 1))
        statement = (
            f"INSERT INTO location.timetable_{table} (feed_id, tenant_id, {columns})"  # noqa: S608 - constants
            f" VALUES ($1::uuid, $2::uuid, {places})"
        )
        written = 0
        waiting = iter(rows)
        while batch := list(islice(waiting, _BATCH_ROWS)):
            await self._connection.executemany(
                statement, [(self.feed_id, self._tenant_id, *row) for row in batch]
            )
            written += len(batch)
            self._progress(f"writing {table}", written)

    async def _switch(self) -> None:
        await self._connection.execute(
            "DELETE FROM location.timetable_feeds WHERE feed_id <> $1::uuid", self.feed_id
        )
        await self._connection.execute(
            "UPDATE location.timetable_feeds SET is_current = true WHERE feed_id = $1::uuid",
            self.feed_id,
        )

    def _routes(self) -> Iterator[Sequence[Any]]:
        return iter(self._feed.routes.values())

    def _stops(self) -> Iterator[Sequence[Any]]:
        return iter(self._feed.stops)

    def _services(self) -> Iterator[Sequence[Any]]:
        for service in self._feed.services.values():
            yield (
                service.service_id,
                service.weekdays,
                service.first_date,
                service.last_date,
                sorted(service.added),
                sorted(service.removed),
            )

    def _shapes(self) -> Iterator[Sequence[Any]]:
        shapes = self._feed.shapes
        for number, shape_id in enumerate(shapes.ids):
            if len(shapes.place(number)) > 1:
                yield shape_id, shapes.packed(number)

    def _trips(self) -> Iterator[Sequence[Any]]:
        shapes = self._feed.shapes
        for number in self._feed.used_trips():
            trip = self._feed.trips[number]
            pattern = self._patterns.pattern(number)
            has_shape = trip.shape != ABSENT and len(shapes.place(trip.shape)) > 1
            yield (
                trip.trip_id,
                trip.route_id,
                trip.service_id,
                self._numbers.setdefault(pattern, len(self._numbers)),
                shapes.ids[trip.shape] if has_shape else None,
                self._patterns.start_seconds(number),
                None if trip.direction_id == ABSENT else trip.direction_id,
                trip.short_name,
                trip.headsign,
            )

    def _pattern_rows(self) -> Iterator[Sequence[Any]]:
        for pattern, number in self._numbers.items():
            yield (
                number,
                [self._feed.stops[stop].stop_id for stop in pattern.stops],
                pattern.sequences,
                pattern.arrivals,
                pattern.departures,
                pattern.distances,
            )
