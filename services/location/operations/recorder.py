"""Keeps accepted positions in the database, in batches behind a bounded queue. Fed by the batcher.

History is written when some hundred positions wait, and every two seconds; where a driver is, at
most every five. A crash loses what was not written yet; a stop writes everything first, within its
time. Batches are small: while one is encoded, nobody's position moves.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta

import structlog
from prometheus_client import Counter, Gauge

from services.location.domain.positions import Fix
from services.location.ports.history import (
    HistoryRefusedError,
    HistoryRow,
    HistoryStore,
    LatestRow,
)
from services.location.ports.live import POSITION, Publisher, Update
from services.shared.clock import Clock
from services.shared.errors import DependencyUnavailableError
from services.shared.tasks import HeldTasks

_log = structlog.get_logger()
_KEPT = Counter("wayfare_location_history_total", "Positions written to history")
_LOST = Counter("wayfare_location_history_lost_total", "Positions that history could not take")
_WAITING = Gauge("wayfare_location_history_waiting", "Positions that wait for history")
_WRITE_SECONDS = 2.0
_LATEST_SECONDS = 5.0
_LOOK_SECONDS = 0.1
_BATCH_MOST = 500
_PAUSE_SECONDS = 0.05
_FLUSH_SECONDS = 5.0
_UPKEEP_SECONDS = 3600.0
_DAYS_BEHIND, _DAYS_AHEAD = 2, 2


class Recorder:
    """Writes history and last positions."""

    def __init__(
        self, *, history: HistoryStore, clock: Clock, waiting_max: int, days_kept: int
    ) -> None:
        """Write to `history`; of more than `waiting_max` that wait, the oldest are lost."""
        self._history = history
        self._clock = clock
        self._days_kept = days_kept
        self._waiting_max = waiting_max
        self._waiting: deque[HistoryRow] = deque()
        # What each driver sent last, and since when it was written.
        self._latest: dict[str, tuple[Update, int]] = {}
        # Of which tenant those are who said that they are gone, and when, until it is written.
        self._offline: dict[str, tuple[str, datetime]] = {}

    def accepted(self, updates: Sequence[Update]) -> None:
        """Take what the store accepted, a batch at a time."""
        now = int(self._clock.now().timestamp() * 1000)
        for update in updates:
            if update.kind == POSITION and update.fix is not None:
                self._add(update.publisher, update.trip_id, update.fix, now)
                self._latest[update.publisher.driver_id] = (update, now)

    def late(self, publisher: Publisher, trip_id: str, fixes: Sequence[Fix]) -> None:
        """Take positions that came too late to be live."""
        now = int(self._clock.now().timestamp() * 1000)
        for fix in fixes:
            self._add(publisher, trip_id, fix, now)

    async def went_offline(self, tenant_id: str, driver_id: str) -> None:
        """Keep that a driver is gone, so that they are not shown while live state is away.

        Is written as soon as the database is there.
        """
        self._offline[driver_id] = (tenant_id, self._clock.now())
        if len(self._offline) > self._waiting_max:
            del self._offline[next(iter(self._offline))]
        with suppress(DependencyUnavailableError):
            await self.write_offline()

    async def write_offline(self) -> None:
        """Write who is gone."""
        offline, self._offline = self._offline, {}
        by_tenant: dict[str, dict[str, datetime]] = defaultdict(dict)
        for driver_id, (tenant_id, at) in offline.items():
            by_tenant[tenant_id][driver_id] = at
        try:
            for tenant_id, gone in by_tenant.items():
                await self._history.write_offline(tenant_id, gone)
        except DependencyUnavailableError:
            self._offline = {**offline, **self._offline}
            raise

    def _add(self, publisher: Publisher, trip_id: str, fix: Fix, now: int) -> None:
        if len(self._waiting) >= self._waiting_max:
            self._waiting.popleft()
            _LOST.inc()
        row = HistoryRow(
            publisher.tenant_id, publisher.vehicle_id, publisher.driver_id, trip_id, fix, now
        )
        self._waiting.append(row)

    async def run(self) -> None:
        """Write until cancelled, then once more."""
        try:
            await HeldTasks().hold(
                self._write_history_soon, self._write_latest_slowly, self._keep_partitions
            )
        finally:
            await asyncio.shield(self._flush())

    async def _flush(self) -> None:
        with suppress(TimeoutError, DependencyUnavailableError):
            async with asyncio.timeout(_FLUSH_SECONDS):
                await self.write_history()
                await self.write_latest()
        if self._waiting:
            _log.warning("history_not_written", positions=len(self._waiting))

    async def _write_history_soon(self) -> None:
        written_at = self._clock.monotonic()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            now = self._clock.monotonic()
            if len(self._waiting) < _BATCH_MOST and now - written_at < _WRITE_SECONDS:
                continue
            written_at = now
            # What waits, waits on; the gauge and the health of the database tell.
            with suppress(DependencyUnavailableError):
                await self.write_history()
            _WAITING.set(len(self._waiting))

    async def _write_latest_slowly(self) -> None:
        while True:
            await asyncio.sleep(_LATEST_SECONDS)
            with suppress(DependencyUnavailableError):
                await self.write_latest(pause_seconds=_PAUSE_SECONDS)

    async def write_history(self) -> None:
        """Write everything that waits. What could not be written waits on, in its order."""
        while self._waiting:
            count = min(_BATCH_MOST, len(self._waiting))
            rows = [self._waiting.popleft() for _ in range(count)]
            by_tenant: dict[str, list[HistoryRow]] = defaultdict(list)
            for row in rows:
                by_tenant[row.tenant_id].append(row)
            try:
                for tenant_id in list(by_tenant):
                    await self._write_rows(tenant_id, by_tenant[tenant_id])
                    del by_tenant[tenant_id]
            finally:
                left = [row for tenant_rows in by_tenant.values() for row in tenant_rows]
                self._waiting.extendleft(reversed(left))

    async def _write_rows(self, tenant_id: str, rows: Sequence[HistoryRow]) -> None:
        try:
            await self._history.write(tenant_id, rows)
            _KEPT.inc(len(rows))
        except HistoryRefusedError:
            # Live positions go on; what is lost is counted, and the log says why.
            _LOST.inc(len(rows))
            _log.exception("history_refused", positions=len(rows))

    async def write_latest(self, *, pause_seconds: float = 0.0) -> None:
        """Write where the drivers are that sent something since the last time."""
        await self.write_offline()
        latest, self._latest = self._latest, {}
        by_tenant: dict[str, list[str]] = defaultdict(list)
        for driver_id, (update, _) in latest.items():
            by_tenant[update.publisher.tenant_id].append(driver_id)
        try:
            for tenant_id, driver_ids in by_tenant.items():
                for start in range(0, len(driver_ids), _BATCH_MOST):
                    chosen = driver_ids[start : start + _BATCH_MOST]
                    await self._write_latest_of(tenant_id, [latest[one] for one in chosen])
                    for driver_id in chosen:
                        del latest[driver_id]
                    await asyncio.sleep(pause_seconds)
        except DependencyUnavailableError:
            self._latest = {**latest, **self._latest}
            raise

    async def _write_latest_of(self, tenant_id: str, updates: Sequence[tuple[Update, int]]) -> None:
        rows = [
            _latest_of(update, update.fix, received) for update, received in updates if update.fix
        ]
        try:
            await self._history.write_latest(tenant_id, rows)
        except HistoryRefusedError:
            _log.exception("last_positions_refused", positions=len(rows))

    async def _keep_partitions(self) -> None:
        while True:
            with suppress(DependencyUnavailableError):
                await self.keep_partitions()
            await asyncio.sleep(_UPKEEP_SECONDS)

    async def keep_partitions(self) -> None:
        """Make room for the next days, and forget what is older than history is kept."""
        now = self._clock.now()
        days = _DAYS_BEHIND + 1 + _DAYS_AHEAD
        await self._history.make_partitions(now - timedelta(days=_DAYS_BEHIND), days)
        dropped = await self._history.drop_before(now - timedelta(days=self._days_kept))
        if dropped:
            _log.info("history_dropped", days=dropped)


def _latest_of(update: Update, fix: Fix, received: int) -> LatestRow:
    publisher = update.publisher
    return LatestRow(
        tenant_id=publisher.tenant_id,
        driver_id=publisher.driver_id,
        vehicle_id=publisher.vehicle_id,
        vehicle_class=publisher.vehicle_class,
        trip_id=update.trip_id,
        fix=fix,
        receive_milliseconds=received,
        payload=update.payload,
    )
