"""The Python client's watcher of seats, through an Envoy that is killed while seats change."""

import asyncio
import uuid

import grpc.aio
import pytest

from tests.support.e2e_edge import Edge, bearer
from tests.support.e2e_seats import SoldTrip, hold, sell_trip
from tests.support.waiting import until
from wayfare.booking.v1 import booking_service_pb2 as pb
from wayfare.booking.v1 import seat_map_pb2
from wayfare.booking.v1.booking_service_pb2_grpc import BookingServiceStub
from wayfare_client import SeatWatcher

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

HELD = seat_map_pb2.SEAT_STATE_HELD


async def hold_behind_envoy(edge: Edge, trip: SoldTrip, seat_number: str) -> None:
    """Hold a seat straight at a process of BookingService."""
    address = edge.stack.services["booking-1"].listen
    async with grpc.aio.insecure_channel(address) as channel:
        await BookingServiceStub(channel).HoldSeats(
            pb.HoldSeatsRequest(
                trip_id=trip.trip_id,
                from_stop_id=trip.from_stop_id,
                to_stop_id=trip.to_stop_id,
                seats=pb.SeatNumbers(seat_numbers=[seat_number]),
                request_id=str(uuid.uuid4()),
            ),
            metadata=bearer(edge.mint.token("PASSENGER", sub=str(uuid.uuid4()))),
            timeout=10,
        )


async def test_every_change_is_seen_once_over_a_killed_envoy(private_edge: Edge) -> None:
    edge = private_edge
    trip = await sell_trip(edge)
    updates: list[seat_map_pb2.SeatUpdate] = []

    async def watch(watcher: SeatWatcher) -> None:
        async for update in watcher:
            updates.append(update)  # noqa: PERF401 - looked at while it grows

    async with edge.client(edge.mint.token("PASSENGER")) as client:
        async with client.watch_seats(trip.trip_id) as watcher:
            watching = asyncio.create_task(watch(watcher))
            await until(lambda: updates)
            await hold(edge, trip, "1A")
            await until(lambda: watcher.states["1A"] == HELD)

            await edge.stack.envoy.kill()
            for number in ("1B", "1C", "1D"):
                await hold_behind_envoy(edge, trip, number)
            await edge.stack.envoy.start()
            await until(lambda: watcher.states["1D"] == HELD, seconds=30)
            # A connection of its own: that of the watcher's client is back.
            await edge.stack.envoy.wait_healthy()
            await hold(edge, trip, "2A")
            await until(lambda: watcher.states["2A"] == HELD)
            watching.cancel()

        told = [seat.seat_number for update in updates for seat in update.changes.seats]
        now = await client.booking.GetSeatMap(pb.GetSeatMapRequest(trip_id=trip.trip_id))

    assert told == ["1A", "1B", "1C", "1D", "2A"]
    assert [update.WhichOneof("update") for update in updates].count("snapshot") == 1
    assert (watcher.gap_count, watcher.reconnect_count >= 1) == (0, True)
    assert watcher.states == {seat.seat_number: seat.state for seat in now.seats}
    assert watcher.free_seat_count == now.free_seat_count
