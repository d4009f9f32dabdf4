"""Publishes a service's events to Valkey streams, each at least once and in order per aggregate."""

import asyncio

import structlog
from prometheus_client import Counter

from services.shared.errors import DependencyUnavailableError
from services.shared.events.log import EventLog
from services.shared.events.streams import (
    AGGREGATE,
    ENVELOPE,
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
        events_kept: int,
    ) -> None:
        """Publish `log` as the events of `service`; a stream keeps about `events_kept`.

        Consumers that are further behind read what they missed from nowhere: keep enough for the
        longest outage.
        """
        self._log = log
        self._valkey = valkey
        self._service = service
        self._idle_seconds = idle_seconds
        self._events_kept = events_kept

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
                return 0
            marker = published_key(self._service)
            if not await self._valkey.exists(marker):
                # Valkey was emptied: what consumers have not read yet is published again.
                await turn.rewind(self._events_kept)
            events = await turn.next_events(_READ_MOST)
            if not events:
                return 0
            pipeline = self._valkey.pipeline(transaction=False)
            for event in events:
                pipeline.xadd(
                    stream_key(self._service, partition_of(event.aggregate)),
                    {AGGREGATE: event.aggregate, ENVELOPE: event.envelope},
                    maxlen=self._events_kept,
                    approximate=True,
                )
            pipeline.set(marker, 1)
            await pipeline.execute()
            await turn.published(events[-1])
        _PUBLISHED.labels(self._service).inc(len(events))
        return len(events)
