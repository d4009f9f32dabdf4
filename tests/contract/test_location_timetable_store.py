"""What a TimetableStore does: PostgreSQL with imported feeds."""

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from services.location.ports.timetables import TimetableStore
from services.location.store.timetables import PostgresTimetableStore
from services.shared.errors import DependencyUnavailableError
from services.shared.postgres import open_database
from tests.support.gtfs_feeds import CAIRNS, GOOD_FEED, changed, write_zip
from tests.support.location_values import OTHER_TENANT, TENANT, new_id
from tests.support.stack_fixtures import TestDatabase
from tests.support.timetables import import_feed

pytestmark = pytest.mark.integration

FRIDAY = date(2026, 6, 5)


class SteppedClock:
    """Stands until it is moved."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
async def store(
    migrated_database: TestDatabase, clock: SteppedClock
) -> AsyncIterator[TimetableStore]:
    database = await open_database(migrated_database.dsn_for("location"), pool_size=2)
    try:
        yield PostgresTimetableStore(database, plans_max=2, feed_seconds=5, monotonic=clock)
    finally:
        await database.close()


@pytest.fixture
async def good_feed(migrated_database: TestDatabase, tmp_path: Path) -> TestDatabase:
    path = write_zip(tmp_path / "feed.zip", GOOD_FEED)
    await import_feed(migrated_database.dsn_for("location"), path, tenant_id=TENANT)
    return migrated_database


async def test_a_plan_has_stops_times_and_shape(
    store: TimetableStore, good_feed: TestDatabase
) -> None:
    plan = await store.trip_plan(TENANT, "T1", FRIDAY)

    assert plan is not None
    assert (plan.route_id, plan.route_short_name, plan.direction_id) == ("R14", "14", 0)
    assert (plan.start_date, plan.start_time) == ("20260605", "08:00:00")
    assert [(stop.stop_id, stop.stop_sequence) for stop in plan.stops] == [
        ("S1", 1),
        ("S2", 2),
        ("S3", 5),
    ]
    # British summer time is an hour ahead of UTC.
    assert plan.stops[1].arrival_time == datetime(2026, 6, 5, 7, 5, tzinfo=UTC)
    assert plan.stops[1].departure_time == datetime(2026, 6, 5, 7, 6, tzinfo=UTC)
    assert plan.stops[1].display_name == "Everton Road"
    assert len(plan.shape) == 3
    # The feed tells distances in its own unit; they become meters of the shape.
    measured = [point.distance_meters for point in plan.shape]
    assert [stop.distance_meters for stop in plan.stops] == pytest.approx(measured, abs=0.1)


async def test_a_trip_without_a_shape_goes_straight_from_stop_to_stop(
    store: TimetableStore, good_feed: TestDatabase
) -> None:
    plan = await store.trip_plan(TENANT, "T2", FRIDAY)

    assert plan is not None
    assert plan.start_time == "24:50:00"
    assert [stop.distance_meters for stop in plan.stops] == [
        point.distance_meters for point in plan.shape
    ]
    # After midnight of the service day: the morning of the next.
    assert plan.stops[-1].arrival_time == datetime(2026, 6, 6, 0, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("trip_id", "day"),
    [
        ("T9", FRIDAY),
        ("T1", date(2026, 6, 6)),
        ("T1", date(2026, 12, 25)),
        ("T1", date(2027, 1, 1)),
        ("T1", date(2025, 12, 31)),
    ],
)
async def test_a_trip_that_is_unknown_or_does_not_run_that_day_is_none(
    store: TimetableStore, good_feed: TestDatabase, trip_id: str, day: date
) -> None:
    assert await store.trip_plan(TENANT, trip_id, day) is None


async def test_a_trip_runs_on_a_day_that_was_added(
    store: TimetableStore, good_feed: TestDatabase
) -> None:
    assert await store.trip_plan(TENANT, "T1", date(2026, 12, 26)) is not None


async def test_another_tenant_has_no_plan(store: TimetableStore, good_feed: TestDatabase) -> None:
    assert await store.trip_plan(OTHER_TENANT, "T1", FRIDAY) is None
    assert await store.trip_plan(new_id(), "T1", FRIDAY) is None


async def test_a_new_feed_is_seen_after_a_moment(
    store: TimetableStore, good_feed: TestDatabase, clock: SteppedClock, tmp_path: Path
) -> None:
    before = await store.trip_plan(TENANT, "T1", FRIDAY)
    newer = changed("stop_times.txt", 3, "T1,8:07:00,8:08:00,S2,2,1.5")
    path = write_zip(tmp_path / "newer.zip", newer)
    await import_feed(good_feed.dsn_for("location"), path, tenant_id=TENANT)

    same = await store.trip_plan(TENANT, "T1", FRIDAY)
    clock.seconds += 5
    after = await store.trip_plan(TENANT, "T1", FRIDAY)

    assert before is not None
    assert same is before
    assert after is not None
    assert after.feed_id != before.feed_id
    assert after.stops[1].arrival_time - before.stops[1].arrival_time == timedelta(minutes=2)


async def test_a_known_plan_outlives_the_database_and_an_unknown_one_does_not(
    good_feed: TestDatabase, clock: SteppedClock
) -> None:
    database = await open_database(good_feed.dsn_for("location"), pool_size=2)
    store = PostgresTimetableStore(database, feed_seconds=5, monotonic=clock)
    plan = await store.trip_plan(TENANT, "T1", FRIDAY)

    await database.close()
    clock.seconds += 60

    assert plan is not None
    assert await store.trip_plan(TENANT, "T1", FRIDAY) is plan
    with pytest.raises(DependencyUnavailableError):
        await store.trip_plan(TENANT, "T2", FRIDAY)


async def test_only_so_many_plans_are_kept(store: TimetableStore, good_feed: TestDatabase) -> None:
    first = await store.trip_plan(TENANT, "T1", FRIDAY)
    for day in (8, 9):
        await store.trip_plan(TENANT, "T1", date(2026, 6, day))

    again = await store.trip_plan(TENANT, "T1", FRIDAY)

    assert again == first
    assert again is not first


async def test_every_plan_of_cairns_goes_forward_in_time_and_along_its_shape(
    store: TimetableStore, migrated_database: TestDatabase
) -> None:
    dsn = migrated_database.dsn_for("location")
    await import_feed(dsn, CAIRNS, tenant_id=TENANT)

    # One of each route: twenty trips, among them loops that call at a stop twice.
    for number in range(4166401, 4166421):
        plan = await store.trip_plan(
            TENANT, f"CNS2014-CNS_MUL-Weekday-00-{number}", date(2014, 6, 3)
        )
        if plan is None:
            continue
        assert plan.stops[-1].distance_meters <= plan.shape[-1].distance_meters + 0.01
        for one, two in pairwise(plan.stops):
            assert one.departure_time <= two.arrival_time
            assert one.distance_meters <= two.distance_meters
