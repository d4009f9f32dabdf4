"""Ways to hold and watch seats that several tests share."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc

from tests.support.booking_process import BookingProcess, Metadata
from tests.support.location_values import new_id
from tests.support.waiting import until
from wayfare.booking.v1 import booking_service_pb2 as pb
from wayfare.booking.v1 import hold_pb2, seat_map_pb2, trip_pb2
from wayfare.booking.v1.booking_service_pb2_grpc import BookingServiceStub

FREE, HELD, BOOKED, BLOCKED = range(1, 5)


def hold_request(trip: trip_pb2.Trip, *seats: str, **values: Any) -> pb.HoldSeatsRequest:
    """Return a request for seats from A to D, or for the best ones."""
    selection: dict[str, Any] = (
        {} if "best_available" in values else {"seats": pb.SeatNumbers(seat_numbers=seats)}
    )
    return pb.HoldSeatsRequest(
        **{
            "trip_id": trip.trip_id,
            "from_stop_id": "A",
            "to_stop_id": "D",
            "request_id": new_id(),
            **selection,
            **values,
        }
    )


async def held(booking: BookingProcess, trip: trip_pb2.Trip, *seats: str, **values: Any) -> Any:
    """Hold seats as a new passenger; return the hold and who has it."""
    passenger = booking.passenger
    hold: hold_pb2.Hold = await booking.call(
        "HoldSeats", hold_request(trip, *seats, **values), passenger
    )
    return hold, passenger


async def release(booking: BookingProcess, hold: hold_pb2.Hold, passenger: Metadata) -> None:
    """Release a hold."""
    request = pb.ReleaseHoldRequest(hold_id=hold.hold_id, request_id=new_id())
    await booking.call("ReleaseHold", request, passenger)


class Watching:
    """Is a client of WatchSeats that keeps what it got and what it makes of it."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self.updates: list[seat_map_pb2.SeatUpdate] = []
        self.states: dict[str, int] = {}
        self.token = ""
        self.error: grpc.aio.AioRpcError | None = None
        self.over = False

    async def run(self) -> None:
        try:
            async for update in self._call:
                self._take(update)
        except grpc.aio.AioRpcError as error:
            self.error = error
        except asyncio.CancelledError:
            pass
        self.over = True

    def _take(self, update: seat_map_pb2.SeatUpdate) -> None:
        self.updates.append(update)
        self.token = update.resume_token or self.token
        if update.HasField("snapshot"):
            self.states = {one.seat_number: one.state for one in update.snapshot.seats}
        if update.HasField("changes"):
            for one in update.changes.seats:
                assert self.states.get(one.seat_number) != one.state, "a change is told twice"
                self.states[one.seat_number] = one.state
            if len(self.states) > 1:
                free = sum(state == FREE for state in self.states.values())
                assert free == update.changes.free_seat_count, "a change is missing"

    @property
    def changes(self) -> list[seat_map_pb2.SeatChanges]:
        return [one.changes for one in self.updates if one.HasField("changes")]

    @property
    def snapshots(self) -> list[seat_map_pb2.SeatMap]:
        return [one.snapshot for one in self.updates if one.HasField("snapshot")]

    async def sees(self, condition: Callable[["Watching"], bool], **values: Any) -> None:
        await until(lambda: condition(self) or self.over, **values)
        assert condition(self), self.error

    def cancel(self) -> None:
        self._call.cancel()


@asynccontextmanager
async def watching(
    booking: BookingProcess, trip: trip_pb2.Trip, metadata: Metadata | None = None, **values: Any
) -> AsyncIterator[Watching]:
    """Watch the seats of a trip until the block ends."""
    stub = BookingServiceStub(booking.channel)
    states: dict[str, int] = values.pop("states", {})
    call = stub.WatchSeats(
        pb.WatchSeatsRequest(trip_id=trip.trip_id, **values),
        metadata=metadata or booking.passenger,
    )
    watcher = Watching(call)
    watcher.states = dict(states)
    task = asyncio.create_task(watcher.run())
    try:
        yield watcher
    finally:
        watcher.cancel()
        await task
