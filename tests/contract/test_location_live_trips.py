"""What every LiveStore knows of trips, vehicles and people: in memory, Valkey alone, a cluster."""

from dataclasses import replace
from datetime import date

import pytest

from services.location.operations.follower import token_of
from services.location.ports.live import LiveStore, Tick
from services.location.store.keys import bucket_of
from services.shared.errors import RequestIdReusedError
from tests.support.location_drive import Drive, names_of, opened
from tests.support.location_fakes import BUCKETS
from tests.support.location_values import (
    OTHER_TENANT,
    TENANT,
    a_trip,
    capture_of,
    new_id,
    now_milliseconds,
    position_update,
)


@pytest.mark.parametrize("same_bucket", [True, False])
async def test_a_trip_that_goes_to_another_driver_is_taken_from_the_first(
    live: LiveStore, same_bucket: bool
) -> None:
    drive = await Drive.begun(live)
    await drive.position(1)
    moved = replace(drive.trip, driver_id=driver_beside(drive.trip.driver_id, same=same_bucket))
    await live.track(moved)
    grant = await opened(live, moved.driver_id, trip_id=moved.trip_id)
    other = Drive(live, moved, grant.session)

    # Of another bucket nothing of the trip is left; in the same one somebody else has it.
    assert await drive.position(2) == ("R" if same_bucket else "M")
    assert await other.position(1) == "A"
    found = await live.tracked_trip(moved.trip_id)
    assert found is not None
    assert found.driver_id == moved.driver_id


async def test_followers_are_told_when_a_trip_moves_to_another_bucket(live: LiveStore) -> None:
    drive = await Drive.begun(live)
    last_id = await live.last_tick_id(drive.bucket)
    await live.track(replace(drive.trip, driver_id=driver_beside(drive.trip.driver_id, same=False)))

    assert names_of(await live.read_ticks(drive.bucket, last_id)) == ["r"]


@pytest.mark.parametrize("same_bucket", [True, False])
async def test_a_trip_keeps_its_status_and_count_when_another_driver_takes_it(
    live: LiveStore, same_bucket: bool
) -> None:
    drive = await Drive.begun(live)
    await drive.status(1, "PAUSED")
    await drive.boarding(2, 9)
    driver_id = driver_beside(drive.trip.driver_id, same=same_bucket)
    taken = replace(drive.trip, driver_id=driver_id)
    await live.track(taken)

    state = await live.snapshot(taken, with_events=False)
    grant = await opened(live, driver_id, trip_id=taken.trip_id)

    assert (state.status, grant.trip_status) == ("PAUSED", "PAUSED")
    assert b"\x08\x09" in state.boarding_payload


async def test_a_report_without_a_trip_leaves_the_open_trip_as_it_is(live: LiveStore) -> None:
    drive = await Drive.begun(live)
    await drive.position(1)
    await live.join_session(
        driver_id=drive.trip.driver_id, tenant_id=TENANT, vehicle_id="bus-99", trip_id=""
    )

    state = await live.snapshot(drive.trip, with_events=False)

    assert state.position_payload


def driver_beside(driver_id: str, *, same: bool) -> str:
    while True:
        other = new_id()
        if (bucket_of(other, BUCKETS) == bucket_of(driver_id, BUCKETS)) is same:
            return other


async def test_a_snapshot_holds_the_newest_of_everything(live: LiveStore) -> None:
    drive = await Drive.begun(live)
    await drive.status(1, "STARTED")
    await drive.position(2)
    await drive.boarding(3, 4)
    await drive.boarding(4, 9)
    await drive.position(5)

    state = await live.snapshot(drive.trip, with_events=False)

    assert (state.status, state.version, state.tracked) == ("STARTED", 5, True)
    assert capture_of(state.position_payload) == drive.start + 5000
    assert b"\x08\x09" in state.boarding_payload
    assert list(state.events) == []


async def test_events_are_kept_with_their_versions_and_positions_are_not(live: LiveStore) -> None:
    drive = await Drive.begun(live)
    await drive.status(1, "STARTED")
    await drive.position(2)
    await drive.boarding(3, 4)
    state = await live.snapshot(drive.trip, with_events=True)

    assert [token_of(event).version for event in state.events] == [1, 3]
    assert {token_of(event).epoch for event in state.events} == {state.epoch}


async def test_a_snapshot_of_a_trip_that_nobody_drives_is_empty(live: LiveStore) -> None:
    trip = a_trip()
    await live.track(trip)

    state = await live.snapshot(trip, with_events=True)

    assert (state.version, state.status, state.position_payload) == (0, "", b"")


async def test_a_snapshot_shows_no_position_of_another_trip(live: LiveStore) -> None:
    drive = await Drive.begun(live)
    await drive.position(1)
    await opened(live, drive.trip.driver_id, trip_id="")

    assert (await live.snapshot(drive.trip, with_events=False)).position_payload == b""


async def test_ticks_bring_what_was_taken_in_order_and_nothing_else(live: LiveStore) -> None:
    drive = await Drive.begun(live)
    last_id = await live.last_tick_id(drive.bucket)
    await drive.status(1, "STARTED")
    await drive.position(2)
    await drive.position(3, after_seconds=2)
    await drive.boarding(4, 1)
    ticks: list[Tick] = []
    while len(ticks) < 3:
        ticks += await live.read_ticks(drive.bucket, ticks[-1].stream_id if ticks else last_id)

    payloads = [payload for tick in ticks for payload in tick.fields[1::2]]
    assert names_of(ticks) == ["s", "p", "b"]
    assert [token_of(payload).version for payload in payloads] == [1, 2, 3]
    assert await live.last_tick_id(drive.bucket) == ticks[-1].stream_id


async def test_the_end_of_tracking_is_told(live: LiveStore) -> None:
    drive = await Drive.begun(live)
    last_id = await live.last_tick_id(drive.bucket)
    await live.untrack(drive.trip)

    assert names_of(await live.read_ticks(drive.bucket, last_id)) == ["x"]


async def test_free_driving_is_live_and_told_to_nobody(live: LiveStore) -> None:
    driver_id = new_id()
    grant = await opened(live, driver_id)
    bucket = live.bucket_of(driver_id)
    last_id = await live.last_tick_id(bucket)
    update = position_update(driver_id, seq=1, capture=now_milliseconds(), session=grant.session)

    assert await live.apply(bucket, [update]) == "A"
    assert await live.read_ticks(bucket, last_id) in ((), [])


async def test_a_vehicle_is_where_its_driver_is(live: LiveStore) -> None:
    drive = await Drive.begun(live)
    await drive.position(1)

    state = await live.vehicle_state(TENANT, "bus-14")

    assert state is not None
    assert (state.trip_id, state.vehicle_id) == (drive.trip.trip_id, "bus-14")
    assert capture_of(state.position_payload) == drive.start + 1000
    assert abs(state.received_milliseconds - now_milliseconds()) < 10_000


async def test_a_vehicle_of_another_tenant_is_unknown(live: LiveStore) -> None:
    drive = await Drive.begun(live)
    await drive.position(1)

    assert await live.vehicle_state(OTHER_TENANT, "bus-14") is None
    assert await live.vehicle_state(TENANT, "bus-15") is None


async def test_a_driver_who_goes_offline_is_not_live(live: LiveStore) -> None:
    drive = await Drive.begun(live)
    await drive.position(1)
    await live.set_presence(
        driver_id=drive.trip.driver_id, tenant_id=TENANT, vehicle_id="bus-14", online=False
    )

    state = await live.vehicle_state(TENANT, "bus-14")

    assert state is not None
    assert state.position_payload == b""


async def test_a_trip_is_known_until_it_is_stopped_and_after(live: LiveStore) -> None:
    trip = a_trip(timetable_trip_id="CNS-110", service_date=date(2026, 3, 1))
    assert await live.tracked_trip(trip.trip_id) is None
    await live.track(trip)

    found = await live.tracked_trip(trip.trip_id)

    assert found == replace(
        trip, stops=(), follower_ids=frozenset(), conductor_ids=frozenset(), start_time=None
    )


async def test_followers_and_conductors_are_known_and_replaced(live: LiveStore) -> None:
    trip = a_trip()
    await live.track(trip)
    (follower,), (conductor,) = trip.follower_ids, trip.conductor_ids
    assert await live.is_follower(trip.trip_id, follower)
    assert await live.is_follower(trip.trip_id, conductor)
    newcomer = new_id()
    await live.track(replace(trip, follower_ids=frozenset({newcomer})))

    assert await live.is_follower(trip.trip_id, newcomer)
    assert not await live.is_follower(trip.trip_id, follower)


async def test_a_user_follows_as_many_trips_as_one_may(live: LiveStore) -> None:
    user_id, trips = new_id(), [new_id() for _ in range(4)]
    followed = [await live.follow(user_id, trip_id, trips_max=3) for trip_id in trips]

    assert followed == [True, True, True, False]
    assert await live.follow(user_id, trips[0], trips_max=3)
    await live.unfollow(user_id, trips[1])
    assert await live.follow(user_id, trips[3], trips_max=3)


async def test_an_answer_is_replayed_for_the_same_body_only(live: LiveStore) -> None:
    request_id, body, other = new_id(), b"a" * 32, b"b" * 32
    assert await live.replay_answer(request_id, body) is None
    await live.keep_answer(request_id, body, b"answer")
    await live.keep_answer(request_id, body, b"a later answer")

    assert await live.replay_answer(request_id, body) == b"answer"
    with pytest.raises(RequestIdReusedError):
        await live.replay_answer(request_id, other)
