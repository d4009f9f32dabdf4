"""A scripted server on a real socket, for tests of the Python client.

Answers StreamDriver, FollowTrip, WatchSeats and some unary calls as the contract says, and
misbehaves as a test tells it: refuses, stays silent, drains, acknowledges late, rejects, ends
streams, dies.
"""

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import grpc.aio
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from tests.support.client_refusal import Refusal
from wayfare.booking.v1 import seat_map_pb2
from wayfare.identity.v1 import identity_service_pb2, session_pb2
from wayfare.location.v1 import (
    driver_stream_pb2,
    location_service_pb2,
    position_pb2,
    trip_update_pb2,
)
from wayfare_client import Backoff, ClientSettings, WayfareClient

TENANT_ID = "0198c000-0000-7000-8000-000000000001"
TRIP_ID = "0198c000-0000-7000-8000-0000000000a1"

# Short waits between attempts, and long bounds: a machine under load must not look like a dead
# server.
QUICK = ClientSettings(
    retry=Backoff(floor_seconds=0.0, first_seconds=0.01, ceiling_seconds=0.02),
    reconnect=Backoff(floor_seconds=0.01, first_seconds=0.02, ceiling_seconds=0.1),
    welcome_seconds=5.0,
    heartbeat_seconds=5.0,
    connect_seconds=5.0,
    goodbye_seconds=5.0,
)


class DriverLeg:
    """Is one StreamDriver call as the server sees it."""

    def __init__(self, context: Any, token: str) -> None:
        self.context = context
        self.token = token
        self.hello = driver_stream_pb2.DriverHello()
        self.seqs: list[int] = []
        self.said_goodbye = False
        self.is_open = True
        self._turn = asyncio.Lock()
        self._ending: asyncio.Future[Refusal | None] = asyncio.get_running_loop().create_future()

    async def send(self, **reply: Any) -> None:
        """Send a reply."""
        # A call takes one write at a time, and tests write beside the server's own
        # acknowledgements.
        async with self._turn:
            await self.context.write(driver_stream_pb2.DriverReply(**reply))

    def end(self, refusal: Refusal | None = None) -> None:
        """End the call, in good order or with a status."""
        if not self._ending.done():
            self._ending.set_result(refusal)

    async def ending(self) -> Refusal | None:
        """Wait until a test ends the call."""
        return await asyncio.shield(self._ending)


class FollowLeg(DriverLeg):
    """Is one FollowTrip call as the server sees it."""

    resume_token = ""

    async def update(self, resume_token: str = "", **update: Any) -> None:
        """Send an update."""
        await self.context.write(trip_update_pb2.TripUpdate(resume_token=resume_token, **update))


class WatchLeg(DriverLeg):
    """Is one WatchSeats call as the server sees it."""

    resume_token = ""

    async def update(self, resume_token: str = "", **update: Any) -> None:
        """Send an update."""
        await self.context.write(seat_map_pb2.SeatUpdate(resume_token=resume_token, **update))


class ScriptedLocation:
    """Answers as the contract says, unless a test says otherwise."""

    def __init__(self) -> None:
        self.refusals: deque[Refusal] = deque()
        self.valid_token = ""
        self.acknowledging = True
        self.resume_seq: int | None = None
        self.heartbeat_seconds = 5.0
        self.min_interval_seconds = 0.0
        self.reject: dict[int, str] = {}
        self.drivers: list[DriverLeg] = []
        self.followers: list[FollowLeg] = []
        self.watchers: list[WatchLeg] = []
        self.messages: list[driver_stream_pb2.DriverMessage] = []
        self.decided_seq = 0
        self.unary_calls: list[tuple[str, Any, dict[str, Any], float | None]] = []
        self.opened_count = 0

    @property
    def driver(self) -> DriverLeg:
        """Return the newest driver's call."""
        return self.drivers[-1]

    @property
    def follower(self) -> FollowLeg:
        """Return the newest follower's call."""
        return self.followers[-1]

    async def stream_driver(self, _requests: Any, context: Any) -> None:
        """Take in a driver."""
        token = await self._admit(context)
        leg = DriverLeg(context, token)
        first = await context.read()
        leg.hello = first.hello
        if not first.hello.HasField("resume_seq"):
            self.decided_seq = 0
        resume = self.decided_seq if self.resume_seq is None else self.resume_seq
        self.resume_seq = None
        for older in self.drivers:
            older.end(Refusal(code=grpc.StatusCode.ABORTED, reason="SESSION_SUPERSEDED"))
        self.drivers.append(leg)
        await leg.send(
            welcome=driver_stream_pb2.DriverWelcome(
                session_id=f"session-{len(self.drivers)}",
                min_interval=_duration(self.min_interval_seconds),
                heartbeat_interval=_duration(self.heartbeat_seconds),
                server_time=_now(),
                resume_seq=resume,
            )
        )
        await self._until_ended(leg, self._take_messages(leg))

    async def follow_trip(self, request: Any, context: Any) -> None:
        """Take in a follower; tests send the updates."""
        token = await self._admit(context)
        leg = FollowLeg(context, token)
        leg.resume_token = request.resume_token
        # The headers tell the client that the stream stands.
        await context.send_initial_metadata(())
        self.followers.append(leg)
        await self._until_ended(leg, asyncio.Event().wait())

    async def watch_seats(self, request: Any, context: Any) -> None:
        """Take in a watcher of seats; tests send the updates."""
        leg = WatchLeg(context, await self._admit(context))
        leg.resume_token = request.resume_token
        await context.send_initial_metadata(())
        self.watchers.append(leg)
        await self._until_ended(leg, asyncio.Event().wait())

    async def get_vehicle_position(self, request: Any, context: Any) -> Any:
        """Answer a read."""
        await self._record("GetVehiclePosition", request, context)
        return position_pb2.VehiclePosition(vehicle_id=request.vehicle_id)

    async def set_presence(self, request: Any, context: Any) -> Any:
        """Answer an idempotent write."""
        await self._record("SetPresence", request, context)
        return location_service_pb2.Presence(online=request.online)

    async def start_tracking(self, request: Any, context: Any) -> Any:
        """Answer an internal call."""
        await self._record("StartTracking", request, context)
        return request.trip

    async def _record(self, name: str, request: Any, context: Any) -> None:
        metadata = dict(context.invocation_metadata())
        self.unary_calls.append((name, request, metadata, context.time_remaining()))
        await self._admit(context)

    async def _admit(self, context: Any) -> str:
        self.opened_count += 1
        metadata = dict(context.invocation_metadata())
        token = str(metadata.get("authorization", "")).removeprefix("Bearer ")
        if self.valid_token and token != self.valid_token:
            await Refusal(code=grpc.StatusCode.UNAUTHENTICATED, reason="TOKEN_EXPIRED").give(
                context
            )
        if self.refusals:
            await self.refusals.popleft().give(context)
        return token

    async def _until_ended(self, leg: DriverLeg, work: Any) -> None:
        working = asyncio.ensure_future(work)
        ending = asyncio.ensure_future(leg.ending())
        try:
            await asyncio.wait({working, ending}, return_when=asyncio.FIRST_COMPLETED)
            if ending.done() and (refusal := ending.result()) is not None:
                await refusal.give(leg.context)
        finally:
            leg.is_open = False
            for task in (working, ending):
                task.cancel()
            await asyncio.gather(working, ending, return_exceptions=True)

    async def _take_messages(self, leg: DriverLeg) -> None:
        while (message := await leg.context.read()) is not grpc.aio.EOF:
            if message.HasField("goodbye"):
                leg.said_goodbye = True
                await self.acknowledge(leg)
                return
            leg.seqs.append(message.seq)
            self.messages.append(message)
            if self.acknowledging:
                await self.acknowledge(leg)

    async def acknowledge(self, leg: DriverLeg) -> None:
        """Decide everything that has arrived over a call."""
        upto = max([self.decided_seq, *leg.seqs])
        rejected = [
            driver_stream_pb2.RejectedMessage(seq=seq, reason=self.reject[seq])
            for seq in leg.seqs
            if self.decided_seq < seq and seq in self.reject
        ]
        self.decided_seq = upto
        await leg.send(ack=driver_stream_pb2.DriverAck(seq=upto, rejected=rejected))


class ScriptedIdentity:
    """Gives out sessions."""

    def __init__(self) -> None:
        self.refusals: deque[Refusal] = deque()
        self.lifetime_seconds = 900.0
        self.refreshes: list[identity_service_pb2.RefreshSessionRequest] = []
        self.log_ins: list[identity_service_pb2.LogInRequest] = []
        self.refresh_gate: asyncio.Event | None = None
        self.on_session: Callable[[str], None] = lambda _token: None

    def make_session(self) -> session_pb2.Session:
        """Make a session with a new token."""
        token = f"token-{uuid.uuid4()}"
        self.on_session(token)
        expire_time = Timestamp()
        expire_time.FromDatetime(datetime.now(UTC) + timedelta(seconds=self.lifetime_seconds))
        return session_pb2.Session(
            session_id=str(uuid.uuid4()),
            access_token=token,
            access_token_expire_time=expire_time,
            refresh_token=f"refresh-{uuid.uuid4()}",
        )

    async def log_in(self, request: Any, context: Any) -> Any:
        """Open a session."""
        self.log_ins.append(request)
        await self._refuse(context)
        return self.make_session()

    async def refresh_session(self, request: Any, context: Any) -> Any:
        """Replace the tokens."""
        self.refreshes.append(request)
        if self.refresh_gate is not None:
            await self.refresh_gate.wait()
        await self._refuse(context)
        return self.make_session()

    async def _refuse(self, context: Any) -> None:
        if self.refusals:
            await self.refusals.popleft().give(context)


class ScriptedServer:
    """Is a server that can die and come back on the same port."""

    def __init__(self) -> None:
        self.location = ScriptedLocation()
        self.identity = ScriptedIdentity()
        self.port = 0
        self._server: grpc.aio.Server | None = None

    @property
    def address(self) -> str:
        """Return where it listens."""
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen, on the same port as before."""
        # Otherwise the next test's server could get this port while this one is down.
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        location, identity = self.location, self.identity
        server.add_generic_rpc_handlers(
            [
                _handlers(
                    "wayfare.location.v1.LocationService",
                    {
                        "StreamDriver": location.stream_driver,
                        "FollowTrip": location.follow_trip,
                        "GetVehiclePosition": location.get_vehicle_position,
                        "SetPresence": location.set_presence,
                        "StartTracking": location.start_tracking,
                    },
                ),
                _handlers(
                    "wayfare.booking.v1.BookingService", {"WatchSeats": location.watch_seats}
                ),
                _handlers(
                    "wayfare.identity.v1.IdentityService",
                    {"LogIn": identity.log_in, "RefreshSession": identity.refresh_session},
                ),
            ]
        )
        self.port = server.add_insecure_port(f"127.0.0.1:{self.port}")
        await server.start()
        self._server = server

    async def die(self) -> None:
        """Drop every connection and stop listening."""
        if self._server is not None:
            await self._server.stop(0)
            self._server = None
            # Their handlers notice a little later.
            location = self.location
            for leg in (*location.drivers, *location.followers, *location.watchers):
                leg.is_open = False

    def client(self, settings: ClientSettings = QUICK, **options: Any) -> WayfareClient:
        """Make a client of this server."""
        return WayfareClient(self.address, tenant_id=TENANT_ID, settings=settings, **options)


@asynccontextmanager
async def scripted_server() -> AsyncIterator[ScriptedServer]:
    """Run a scripted server."""
    server = ScriptedServer()
    await server.start()
    try:
        yield server
    finally:
        await server.die()


def _handlers(service: str, methods: dict[str, Callable[..., Any]]) -> grpc.GenericRpcHandler:
    """Make the handlers of a service's methods, by their forms in the contract."""
    descriptor = descriptor_pool.Default().FindServiceByName(service)
    made: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for name, behavior in methods.items():
        method = descriptor.methods_by_name[name]
        make: Callable[..., grpc.RpcMethodHandler[Any, Any]] = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }[method.client_streaming, method.server_streaming]
        made[name] = make(
            behavior,
            request_deserializer=message_factory.GetMessageClass(method.input_type).FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )
    return grpc.method_handlers_generic_handler(service, made)


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=seconds))
    return duration


def _now() -> Timestamp:
    moment = Timestamp()
    moment.FromDatetime(datetime.now(UTC))
    return moment
