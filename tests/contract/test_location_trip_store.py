"""What every TripStore does: the one in memory, and PostgreSQL with row-level security."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import date

import asyncpg
import pytest

from services.location.domain.trips import TrackedTrip
from services.location.errors import TripNotTrackedError, TripOfAnotherTenantError
from services.location.ports.trips import TripStore
from services.location.store.trips import PostgresTripStore
from services.shared.clock import SystemClock
from services.shared.errors import DependencyUnavailableError, RequestIdReusedError
from services.shared.postgres import Session, open_database
from tests.support.location_trip_fakes import MemoryTripStore
from tests.support.location_values import OTHER_TENANT, TENANT, a_trip, new_id
from tests.support.stack_fixtures import TestDatabase

BODY, OTHER_BODY = b"a" * 32, b"b" * 32


@pytest.fixture(params=["memory", "postgresql"])
def place(request: pytest.FixtureRequest) -> TestDatabase | None:
    """Make the database, outside of the tests' loop."""
    if request.param == "memory":
        return None
    database: TestDatabase = request.getfixturevalue("module_database")
    return database


@pytest.fixture
async def trips(place: TestDatabase | None) -> AsyncIterator[TripStore]:
    if place is None:
        yield MemoryTripStore()
        return
    database = await open_database(place.dsn_for("location"), pool_size=4)
    try:
        yield PostgresTripStore(database, SystemClock())
    finally:
        await database.close()


async def started(trips: TripStore, trip: TrackedTrip, request_id: str = "") -> TrackedTrip:
    return await trips.start(trip, request_id=request_id or new_id(), body_hash=BODY)


async def stopped(trips: TripStore, trip: TrackedTrip, request_id: str = "") -> TrackedTrip | None:
    return await trips.stop(
        trip.trip_id, tenant_id=trip.tenant_id, request_id=request_id or new_id(), body_hash=BODY
    )


async def test_a_trip_comes_back_with_all_that_it_was_started_with(trips: TripStore) -> None:
    trip = a_trip(timetable_trip_id="CNS-110", service_date=date(2026, 3, 1))
    kept = await started(trips, trip)

    assert await trips.get(trip.trip_id, tenant_id=TENANT) == kept
    assert kept.start_time is not None
    assert replace(kept, start_time=None) == trip


async def test_an_unknown_trip_is_none(trips: TripStore) -> None:
    assert await trips.get(new_id(), tenant_id=TENANT) is None


async def test_another_tenant_sees_nothing_of_a_trip(trips: TripStore) -> None:
    trip = a_trip()
    await started(trips, trip)

    assert await trips.get(trip.trip_id, tenant_id=OTHER_TENANT) is None
    assert await stopped(trips, replace(trip, tenant_id=OTHER_TENANT)) is None
    kept = await trips.get(trip.trip_id, tenant_id=TENANT)
    assert kept is not None
    assert not kept.stopped


async def test_a_trip_of_another_tenant_is_not_replaced(trips: TripStore) -> None:
    trip = a_trip()
    kept = await started(trips, trip)

    with pytest.raises(TripOfAnotherTenantError):
        await started(trips, replace(trip, tenant_id=OTHER_TENANT, vehicle_id="bus-99"))

    assert await trips.get(trip.trip_id, tenant_id=TENANT) == kept


async def test_starting_again_replaces_the_driver_and_the_followers(trips: TripStore) -> None:
    trip = a_trip()
    first = await started(trips, trip)
    changed = replace(
        trip,
        driver_id=new_id(),
        follower_ids=frozenset({new_id(), new_id()}),
        conductor_ids=frozenset(),
        vehicle_id="bus-15",
        stops=(),
        expected_count=1,
    )
    await started(trips, changed)

    kept = await trips.get(trip.trip_id, tenant_id=TENANT)

    assert kept == replace(changed, start_time=first.start_time)


async def test_a_person_may_be_conductor_and_follower(trips: TripStore) -> None:
    person = new_id()
    trip = a_trip(follower_ids=frozenset({person}), conductor_ids=frozenset({person}))

    kept = await started(trips, trip)

    assert person in kept.conductor_ids


async def test_the_same_request_again_changes_nothing(trips: TripStore) -> None:
    trip, request_id = a_trip(), new_id()
    await started(trips, trip, request_id)
    changed = await started(trips, replace(trip, vehicle_id="bus-15"))

    assert await started(trips, trip, request_id) == changed


async def test_a_request_id_with_another_body_is_refused(trips: TripStore) -> None:
    trip, request_id = a_trip(), new_id()
    await started(trips, trip, request_id)

    with pytest.raises(RequestIdReusedError):
        await trips.start(a_trip(), request_id=request_id, body_hash=OTHER_BODY)
    with pytest.raises(RequestIdReusedError):
        await trips.stop(
            trip.trip_id, tenant_id=TENANT, request_id=request_id, body_hash=OTHER_BODY
        )


async def test_another_tenant_may_use_the_same_request_id(trips: TripStore) -> None:
    request_id = new_id()
    await started(trips, a_trip(), request_id)

    await trips.start(a_trip(tenant_id=OTHER_TENANT), request_id=request_id, body_hash=OTHER_BODY)


async def test_stopping_twice_answers_the_same(trips: TripStore) -> None:
    trip, request_id = a_trip(), new_id()
    await started(trips, trip)
    first = await stopped(trips, trip, request_id)

    assert first is not None
    assert first.stopped
    assert await stopped(trips, trip, request_id) == first
    assert await stopped(trips, trip) == first


async def test_stopping_an_unknown_trip_says_none(trips: TripStore) -> None:
    assert await stopped(trips, a_trip()) is None


async def test_a_stopped_trip_cannot_start_again(trips: TripStore) -> None:
    trip = a_trip()
    await started(trips, trip)
    await stopped(trips, trip)
    request_id = new_id()

    with pytest.raises(TripNotTrackedError):
        await started(trips, trip, request_id)
    # And the id of the refused request is still free.
    await trips.start(a_trip(), request_id=request_id, body_hash=OTHER_BODY)


async def test_the_same_request_many_times_at_once_starts_one_trip(trips: TripStore) -> None:
    trip, request_id = a_trip(), new_id()

    answers = await asyncio.gather(*(started(trips, trip, request_id) for _ in range(12)))

    assert {answer.start_time for answer in answers} == {answers[0].start_time}


async def test_row_level_security_hides_every_table_from_other_tenants(
    module_database: TestDatabase,
) -> None:
    database = await open_database(module_database.dsn_for("location"), pool_size=1)
    try:
        trips = PostgresTripStore(database, SystemClock())
        await started(trips, a_trip())
        for tenant_id in ("", new_id()):
            async with database.transaction(Session(tenant_id=tenant_id)) as connection:
                for table in ("tracked_trips", "trip_followers", "requests"):
                    query = f"SELECT count(*) FROM location.{table}"
                    assert await connection.fetchval(query) == 0, (table, tenant_id)
    finally:
        await database.close()


async def test_a_tenant_cannot_write_rows_of_another(module_database: TestDatabase) -> None:
    database = await open_database(module_database.dsn_for("location"), pool_size=1)
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with database.transaction(Session(tenant_id=TENANT)) as connection:
                await connection.execute(
                    "INSERT INTO location.requests (tenant_id, request_id, body_hash)"
                    " VALUES ($1, $2, $3)",
                    OTHER_TENANT,
                    new_id(),
                    BODY,
                )
    finally:
        await database.close()


async def test_the_sweep_forgets_requests_after_a_day(migrated_database: TestDatabase) -> None:
    database = await open_database(migrated_database.dsn_for("location"), pool_size=2)
    admin = await asyncpg.connect(migrated_database.admin_dsn)
    try:
        trips = PostgresTripStore(database, SystemClock())
        await started(trips, a_trip())
        await started(trips, a_trip(tenant_id=OTHER_TENANT))
        await started(trips, a_trip())
        await admin.execute(
            "UPDATE location.requests SET create_time = now() - interval '25 hours'"
            " WHERE ctid IN (SELECT ctid FROM location.requests ORDER BY tenant_id LIMIT 2)"
        )
        sweep = asyncio.create_task(trips.sweep_requests())
        async with asyncio.timeout(10):
            while await admin.fetchval("SELECT count(*) FROM location.requests") != 1:
                await asyncio.sleep(0.02)
        sweep.cancel()
        await asyncio.gather(sweep, return_exceptions=True)
    finally:
        await admin.close()
        await database.close()


async def test_a_database_that_is_away_is_named() -> None:
    database = await open_database("postgresql://nobody@/none?host=/nowhere", pool_size=1)
    try:
        with pytest.raises(DependencyUnavailableError, match="postgresql"):
            await PostgresTripStore(database, SystemClock()).get(new_id(), tenant_id=TENANT)
    finally:
        await database.close()
