"""Valkey or PostgreSQL go away while vehicles drive: everybody is told, and nothing is lost."""

import asyncio

import grpc
import grpc.aio
import httpx
import pytest

from services.stack.environments import DEMO_ADMIN_PHONE, DEMO_TENANT_ID
from services.stack.valkey import ValkeyServer
from tests.support.e2e_edge import Edge, reasons_of
from tests.support.e2e_journeys import Journey, driving, journeys, viewing
from tests.support.e2e_streams import bare_driver, bare_follower, hello_for
from tests.support.waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.alone, pytest.mark.timeout(120)]

AWAY_SECONDS = 10.0


@pytest.mark.slow
async def test_ten_seconds_without_valkey_lose_nothing_and_everybody_is_told(
    private_edge: Edge,
) -> None:
    valkey = private_edge.stack.valkey
    trips = [await private_edge.track() for _ in range(4)]
    async with journeys(private_edge, trips) as begun:
        # So often that the bound of what waits in the servers is reached too.
        async with driving(begun, gap_seconds=0.05):
            await until(lambda: all(journey.progress() > 10 for journey in begun))
            await valkey.stop()
            back = asyncio.get_running_loop().time() + AWAY_SECONDS
            await until(lambda: all(_is_degraded(journey) for journey in begun))
            for journey in begun:
                assert journey.throttles[-1].reason == "DEPENDENCY_UNAVAILABLE"
            await asyncio.sleep(back - asyncio.get_running_loop().time())
            await valkey.start()
            await until(lambda: all(_is_well(journey) for journey in begun), seconds=20)
        for journey in begun:
            await journey.arrive()
            journey.check_nothing_missing()
            assert journey.session.statistics.reconnect_count == 0
            assert [viewer.follower.reconnect_count for viewer in journey.viewers] == [0]


async def test_a_killed_valkey_loses_nothing_that_was_accepted(private_edge: Edge) -> None:
    valkey = private_edge.stack.valkey
    assert isinstance(valkey, ValkeyServer)
    trips = [await private_edge.track() for _ in range(4)]
    async with journeys(private_edge, trips) as begun:
        async with driving(begun, gap_seconds=0.02):
            for _ in range(3):
                sent = [journey.sent_steps for journey in begun]
                await until(lambda past=sent: _all_beyond(begun, past))  # type: ignore[misc]
                await valkey.kill()
                await valkey.start()
        for journey in begun:
            await journey.arrive()
            journey.check_nothing_missing()


async def test_a_killed_envoy_is_survived_by_every_stream(private_edge: Edge) -> None:
    envoy = private_edge.stack.envoy
    trips = [await private_edge.track() for _ in range(4)]
    async with journeys(private_edge, trips) as begun:
        async with driving(begun, gap_seconds=0.02):
            await until(lambda: all(journey.progress() > 10 for journey in begun))
            await envoy.kill()
            await envoy.start()
            sent = [journey.sent_steps for journey in begun]
            await until(lambda: _all_beyond(begun, sent), seconds=20)
        for journey in begun:
            await journey.arrive()
            journey.check_nothing_missing()
            assert journey.session.statistics.reconnect_count >= 1


async def test_a_new_stream_without_valkey_is_told_to_come_again(private_edge: Edge) -> None:
    trip = await private_edge.track()
    await private_edge.stack.valkey.stop()
    async with bare_driver(private_edge, trip.driver_token) as driver:
        await driver.write(hello_for(trip))
        refused = await driver.end()

    assert (refused.code, refused.reason) == ("UNAVAILABLE", "DEPENDENCY_UNAVAILABLE")


async def test_live_positions_go_on_without_postgresql(private_edge: Edge) -> None:
    postgres = private_edge.stack.postgres
    trips = [await private_edge.track() for _ in range(3)]
    async with journeys(private_edge, trips) as begun:
        known = await private_edge.track()
        async with driving(begun, gap_seconds=0.05):
            await until(lambda: all(journey.progress() > 5 for journey in begun))
            await postgres.stop()
            sent = [journey.sent_steps for journey in begun]
            await until(lambda: _all_beyond(begun, [steps + 20 for steps in sent]))
            # New streams too, where the trip is known.
            async with (
                bare_follower(private_edge, known) as follower,
                bare_driver(private_edge, known.driver_token) as driver,
            ):
                await follower.snapshot()
                await driver.write(hello_for(known))
                await driver.welcome()
            answer = await _log_in(private_edge)
        for journey in begun:
            await journey.arrive()
            journey.check_nothing_missing()
            assert journey.session.statistics.reconnect_count == 0

        assert answer.status_code == 503
        assert reasons_of(answer.json()["details"]) == [
            ("DEPENDENCY_UNAVAILABLE", "identity.wayfare")
        ]
        await postgres.start()
        await _until_tracked(private_edge)
        async with viewing(private_edge, begun):
            pass


def _all_beyond(begun: list[Journey], steps: list[int]) -> bool:
    return all(j.progress() > step for j, step in zip(begun, steps, strict=True))


def _is_degraded(journey: Journey) -> bool:
    told = journey.throttles and journey.throttles[-1].degraded
    return bool(told) and all(viewer.degraded[-1] for viewer in journey.viewers)


def _is_well(journey: Journey) -> bool:
    told = journey.throttles[-1]
    return (
        not told.degraded
        and told.reason == ""
        and not any(viewer.degraded[-1] for viewer in journey.viewers)
    )


async def _log_in(edge: Edge) -> httpx.Response:
    body = {"tenantId": DEMO_TENANT_ID, "phone": DEMO_ADMIN_PHONE, "password": "none of them"}
    async with httpx.AsyncClient(trust_env=False, timeout=15) as client:
        return await client.post(f"{edge.url}/v1/sessions:logIn", json=body)


async def _until_tracked(edge: Edge) -> None:
    """Wait until trips can be tracked again."""
    async with asyncio.timeout(15):
        while True:
            try:
                await edge.track()
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                await asyncio.sleep(0.1)
            else:
                return
