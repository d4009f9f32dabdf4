"""What PostgreSQL itself refuses of trips, who sees what, and what a search reads."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from typing import Any

import asyncpg
import pytest

from services.booking.ports.trips import JourneySearch, Place
from services.booking.store.journeys import find_journeys
from tests.support.location_values import TENANT, new_id
from tests.support.stack_fixtures import TestDatabase

pytestmark = pytest.mark.integration

OTHER_TENANT = "0198c000-0000-7000-8000-000000000002"
Connection = Any


async def act(
    connection: Connection, *, tenant: str = TENANT, role: str = "SERVICE", user: str = ""
) -> None:
    for name, value in (("tenant_id", tenant), ("role", role), ("user_id", user)):
        await connection.execute("SELECT set_config($1, $2, false)", f"app.{name}", value)


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(dsn)
    try:
        await act(connection)
        yield connection
    finally:
        await connection.close()


@pytest.fixture
async def booking_rows(migrated_database: TestDatabase) -> AsyncIterator[Connection]:
    """Connect as the service; there is one trip with a crew of one, and an event."""
    async with connected(migrated_database.dsn_for("booking")) as connection:
        await add_trip(connection)
        await connection.execute(
            "INSERT INTO booking.trip_crew (user_id, trip_id, tenant_id, departure_time)"
            " SELECT trip_id, trip_id, tenant_id, first_departure_time FROM booking.trips"
        )
        await connection.execute(
            "INSERT INTO booking.events"
            " (aggregate_type, aggregate_id, aggregate_version, tenant_id, envelope)"
            " VALUES ('trip', 'x', 1, $1, '')",
            TENANT,
        )
        await connection.execute(
            "INSERT INTO booking.requests (tenant_id, caller_id, method, request_id, body_hash,"
            " resource_id, create_time) VALUES ($1, 'me', 'M', $2, $3, $2, now())",
            *(TENANT, new_id(), bytes(32)),
        )
        yield connection


async def add_trip(connection: Connection, *, layout_tenant: str = TENANT, **values: Any) -> str:
    """Insert a layout and a trip with a stop by hand, as a careless service would."""
    trip_id = new_id()
    await act(connection, tenant=layout_tenant)
    await connection.execute(
        "INSERT INTO booking.seat_layouts (seat_layout_id, tenant_id, display_name, vehicle_class,"
        " seat_classes, decks, seat_count, create_time)"
        " VALUES ($1, $2, 'Coach', 'BUS', '[]', '[]', 40, now())",
        *(trip_id, layout_tenant),
    )
    await act(connection)
    leaves, arrives = values.get("leaves", 1), values.get("arrives", 2)
    await connection.execute(
        "INSERT INTO booking.trips (trip_id, tenant_id, seat_layout_id, display_name,"
        " vehicle_class, vehicle_id, conductor_ids, currency_code, fares, terms, time_zone,"
        " timetable_trip_id, stop_count, first_departure_time, last_departure_time,"
        " last_arrival_time, create_time, update_time)"
        " VALUES ($1, $2, $1, 'X25', 'BUS', '', '{}', 'EGP', '[]', '{}', 'UTC', $3, 2,"
        " to_timestamp($4), to_timestamp($4), to_timestamp($5), now(), now())",
        *(trip_id, TENANT, values.get("timetable_trip_id", ""), leaves, arrives),
    )
    await connection.execute(
        "INSERT INTO booking.trip_stops (trip_id, stop_index, tenant_id, stop_id, display_name,"
        " latitude, longitude, arrival_time, departure_time, departure_date, no_pickup,"
        " no_drop_off, platform)"
        " VALUES ($1, 0, $2, 'A', 'A', 0, 0, now(), now(), '2026-01-01', false, false, '')",
        *(trip_id, TENANT),
    )
    return trip_id


def refused(code: str) -> Any:
    """Expect a PostgreSQL error by its code."""
    return pytest.raises(asyncpg.PostgresError, check=lambda error: error.sqlstate == code)


TABLES = ("seat_layouts", "trips", "trip_stops", "trip_crew", "requests", "events")


async def counts(connection: Connection) -> dict[str, int]:
    return {
        table: await connection.fetchval(f"SELECT count(*) FROM booking.{table}")
        for table in TABLES
    }


async def test_another_tenant_sees_and_writes_nothing(booking_rows: Connection) -> None:
    assert await counts(booking_rows) == dict.fromkeys(TABLES, 1)

    await act(booking_rows, tenant=OTHER_TENANT)
    assert await counts(booking_rows) == dict.fromkeys(TABLES, 0)
    await act(booking_rows, tenant="")
    assert await counts(booking_rows) == dict.fromkeys(TABLES, 0)
    assert await booking_rows.execute("UPDATE booking.trips SET vehicle_id = 'B'") == "UPDATE 0"
    with refused("42501"):
        await booking_rows.execute(
            "INSERT INTO booking.requests (tenant_id, caller_id, method, request_id, body_hash,"
            " resource_id, create_time) VALUES ($1, 'me', 'M', $2, $3, $2, now())",
            *(TENANT, new_id(), bytes(32)),
        )


async def test_a_person_sees_trips_and_of_their_crew_themselves(booking_rows: Connection) -> None:
    driver = await booking_rows.fetchval("SELECT user_id::text FROM booking.trip_crew")
    seen = {"seat_layouts": 1, "trips": 1, "trip_stops": 1, "requests": 0, "events": 0}

    await act(booking_rows, role="PERSON", user=new_id())
    assert await counts(booking_rows) == {**seen, "trip_crew": 0}
    await act(booking_rows, role="PERSON", user=driver)
    assert await counts(booking_rows) == {**seen, "trip_crew": 1}


async def test_the_sweeper_sees_events_requests_and_trips_of_all(booking_rows: Connection) -> None:
    await act(booking_rows, tenant="", role="SWEEPER")

    assert await counts(booking_rows) == {
        **dict.fromkeys(TABLES, 0),
        "events": 1,
        "requests": 1,
        "trips": 1,
    }


@pytest.mark.parametrize("table", ["seat_layouts", "events"])
@pytest.mark.parametrize(
    "change", ["UPDATE booking.{} SET tenant_id = tenant_id", "DELETE FROM booking.{}"]
)
async def test_layouts_and_events_stay_as_they_were_recorded(
    booking_rows: Connection, migrated_database: TestDatabase, table: str, change: str
) -> None:
    with refused("42501"):
        await booking_rows.execute(change.format(table))
    async with connected(migrated_database.owner_dsn) as owner:
        with refused("WB001"):
            await owner.execute(change.format(table))
        with refused("WB001"):
            await owner.execute(f"TRUNCATE booking.{table} CASCADE")


@pytest.mark.parametrize("column", ["trip_id", "tenant_id", "seat_layout_id", "stop_count"])
async def test_what_a_trip_was_sold_with_is_not_changed(
    booking_rows: Connection, column: str
) -> None:
    with refused("42501"):
        await booking_rows.execute(f"UPDATE booking.trips SET {column} = {column}")
    with refused("42501"):
        await booking_rows.execute("DELETE FROM booking.trips")
    with refused("42501"):
        await booking_rows.execute("UPDATE booking.trip_stops SET stop_id = 'B'")


async def test_trips_that_cannot_be_are_refused(booking_rows: Connection) -> None:
    with refused("23514"):
        await add_trip(booking_rows, leaves=2, arrives=1)
    with refused("23514"):
        await add_trip(booking_rows, timetable_trip_id="T1")
    with refused("23503"):
        await add_trip(booking_rows, layout_tenant=OTHER_TENANT)


_FILL_TRIPS = """
INSERT INTO booking.trips (trip_id, tenant_id, seat_layout_id, display_name, vehicle_class,
  vehicle_id, conductor_ids, currency_code, fares, terms, time_zone, timetable_trip_id, stop_count,
  first_departure_time, last_departure_time, last_arrival_time, create_time, update_time)
SELECT md5(day || '/' || run)::uuid, $1, $2, 'X25', 'BUS', '', '{}', 'EGP', '[]',
  '{"held_seat_max_count": 6}', 'UTC', '', 4, at, at + interval '2 h', at + interval '3 h', at, at
FROM generate_series(0, 199) AS day, generate_series(0, 39) AS run,
  LATERAL (SELECT '2030-01-01T06:00Z'::timestamptz + day * interval '1 day'
    + run * interval '15 min') AS a (at)
"""
# 40 lines of four stops each; the lines lie a degree apart from north to south.
_FILL_STOPS = """
INSERT INTO booking.trip_stops (trip_id, stop_index, tenant_id, stop_id, display_name, latitude,
  longitude, arrival_time, departure_time, departure_date, no_pickup, no_drop_off, platform)
SELECT md5(day || '/' || run)::uuid, stop, $1, 'L' || run || '-' || stop, 'Stop', run - 20,
  stop * 0.2, at, at, at::date, false, false, ''
FROM generate_series(0, 199) AS day, generate_series(0, 39) AS run, generate_series(0, 3) AS stop,
  LATERAL (SELECT '2030-01-01T06:00Z'::timestamptz + day * interval '1 day'
    + run * interval '15 min' + stop * interval '1 h') AS a (at)
"""


class Explained:
    """Is a connection that tells what a statement read instead of what it found."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.plan: dict[str, Any] = {}

    async def fetch(self, statement: str, *arguments: Any) -> list[Any]:
        explained = await self._connection.fetchval(
            f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", *arguments
        )
        self.plan = json.loads(explained)[0]["Plan"]
        return []

    @property
    def pages(self) -> int:
        return int(self.plan["Shared Hit Blocks"] + self.plan["Shared Read Blocks"])

    @property
    def indexes(self) -> set[str]:
        def walk(node: dict[str, Any]) -> set[str]:
            own = {node["Index Name"]} if "Index Name" in node else set()
            return own.union(*(walk(child) for child in node.get("Plans", ())))

        return walk(self.plan)


@pytest.mark.parametrize(
    ("origin", "destination", "index"),
    [
        pytest.param("L7-0", "L7-3", "trip_stops_by_name", id="stops"),
        pytest.param(Place(-13.0, 0.001), Place(-13.0, 0.6), "trip_stops_by_place", id="places"),
    ],
)
async def test_a_search_reads_little_however_many_trips_there_are(
    booking_rows: Connection,
    migrated_database: TestDatabase,
    origin: str | Place,
    destination: str | Place,
    index: str,
) -> None:
    layout_id = await booking_rows.fetchval("SELECT seat_layout_id FROM booking.seat_layouts")
    async with connected(migrated_database.admin_dsn) as admin:
        await admin.execute(_FILL_TRIPS, TENANT, layout_id)
        await admin.execute(_FILL_STOPS, TENANT)
        await admin.execute("ANALYZE booking.trips, booking.trip_stops")
    search = JourneySearch(
        tenant_id=TENANT,
        origin=origin,
        destination=destination,
        radius_meters=2_000,
        departure_date=date(2030, 4, 1),
        depart_after_time=datetime(2030, 4, 1, tzinfo=UTC),
    )

    (found,) = await find_journeys(booking_rows, search, most=20)
    explained = Explained(booking_rows)
    await find_journeys(explained, search, most=20)  # type: ignore[arg-type]  # explains

    assert found.journey == (0, 3)
    # Of 8,000 trips with 32,000 stops, under row-level security.
    assert index in explained.indexes
    assert explained.pages < 60
