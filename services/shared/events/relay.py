"""Publishes a service's events to Valkey streams, each at least once and in order per aggregate."""

import asyncio
import time
from collections.abc import Sequence

import structlog
from prometheus_client import Counter

from services.shared.errors import DependencyUnavailableError
from services.shared.events.lag import relay_lag
from services.shared.events.log import EventLog, LoggedEvent
from services.shared.events.streams import (
    ENVELOPES_PER_ENTRY,
    PARTITIONS,
    REPUBLISHED_SECONDS,
    partition_of,
    published_key,
    stream_key,
)
from services.shared.valkey import VALKEY_AWAY, Valkey

_log = structlog.get_logger()
_PUBLISHED = Counter("wayfare_events_published_total", "Events published", ["service"])
_READ_MOST = 1_000
_AWAY_SECONDS = 1.0


class EventRelay:
    """Publishes in whichever process has the turn; the others look again soon."""

    def __init__(
        self,
        *,
        log: EventLog,
        valkey: Valkey,
        service: str,
        idle_seconds: float,
        entries_kept: int,
    ) -> None:
        """Publish `log` as the events of `service`; a stream keeps about `entries_kept` entries.

        An entry holds one event or, when there are many, eight. Consumers that are further behind
        read what they missed from nowhere: keep enough for the longest outage.
        """
        self._log = log
        self._valkey = valkey
        self._service = service
        self._idle_seconds = idle_seconds
        self._entries_kept = entries_kept
        self._lag = relay_lag(service)

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            try:
                published = await self.publish()
            except (DependencyUnavailableError, *VALKEY_AWAY) as error:
                _log.warning("events_wait", error=type(error).__name__)
                await asyncio.sleep(_AWAY_SECONDS)
                continue
            if published < _READ_MOST:
                await asyncio.sleep(self._idle_seconds)

    async def publish(self) -> int:
        """Publish what comes next; return how many.

        A crash between Valkey and the commit publishes again: consumers know what they have seen.
        """
        async with self._log.turn() as turn:
            if turn is None:
                self._lag.waits_since(None)
                return 0
            marker = published_key(self._service)
            if not await self._valkey.exists(marker):
                # Valkey was emptied: what consumers have not read yet is published again.
                since = time.time() - REPUBLISHED_SECONDS
                await turn.rewind(self._entries_kept * PARTITIONS, since=since)
            events = await turn.next_events(_READ_MOST)
            self._lag.waits_since(events[0].occurred() if events else None)
            if not events:
                return 0
            await self._add(events)
            await self._valkey.set(marker, 1)
            await turn.published(events[-1])
        self._lag.waits_since(None)
        _PUBLISHED.labels(self._service).inc(len(events))
        return len(events)

    async def _add(self, events: Sequence[LoggedEvent]) -> None:
        """Add the events to their partitions, several to an entry: an entry is most of the cost."""
        partitions: list[list[bytes]] = [[] for _ in range(PARTITIONS)]
        for event in events:
            partitions[partition_of(event.aggregate)].append(event.envelope)
        pipeline = self._valkey.pipeline(transaction=False)
        for number, envelopes in enumerate(partitions):
            key = stream_key(self._service, number)
            for start in range(0, len(envelopes), ENVELOPES_PER_ENTRY):
                fields = dict(enumerate(envelopes[start : start + ENVELOPES_PER_ENTRY]))
                pipeline.xadd(key, fields, maxlen=self._entries_kept, approximate=True)
        await pipeline.execute()
