"""Brings what drivers sent to any server to the followers of this one. Called by FollowTrip.

One reader per bucket reads ticks for all followers of the process; a tick wakes the followers that
it concerns together. The queues are in follower.py.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

import structlog
from prometheus_client import Counter

from services.location.operations.follower import EPOCH, VERSION, Follower, token_of
from services.location.operations.sampling import Sampler
from services.location.ports.live import (
    ETA,
    POSITION,
    STATUS,
    TICKS_READ_MOST,
    TRIP_ENDED,
    TRIP_MOVED,
    LiveStore,
    Tick,
)
from services.shared.errors import DependencyUnavailableError
from services.shared.tasks import HeldTasks

_log = structlog.get_logger()
_DELIVERED = Counter("wayfare_location_delivered_total", "Updates put into followers' slots")
_READ_BACKOFF_SECONDS = 0.2
_READY_SECONDS = 3.0
_LAST_WORDS_SECONDS = 0.5
_CONFLATED_BYTES = (ord(POSITION), ord(ETA))
NO_TICK = b"0-0"


class FollowHub:
    """Knows the followers of this process and reads the ticks of the buckets that concern them."""

    def __init__(
        self,
        *,
        live: LiveStore,
        events_max: int,
        ends_trip: Callable[[bytes], bool],
        many_followers: int,
        many_followers_seconds: float,
    ) -> None:
        """Read from `live`; queue at most `events_max` events per follower.

        `ends_trip` says of a status event whether it is the trip's last. Of a trip with more than
        `many_followers` here, positions are told once in `many_followers_seconds`.
        """
        self._sampler = Sampler(
            many=many_followers,
            interval_seconds=many_followers_seconds,
            deliver=self._deliver_position,
        )
        self._live = live
        self._ends_trip = ends_trip
        self._events_max = events_max
        self._followers: dict[str, list[Follower]] = defaultdict(list)
        self._readers: dict[int, asyncio.Task[None]] = {}
        self._ready: dict[int, asyncio.Future[None]] = {}
        self._tasks = HeldTasks()
        self._away: set[int] = set()
        self.degraded = False

    async def run(self) -> None:
        """Hold the readers until cancelled."""
        await self._tasks.hold()

    async def attach(
        self, trip_id: str, *, bucket: int, token_expire_time: datetime | None
    ) -> Follower:
        """Return a follower that gets everything of the trip from now on.

        Read its snapshot after that.
        """
        await self._ensure_reader(bucket)
        follower = Follower(
            trip_id, events_max=self._events_max, token_expire_time=token_expire_time
        )
        follower.degraded = self.degraded
        self._followers[trip_id].append(follower)
        return follower

    def detach(self, follower: Follower) -> None:
        """Forget a follower."""
        followers = self._followers.get(follower.trip_id)
        if followers is None:
            return
        followers.remove(follower)
        if not followers:
            del self._followers[follower.trip_id]
            self._sampler.forget(follower.trip_id)

    async def _ensure_reader(self, bucket: int) -> None:
        if bucket not in self._readers:
            ready = asyncio.get_running_loop().create_future()
            self._ready[bucket] = ready
            self._readers[bucket] = self._tasks.start(self._read(bucket, ready))
        try:
            async with asyncio.timeout(_READY_SECONDS):
                await asyncio.shield(self._ready[bucket])
        except TimeoutError:
            raise DependencyUnavailableError("valkey") from None

    async def _read(self, bucket: int, ready: asyncio.Future[None]) -> None:
        last_id = await self._until_answered(bucket, lambda: self._live.last_tick_id(bucket))
        ready.set_result(None)
        while True:
            try:
                ticks = await self._live.read_ticks(bucket, last_id)
            except DependencyUnavailableError:
                self._note(bucket, away=True)
                await asyncio.sleep(_READ_BACKOFF_SECONDS)
                await self._look_for_gap(bucket, last_id)
                continue
            self._note(bucket, away=False)
            if not ticks:
                continue
            if len(ticks) >= TICKS_READ_MOST:
                await self._look_for_gap(bucket, last_id)
            self.deliver(ticks)
            last_id = ticks[-1].stream_id

    async def _until_answered(self, bucket: int, ask: Callable[[], Awaitable[bytes]]) -> bytes:
        while True:
            try:
                return await ask()
            except DependencyUnavailableError:
                self._note(bucket, away=True)
                await asyncio.sleep(_READ_BACKOFF_SECONDS)

    def deliver(self, ticks: Sequence[Tick]) -> None:
        """Put what the ticks hold into the slots of the followers that they concern."""
        delivered = 0
        for tick in ticks:
            fields = tick.fields
            for index in range(0, len(fields), 2):
                name = fields[index]
                trip_id = name[1:].decode()
                followers = self._followers.get(trip_id)
                if followers is None:
                    continue
                payload = fields[index + 1]
                if name[0] not in _CONFLATED_BYTES:
                    self._sampler.release(trip_id)
                    self._deliver_event(chr(name[0]), payload, followers)
                elif self._sampler.holds(trip_id, name[0], payload, len(followers)):
                    continue
                else:
                    self._deliver_position(trip_id, payload)
                delivered += len(followers)
        _DELIVERED.inc(delivered)

    def _deliver_position(self, trip_id: str, payload: bytes) -> None:
        epoch, version = payload[EPOCH].decode(), int(payload[VERSION], 16)
        for follower in self._followers.get(trip_id, ()):
            follower.put_position(epoch, version, payload)

    def _deliver_event(self, kind: str, payload: bytes, followers: list[Follower]) -> None:
        for follower in followers:
            if kind == TRIP_ENDED:
                follower.end()
            elif kind == TRIP_MOVED:
                follower.drain((0.0, "SERVER_DRAINING"))
            else:
                token = token_of(payload)
                follower.put_event(token.epoch, token.version, payload)
                if kind == STATUS and self._ends_trip(payload):
                    # That the vehicle left its last stop follows from the end and is told after it.
                    asyncio.get_running_loop().call_later(_LAST_WORDS_SECONDS, follower.end)

    async def _look_for_gap(self, bucket: int, last_id: bytes) -> None:
        """Let followers come again if ticks were dropped before this process read them."""
        first_id = await self._until_answered(bucket, lambda: self._live.first_tick_id(bucket))
        if last_id == NO_TICK or _id_of(first_id) <= _id_of(last_id):
            return
        _log.warning("ticks_missed", bucket=bucket)
        for followers in self._followers.values():
            for follower in followers:
                follower.drain((0.0, "SERVER_DRAINING"))

    def _note(self, bucket: int, *, away: bool) -> None:
        if away == (bucket in self._away):
            return
        if away:
            self._away.add(bucket)
        else:
            self._away.discard(bucket)
        degraded = bool(self._away)
        if degraded == self.degraded:
            return
        self.degraded = degraded
        for followers in self._followers.values():
            for follower in followers:
                follower.degraded = degraded
                follower.heartbeat_due = True
                follower.wake()


def _id_of(stream_id: bytes) -> tuple[int, int]:
    milliseconds, _, number = stream_id.partition(b"-")
    return int(milliseconds), int(number or 0)
