"""Gathers the updates of all drivers for a tick and writes them together.

Called by driver sessions.

No update is written by itself: a tick of 10 ms costs one call per bucket, however many updates it
holds.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog
from prometheus_client import Counter, Gauge

from services.location.ports.live import ACCEPTED, LiveStore, Update
from services.shared.errors import DependencyUnavailableError
from services.shared.tasks import HeldTasks

_log = structlog.get_logger()
_WRITTEN = Counter("wayfare_location_updates_total", "Updates that the store decided", ["verdict"])
_PENDING = Gauge("wayfare_location_updates_pending", "Updates that wait to be written")
# Valkey answers nobody while it takes a batch: 17 to 23 us for the position of a free driver.
_BATCH_MAX = 128
_TOGETHER_SECONDS = 0.05
_BUSY_TICKS = 2
_BUSY_UPDATES_PER_SECOND = 1_000
_BACKOFF_SECONDS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.0)


class Submitter(Protocol):
    """Is told what became of its updates, in the order in which it submitted them."""

    def decided(self, update: Update, verdict: str) -> None:
        """Take the verdict on one update."""
        ...


class UpdateBatcher:
    """Writes updates in batches, in order per bucket, and keeps them while the store is away."""

    def __init__(
        self,
        *,
        live: LiveStore,
        tick_seconds: float,
        pending_max: int,
        on_degraded: Callable[[bool], None],
        on_accepted: Callable[[Sequence[Update]], None] = lambda _: None,
    ) -> None:
        """Write to `live`.

        Hold at most `pending_max` updates; tell when the store goes away and comes back, and what
        it accepted, a batch at a time.
        """
        self._live = live
        self._tick_seconds = tick_seconds
        self._pending_max = pending_max
        self._on_degraded = on_degraded
        self._on_accepted = on_accepted
        self._buckets: dict[int, list[tuple[Update, Submitter]]] = defaultdict(list)
        self._pending = 0
        self._wake = asyncio.Event()
        self._flushed: asyncio.Future[None] | None = None
        self._writing: dict[int, asyncio.Task[None]] = {}
        self._away: set[int] = set()
        self._tasks = HeldTasks()
        self.degraded = False

    @property
    def has_room(self) -> bool:
        """Say whether another update may be added."""
        return self._pending < self._pending_max

    def add(self, update: Update, submitter: Submitter) -> None:
        """Write `update` with the next tick. The caller has seen that there is room."""
        self._buckets[self._live.bucket_of(update.publisher.driver_id)].append((update, submitter))
        self._pending += 1
        if not self._wake.is_set():
            self._wake.set()

    async def wait_flushed(self) -> None:
        """Wait until some updates have been written."""
        if self._flushed is None:
            self._flushed = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._flushed)

    async def drain(self) -> None:
        """Wait until nothing is pending."""
        while self._pending:
            await self.wait_flushed()

    async def run(self) -> None:
        """Write until cancelled; a busy process gathers twice as long."""
        await self._tasks.hold(self._tick)

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        written_at, busy = loop.time(), False
        while True:
            await self._wake.wait()
            await asyncio.sleep(self._tick_seconds * (_BUSY_TICKS if busy else 1))
            self._wake.clear()
            busy = self._pending > _BUSY_UPDATES_PER_SECOND * (loop.time() - written_at)
            written_at = loop.time()
            _PENDING.set(self._pending)
            # What is being written yet keeps its order: the bucket's next batch comes after it.
            for bucket in self._buckets.keys() - self._writing.keys():
                writing = self._tasks.start(self._write(bucket, self._buckets.pop(bucket)))
                self._writing[bucket] = writing
            # One server's buckets are written together; one that is away holds up no other's.
            if self._writing:
                await asyncio.wait(self._writing.values(), timeout=_TOGETHER_SECONDS)

    async def _write(self, bucket: int, items: list[tuple[Update, Submitter]]) -> None:
        for start in range(0, len(items), _BATCH_MAX):
            batch = items[start : start + _BATCH_MAX]
            verdicts = await self._apply(bucket, [update for update, _ in batch])
            self._pending -= len(batch)
            for (update, submitter), verdict in zip(batch, verdicts, strict=True):
                submitter.decided(update, verdict)
            for verdict in set(verdicts):
                _WRITTEN.labels(verdict).inc(verdicts.count(verdict))
            self._on_accepted(
                [
                    update
                    for (update, _), verdict in zip(batch, verdicts, strict=True)
                    if verdict == ACCEPTED
                ]
            )
        del self._writing[bucket]
        if bucket in self._buckets:
            self._wake.set()
        if self._flushed is not None:
            self._flushed.set_result(None)
            self._flushed = None

    async def _apply(self, bucket: int, updates: list[Update]) -> str:
        """Write until the store answers. Repeating is safe: what it has is a duplicate."""
        attempt = 0
        while True:
            try:
                verdicts = await self._live.apply(bucket, updates)
            except DependencyUnavailableError:
                self._note(bucket, away=True)
                await asyncio.sleep(_BACKOFF_SECONDS[min(attempt, len(_BACKOFF_SECONDS) - 1)])
                attempt += 1
            else:
                self._note(bucket, away=False)
                return verdicts

    def _note(self, bucket: int, *, away: bool) -> None:
        if away == (bucket in self._away):
            return
        if away:
            self._away.add(bucket)
        else:
            self._away.discard(bucket)
        degraded = bool(self._away)
        if degraded != self.degraded:
            self.degraded = degraded
            _log.warning("live_state_degraded", degraded=degraded, pending=self._pending)
            self._on_degraded(degraded)
