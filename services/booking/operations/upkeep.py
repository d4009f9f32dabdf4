"""Forgets what nobody asks for any more, so that tables do not grow for ever."""

import asyncio
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from services.shared.clock import Clock
from services.shared.errors import DependencyUnavailableError

_log = structlog.get_logger()
_MOST = 10_000
_REST_SECONDS = 600.0


class ForgetfulStore(Protocol):
    """Keeps request ids, or holds."""

    async def forget(self, *, before: datetime, most: int) -> int:
        """Forget at most so many that ended before a time; return how many were forgotten."""
        ...


class Upkeep:
    """Forgets what is older than anybody asks for, in batches. Any number of processes may."""

    def __init__(self, *, store: ForgetfulStore, clock: Clock, days_kept: int) -> None:
        """Keep everything for so many days."""
        self._store = store
        self._clock = clock
        self._kept = timedelta(days=days_kept)

    async def forget_old(self) -> int:
        """Forget what is too old; return how many were forgotten."""
        total, forgotten = 0, _MOST
        while forgotten == _MOST:
            before = self._clock.now() - self._kept
            forgotten = await self._store.forget(before=before, most=_MOST)
            total += forgotten
        return total

    async def run(self) -> None:
        """Forget until cancelled."""
        while True:
            try:
                await self.forget_old()
            except DependencyUnavailableError:
                _log.warning("upkeep_waits", dependency="postgresql")
            await asyncio.sleep(_REST_SECONDS)
