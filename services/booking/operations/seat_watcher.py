"""Is one open WatchSeats: what waits to be written. Filled by the hub, emptied by the stream."""

import asyncio
from collections import deque

from prometheus_client import Counter

from services.booking.domain.trips import Journey

_TOO_SLOW = Counter("wayfare_booking_watchers_too_slow_total", "Watchers who got a new snapshot")

Drained = tuple[float, str]
"""Is a notice to open a new stream: after how many seconds, and why."""


class SeatWatcher:
    """Is one open WatchSeats of a journey. Changes wait in order; of too many none is sent."""

    __slots__ = (
        "_drain",
        "_drained",
        "_most",
        "_waiting",
        "_woken",
        "journey",
        "snapshot_due",
        "version",
    )

    def __init__(self, journey: Journey, *, most: int) -> None:
        """Let `most` changes wait; a watcher with more needs a new snapshot instead of them."""
        self.journey = journey
        self.version = -1
        self.snapshot_due = False
        self._most = most
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._woken = asyncio.Event()
        self._drain: Drained | None = None
        self._drained = False

    def put(self, version: int, payload: bytes) -> None:
        """Queue a change that leads to `version`."""
        if self.snapshot_due:
            return
        if len(self._waiting) >= self._most:
            self._waiting.clear()
            self.snapshot_due = True
            _TOO_SLOW.inc()
        else:
            self._waiting.append((version, payload))
        self._woken.set()

    def take(self) -> list[bytes]:
        """Return what must be written now, in order of version, each once."""
        payloads = []
        while self._waiting:
            version, payload = self._waiting.popleft()
            if version > self.version:
                self.version = version
                payloads.append(payload)
        return payloads

    def drain(self, drain: Drained) -> None:
        """Ask the client to open a new stream. Said once."""
        if not self._drained:
            self._drained = True
            self._drain = drain
            self._woken.set()

    def take_drain(self) -> Drained | None:
        """Return the notice to open a new stream, once."""
        drain, self._drain = self._drain, None
        return drain

    def wake(self) -> None:
        """Let the stream's coroutine look what there is."""
        self._woken.set()

    async def rest(self, seconds: float) -> None:
        """Sleep until woken, at most `seconds`."""
        if not self._woken.is_set():
            timer = asyncio.get_running_loop().call_later(max(0.0, seconds), self._woken.set)
            try:
                await self._woken.wait()
            finally:
                timer.cancel()
        self._woken.clear()
