"""The trip follower of the Python client against a scripted server on a real socket."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import grpc
import pytest

from tests.support.client_refusal import Refusal
from tests.support.client_server import (
    QUICK,
    TRIP_ID,
    FollowLeg,
    ScriptedServer,
    scripted_server,
)
from tests.support.waiting import until
from wayfare.location.v1 import position_pb2, trip_pb2, trip_update_pb2
from wayfare_client import TripFollower, WayfareError, make_position, reasons

Updates = asyncio.Queue[trip_update_pb2.TripUpdate]


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as running:
        yield running


def position(number: int) -> position_pb2.Position:
    return make_position(
        53.4 + number / 10_000, -2.9, capture_time=datetime(2026, 3, 1, 8, number, tzinfo=UTC)
    )


async def collect(follower: TripFollower, updates: Updates) -> None:
    async for update in follower:
        updates.put_nowait(update)


async def follower_number(server: ScriptedServer, number: int) -> FollowLeg:
    await until(lambda: len(server.location.followers) >= number)
    return server.location.followers[number - 1]


async def next_of(updates: Updates) -> trip_update_pb2.TripUpdate:
    async with asyncio.timeout(10):
        return await updates.get()


async def test_updates_arrive_in_order_and_end_with_the_trip(server: ScriptedServer) -> None:
    updates: Updates = asyncio.Queue()
    async with server.client() as client:
        following = asyncio.create_task(collect(client.follow_trip(TRIP_ID), updates))
        leg = await follower_number(server, 1)
        await leg.update("1", snapshot=trip_update_pb2.TripSnapshot(trip_id=TRIP_ID))
        await leg.update("2", position=position(1))
        await leg.update(
            "3", status=trip_update_pb2.TripStatusChange(status=trip_pb2.TRIP_STATUS_ENDED)
        )
        leg.end()
        async with asyncio.timeout(10):
            await following

    kinds = [updates.get_nowait().WhichOneof("update") for _ in range(updates.qsize())]
    assert kinds == ["snapshot", "position", "status"]


@pytest.mark.parametrize(
    "ending",
    [
        Refusal(code=grpc.StatusCode.UNAVAILABLE, reason="SERVER_DRAINING"),
        Refusal(code=grpc.StatusCode.INTERNAL),
        Refusal(
            code=grpc.StatusCode.RESOURCE_EXHAUSTED, reason="OVERLOADED", retry_after_seconds=0.01
        ),
    ],
)
async def test_a_lost_stream_goes_on_where_it_was(server: ScriptedServer, ending: Refusal) -> None:
    updates: Updates = asyncio.Queue()
    async with server.client() as client, client.follow_trip(TRIP_ID) as follower:
        following = asyncio.create_task(collect(follower, updates))
        leg = await follower_number(server, 1)
        await leg.update("7", position=position(1))
        await next_of(updates)
        leg.end(ending)
        leg = await follower_number(server, 2)
        # What the server sends first after resuming: the newest position, known already.
        await leg.update("7", position=position(1))
        await leg.update("8", position=position(2))

        assert (await next_of(updates)).position == position(2)
        assert leg.resume_token == "7"
        assert follower.reconnect_count == 1
        following.cancel()


async def test_silence_opens_a_new_stream(server: ScriptedServer) -> None:
    updates: Updates = asyncio.Queue()
    settings = replace(QUICK, heartbeat_seconds=0.1)
    async with server.client(settings) as client, client.follow_trip(TRIP_ID) as follower:
        following = asyncio.create_task(collect(follower, updates))
        leg = await follower_number(server, 1)
        await leg.update("4", position=position(1))
        second = await follower_number(server, 2)

        assert second.resume_token == "4"
        await until(lambda: not leg.is_open)
        following.cancel()


async def test_a_draining_server_is_left_with_the_resume_token(server: ScriptedServer) -> None:
    updates: Updates = asyncio.Queue()
    async with server.client() as client, client.follow_trip(TRIP_ID) as follower:
        following = asyncio.create_task(collect(follower, updates))
        leg = await follower_number(server, 1)
        await leg.update("1", position=position(1))
        drain = trip_update_pb2.StreamDrain(reason="SERVER_DRAINING")
        drain.reconnect_after.FromMilliseconds(50)
        await leg.update(drain=drain)
        await leg.update("2", position=position(2))
        second = await follower_number(server, 2)
        await second.update("3", position=position(3))

        got = [(await next_of(updates)).position for _ in range(3)]
        assert got == [position(1), position(2), position(3)]
        assert second.resume_token == "2"
        following.cancel()


async def test_a_stream_that_ends_after_its_drain_notice_is_not_the_end_of_the_trip(
    server: ScriptedServer,
) -> None:
    updates: Updates = asyncio.Queue()
    async with server.client() as client, client.follow_trip(TRIP_ID) as follower:
        following = asyncio.create_task(collect(follower, updates))
        leg = await follower_number(server, 1)
        drain = trip_update_pb2.StreamDrain(reason="SERVER_DRAINING")
        drain.reconnect_after.FromMilliseconds(5_000)
        await leg.update(drain=drain)
        leg.end()
        second = await follower_number(server, 2)
        await second.update("1", position=position(1))

        assert (await next_of(updates)).position == position(1)
        following.cancel()


async def test_gaps_and_degraded_answers_show(server: ScriptedServer) -> None:
    updates: Updates = asyncio.Queue()
    async with (
        server.client() as client,
        client.follow_trip(TRIP_ID, resume_token="old") as follower,
    ):
        following = asyncio.create_task(collect(follower, updates))
        leg = await follower_number(server, 1)
        await leg.update("1", snapshot=trip_update_pb2.TripSnapshot(gap=True, degraded=True))
        first, was_degraded = await next_of(updates), follower.degraded
        await leg.update(heartbeat=trip_update_pb2.TripHeartbeat(degraded=True))
        await leg.update(heartbeat=trip_update_pb2.TripHeartbeat(degraded=False))

        second = await next_of(updates)
        assert (first.snapshot.gap, was_degraded) == (True, True)
        assert (second.HasField("heartbeat"), follower.degraded) == (True, False)
        assert follower.gap_count == 1
        assert leg.resume_token == "old"
        following.cancel()


@pytest.mark.parametrize(
    ("refusal", "error_class"),
    [
        (
            Refusal(code=grpc.StatusCode.PERMISSION_DENIED, reason="NOT_A_FOLLOWER"),
            reasons.NotAFollowerError,
        ),
        (
            Refusal(code=grpc.StatusCode.RESOURCE_EXHAUSTED, reason="TOO_MANY_FOLLOWED_TRIPS"),
            reasons.TooManyFollowedTripsError,
        ),
        (
            Refusal(code=grpc.StatusCode.UNAUTHENTICATED, reason="TOKEN_INVALID"),
            reasons.TokenInvalidError,
        ),
    ],
)
async def test_a_refusal_that_reconnecting_cannot_heal_is_raised(
    server: ScriptedServer, refusal: Refusal, error_class: type[WayfareError]
) -> None:
    server.location.refusals.append(refusal)
    async with server.client() as client:
        with pytest.raises(error_class):
            await anext(client.follow_trip(TRIP_ID))

    assert server.location.opened_count == 1


async def test_a_trip_that_ended_while_the_follower_was_away_ends_the_iteration(
    server: ScriptedServer,
) -> None:
    updates: Updates = asyncio.Queue()
    async with server.client() as client:
        following = asyncio.create_task(collect(client.follow_trip(TRIP_ID), updates))
        leg = await follower_number(server, 1)
        await leg.update("1", position=position(1))
        await next_of(updates)
        server.location.refusals.append(
            Refusal(code=grpc.StatusCode.FAILED_PRECONDITION, reason="TRIP_NOT_TRACKED")
        )
        leg.end(Refusal(code=grpc.StatusCode.UNAVAILABLE))

        async with asyncio.timeout(10):
            await following


async def test_an_ended_token_is_refreshed_and_the_stream_goes_on(server: ScriptedServer) -> None:
    updates: Updates = asyncio.Queue()
    async with server.client() as client:
        client.tokens.use(server.identity.make_session())
        async with client.follow_trip(TRIP_ID) as follower:
            following = asyncio.create_task(collect(follower, updates))
            leg = await follower_number(server, 1)
            await leg.update("1", position=position(1))
            server.identity.on_session = lambda token: setattr(
                server.location, "valid_token", token
            )
            server.location.valid_token = "another"
            leg.end(Refusal(code=grpc.StatusCode.UNAUTHENTICATED, reason="TOKEN_EXPIRED"))
            second = await follower_number(server, 2)

            assert second.token == server.location.valid_token
            assert len(server.identity.refreshes) == 1
            following.cancel()
