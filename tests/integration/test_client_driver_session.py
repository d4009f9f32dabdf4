"""The driver session of the Python client against a scripted server on a real socket."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.client_server import TRIP_ID, ScriptedServer, scripted_server
from tests.support.waiting import until
from wayfare.location.v1 import driver_stream_pb2, trip_pb2
from wayfare_client import DriverSession, Pacing

START = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as running:
        yield running


async def send_positions(session: DriverSession, count: int, *, first: int = 0) -> None:
    for number in range(first, first + count):
        await session.send_position(
            53.4 + number / 10_000, -2.9, capture_time=START + timedelta(seconds=3 * number)
        )


async def test_what_is_sent_is_acknowledged(server: ScriptedServer) -> None:
    async with server.client() as client, client.drive("bus-14", TRIP_ID) as session:
        await session.send_status(trip_pb2.TRIP_STATUS_STARTED)
        await send_positions(session, 5)
        await session.send_boarding(12)
        await session.wait_acknowledged(5)

        statistics = session.statistics

    assert statistics.sent_count == statistics.accepted_count == 7
    assert [message.seq for message in server.location.messages] == list(range(1, 8))
    assert server.location.driver.hello.vehicle_id == "bus-14"
    assert server.location.driver.said_goodbye


async def test_a_lost_connection_is_resumed_without_loss(server: ScriptedServer) -> None:
    async with server.client() as client, client.drive("bus-14", TRIP_ID) as session:
        await send_positions(session, 3)
        await session.wait_acknowledged(5)
        server.location.acknowledging = False
        await send_positions(session, 3, first=3)
        await until(lambda: len(server.location.messages) == 6)
        await server.die()
        await send_positions(session, 3, first=6)
        server.location.acknowledging = True
        await server.start()
        await session.wait_acknowledged(10)

        statistics = session.statistics

    assert server.location.driver.hello.resume_seq == 3
    assert server.location.driver.seqs == [4, 5, 6, 7, 8, 9]
    assert statistics.accepted_count == 9
    assert statistics.resent_count >= 3
    assert statistics.reconnect_count == 1


async def test_draining_opens_the_new_stream_before_the_old_one_ends(
    server: ScriptedServer,
) -> None:
    async with server.client() as client, client.drive("bus-14", TRIP_ID) as session:
        await send_positions(session, 2)
        old = server.location.driver
        drain = driver_stream_pb2.DriverDrain(reason="SERVER_DRAINING")
        drain.reconnect_after.FromMilliseconds(20)
        await old.send(drain=drain)
        await until(lambda: len(server.location.drivers) == 2)
        await send_positions(session, 2, first=2)
        await session.wait_acknowledged(5)
        statistics = session.statistics

    assert sorted(old.seqs + server.location.driver.seqs) == [1, 2, 3, 4]
    assert statistics.accepted_count == 4


async def test_everything_is_sent_when_positions_are_kept(server: ScriptedServer) -> None:
    server.location.min_interval_seconds = 30.0
    async with (
        server.client() as client,
        client.drive("bus-14", TRIP_ID, pacing=Pacing.KEEP) as session,
    ):
        await send_positions(session, 5)
        await session.wait_acknowledged(5)

        assert session.statistics.accepted_count == 5
        assert session.min_interval == timedelta(seconds=30)
