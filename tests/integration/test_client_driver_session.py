"""The driver session of the Python client against a scripted server on a real socket."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.client_server import QUICK, TRIP_ID, ScriptedServer, scripted_server
from tests.support.waiting import until
from wayfare.location.v1 import driver_stream_pb2, trip_pb2
from wayfare_client import DriverListener, DriverSession, Pacing, UnacknowledgedError

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


async def test_the_newest_position_is_sent_when_the_interval_is_over(
    server: ScriptedServer,
) -> None:
    server.location.min_interval_seconds = 1.1
    async with server.client() as client, client.drive("bus-14", TRIP_ID) as session:
        for tenths in (0, 8, 9):
            await session.send_position(
                53.4, -2.9, capture_time=START + timedelta(seconds=tenths / 10)
            )
        await until(lambda: len(server.location.messages) == 2)
        statistics = session.statistics

    newest = server.location.messages[-1].position.capture_time
    assert newest.ToDatetime(UTC) == START + timedelta(seconds=0.9)
    assert statistics.conflated_count == 1


async def test_throttles_refusals_and_assignments_reach_the_app(server: ScriptedServer) -> None:
    heard: list[str] = []
    listener = DriverListener(
        on_rejected=lambda refusal: heard.append(refusal.reason),
        on_assignment=lambda assignment: heard.append(assignment.trip.trip_id),
        on_throttle=lambda throttle: heard.append(throttle.reason),
    )
    server.location.reject = {2: "POSITION_IMPLAUSIBLE"}
    async with (
        server.client() as client,
        client.drive("bus-14", TRIP_ID, listener=listener) as session,
    ):
        throttle = driver_stream_pb2.DriverThrottle(reason="OVERLOADED", degraded=True)
        throttle.min_interval.FromSeconds(10)
        await server.location.driver.send(throttle=throttle)
        assignment = driver_stream_pb2.DriverAssignment()
        assignment.trip.trip_id = TRIP_ID
        await server.location.driver.send(assignment=assignment)
        await until(lambda: len(heard) == 2)
        for number in range(3):
            await session.send_position(
                53.4, -2.9, capture_time=START + timedelta(seconds=10 * number)
            )
        await session.wait_acknowledged(5)
        await until(lambda: len(heard) == 3)

        assert session.min_interval == timedelta(seconds=10)
        assert (session.throttle_reason, session.degraded) == ("OVERLOADED", True)
        assert session.statistics.accepted_count == 2
        assert session.statistics.rejected_counts == {"POSITION_IMPLAUSIBLE": 1}
    assert heard == ["OVERLOADED", TRIP_ID, "POSITION_IMPLAUSIBLE"]


async def test_two_silent_heartbeats_bring_a_new_stream(server: ScriptedServer) -> None:
    server.location.heartbeat_seconds = 0.1
    async with server.client() as client, client.drive("bus-14", TRIP_ID) as session:
        silent = server.location.driver
        await until(lambda: len(server.location.drivers) == 2)
        await session.send_boarding(1)
        await session.wait_acknowledged(5)

    assert silent.said_goodbye is False


async def test_heartbeats_keep_a_quiet_stream(server: ScriptedServer) -> None:
    server.location.heartbeat_seconds = 0.5
    async with server.client() as client, client.drive("bus-14", TRIP_ID) as session:
        for _ in range(24):
            await server.location.driver.send(heartbeat=driver_stream_pb2.DriverHeartbeat())
            await asyncio.sleep(0.05)

        assert session.statistics.reconnect_count == 0


async def test_a_session_begins_offline_and_sends_when_it_can(server: ScriptedServer) -> None:
    await server.die()
    settings = replace(QUICK, connect_seconds=0.05)
    async with server.client(settings) as client, client.drive("bus-14", TRIP_ID) as session:
        was_connected = session.connected
        await session.send_status(trip_pb2.TRIP_STATUS_STARTED)
        await server.start()
        await session.wait_acknowledged(10)

    assert not was_connected
    assert not server.location.driver.hello.HasField("resume_seq")


async def test_leaving_with_undecided_messages_says_how_many(server: ScriptedServer) -> None:
    settings = replace(QUICK, connect_seconds=0.05, goodbye_seconds=0.05)
    await server.die()
    async with server.client(settings) as client:
        with pytest.raises(UnacknowledgedError) as caught:
            async with client.drive("bus-14", TRIP_ID) as session:
                await session.send_status(trip_pb2.TRIP_STATUS_ENDED)

    assert caught.value.pending_count == 1


async def test_leaving_waits_for_late_acknowledgements(server: ScriptedServer) -> None:
    server.location.acknowledging = False
    async with server.client() as client, client.drive("bus-14", TRIP_ID) as session:
        await send_positions(session, 5)

    assert session.statistics.accepted_count == 5
    assert session.statistics.pending_count == 0


async def test_reports_wait_for_room_and_none_is_dropped(server: ScriptedServer) -> None:
    settings = replace(QUICK, max_unacknowledged=3)
    server.location.acknowledging = False
    async with server.client(settings) as client, client.drive("bus-14", TRIP_ID) as session:
        for count in range(3):
            await session.send_boarding(count)
        waiting = [asyncio.create_task(session.send_boarding(3 + extra)) for extra in range(3)]
        await until(lambda: len(server.location.messages) == 3)
        had_room = any(task.done() for task in waiting)
        server.location.acknowledging = True
        await server.location.acknowledge(server.location.driver)
        await asyncio.gather(*waiting)
        await session.wait_acknowledged(5)

    counts = [message.boarding.boarded_count for message in server.location.messages]
    assert not had_room
    assert counts == [0, 1, 2, 3, 4, 5]


async def test_a_long_time_offline_thins_positions_and_keeps_every_status(
    server: ScriptedServer,
) -> None:
    await server.die()
    settings = replace(QUICK, connect_seconds=0.05, max_unacknowledged=5)
    async with server.client(settings) as client, client.drive("bus-14", TRIP_ID) as session:
        await session.send_status(trip_pb2.TRIP_STATUS_STARTED)
        await send_positions(session, 10)
        await session.send_status(trip_pb2.TRIP_STATUS_ENDED)
        await server.start()
        await session.wait_acknowledged(10)
        statistics = session.statistics

    assert server.location.driver.seqs == [1, 9, 10, 11, 12]
    assert (statistics.thinned_count, statistics.accepted_count) == (7, 5)


async def test_numbers_of_another_phone_are_not_taken_for_acknowledgements(
    server: ScriptedServer,
) -> None:
    async with server.client() as client, client.drive("bus-14", TRIP_ID) as session:
        server.location.resume_seq = 500
        server.location.driver.end()
        await until(lambda: len(server.location.drivers) == 3)
        await session.send_boarding(1)
        await session.wait_acknowledged(5)

    assert not server.location.driver.hello.HasField("resume_seq")
    assert server.location.driver.seqs == [1]


async def test_nothing_is_lost_or_reordered_while_servers_die_and_drain(
    server: ScriptedServer,
) -> None:
    async with server.client() as client, client.drive("bus-14", TRIP_ID) as session:
        for number in range(300):
            await session.send_boarding(number)
            if number in {80, 160}:
                await server.die()
                await server.start()
            if number in {40, 120, 200}:
                await until(lambda: server.location.driver.is_open)
                await server.location.driver.send(
                    drain=driver_stream_pb2.DriverDrain(reason="SERVER_DRAINING")
                )
            await asyncio.sleep(0)
        await session.wait_acknowledged(20)

        assert session.statistics.accepted_count == 300
    decided = list(dict.fromkeys(message.seq for message in server.location.messages))
    assert decided == list(range(1, 301))


async def test_a_defect_in_a_callback_does_not_end_the_session(server: ScriptedServer) -> None:
    loop = asyncio.get_running_loop()
    defects: list[object] = []
    loop.set_exception_handler(lambda _loop, context: defects.append(context["exception"]))
    try:
        listener = DriverListener(on_throttle=lambda _throttle: 1 / 0)
        async with (
            server.client() as client,
            client.drive("bus-14", TRIP_ID, listener=listener) as session,
        ):
            await server.location.driver.send(throttle=driver_stream_pb2.DriverThrottle())
            await until(lambda: defects)
            await session.send_boarding(1)
            await session.wait_acknowledged(5)
    finally:
        loop.set_exception_handler(None)

    assert isinstance(defects[0], ZeroDivisionError)
