"""Is the RPC side of FollowTrip.

Opens with a snapshot or a resumed tail, then writes what the hub brings.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from services.location import convert
from services.location.domain.trips import TrackedTrip, TripStatus
from services.location.errors import DrainedError, TripNotTrackedError
from services.location.operations.follow_hub import FollowHub
from services.location.operations.follower import Follower, ResumeToken, parse_token, token_of
from services.location.operations.ring import Ring
from services.location.operations.tracking import Tracking
from services.location.ports.live import LiveStore, TripState
from services.location.settings import LocationSettings
from services.shared.clock import Clock
from services.shared.rpc.caller import Caller, current_caller
from wayfare.location.v1 import location_service_pb2

# How long a client that was asked to leave may keep its stream.
_LEAVE_SECONDS = 10.0
_FOLLOW_RENEW_SECONDS = 300.0
# As in functions.lua.
_EVENTS_KEPT = 1000
PASSENGER = "PASSENGER"


@dataclass(slots=True)
class FollowStreams:
    """Serves every FollowTrip of this process."""

    live: LiveStore
    tracking: Tracking
    hub: FollowHub
    clock: Clock
    settings: LocationSettings
    random: Callable[[], float]
    ring: Ring[Follower]

    async def serve(self, request: location_service_pb2.FollowTripRequest, context: Any) -> None:
        """Write updates until the trip ends, the client leaves, or the stream must."""
        caller = current_caller()
        trip = await self.tracking.authorize_follower(
            # A UUID may come in capitals; keys are in small letters.
            request.trip_id.lower(),
            tenant_id=caller.tenant_id,
            user_id=caller.user_id,
            role=caller.role,
        )
        if trip.stopped and parse_token(request.resume_token) is None:
            raise TripNotTrackedError(trip.trip_id)
        if caller.role != PASSENGER:
            await self._follow(trip, request, caller, context)
            return
        await self.tracking.count_followed(caller.user_id, trip.trip_id)
        try:
            await self._follow(trip, request, caller, context)
        finally:
            await self.tracking.uncount_followed(caller.user_id, trip.trip_id)

    async def _follow(
        self,
        trip: TrackedTrip,
        request: location_service_pb2.FollowTripRequest,
        caller: Caller,
        context: Any,
    ) -> None:
        follower = await self.hub.attach(
            trip.trip_id,
            bucket=self.live.bucket_of(trip.driver_id),
            token_expire_time=caller.token_expire_time,
        )
        if caller.role == PASSENGER:
            follower.renew_at = self.clock.monotonic() + _FOLLOW_RENEW_SECONDS
        self.ring.add(follower)
        try:
            token = parse_token(request.resume_token)
            await self._open(trip, follower, token, bool(request.resume_token), context)
            follower.send = context.try_send
            await self._write_until_end(follower, caller, context)
        finally:
            self.ring.discard(follower)
            self.hub.detach(follower)

    async def _open(
        self,
        trip: TrackedTrip,
        follower: Follower,
        token: ResumeToken | None,
        asked_to_resume: bool,
        context: Any,
    ) -> None:
        state = await self.live.snapshot(trip, with_events=token is not None)
        follower.begin_after(ResumeToken(epoch=state.epoch, version=state.version))
        tail = None if token is None else _tail_after(token, state)
        over = trip.stopped or not state.tracked or state.status == TripStatus.ENDED
        if tail is not None:
            opening = tail
        elif over and not asked_to_resume:
            raise TripNotTrackedError(trip.trip_id)
        else:
            opening = [
                convert.snapshot_of(trip, state, gap=asked_to_resume, degraded=follower.degraded)
            ]
        for payload in opening:
            await context.write(payload)
        follower.said_something = True
        if over:
            follower.end()

    async def _write_until_end(self, follower: Follower, caller: Caller, context: Any) -> None:
        while True:
            payloads = follower.take()
            for payload in payloads:
                await context.write(payload)
            drain = follower.take_drain()
            if drain is not None:
                await context.write(convert.trip_drain(drain))
                if drain[1] == DrainedError.reason:
                    asyncio.get_running_loop().call_later(
                        drain[0] + _LEAVE_SECONDS, follower.end, _drained_error()
                    )
            if follower.heartbeat_due:
                follower.heartbeat_due = False
                now = self.clock.now()
                await context.write(convert.trip_heartbeat(now, degraded=follower.degraded))
            elif follower.renew_due:
                follower.renew_due = False
                follower.renew_at = self.clock.monotonic() + _FOLLOW_RENEW_SECONDS
                await self.tracking.count_followed(caller.user_id, follower.trip_id)
            elif payloads:
                follower.said_something = True
            elif drain is None:
                if follower.ended:
                    if follower.error is not None:
                        raise follower.error
                    return
                await follower.wait()

    def visit(self, follower: Follower) -> None:
        """Do what a stream needs now and then; called by the ring twice per heartbeat."""
        expire_time = follower.token_expire_time
        if expire_time is not None:
            left = expire_time - self.clock.now()
            if left <= timedelta(0):
                follower.expire_token()
            elif left <= timedelta(seconds=2 * self.settings.location_heartbeat_seconds):
                follower.drain((self.random(), "TOKEN_EXPIRED"))
        if self.clock.monotonic() >= follower.renew_at:
            follower.renew_due = True
            follower.wake()
        follower.beat()

    async def drain_all(self) -> None:
        """Ask every client to open a new stream elsewhere, spread over two seconds."""
        for follower in self.ring.members():
            follower.drain((2 * self.random(), "SERVER_DRAINING"))


def _tail_after(token: ResumeToken, state: TripState) -> Sequence[bytes] | None:
    """Return what a follower missed since `token`, or None when that is not known any more."""
    if token.epoch != state.epoch or token.version > state.version:
        return None
    events = [event for event in state.events if token_of(event).version > token.version]
    kept_all = len(state.events) < _EVENTS_KEPT or len(events) < len(state.events)
    if not kept_all:
        return None
    tail = list(events)
    if state.position_payload and state.version > token.version:
        tail.append(convert.with_token(state.position_payload, state))
    return tail


def _drained_error() -> DrainedError:
    return DrainedError("this server stops; open a new stream to go on", retry_after_seconds=0.2)
