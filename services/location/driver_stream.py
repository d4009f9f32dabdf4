"""Is the RPC side of StreamDriver: opens a session and writes replies.

What the driver sends is taken by driver_messages.py.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc

from services.location import convert
from services.location.domain.positions import PositionGate, PositionRules
from services.location.domain.trips import TripStatus
from services.location.driver_messages import DriverMessages
from services.location.errors import (
    DrainedError,
    HelloExpectedFirstError,
    HelloTimeoutError,
    TripNotTrackedError,
)
from services.location.operations.batcher import UpdateBatcher
from services.location.operations.driver_session import Drain as DrainNotice
from services.location.operations.driver_session import (
    DriverSession,
    Throttle,
)
from services.location.operations.ring import Ring
from services.location.operations.tracking import Tracking
from services.location.ports.live import LiveStore, Publisher, SessionGrant
from services.location.settings import LocationSettings
from services.shared.clock import Clock
from services.shared.ids import Uuid7Source
from services.shared.rpc.caller import Caller, current_caller
from services.shared.rpc.validation import read_message
from wayfare.location.v1 import driver_stream_pb2

_LEAVE_SECONDS = 10.0
DriverMessage = driver_stream_pb2.DriverMessage


@dataclass(slots=True)
class DriverStreams:
    """Serves every StreamDriver of this process."""

    live: LiveStore
    tracking: Tracking
    batcher: UpdateBatcher
    clock: Clock
    settings: LocationSettings
    random: Callable[[], float]
    heartbeats: Ring[DriverSession]
    acknowledgements: Ring[DriverSession]
    ids: Uuid7Source
    on_refused: Callable[[str], None] = lambda _: None

    async def serve(self, context: Any) -> None:
        """Take messages and write replies until one side ends the stream."""
        caller = current_caller()
        hello = await self._read_hello(context)
        session, grant, expected_count = await self._begin(caller, hello)
        await context.write(self._welcome(grant))
        self.heartbeats.add(session)
        self.acknowledgements.add(session)
        if self.batcher.degraded:
            session.throttle(Throttle(reason="DEPENDENCY_UNAVAILABLE", degraded=True))
        incoming = DriverMessages(
            session,
            context,
            expected_count,
            batcher=self.batcher,
            clock=self.clock,
            settings=self.settings,
            ids=self.ids,
        )
        incoming.begin()
        try:
            await self._write_all(session, incoming, context)
        finally:
            self.heartbeats.discard(session)
            self.acknowledgements.discard(session)
            await incoming.close()

    async def _read_hello(self, context: Any) -> driver_stream_pb2.DriverHello:
        seconds = self.settings.location_hello_seconds
        try:
            async with asyncio.timeout(seconds):
                data = await context.read()
        except TimeoutError:
            raise HelloTimeoutError(seconds) from None
        if data is grpc.aio.EOF:
            raise HelloExpectedFirstError("the stream ended before hello")
        message = read_message(data, DriverMessage, max_bytes=self.settings.message_bytes_max)
        if not message.HasField("hello"):
            raise HelloExpectedFirstError("the first message must be hello")
        return message.hello

    async def _begin(
        self, caller: Caller, hello: driver_stream_pb2.DriverHello
    ) -> tuple[DriverSession, SessionGrant, int]:
        expected_count = 0
        # A UUID may come in capitals; keys are in small letters.
        trip_id = hello.trip_id.lower()
        if trip_id:
            trip = await self.tracking.authorize_driver(
                trip_id,
                tenant_id=caller.tenant_id,
                driver_id=caller.user_id,
                vehicle_id=hello.vehicle_id,
            )
            expected_count = trip.expected_count
        grant = await self.live.open_session(
            driver_id=caller.user_id,
            tenant_id=caller.tenant_id,
            vehicle_id=hello.vehicle_id,
            trip_id=trip_id,
            resume_seq=hello.resume_seq if hello.HasField("resume_seq") else None,
            vehicle_class=hello.vehicle_class,
        )
        if grant.trip_status == TripStatus.ENDED and not hello.HasField("resume_seq"):
            # One that resumes may still have to hear that its last messages were taken.
            raise TripNotTrackedError(trip_id)
        session = DriverSession(
            publisher=Publisher(
                driver_id=caller.user_id,
                tenant_id=caller.tenant_id,
                vehicle_id=hello.vehicle_id,
                vehicle_class=hello.vehicle_class,
            ),
            session=grant.session,
            trip_id=trip_id,
            trip_status=TripStatus(grant.trip_status),
            resume_seq=grant.seq,
            gate=gate_for(self.settings, grant.capture_milliseconds, grant.live_payload),
            batcher=self.batcher,
            token_expire_time=caller.token_expire_time,
            on_refused=self.on_refused,
        )
        session.newest_payload = grant.live_payload
        return session, grant, expected_count

    def _welcome(self, grant: SessionGrant) -> bytes:
        message = driver_stream_pb2.DriverReply()
        message.welcome.session_id = grant.session
        message.welcome.resume_seq = grant.seq
        message.welcome.server_time.FromDatetime(self.clock.now())
        interval = int(self.settings.location_interval_seconds * 1000)
        message.welcome.min_interval.FromMilliseconds(interval)
        heartbeat = int(self.settings.location_heartbeat_seconds * 1000)
        message.welcome.heartbeat_interval.FromMilliseconds(heartbeat)
        return message.SerializeToString()

    async def _write_all(
        self, session: DriverSession, incoming: DriverMessages, context: Any
    ) -> None:
        interval = self.settings.location_interval_seconds
        while True:
            replies = session.take_replies()
            for reply in replies:
                now = self.clock.now()
                message = convert.reply_to_proto(reply, now=now, interval_seconds=interval)
                await context.write(message.SerializeToString())
                if isinstance(reply, DrainNotice) and reply.reason == DrainedError.reason:
                    asyncio.get_running_loop().call_later(
                        reply.reconnect_after_seconds + _LEAVE_SECONDS,
                        session.end,
                        DrainedError(
                            "this server stops; open a new stream", retry_after_seconds=0.2
                        ),
                    )
            if replies:
                continue
            if session.error is not None:
                raise session.error
            if incoming.is_done:
                if incoming.error is not None:
                    raise incoming.error
                return
            await session.wait_for_replies()

    def acknowledge(self, session: DriverSession) -> None:
        """Acknowledge what is due; called by the ring of acknowledgements."""
        session.acknowledge_if_due()

    def visit(self, session: DriverSession) -> None:
        """Do what a stream needs now and then; called by the ring twice per heartbeat."""
        expire_time = session.token_expire_time
        if expire_time is not None:
            left = expire_time - self.clock.now()
            if left <= timedelta(0):
                session.expire_token()
            elif left <= timedelta(seconds=2 * self.settings.location_heartbeat_seconds):
                session.drain(
                    DrainNotice(reconnect_after_seconds=self.random(), reason="TOKEN_EXPIRED")
                )
        session.beat()

    def tell_degraded(self, degraded: bool) -> None:
        """Tell every driver that live state is away, or back."""
        reason = "DEPENDENCY_UNAVAILABLE" if degraded else ""
        for session in self.heartbeats.members():
            session.throttle(Throttle(reason=reason, degraded=degraded))

    async def drain_all(self) -> None:
        """Ask every phone to open a new stream elsewhere, spread over two seconds."""
        for session in self.heartbeats.members():
            session.drain(
                DrainNotice(reconnect_after_seconds=2 * self.random(), reason="SERVER_DRAINING")
            )


def gate_for(
    settings: LocationSettings, capture_milliseconds: int, live_payload: bytes
) -> PositionGate:
    """Return the gate of a driver who was last seen where `live_payload` says."""
    last = convert.position_of_payload(live_payload)
    return PositionGate(
        rules=PositionRules(
            interval_least_seconds=settings.location_interval_least_seconds,
            positions_per_minute=settings.location_positions_per_minute,
        ),
        last=None if last is None else convert.fix_of(last),
        last_capture_milliseconds=capture_milliseconds,
    )
