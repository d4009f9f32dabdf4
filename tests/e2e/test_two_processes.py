"""Two location processes: what one takes the other shows, and neither is missed when it goes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.e2e_edge import Edge
from tests.support.e2e_journeys import Journey, driving, journeys, open_streams, viewing
from tests.support.e2e_streams import (
    bare_driver,
    bare_follower,
    hello_for,
    position_message,
    status_message,
)
from tests.support.waiting import until
from wayfare.location.v1 import trip_pb2

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(90)]

FIRST, SECOND = "location-1", "location-2"
STARTED, ENDED = trip_pb2.TRIP_STATUS_STARTED, trip_pb2.TRIP_STATUS_ENDED


@pytest.mark.parametrize(("drives", "follows"), [(FIRST, SECOND), (SECOND, FIRST)])
async def test_a_follower_on_one_process_sees_what_a_driver_sends_to_the_other(
    edge: Edge, drives: str, follows: str
) -> None:
    trip = await edge.track()
    async with (
        bare_follower(edge, trip, instance=follows) as follower,
        bare_driver(edge, trip.driver_token, instance=drives) as driver,
    ):
        await follower.snapshot()
        await driver.write(hello_for(trip))
        await driver.write(status_message(1, STARTED))
        await driver.write(position_message(2, step=7))
        await driver.write(status_message(3, ENDED))

        assert (await follower.end()).code == "OK"
        assert follower.steps() == [7]
        assert follower.statuses() == [STARTED, ENDED]


async def test_drivers_of_a_killed_process_move_and_nothing_accepted_is_missing(
    private_edge: Edge,
) -> None:
    stack = private_edge.stack
    async with _journeys_on_the_first(private_edge) as begun:
        async with driving(begun, gap_seconds=0.05):
            await until(lambda: all(journey.progress() > 10 for journey in begun))
            await stack.services[FIRST].kill()
            sent = [journey.sent_steps for journey in begun]
            await until(lambda: _all_beyond(begun, sent), seconds=30)
        assert await open_streams(stack, SECOND, "StreamDriver") >= len(begun)
        await _arrive(begun)


@pytest.mark.slow
async def test_a_process_that_drains_leaves_no_gap_in_status_events(private_edge: Edge) -> None:
    stack = private_edge.stack
    log = stack.home.logs / f"{FIRST}.log"
    said_before = len(log.read_text())
    async with _journeys_on_the_first(private_edge) as begun:
        async with driving(begun, gap_seconds=0.01):
            await until(lambda: all(journey.progress() > 10 for journey in begun))
            await stack.services[FIRST].terminate()
            sent = [journey.sent_steps for journey in begun]
            await until(lambda: _all_beyond(begun, sent))
        assert await open_streams(stack, SECOND, "StreamDriver") >= len(begun)
        await _arrive(begun)

    assert '"streams_cut": 0' in log.read_text()[said_before:]


async def test_a_process_that_drains_says_so_and_takes_no_new_streams(private_edge: Edge) -> None:
    stack = private_edge.stack
    trip, late = await private_edge.track(), await private_edge.track()
    async with (
        bare_follower(private_edge, trip, instance=FIRST) as follower,
        bare_driver(private_edge, trip.driver_token, instance=FIRST) as driver,
    ):
        await follower.snapshot()
        await driver.write(hello_for(trip))
        await driver.welcome()
        ending = asyncio.create_task(stack.services[FIRST].terminate())
        await driver.until(lambda: any(reply.HasField("drain") for reply in driver.replies))
        await follower.until(lambda: any(update.HasField("drain") for update in follower.updates))
        # Told, and still served.
        await driver.write(status_message(1, STARTED))
        await driver.until(lambda: driver.acknowledged_seq() == 1)
        # Until Envoy knows of the drain, a new stream may be sent away once and come again.
        async with (
            private_edge.client(late.driver_token) as client,
            client.drive(late.vehicle_id, late.trip_id) as elsewhere,
        ):
            await elsewhere.wait_connected(10)
            assert await open_streams(stack, SECOND, "StreamDriver") == 1

        told = next(reply.drain for reply in driver.replies if reply.HasField("drain"))
        shown = next(update.drain for update in follower.updates if update.HasField("drain"))
        assert told.reason == shown.reason == "SERVER_DRAINING"
        for notice in (told.reconnect_after, shown.reconnect_after):
            assert notice.ToTimedelta().total_seconds() <= 2
        await asyncio.gather(driver.close(), follower.close())
        await ending


@asynccontextmanager
async def _journeys_on_the_first(edge: Edge) -> AsyncIterator[list[Journey]]:
    """Begin six journeys whose drivers and followers are all on the first process.

    Each has one more follower on the second.
    """
    second = edge.stack.services[SECOND]
    trips = [await edge.track() for _ in range(6)]
    await second.kill()
    async with journeys(edge, trips) as begun:
        await second.start()
        await edge.stack.envoy.wait_healthy()
        assert await open_streams(edge.stack, FIRST, "StreamDriver") == 6
        assert await open_streams(edge.stack, FIRST, "FollowTrip") == 6
        async with viewing(edge, begun, instance=SECOND):
            yield begun


def _all_beyond(begun: list[Journey], steps: list[int]) -> bool:
    return all(j.progress() > step for j, step in zip(begun, steps, strict=True))


async def _arrive(begun: list[Journey]) -> None:
    for journey in begun:
        await journey.arrive()
        journey.check_nothing_missing()
        assert journey.session.statistics.reconnect_count >= 1
