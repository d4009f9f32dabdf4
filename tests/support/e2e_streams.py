"""One driver's stream and one follower's stream on the bare wire, for tests of what servers say.

Tests of reconnecting use the Python client instead.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc.aio

from tests.support.e2e_edge import Edge, Refusal, Trip, bearer, now, refusal_of
from tests.support.waiting import until
from wayfare.location.v1 import driver_stream_pb2, location_service_pb2, trip_pb2, trip_update_pb2
from wayfare.location.v1.location_service_pb2_grpc import LocationServiceStub
from wayfare_client import make_position

STREAM_DRIVER = "/wayfare.location.v1.LocationService/StreamDriver"
DriverMessage = driver_stream_pb2.DriverMessage
DriverReply = driver_stream_pb2.DriverReply

LATITUDE, LONGITUDE = 53.4084, -2.9916
# Far enough from the step before to be told from it, near enough to be plausible.
STEP_DEGREES = 0.0001


def hello_for(trip: Trip, **fields: Any) -> bytes:
    """Return the hello of the trip's driver."""
    hello = driver_stream_pb2.DriverHello(
        vehicle_id=trip.vehicle_id, trip_id=trip.trip_id, **fields
    )
    return DriverMessage(hello=hello).SerializeToString()


def position_message(seq: int, *, step: int = 0) -> bytes:
    """Return a position captured now, so many steps north of where all tests begin."""
    position = make_position(LATITUDE + step * STEP_DEGREES, LONGITUDE, capture_time=now())
    return DriverMessage(seq=seq, position=position).SerializeToString()


def status_message(seq: int, status: trip_pb2.TripStatus.ValueType) -> bytes:
    """Return a status that became true now."""
    message = DriverMessage(seq=seq)
    message.status.status = status
    message.status.capture_time.FromDatetime(now())
    return message.SerializeToString()


class _BareStream:
    """A stream of which everything is kept that the server says."""

    call: Any
    _reading: "asyncio.Task[None]"

    def heard(self) -> object:
        """Return what the server said so far."""
        raise NotImplementedError

    async def until(self, condition: Callable[[], object], *, seconds: float = 10.0) -> None:
        """Wait for a condition; a stream that ends before it fails the test with its end."""
        await until(lambda: condition() or self._reading.done(), seconds=seconds)
        assert condition(), (await refusal_of(self.call), self.heard())

    async def end(self) -> Refusal:
        """Wait until the server ended the stream, and say how."""
        async with asyncio.timeout(15):
            await self._reading
            return await refusal_of(self.call)

    async def close(self) -> None:
        """Drop the stream."""
        self.call.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)


class BareDriver(_BareStream):
    """A driver's stream that writes bytes as they are and keeps every reply."""

    def __init__(self, channel: grpc.aio.Channel, token: str, *, instance: str = "") -> None:
        """Open the stream; nothing is said yet."""
        multi: Any = channel.stream_stream(
            STREAM_DRIVER,
            request_serializer=None,
            response_deserializer=DriverReply.FromString,
        )
        self.call: Any = multi(metadata=bearer(token, instance=instance))
        self.replies: list[driver_stream_pb2.DriverReply] = []
        self._reading = asyncio.create_task(self._read())

    async def write(self, data: bytes) -> None:
        """Write one message."""
        await self.call.write(data)

    async def welcome(self) -> driver_stream_pb2.DriverWelcome:
        """Wait for the first reply, which is welcome."""
        await self.until(lambda: self.replies)
        assert self.replies[0].HasField("welcome"), self.replies[0]
        return self.replies[0].welcome

    def heard(self) -> object:
        """Return the replies."""
        return self.replies

    def acknowledged_seq(self) -> int:
        """Return the high-water mark that the driver was told."""
        return max([reply.ack.seq for reply in self.replies if reply.HasField("ack")], default=0)

    def rejected(self) -> dict[int, str]:
        """Return the reasons of what was refused, by number."""
        return {
            refused.seq: refused.reason for reply in self.replies for refused in reply.ack.rejected
        }

    async def _read(self) -> None:
        with suppress(grpc.aio.AioRpcError):
            async for reply in self.call:
                self.replies.append(reply)


class BareFollower(_BareStream):
    """A follower's stream that keeps every update."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        trip_id: str,
        token: str,
        *,
        instance: str = "",
        resume_token: str = "",
    ) -> None:
        """Open the stream."""
        self.call: Any = LocationServiceStub(channel).FollowTrip(
            location_service_pb2.FollowTripRequest(trip_id=trip_id, resume_token=resume_token),
            metadata=bearer(token, instance=instance),
        )
        self.updates: list[trip_update_pb2.TripUpdate] = []
        self._reading = asyncio.create_task(self._read())

    async def snapshot(self) -> trip_update_pb2.TripSnapshot:
        """Wait for the first update, which is the snapshot."""
        await self.until(lambda: self.updates)
        assert self.updates[0].HasField("snapshot"), self.updates[0]
        return self.updates[0].snapshot

    def heard(self) -> object:
        """Return the updates."""
        return self.updates

    def steps(self) -> list[int]:
        """Return how far north each position was, in steps, the snapshot's too."""
        found = [update.position for update in self.updates if update.HasField("position")]
        found += [
            update.snapshot.position
            for update in self.updates
            if update.snapshot.HasField("position")
        ]
        return [step_of(position.location.latitude) for position in found]

    def statuses(self) -> list[int]:
        """Return the statuses in the order in which they came."""
        return [update.status.status for update in self.updates if update.HasField("status")]

    async def _read(self) -> None:
        with suppress(grpc.aio.AioRpcError):
            async for update in self.call:
                self.updates.append(update)


def step_of(latitude: float) -> int:
    """Return how many steps a latitude is from where all tests begin."""
    return round((latitude - LATITUDE) / STEP_DEGREES)


@asynccontextmanager
async def bare_driver(edge: Edge, token: str, *, instance: str = "") -> AsyncIterator[BareDriver]:
    """Open a driver's stream on a connection of its own."""
    async with edge.channel() as channel:
        driver = BareDriver(channel, token, instance=instance)
        try:
            yield driver
        finally:
            await driver.close()


@asynccontextmanager
async def bare_follower(
    edge: Edge, trip: Trip, *, token: str = "", instance: str = ""
) -> AsyncIterator[BareFollower]:
    """Open a follower's stream on a connection of its own, by default the passenger's."""
    async with edge.channel() as channel:
        follower = BareFollower(
            channel, trip.trip_id, token or trip.passenger_token, instance=instance
        )
        try:
            yield follower
        finally:
            await follower.close()


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator["asyncio.Task[None]"]:
    """Run work beside a test; it is cancelled at the end, and what it raised is raised."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
