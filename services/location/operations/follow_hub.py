"""Brings what drivers sent to any server to the followers of this one. Called by FollowTrip.

One reader per bucket reads ticks for all followers of the process; a tick wakes the followers that
it concerns together. A follower has a slot for the newest position and a bounded queue for what may
not be conflated.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog
from prometheus_client import Counter

from services.location.errors import FollowerTooSlowError, StreamTokenExpiredError
from services.location.ports import POSITION, STATUS, TRIP_ENDED, TRIP_MOVED, LiveStore, Tick
from services.shared.errors import DependencyUnavailableError, DomainError

_log = structlog.get_logger()
_DELIVERED = Counter("wayfare_location_delivered_total", "Updates put into followers' slots")
_CONFLATED = Counter(
    "wayfare_location_conflated_total", "Positions that a newer one replaced unsent"
)
_READ_BACKOFF_SECONDS = 0.2
_READY_SECONDS = 3.0
_POSITION_BYTE = ord(POSITION)
# A payload begins with tag and length of its token, then 8 hexadecimal digits of epoch and 8 of
# version.
_EPOCH = slice(2, 10)
_VERSION = slice(10, 18)

Drained = tuple[float, str]
"""Is a notice to open a new stream: after how many seconds, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeToken:
    """Says what a follower has seen: everything of `epoch` up to `version`."""

    epoch: str
    version: int


def parse_token(text: str) -> ResumeToken | None:
    """Return the token that `text` is, or None when it is none of ours."""
    if len(text) != 16:
        return None
    try:
        int(text[:8], 16)
        return ResumeToken(epoch=text[:8], version=int(text[8:], 16))
    except ValueError:
        return None


def token_of(payload: bytes) -> ResumeToken:
    """Return the token of a TripUpdate as the store made it."""
    return ResumeToken(epoch=payload[_EPOCH].decode(), version=int(payload[_VERSION], 16))


class Follower:
    """Is one open FollowTrip: what waits to be written to it."""

    __slots__ = (
        "_drain",
        "_epoch",
        "_events",
        "_events_max",
        "_position",
        "_position_version",
        "_waiter",
        "degraded",
        "drained",
        "ended",
        "error",
        "heartbeat_due",
        "renew_at",
        "renew_due",
        "said_something",
        "token_expire_time",
        "trip_id",
        "version",
    )

    def __init__(
        self, trip_id: str, *, events_max: int, token_expire_time: datetime | None
    ) -> None:
        """Begin with nothing to write."""
        self.trip_id = trip_id
        self.token_expire_time = token_expire_time
        self.version = -1
        self._epoch = ""
        self.ended = False
        self.error: DomainError | None = None
        self.heartbeat_due = False
        self.said_something = False
        self.renew_at = float("inf")
        self.renew_due = False
        self.degraded = False
        self.drained = False
        self._drain: Drained | None = None
        self._events_max = events_max
        self._events: deque[tuple[int, bytes]] = deque()
        self._position: bytes | None = None
        self._position_version = 0
        self._waiter: asyncio.Future[None] | None = None

    def begin_after(self, token: ResumeToken) -> None:
        """Take what comes after `token` only; some of what came before may be queued already."""
        if self._epoch != token.epoch:
            self._epoch = token.epoch
            self.version = token.version
            return
        self.version = max(self.version, token.version)
        newer = (event for event in self._events if event[0] > token.version)
        self._events = deque(newer)
        if self._position_version <= token.version:
            self._position = None

    def _is_new(self, epoch: str, version: int) -> bool:
        if self.ended:
            # Something may have been left out: the client resumes after what it got.
            return False
        if epoch != self._epoch:
            # The store lost the trip's state and counts anew.
            self._epoch = epoch
            self._position_version = -1
        elif version <= self.version:
            return False
        self.version = version
        return True

    def put_position(self, epoch: str, version: int, payload: bytes) -> None:
        """Offer the newest position; one that is still unsent is replaced."""
        if not self._is_new(epoch, version):
            return
        if self._position is not None:
            _CONFLATED.inc()
        self._position = payload
        self._position_version = version
        self.wake()

    def put_event(self, epoch: str, version: int, payload: bytes) -> None:
        """Queue what may not be conflated; a follower whose queue is full must come again."""
        if not self._is_new(epoch, version):
            return
        if len(self._events) >= self._events_max:
            self.drain((0.0, FollowerTooSlowError.reason))
            self.end(FollowerTooSlowError("this follower reads too slowly; resume to go on"))
            return
        self._events.append((version, payload))
        self.wake()

    def take(self) -> list[bytes]:
        """Return what must be written now, in order of version."""
        if not self._events:
            position, self._position = self._position, None
            return [] if position is None else [position]
        payloads: list[bytes] = []
        while self._events:
            version, payload = self._events.popleft()
            if self._position is not None and self._position_version < version:
                payloads.append(self._position)
                self._position = None
            payloads.append(payload)
        if self._position is not None:
            payloads.append(self._position)
            self._position = None
        return payloads

    def take_drain(self) -> Drained | None:
        """Return the notice to open a new stream, once."""
        drain, self._drain = self._drain, None
        return drain

    def drain(self, drain: Drained) -> None:
        """Ask the client to open a new stream. Said once."""
        if not self.drained:
            self.drained = True
            self._drain = drain
            self.wake()

    def end(self, error: DomainError | None = None) -> None:
        """End the stream, with OK or with `error`, after what waits has been written."""
        if not self.ended:
            self.ended = True
            self.error = error
            self.wake()

    def beat(self) -> None:
        """Ask for a heartbeat if nothing was said since the last one."""
        if not self.said_something:
            self.heartbeat_due = True
            self.wake()
        self.said_something = False

    def wake(self) -> None:
        """Let the stream's coroutine look what there is."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self) -> None:
        """Wait until there is something to write, or the stream must end."""
        if self._events or self._position or self._drain or self.ended:
            return
        if self.heartbeat_due or self.renew_due:
            return
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def expire_token(self) -> None:
        """End the stream because its token has expired."""
        self.end(StreamTokenExpiredError("the access token of this stream has expired"))


class FollowHub:
    """Knows the followers of this process and reads the ticks of the buckets that concern them."""

    def __init__(
        self, *, live: LiveStore, events_max: int, ends_trip: Callable[[bytes], bool]
    ) -> None:
        """Read from `live`; queue at most `events_max` events per follower.

        `ends_trip` says of a status event whether it is the trip's last.
        """
        self._live = live
        self._ends_trip = ends_trip
        self._events_max = events_max
        self._followers: dict[str, list[Follower]] = defaultdict(list)
        self._readers: dict[int, asyncio.Task[None]] = {}
        self._ready: dict[int, asyncio.Future[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self.degraded = False

    async def run(self) -> None:
        """Hold the readers until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            await asyncio.get_running_loop().create_future()

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

    async def _ensure_reader(self, bucket: int) -> None:
        if bucket not in self._readers:
            if self._group is None:
                raise RuntimeError("the hub does not run")
            ready = asyncio.get_running_loop().create_future()
            self._ready[bucket] = ready
            self._readers[bucket] = self._group.create_task(self._read(bucket, ready))
        try:
            async with asyncio.timeout(_READY_SECONDS):
                await asyncio.shield(self._ready[bucket])
        except TimeoutError:
            raise DependencyUnavailableError("valkey") from None

    async def _read(self, bucket: int, ready: asyncio.Future[None]) -> None:
        last_id = await self._until_answered(lambda: self._live.last_tick_id(bucket))
        ready.set_result(None)
        while True:
            try:
                ticks = await self._live.read_ticks(bucket, last_id)
            except DependencyUnavailableError:
                self._set_degraded(True)
                await asyncio.sleep(_READ_BACKOFF_SECONDS)
                first_id = await self._until_answered(lambda: self._live.first_tick_id(bucket))
                if _id_of(first_id) > _id_of(last_id):
                    self._let_all_resume(bucket)
                continue
            self._set_degraded(False)
            if ticks:
                self.deliver(ticks)
                last_id = ticks[-1].stream_id

    async def _until_answered(self, ask: Callable[[], Awaitable[bytes]]) -> bytes:
        while True:
            try:
                return await ask()
            except DependencyUnavailableError:
                self._set_degraded(True)
                await asyncio.sleep(_READ_BACKOFF_SECONDS)

    def deliver(self, ticks: Sequence[Tick]) -> None:
        """Put what the ticks hold into the slots of the followers that they concern."""
        delivered = 0
        for tick in ticks:
            fields = tick.fields
            for index in range(0, len(fields), 2):
                name = fields[index]
                followers = self._followers.get(name[1:].decode())
                if followers is None:
                    continue
                payload = fields[index + 1]
                if name[0] == _POSITION_BYTE:
                    epoch, version = payload[_EPOCH].decode(), int(payload[_VERSION], 16)
                    for follower in followers:
                        follower.put_position(epoch, version, payload)
                else:
                    self._deliver_event(chr(name[0]), payload, followers)
                delivered += len(followers)
        _DELIVERED.inc(delivered)

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
                    follower.end()

    def _let_all_resume(self, bucket: int) -> None:
        """Let followers come again: ticks were dropped before this process read them."""
        _log.warning("ticks_missed", bucket=bucket)
        for followers in self._followers.values():
            for follower in followers:
                follower.drain((0.0, "SERVER_DRAINING"))

    def _set_degraded(self, degraded: bool) -> None:
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
