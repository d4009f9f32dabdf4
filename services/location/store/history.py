"""Keeps past positions, last ones and ended trips' ways in PostgreSQL. Implements HistoryStore.

History comes in batches by binary COPY into a table of the connection, and from there in one
statement: COPY itself is refused where row-level security applies.
"""

import math
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import asyncpg
import h3

from services.location.domain.positions import Fix
from services.location.domain.track import Track
from services.location.ports.history import HistoryRefusedError, HistoryRow, LatestRow
from services.location.ports.views import FreeDriver
from services.shared.postgres import Connection, Database, Session

_CELL_RESOLUTION = 7
# The inner radius of a cell; a little less than the least that there is.
_CELL_METERS = 1_000.0
_POINT = struct.Struct("<ddq")
_FIXES_MOST = 100_000
_BATCH_TABLE = (
    "CREATE TEMP TABLE IF NOT EXISTS position_batch ("
    " vehicle_id text, capture_time timestamptz, receive_time timestamptz, driver_id uuid,"
    " trip_id uuid, latitude double precision, longitude double precision,"
    " speed real, heading real, accuracy real) ON COMMIT DELETE ROWS"
)
_LATEST_TABLE = (
    "CREATE TEMP TABLE IF NOT EXISTS latest_batch ("
    " driver_id uuid, vehicle_id text, vehicle_class smallint, trip_id uuid, cell bigint,"
    " capture_time timestamptz, receive_time timestamptz, payload bytea) ON COMMIT DELETE ROWS"
)
# In one order, so that two processes never wait for each other.
_UPSERT_LATEST = (
    "INSERT INTO location.driver_positions AS kept (driver_id, tenant_id, vehicle_id,"
    " vehicle_class, trip_id, cell, capture_time, receive_time, payload)"
    " SELECT driver_id, $1::uuid, vehicle_id, vehicle_class, trip_id, cell, capture_time,"
    " receive_time, payload FROM latest_batch ORDER BY driver_id"
    " ON CONFLICT (driver_id) DO UPDATE SET tenant_id = excluded.tenant_id,"
    " vehicle_id = excluded.vehicle_id, vehicle_class = excluded.vehicle_class,"
    " trip_id = excluded.trip_id, cell = excluded.cell,"
    " capture_time = excluded.capture_time, receive_time = excluded.receive_time,"
    " payload = excluded.payload WHERE kept.capture_time < excluded.capture_time"
)
_UPSERT_OFFLINE = (
    "INSERT INTO location.driver_offline AS kept (driver_id, tenant_id, offline_time)"
    " SELECT driver_id, $1::uuid, offline_time"
    " FROM unnest($2::uuid[], $3::timestamptz[]) AS gone (driver_id, offline_time)"
    " ORDER BY driver_id"
    " ON CONFLICT (driver_id) DO UPDATE SET tenant_id = excluded.tenant_id,"
    " offline_time = greatest(kept.offline_time, excluded.offline_time)"
)
_COLUMNS = (
    "vehicle_id",
    "capture_time",
    "receive_time",
    "driver_id",
    "trip_id",
    "latitude",
    "longitude",
    "speed",
    "heading",
    "accuracy",
)


class PostgresHistoryStore:
    """Keeps the past; row-level security shows each tenant its own."""

    def __init__(self, database: Database) -> None:
        """Keep it in `database`."""
        self._database = database

    @asynccontextmanager
    async def _writing(self, tenant_id: str) -> AsyncIterator[Connection]:
        try:
            async with self._database.transaction(Session(tenant_id=tenant_id)) as connection:
                yield connection
        except asyncpg.PostgresError as error:
            raise HistoryRefusedError(str(error)) from error

    async def write(self, tenant_id: str, rows: Sequence[HistoryRow]) -> None:
        """Keep positions of one tenant; those that are kept already stay as they are."""
        columns = ", ".join(_COLUMNS)
        async with self._writing(tenant_id) as connection:
            await connection.execute(_BATCH_TABLE)
            await connection.copy_records_to_table(
                "position_batch", records=[_record(row) for row in rows], columns=_COLUMNS
            )
            await connection.execute(
                f"INSERT INTO location.position_history (tenant_id, {columns})"  # noqa: S608 - constant
                f" SELECT $1::uuid, {columns} FROM position_batch ON CONFLICT DO NOTHING",
                tenant_id,
            )

    async def write_latest(self, tenant_id: str, rows: Sequence[LatestRow]) -> None:
        """Keep where drivers of one tenant are, unless something newer is kept."""
        async with self._writing(tenant_id) as connection:
            await connection.execute(_LATEST_TABLE)
            await connection.copy_records_to_table(
                "latest_batch", records=[_latest_record(row) for row in rows]
            )
            await connection.execute(_UPSERT_LATEST, tenant_id)

    async def write_offline(self, tenant_id: str, gone: Mapping[str, datetime]) -> None:
        """Keep when drivers of one tenant said that they are gone, by their ids."""
        async with self._writing(tenant_id) as connection:
            await connection.execute(_UPSERT_OFFLINE, tenant_id, list(gone), list(gone.values()))

    async def latest_of_vehicle(self, tenant_id: str, vehicle_id: str) -> LatestRow | None:
        """Return where the vehicle was last, or None."""
        async with self._database.transaction(Session(tenant_id=tenant_id)) as connection:
            row = await connection.fetchrow(
                "SELECT driver_id, vehicle_class, trip_id, capture_time, receive_time, payload"
                " FROM location.driver_positions WHERE tenant_id = $1 AND vehicle_id = $2"
                " ORDER BY capture_time DESC LIMIT 1",
                tenant_id,
                vehicle_id,
            )
        if row is None:
            return None
        return LatestRow(
            tenant_id=tenant_id,
            driver_id=str(row["driver_id"]),
            vehicle_id=vehicle_id,
            vehicle_class=row["vehicle_class"],
            trip_id=str(row["trip_id"] or ""),
            fix=Fix(0.0, 0.0, _milliseconds(row["capture_time"])),
            receive_milliseconds=_milliseconds(row["receive_time"]),
            payload=row["payload"],
        )

    async def free_drivers(
        self,
        tenant_id: str,
        *,
        latitude: float,
        longitude: float,
        radius_meters: float,
        vehicle_classes: Sequence[int],
        most: int,  # noqa: ARG002 - who is nearest is seen by exact distance only
        oldest_capture_milliseconds: int,
    ) -> Sequence[FreeDriver]:
        """Return the free drivers around a point: those in the H3 cells that the circle touches."""
        center = h3.latlng_to_cell(latitude, longitude, _CELL_RESOLUTION)
        rings = math.ceil(radius_meters / _CELL_METERS) + 1
        cells = [h3.str_to_int(cell) for cell in h3.grid_disk(center, rings)]
        async with self._database.transaction(Session(tenant_id=tenant_id)) as connection:
            rows = await connection.fetch(
                "SELECT driver_id, vehicle_class, capture_time, payload"
                " FROM location.driver_positions WHERE tenant_id = $1 AND cell = ANY ($2::bigint[])"
                " AND trip_id IS NULL AND vehicle_class = ANY ($3::smallint[])"
                " AND capture_time >= $4 AND NOT EXISTS (SELECT 1 FROM location.driver_offline gone"
                " WHERE gone.driver_id = driver_positions.driver_id"
                " AND gone.offline_time >= driver_positions.receive_time) LIMIT 5000",
                tenant_id,
                cells,
                list(vehicle_classes),
                _time(oldest_capture_milliseconds),
            )
        return [
            FreeDriver(
                driver_id=str(row["driver_id"]),
                vehicle_class=row["vehicle_class"],
                capture_milliseconds=_milliseconds(row["capture_time"]),
                payload=row["payload"],
            )
            for row in rows
        ]

    async def page(
        self,
        tenant_id: str,
        vehicle_id: str,
        *,
        start: datetime,
        end: datetime,
        most: int,
    ) -> Sequence[HistoryRow]:
        """Return a vehicle's positions captured from `start` to before `end`, the newest first."""
        async with self._database.transaction(Session(tenant_id=tenant_id)) as connection:
            rows = await connection.fetch(
                f"SELECT {', '.join(_COLUMNS)} FROM location.position_history"  # noqa: S608 - constant
                " WHERE tenant_id = $1 AND vehicle_id = $2"
                " AND capture_time >= $3 AND capture_time < $4"
                " ORDER BY capture_time DESC LIMIT $5",
                tenant_id,
                vehicle_id,
                start,
                end,
                most,
            )
        return [
            HistoryRow(
                tenant_id,
                vehicle_id,
                str(row["driver_id"]),
                str(row["trip_id"] or ""),
                _fix_of(row),
                _milliseconds(row["receive_time"]),
            )
            for row in rows
        ]

    async def fixes_of_trip(self, tenant_id: str, trip_id: str) -> Sequence[Fix]:
        """Return a trip's positions, the oldest first."""
        async with self._database.transaction(Session(tenant_id=tenant_id)) as connection:
            rows = await connection.fetch(
                "SELECT capture_time, latitude, longitude, speed, heading, accuracy"
                " FROM location.position_history WHERE trip_id = $1"
                " ORDER BY capture_time LIMIT $2",
                trip_id,
                _FIXES_MOST,
            )
        return [_fix_of(row) for row in rows]

    async def track(self, tenant_id: str, trip_id: str) -> Track | None:
        """Return the kept way of an ended trip, or None."""
        async with self._database.transaction(Session(tenant_id=tenant_id)) as connection:
            row = await connection.fetchrow(
                "SELECT points, length_meters FROM location.trip_tracks WHERE trip_id = $1", trip_id
            )
        if row is None:
            return None
        points = tuple(Fix(*point) for point in _POINT.iter_unpack(row["points"]))
        return Track(points=points, length_meters=row["length_meters"])

    async def keep_track(self, tenant_id: str, trip_id: str, track: Track) -> None:
        """Keep the way of an ended trip; what is kept already stays."""
        packed = b"".join(
            _POINT.pack(one.latitude, one.longitude, one.capture_milliseconds)
            for one in track.points
        )
        async with self._database.transaction(Session(tenant_id=tenant_id)) as connection:
            await connection.execute(
                "INSERT INTO location.trip_tracks (trip_id, tenant_id, points, length_meters)"
                " VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
                trip_id,
                tenant_id,
                packed,
                track.length_meters,
            )

    async def make_partitions(self, first_day: datetime, day_count: int) -> int:
        """Make room for the positions of some days; return how many partitions are new."""
        async with self._database.transaction(Session()) as connection:
            made: int = await connection.fetchval(
                "SELECT location.make_history_partitions($1, $2)", first_day.date(), day_count
            )
        return made

    async def drop_before(self, day: datetime) -> int:
        """Forget positions captured before a day; return how many partitions went."""
        async with self._database.transaction(Session()) as connection:
            dropped: int = await connection.fetchval(
                "SELECT location.drop_history_partitions($1)", day.date()
            )
        return dropped


def _record(row: HistoryRow) -> tuple[Any, ...]:
    fix = row.fix
    return (
        row.vehicle_id,
        _time(fix.capture_milliseconds),
        _time(row.receive_milliseconds),
        row.driver_id,
        row.trip_id or None,
        fix.latitude,
        fix.longitude,
        fix.speed_meters_per_second,
        fix.heading_degrees,
        fix.accuracy_meters,
    )


def _latest_record(row: LatestRow) -> tuple[Any, ...]:
    return (
        row.driver_id,
        row.vehicle_id,
        row.vehicle_class,
        row.trip_id or None,
        _cell_of(row.fix.latitude, row.fix.longitude),
        _time(row.fix.capture_milliseconds),
        _time(row.receive_milliseconds),
        row.payload,
    )


def _fix_of(row: Any) -> Fix:
    return Fix(
        row["latitude"],
        row["longitude"],
        _milliseconds(row["capture_time"]),
        row["accuracy"],
        row["speed"],
        row["heading"],
    )


def _cell_of(latitude: float, longitude: float) -> int:
    return int(h3.str_to_int(h3.latlng_to_cell(latitude, longitude, _CELL_RESOLUTION)))


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
