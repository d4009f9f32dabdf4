"""Publishes a service's events to Valkey streams, each at least once and in order per aggregate."""

import asyncio
from collections.abc import Sequence
from typing import Any

import structlog
from prometheus_client import Counter
from redis.asyncio import RedisCluster
from redis.exceptions import ResponseError

from services.shared.clock import Clock, SystemClock
from services.shared.errors import DependencyUnavailableError
from services.shared.events.lag import relay_lag
from services.shared.events.log import EventLog, LoggedEvent
from services.shared.events.streams import (
    ADD_TO_STREAM,
    ENVELOPES_PER_ENTRY,
    PARTITIONS,
    REPUBLISHED_SECONDS,
    partition_of,
    stream_key,
)
from services.shared.valkey import VALKEY_AWAY, Valkey

_log = structlog.get_logger()
_PUBLISHED = Counter("wayfare_events_published_total", "Events published", ["service"])
_READ_MOST = 4_000
_AWAY_SECONDS = 1.0
_LOOK_SECONDS = 1.0
# What is published wakes a reader for each partition of every consumer, however little it is: when
# more than so many events come within a rest, it is so many times as long.
_BUSY, _BUSY_TIMES = 10, 3
# Before the id of an entry that Valkey has no more: what comes next has a greater one.
_LOST = "~"


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
        clock: Clock | None = None,
    ) -> None:
        """Publish `log` as the events of `service`; a stream keeps about `entries_kept` entries.

        It looks for events every `idle_seconds`, and less often while there are many.
        An entry holds one event or, when there are many, eight. Consumers that are further behind
        read what they missed from nowhere: keep enough for the longest outage.
        """
        self._log = log
        self._valkey = valkey
        self._service = service
        self._idle_seconds = idle_seconds
        self._entries_kept = entries_kept
        self._lag = relay_lag(service)
        self._looked_at = float("-inf")
        self._clock = clock or SystemClock()

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            try:
                published = await self.publish()
            except (DependencyUnavailableError, *VALKEY_AWAY) as error:
                _log.warning("events_wait", error=type(error).__name__)
                await asyncio.sleep(_AWAY_SECONDS)
                continue
            except ResponseError as error:
                # Its memory is full, or it is loading: it will pass, or somebody has to act.
                _log.error("events_not_accepted", error=type(error).__name__)
                await asyncio.sleep(_AWAY_SECONDS)
                continue
            if published < _READ_MOST:
                await asyncio.sleep(self._idle_seconds * (_BUSY_TIMES if published > _BUSY else 1))

    async def publish(self) -> int:
        """Publish what comes next; return how many.

        A crash between Valkey and the commit publishes again: consumers know what they have seen.
        """
        async with self._log.turn() as turn:
            if turn is None:
                self._lag.waits_since(None)
                return 0
            events = await turn.next_events(_READ_MOST)
            self._lag.waits_since(events[0].occurred() if events else None)
            if not events and self._clock.monotonic() < self._looked_at + _LOOK_SECONDS:
                return 0
            stream_ids = await self._add(turn.stream_ids or ["0-0"] * PARTITIONS, events)
            if stream_ids is None:
                # What consumers may not have read is published again, and these events behind it.
                _log.warning("valkey_lost_events", service=self._service)
                since = self._clock.now().timestamp() - REPUBLISHED_SECONDS
                turn.stream_ids = [f"{_LOST}{one.lstrip(_LOST)}" for one in turn.stream_ids]
                await turn.rewind(self._entries_kept * PARTITIONS, since=since)
                return _READ_MOST
            self._looked_at = self._clock.monotonic()
            if events:
                await turn.published(events[-1], stream_ids)
        self._lag.waits_since(None)
        _PUBLISHED.labels(self._service).inc(len(events))
        return len(events)

    async def _add(
        self, known: Sequence[str], events: Sequence[LoggedEvent]
    ) -> Sequence[str] | None:
        """Add the events to their partitions; return the last entry of each.

        None if Valkey has less than `known`: it was emptied, restarted without its last second, or
        a replica took over. Nothing was added then where something is lost.
        """
        partitions: list[list[bytes]] = [[] for _ in range(PARTITIONS)]
        for event in events:
            partitions[partition_of(event.aggregate)].append(event.envelope)
        added = await self._eval_all(
            [
                (
                    stream_key(self._service, number),
                    known[number].lstrip(_LOST),
                    int(known[number].startswith(_LOST)),
                    self._entries_kept,
                    ENVELOPES_PER_ENTRY,
                    *envelopes,
                )
                for number, envelopes in enumerate(partitions)
            ]
        )
        if None in added:
            return None
        # What only has to be passed stays so until something is added.
        return [
            had if had.startswith(_LOST) and not envelopes else last.decode()
            for had, last, envelopes in zip(known, added, partitions, strict=True)
        ]

    async def _eval_all(self, arguments: Sequence[Sequence[Any]]) -> Sequence[Any]:
        """Add to each partition; of one server by one way, of a cluster each by its own."""
        if isinstance(self._valkey, RedisCluster):
            return await asyncio.gather(
                *(self._valkey.eval(ADD_TO_STREAM, 1, *one) for one in arguments)
            )
        async with self._valkey.pipeline(transaction=False) as pipeline:
            for one in arguments:
                pipeline.eval(ADD_TO_STREAM, 1, *one)
            added: list[Any] = await pipeline.execute()
        return added
