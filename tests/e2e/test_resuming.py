"""Streams that go on elsewhere: what was decided, seen or counted by one process holds for all."""

import uuid

import pytest

from tests.support.e2e_edge import Edge, Refusal
from tests.support.e2e_streams import (
    BareFollower,
    bare_driver,
    bare_follower,
    hello_for,
    position_message,
    status_message,
)
from wayfare.location.v1 import trip_pb2

pytestmark = pytest.mark.e2e

FIRST, SECOND = "location-1", "location-2"
STARTED, PAUSED = trip_pb2.TRIP_STATUS_STARTED, trip_pb2.TRIP_STATUS_PAUSED


async def test_a_driver_resumes_on_another_process_and_nothing_is_taken_twice(edge: Edge) -> None:
    trip = await edge.track()
    async with bare_follower(edge, trip, instance=FIRST) as follower:
        await follower.snapshot()
        async with bare_driver(edge, trip.driver_token, instance=FIRST) as driver:
            await driver.write(hello_for(trip))
            await driver.write(status_message(1, STARTED))
            await driver.write(status_message(2, PAUSED))
            await driver.until(lambda: driver.acknowledged_seq() == 2)

        async with bare_driver(edge, trip.driver_token, instance=SECOND) as driver:
            # The phone did not hear of the last acknowledgement.
            await driver.write(hello_for(trip, resume_seq=1))
            assert (await driver.welcome()).resume_seq == 2
            await driver.write(status_message(2, PAUSED))
            await driver.write(status_message(3, STARTED))
            await driver.until(lambda: driver.acknowledged_seq() == 3)

        await follower.until(lambda: len(follower.statuses()) >= 3)
        assert follower.statuses() == [STARTED, PAUSED, STARTED]


async def test_a_follower_resumes_on_another_process_without_a_gap(edge: Edge) -> None:
    trip = await edge.track()
    async with bare_driver(edge, trip.driver_token) as driver, edge.channel() as channel:
        await driver.write(hello_for(trip))
        async with bare_follower(edge, trip, instance=FIRST) as before:
            await before.snapshot()
            await driver.write(status_message(1, STARTED))
            await before.until(lambda: before.statuses() == [STARTED])
            token = before.updates[-1].resume_token
        await driver.write(status_message(2, PAUSED))
        await driver.write(position_message(3, step=4))
        await driver.write(status_message(4, STARTED))
        await driver.until(lambda: driver.acknowledged_seq() == 4)

        after = BareFollower(
            channel, trip.trip_id, trip.passenger_token, instance=SECOND, resume_token=token
        )
        await after.until(lambda: len(after.updates) >= 3)
        await after.close()

    assert after.statuses() == [PAUSED, STARTED]
    assert after.steps() == [4]
    assert not any(update.HasField("snapshot") for update in after.updates)


async def test_a_token_that_is_not_known_begins_with_a_snapshot_that_admits_a_gap(
    edge: Edge,
) -> None:
    trip = await edge.track()
    async with edge.channel() as channel:
        follower = BareFollower(
            channel, trip.trip_id, trip.passenger_token, resume_token="0123456789abcdef"
        )
        assert (await follower.snapshot()).gap
        await follower.close()


async def test_a_second_phone_takes_over_and_the_first_is_told(edge: Edge) -> None:
    trip = await edge.track()
    async with (
        bare_follower(edge, trip) as follower,
        bare_driver(edge, trip.driver_token, instance=FIRST) as old,
        bare_driver(edge, trip.driver_token, instance=SECOND) as new,
    ):
        await follower.snapshot()
        await old.write(hello_for(trip))
        await old.welcome()
        await new.write(hello_for(trip))
        await new.welcome()
        await old.write(status_message(1, PAUSED))
        ended = await old.end()
        await new.write(status_message(1, STARTED))
        await follower.until(follower.statuses)

    assert ended == Refusal(code="ABORTED", reason="SESSION_SUPERSEDED", domain="location.wayfare")
    assert old.acknowledged_seq() == 0
    assert follower.statuses() == [STARTED]


async def test_a_passenger_follows_five_trips_at_once_over_all_processes(edge: Edge) -> None:
    passenger_id = str(uuid.uuid4())
    trips = [await edge.track_for(str(uuid.uuid4()), passenger_id=passenger_id) for _ in range(6)]
    async with edge.channel() as channel:
        followers = [
            BareFollower(
                channel, trip.trip_id, trip.passenger_token, instance=(FIRST, SECOND)[number % 2]
            )
            for number, trip in enumerate(trips[:5])
        ]
        for follower in followers:
            await follower.snapshot()
        sixth = BareFollower(channel, trips[5].trip_id, trips[5].passenger_token)
        refused = await sixth.end()
        again = BareFollower(channel, trips[0].trip_id, trips[0].passenger_token)
        await again.snapshot()
        for follower in (*followers, again):
            await follower.close()

    assert (refused.code, refused.reason) == ("RESOURCE_EXHAUSTED", "TOO_MANY_FOLLOWED_TRIPS")
