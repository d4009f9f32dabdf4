"""LocationService in the test's own process, wired as in production, on a Unix socket."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message
from pydantic import SecretStr

from services.location import convert
from services.location.app import wire
from services.location.domain.trips import TrackedTrip
from services.location.settings import LocationSettings
from services.shared.clock import SystemClock
from services.shared.rpc.authentication import ApiKeyGrant, TokenInvalidError
from services.shared.rpc.process import serve
from services.shared.rpc.server import RpcServer
from tests.support.identity_process import Refusal, refusal_of
from tests.support.location_tokens import TokenMint
from tests.support.location_values import TENANT, a_position, a_trip, new_id
from tests.support.waiting import until
from wayfare.location.v1 import driver_stream_pb2, location_service_pb2, trip_update_pb2
from wayfare.location.v1.location_service_pb2_grpc import LocationServiceStub

Metadata = Sequence[tuple[str, str]]
DriverMessage = driver_stream_pb2.DriverMessage
DriverReply = driver_stream_pb2.DriverReply
TripUpdate = trip_update_pb2.TripUpdate
_SERVICE = "/wayfare.location.v1.LocationService/"
BOOKING: Metadata = (("x-forwarded-client-cert", "By=x;URI=spiffe://wayfare/booking"),)
GOOD_API_KEY = "wfk_good"


class OneApiKey:
    """Knows one API key."""

    async def verify(self, api_key: str) -> ApiKeyGrant:
        if api_key != GOOD_API_KEY:
            raise TokenInvalidError("the API key is unknown or revoked")
        return ApiKeyGrant(key_id="key-1", tenant_id=TENANT, requests_per_minute=1000)


@dataclass
class DriverStream:
    """One open StreamDriver, in bytes, so that a test can send anything."""

    call: Any

    async def send(self, message: Message | bytes) -> None:
        data = message if isinstance(message, bytes) else message.SerializeToString()
        await self.call.write(data)

    async def position(self, seq: int, capture_milliseconds: int, **values: float) -> None:
        position = a_position(capture_milliseconds, **values)
        await self.send(DriverMessage(seq=seq, position=position))

    async def next(self) -> DriverReply:
        """Return the next reply that is not a heartbeat."""
        async with asyncio.timeout(15):
            while True:
                data = await self.call.read()
                assert data != grpc.aio.EOF, "the stream ended in good order"
                reply = DriverReply.FromString(data)
                if not reply.HasField("heartbeat"):
                    return reply

    async def acknowledged(self, seq: int) -> list[tuple[int, str]]:
        """Wait until everything up to `seq` is decided; return what was refused."""
        refused: list[tuple[int, str]] = []
        while True:
            reply = await self.next()
            if reply.HasField("ack"):
                refused += [(one.seq, one.reason) for one in reply.ack.rejected]
                if reply.ack.seq >= seq:
                    return refused

    async def refusal(self) -> Refusal:
        """Read until the stream ends with an error and return it."""
        return await _refusal_of_stream(self.call)


@dataclass
class FollowStream:
    """One open FollowTrip."""

    call: Any

    async def next(self, *, heartbeats: bool = False) -> TripUpdate:
        """Return the next update; leaves heartbeats out unless they are asked for."""
        async with asyncio.timeout(15):
            while True:
                update = await self.call.read()
                assert update != grpc.aio.EOF, "the stream ended in good order"
                if heartbeats or not update.HasField("heartbeat"):
                    return TripUpdate.FromString(update.SerializeToString())

    async def rest(self) -> list[TripUpdate]:
        """Read until the stream ends with OK."""
        updates = []
        async with asyncio.timeout(15):
            while (update := await self.call.read()) != grpc.aio.EOF:
                if not update.HasField("heartbeat"):
                    updates.append(update)
        return updates

    async def refusal(self) -> Refusal:
        return await _refusal_of_stream(self.call)


async def _refusal_of_stream(call: Any) -> Refusal:
    async with asyncio.timeout(15):
        try:
            while await call.read() != grpc.aio.EOF:
                pass
        except grpc.aio.AioRpcError as error:
            return refusal_of(error)
    raise AssertionError("the stream ended in good order")


@dataclass
class LocationProcess:
    """A running service and ways to call it."""

    rpc: RpcServer
    settings: LocationSettings
    channel: grpc.aio.Channel
    mint: TokenMint
    trip: TrackedTrip

    def bearer(self, role: str, user_id: str = "", **values: Any) -> Metadata:
        token = self.mint.token(role, user_id=user_id, **values)
        return (("authorization", f"Bearer {token}"), ("x-forwarded-for", "10.0.0.1"))

    def driver(self, **values: Any) -> Metadata:
        return self.bearer("DRIVER", self.trip.driver_id, **values)

    def follower(self, **values: Any) -> Metadata:
        return self.bearer("PASSENGER", next(iter(self.trip.follower_ids)), **values)

    async def call(self, method: str, request: Message, metadata: Metadata) -> Any:
        stub = LocationServiceStub(self.channel)
        return await getattr(stub, method)(request, metadata=metadata, timeout=15)

    async def refused(self, method: str, request: Message, metadata: Metadata) -> Refusal:
        try:
            answer = await self.call(method, request, metadata)
        except grpc.aio.AioRpcError as error:
            return refusal_of(error)
        raise AssertionError(f"{method} was not refused but answered {answer}")

    async def track(self, trip: TrackedTrip | None = None, request_id: str = "") -> Any:
        request = location_service_pb2.StartTrackingRequest(
            trip=convert.trip_to_proto(trip or self.trip), request_id=request_id or new_id()
        )
        return await self.call("StartTracking", request, BOOKING)

    async def untrack(self) -> Any:
        request = location_service_pb2.StopTrackingRequest(
            trip_id=self.trip.trip_id, tenant_id=self.trip.tenant_id, request_id=new_id()
        )
        return await self.call("StopTracking", request, BOOKING)

    def open_drive(self, metadata: Metadata | None = None) -> DriverStream:
        """Open a stream that has not said hello yet."""
        method: Any = self.channel.stream_stream(f"{_SERVICE}StreamDriver")
        return DriverStream(method(metadata=metadata or self.driver()))

    async def drive(
        self,
        *,
        metadata: Metadata | None = None,
        resume_seq: int | None = None,
        trip_id: str | None = None,
    ) -> DriverStream:
        """Open a stream and say hello for the trip; its welcome has been read."""
        stream = self.open_drive(metadata)
        hello = driver_stream_pb2.DriverHello(
            vehicle_id=self.trip.vehicle_id,
            trip_id=self.trip.trip_id if trip_id is None else trip_id,
            resume_seq=resume_seq,
        )
        await stream.send(DriverMessage(hello=hello))
        assert (await stream.next()).HasField("welcome")
        return stream

    def follow(self, *, metadata: Metadata | None = None, resume_token: str = "") -> FollowStream:
        request = location_service_pb2.FollowTripRequest(
            trip_id=self.trip.trip_id, resume_token=resume_token
        )
        stub: Any = LocationServiceStub(self.channel)
        return FollowStream(stub.FollowTrip(request, metadata=metadata or self.follower()))


@asynccontextmanager
async def running_location(
    folder: Path,
    *,
    dsn: str,
    valkey_url: str,
    mint: TokenMint,
    trip: TrackedTrip | None = None,
    **values: Any,
) -> AsyncIterator[LocationProcess]:
    """Run the service until the block ends; it serves when the block begins."""
    jwks = folder / f"{uuid.uuid4().hex[:8]}.json"
    mint.write_jwks(jwks)
    settings = LocationSettings(
        **{
            "listen": f"unix:{folder}/{uuid.uuid4().hex[:8]}.sock",
            "database_url": SecretStr(dsn),
            "valkey_url": SecretStr(valkey_url),
            "jwks_file": jwks,
            "drain_seconds": 2.0,
            "location_ack_seconds": 0.2,
            **values,
        }
    )
    async with AsyncExitStack() as stack:
        rpc, background = await wire(stack, settings, clock=SystemClock(), api_keys=OneApiKey())
        stop = asyncio.Event()
        serving = asyncio.create_task(serve(rpc, background, stop))
        channel = grpc.aio.insecure_channel(settings.listen)
        try:
            await until(lambda: serving.done() or len(rpc.monitor.answers) == 2)
            yield LocationProcess(rpc, settings, channel, mint, trip or a_trip())
        finally:
            await channel.close()
            stop.set()
            await serving
