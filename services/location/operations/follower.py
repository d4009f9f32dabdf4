"""Is one open FollowTrip: what waits to be written to it. Filled by the hub, emptied by the stream.

What comes while the stream has room is written at once, without waking its coroutine. Otherwise
positions wait in a short queue, so that a moment's delay loses none; a follower who stays behind
misses the oldest. What may not be conflated waits in a bounded queue of its own length.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from prometheus_client import Counter

from services.location.errors import FollowerTooSlowError, StreamTokenExpiredError
from services.shared.errors import DomainError

_CONFLATED = Counter("wayfare_location_conflated_total", "Positions left out for newer ones")
POSITIONS_MAX = 8
# A payload begins with tag and length of its token: 8 hexadecimal digits of epoch, 8 of version.
EPOCH = slice(2, 10)
VERSION = slice(10, 18)

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
    return ResumeToken(epoch=payload[EPOCH].decode(), version=int(payload[VERSION], 16))


def _cannot_send(_payload: bytes) -> bool:
    return False


class Follower:
    """Is one open FollowTrip: what waits to be written to it."""

    __slots__ = (
        "_drain",
        "_epoch",
        "_events_max",
        "_positions",
        "_waiter",
        "_waiting",
        "degraded",
        "drained",
        "ended",
        "error",
        "heartbeat_due",
        "renew_at",
        "renew_due",
        "said_something",
        "send",
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
        # Version, whether it is a position, and the encoded update; oldest first.
        self._waiting: deque[tuple[int, bool, bytes]] = deque()
        self._positions = 0
        self._waiter: asyncio.Future[None] | None = None
        # Writes at once, or says that it cannot; set once the stream has been opened.
        self.send: Callable[[bytes], bool] = _cannot_send

    def begin_after(self, token: ResumeToken) -> None:
        """Take what comes after `token` only; some of what came before may wait already."""
        if self._epoch != token.epoch:
            self._epoch = token.epoch
            self.version = token.version
            return
        self.version = max(self.version, token.version)
        self._waiting = deque(item for item in self._waiting if item[0] > token.version)
        self._positions = sum(1 for item in self._waiting if item[1])

    def _is_new(self, epoch: str, version: int) -> bool:
        if self.ended:
            # Something may have been left out: the client resumes after what it got.
            return False
        if epoch != self._epoch:
            # The store lost the trip's state and counts anew.
            self._epoch = epoch
        elif version <= self.version:
            return False
        self.version = version
        return True

    def put_position(self, epoch: str, version: int, payload: bytes) -> None:
        """Queue a position; of too many that wait, the oldest is left out."""
        if not self._is_new(epoch, version) or self._sends(payload):
            return
        if self._positions >= POSITIONS_MAX:
            self._leave_out_oldest_position()
        self._positions += 1
        self._waiting.append((version, True, payload))
        self.wake()

    def _sends(self, payload: bytes) -> bool:
        """Write `payload` now, if the stream's coroutine rests: then nothing is before it."""
        if self._waiter is None or self._waiter.done() or not self.send(payload):
            return False
        self.said_something = True
        return True

    def _leave_out_oldest_position(self) -> None:
        for index, item in enumerate(self._waiting):
            if item[1]:
                del self._waiting[index]
                self._positions -= 1
                _CONFLATED.inc()
                return

    def put_event(self, epoch: str, version: int, payload: bytes) -> None:
        """Queue what may not be conflated; a follower whose queue is full must come again."""
        if not self._is_new(epoch, version) or self._sends(payload):
            return
        if len(self._waiting) - self._positions >= self._events_max:
            self.drain((0.0, FollowerTooSlowError.reason))
            self.end(FollowerTooSlowError("this follower reads too slowly; resume to go on"))
            return
        self._waiting.append((version, False, payload))
        self.wake()

    def take(self) -> list[bytes]:
        """Return what must be written now, in order of version."""
        if not self._waiting:
            return []
        payloads = [item[2] for item in self._waiting]
        self._waiting.clear()
        self._positions = 0
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
        if self._waiting or self._drain or self.ended:
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
