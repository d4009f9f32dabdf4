"""Is the RPC side of seat maps: GetSeatMap, and WatchSeats with its streams."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from services.booking import seat_messages
from services.booking.domain.trips import Journey
from services.booking.errors.streams import DrainedError, StreamTokenExpiredError
from services.booking.errors.trips import TripCancelledError, TripDepartedError
from services.booking.layout_messages import layout_message
from services.booking.operations.seat_hub import SeatHub, WatchedTrip
from services.booking.operations.seat_maps import SeatMaps
from services.booking.operations.seat_watcher import SeatWatcher
from services.shared.clock import Clock
from services.shared.errors import DomainError
from services.shared.rpc.caller import current_caller
from wayfare.booking.v1 import booking_service_pb2 as pb
from wayfare.booking.v1 import seat_map_pb2

# How long a client that was asked to leave may keep its stream.
_LEAVE_SECONDS = 10.0
_DRAIN_SECONDS = 2.0
_TOKEN_DIGITS_MAX = 18


class SeatMapCalls:
    """Serves seat maps, at once and live."""

    def __init__(
        self,
        *,
        maps: SeatMaps,
        hub: SeatHub,
        clock: Clock,
        random: Callable[[], float],
        heartbeat_seconds: float,
    ) -> None:
        """Take the operations; a silent stream gets a heartbeat every `heartbeat_seconds`."""
        self._maps = maps
        self._hub = hub
        self._clock = clock
        self._random = random
        self._heartbeat_seconds = heartbeat_seconds
        self._open: set[_Stream] = set()

    async def get_seat_map(self, request: pb.GetSeatMapRequest) -> seat_map_pb2.SeatMap:
        """Get the seat map of a journey."""
        reading = await self._maps.read(current_caller().tenant_id, request.trip_id.lower())
        journey = reading.trip.journey(request.from_stop_id, request.to_stop_id)
        message = seat_messages.seat_map_message(
            reading.trip, reading.layout, reading.states, journey, now=self._clock.now()
        )
        message.layout.CopyFrom(layout_message(reading.layout))
        message.read_time.FromDatetime(reading.read_time)
        message.degraded = reading.degraded
        if request.include_leg_states:
            seat_messages.add_leg_states(message, reading.states, journey)
        return message

    async def watch_seats(self, request: pb.WatchSeatsRequest, context: Any) -> None:
        """Write snapshot and changes, encoded already, until the stream ends."""
        caller = current_caller()
        hub = self._hub
        watched = await hub.watched(caller.tenant_id, request.trip_id.lower())
        try:
            journey = watched.trip.journey(request.from_stop_id, request.to_stop_id)
            departs = watched.trip.departure_time(journey)
            if watched.trip.cancel_time is None and self._clock.now() >= departs:
                raise TripDepartedError(watched.trip.trip_id, departure_time=departs)
            after = _version_of(request.resume_token)
            if after is not None and after > watched.states.version:
                await hub.catch_up(watched)
                # Whoever watched it may have left meanwhile, and somebody else come.
                watched = await hub.watched(caller.tenant_id, watched.trip.trip_id)
            watcher = hub.attach(watched, journey)
        except BaseException:
            hub.release(watched)
            raise
        stream = _Stream(self, watched, watcher, caller.token_expire_time)
        self._open.add(stream)
        try:
            await stream.open(context, after, asked=bool(request.resume_token))
            await stream.write_until_end(context)
        finally:
            self._open.discard(stream)
            hub.detach(watched, watcher)

    async def drain_all(self) -> None:
        """Ask every client to open a new stream elsewhere, spread over two seconds."""
        for stream in list(self._open):
            stream.drain_server()

    # What the streams need of it.

    @property
    def hub(self) -> SeatHub:
        """Return what knows the changes."""
        return self._hub

    @property
    def clock(self) -> Clock:
        """Return the clock."""
        return self._clock

    @property
    def heartbeat_seconds(self) -> float:
        """Return how long a stream may be silent."""
        return self._heartbeat_seconds

    def spread(self) -> float:
        """Return a time to wait, in seconds, different for each client."""
        return _DRAIN_SECONDS * self._random()


class _Stream:
    """Is one open WatchSeats."""

    def __init__(
        self,
        calls: SeatMapCalls,
        watched: WatchedTrip,
        watcher: SeatWatcher,
        token_expire_time: datetime | None,
    ) -> None:
        self._calls = calls
        self._watched = watched
        self._watcher = watcher
        self._token_expire_time = token_expire_time
        self._spoke_at = calls.clock.monotonic()
        self._leave_at = float("inf")

    async def open(self, context: Any, after: int | None, *, asked: bool) -> None:
        """Write what the client has missed, or a snapshot."""
        watched, watcher = self._watched, self._watcher
        self._check_trip()
        if after is not None:
            # A copy of now: what comes after it waits in the watcher's queue.
            states = watched.states.rewound([])
            missed = await self._calls.hub.since(
                watched, watcher.journey, after=after, states=states
            )
            if missed is not None:
                for payload in missed:
                    await context.write(payload)
                self._spoke_at = self._calls.clock.monotonic()
                return
        await self._write_snapshot(context, gap=asked, with_layout=True)

    async def write_until_end(self, context: Any) -> None:
        """Write what comes until the vehicle leaves. Raises how the stream ends otherwise."""
        calls, watcher = self._calls, self._watcher
        while True:
            drain = watcher.take_drain()
            if drain is not None:
                await context.write(seat_messages.drain_update(*drain))
            for payload in watcher.take():
                await context.write(payload)
                self._spoke_at = calls.clock.monotonic()
            if watcher.snapshot_due:
                watcher.snapshot_due = False
                await self._write_snapshot(context, gap=True, with_layout=False)
            if self._has_left():
                return
            self._check_trip()
            error = self._ending()
            if error is not None:
                raise error
            if calls.clock.monotonic() - self._spoke_at >= calls.heartbeat_seconds:
                self._spoke_at = calls.clock.monotonic()
                version = self._watched.states.version
                await context.write(
                    seat_messages.heartbeat_update(
                        calls.clock.now(), version, degraded=calls.hub.degraded
                    )
                )
            await watcher.rest(self._rest_seconds())

    def drain_server(self) -> None:
        """Ask the client to leave, because this server stops."""
        seconds = self._calls.spread()
        self._leave_at = self._calls.clock.monotonic() + seconds + _LEAVE_SECONDS
        self._watcher.drain((seconds, DrainedError.reason))

    async def _write_snapshot(self, context: Any, *, gap: bool, with_layout: bool) -> None:
        calls, watched, watcher = self._calls, self._watched, self._watcher
        # All that waits is in it: what is written and what is left out is decided in one step.
        watcher.version = watched.states.version
        update = seat_map_pb2.SeatUpdate(
            resume_token=str(watched.states.version),
            snapshot=seat_messages.seat_map_message(
                watched.trip,
                watched.layout,
                watched.states,
                watcher.journey,
                now=calls.clock.now(),
            ),
        )
        update.snapshot.gap = gap
        update.snapshot.degraded = calls.hub.degraded
        if with_layout:
            update.snapshot.layout.CopyFrom(layout_message(watched.layout))
        await context.write(update.SerializeToString())
        self._spoke_at = calls.clock.monotonic()

    def _check_trip(self) -> None:
        if self._watched.trip.cancel_time is not None:
            raise TripCancelledError(self._watched.trip.trip_id)

    def _departure_time(self) -> datetime:
        journey: Journey = self._watcher.journey
        return self._watched.trip.departure_time(journey)

    def _has_left(self) -> bool:
        return self._calls.clock.now() >= self._departure_time()

    def _ending(self) -> DomainError | None:
        """Return the error with which the stream must end now; ask the client to leave before."""
        calls = self._calls
        if calls.clock.monotonic() >= self._leave_at:
            return DrainedError(
                "this server stops; open a new stream to go on", retry_after_seconds=0.2
            )
        if self._token_expire_time is None:
            return None
        left = self._token_expire_time - calls.clock.now()
        if left <= timedelta(0):
            return StreamTokenExpiredError("the access token of this stream has expired")
        if left <= timedelta(seconds=2 * calls.heartbeat_seconds):
            self._watcher.drain((calls.spread(), StreamTokenExpiredError.reason))
        return None

    def _rest_seconds(self) -> float:
        """Return how long nothing is due but what the hub wakes for."""
        calls = self._calls
        now, moment = calls.clock.monotonic(), calls.clock.now()
        due = [
            self._spoke_at + calls.heartbeat_seconds - now,
            self._leave_at - now,
            (self._departure_time() - moment).total_seconds(),
        ]
        if self._token_expire_time is not None:
            left = (self._token_expire_time - moment).total_seconds()
            drained_at = left - 2 * calls.heartbeat_seconds
            due.append(drained_at if drained_at > 0 else left)
        return max(0.001, min(due))


def _version_of(resume_token: str) -> int | None:
    """Return the version that a client has come to, None for a token that is not ours."""
    if not resume_token.isascii() or not resume_token.isdigit():
        return None
    return int(resume_token) if len(resume_token) <= _TOKEN_DIGITS_MAX else None
