"""The seat watcher of the Python client against a scripted server on a real socket."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from tests.support.client_refusal import Refusal
from tests.support.client_server import TRIP_ID, ScriptedServer, WatchLeg, scripted_server
from tests.support.waiting import until
from wayfare.booking.v1 import seat_map_pb2
from wayfare_client import SeatWatcher, WayfareError, reasons

FREE, HELD, BOOKED = (
    seat_map_pb2.SEAT_STATE_FREE,
    seat_map_pb2.SEAT_STATE_HELD,
    seat_map_pb2.SEAT_STATE_BOOKED,
)
Updates = asyncio.Queue[seat_map_pb2.SeatUpdate]


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as running:
        yield running


def snapshot(version: int, *, gap: bool = False, **states: Any) -> seat_map_pb2.SeatMap:
    return seat_map_pb2.SeatMap(
        trip_id=TRIP_ID,
        seat_version=version,
        seats=[
            seat_map_pb2.SeatAvailability(seat_number=number[1:], state=state)
            for number, state in states.items()
        ],
        free_seat_count=sum(state == FREE for state in states.values()),
        gap=gap,
    )


def changes(version: int, free_seat_count: int, **states: Any) -> seat_map_pb2.SeatChanges:
    return seat_map_pb2.SeatChanges(
        seat_version=version,
        seats=[
            seat_map_pb2.SeatChange(seat_number=number[1:], state=state)
            for number, state in states.items()
        ],
        free_seat_count=free_seat_count,
    )


async def collect(watcher: SeatWatcher, updates: Updates) -> None:
    async for update in watcher:
        updates.put_nowait(update)


async def watcher_number(server: ScriptedServer, number: int) -> WatchLeg:
    await until(lambda: len(server.location.watchers) >= number)
    return server.location.watchers[number - 1]


async def next_of(updates: Updates) -> seat_map_pb2.SeatUpdate:
    async with asyncio.timeout(10):
        return await updates.get()


async def test_states_are_what_snapshot_and_changes_add_up_to(server: ScriptedServer) -> None:
    updates: Updates = asyncio.Queue()
    async with server.client() as client:
        watcher = client.watch_seats(TRIP_ID)
        watching = asyncio.create_task(collect(watcher, updates))
        leg = await watcher_number(server, 1)
        await leg.update("5", snapshot=snapshot(5, s1A=FREE, s1B=FREE))
        await leg.update("6", changes=changes(6, 1, s1A=HELD))
        await leg.update("9", changes=changes(9, 0, s1A=BOOKED, s1B=HELD))
        leg.end()
        async with asyncio.timeout(10):
            await watching

    kinds = [updates.get_nowait().WhichOneof("update") for _ in range(updates.qsize())]
    assert kinds == ["snapshot", "changes", "changes"]
    assert watcher.states == {"1A": BOOKED, "1B": HELD}
    assert (watcher.free_seat_count, watcher.seat_version, watcher.gap_count) == (0, 9, 0)


@pytest.mark.parametrize(
    "ending",
    [
        Refusal(code=grpc.StatusCode.UNAVAILABLE, reason="SERVER_DRAINING"),
        Refusal(code=grpc.StatusCode.INTERNAL),
    ],
)
async def test_a_lost_stream_goes_on_and_tells_no_change_twice(
    server: ScriptedServer, ending: Refusal
) -> None:
    updates: Updates = asyncio.Queue()
    async with server.client() as client, client.watch_seats(TRIP_ID) as watcher:
        watching = asyncio.create_task(collect(watcher, updates))
        leg = await watcher_number(server, 1)
        await leg.update("5", snapshot=snapshot(5, s1A=FREE, s1B=FREE))
        await leg.update("6", changes=changes(6, 1, s1A=HELD))
        await next_of(updates)
        await next_of(updates)
        leg.end(ending)
        leg = await watcher_number(server, 2)
        # What is known already changes nothing, and is not told.
        await leg.update("6", changes=changes(6, 1, s1A=HELD))
        await leg.update("7", changes=changes(7, 2, s1A=FREE))

        assert (await next_of(updates)).changes.seat_version == 7
        assert leg.resume_token == "6"
        assert watcher.states == {"1A": FREE, "1B": FREE}
        assert watcher.reconnect_count == 1
        watching.cancel()


async def test_a_draining_server_is_left_with_the_resume_token(server: ScriptedServer) -> None:
    updates: Updates = asyncio.Queue()
    async with server.client() as client, client.watch_seats(TRIP_ID) as watcher:
        watching = asyncio.create_task(collect(watcher, updates))
        leg = await watcher_number(server, 1)
        await leg.update("5", snapshot=snapshot(5, s1A=FREE))
        drain = seat_map_pb2.SeatDrain(reason="SERVER_DRAINING")
        drain.reconnect_after.FromMilliseconds(50)
        await leg.update(drain=drain)
        await leg.update("6", changes=changes(6, 0, s1A=HELD))
        second = await watcher_number(server, 2)
        await second.update("8", snapshot=snapshot(8, gap=True, s1A=BOOKED))

        kinds = [(await next_of(updates)).WhichOneof("update") for _ in range(3)]
        assert kinds == ["snapshot", "changes", "snapshot"]
        assert second.resume_token == "6"
        assert (watcher.gap_count, watcher.states) == (1, {"1A": BOOKED})
        watching.cancel()


@pytest.mark.parametrize(
    ("reason", "error_class"),
    [
        ("TRIP_CANCELLED", reasons.TripCancelledError),
        ("TRIP_DEPARTED", reasons.TripDepartedError),
    ],
)
async def test_a_trip_that_cannot_be_watched_is_an_error(
    server: ScriptedServer, reason: str, error_class: type[WayfareError]
) -> None:
    server.location.refusals.append(
        Refusal(code=grpc.StatusCode.FAILED_PRECONDITION, reason=reason)
    )
    async with server.client() as client:
        with pytest.raises(error_class):
            await anext(client.watch_seats(TRIP_ID))

    assert server.location.opened_count == 1


async def test_a_vehicle_that_left_while_the_watcher_was_away_ends_the_iteration(
    server: ScriptedServer,
) -> None:
    updates: Updates = asyncio.Queue()
    async with server.client() as client:
        watching = asyncio.create_task(collect(client.watch_seats(TRIP_ID), updates))
        leg = await watcher_number(server, 1)
        await leg.update("1", snapshot=snapshot(1, s1A=FREE))
        await next_of(updates)
        server.location.refusals.append(
            Refusal(code=grpc.StatusCode.FAILED_PRECONDITION, reason="TRIP_DEPARTED")
        )
        leg.end(Refusal(code=grpc.StatusCode.UNAVAILABLE))

        async with asyncio.timeout(10):
            await watching
