"""Takes a service's events, each with effect once and in order per aggregate.

Position, inbox and effect commit in one transaction of the consumer's own database. An event that
cannot be handled waits there for another try, and with it those of the same aggregate; all others
go on. After the last try it is a dead letter.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from prometheus_client import Counter

from services.shared.errors import DependencyUnavailableError
from services.shared.events.failures import Failures
from services.shared.events.streams import PARTITIONS, stream_key
from services.shared.postgres import Database, Session
from services.shared.tasks import HeldTasks
from services.shared.valkey import VALKEY_AWAY, Valkey
from wayfare.event.v1.envelope_pb2 import Envelope

if TYPE_CHECKING:
    from services.shared.postgres import Connection

_log = structlog.get_logger()
_TAKEN = Counter("wayfare_events_taken_total", "Events that took effect", ["consumer"])
_FAILED = Counter("wayfare_events_failed_total", "Tries that failed", ["consumer"])
_READ_MOST = 500
_BLOCK_MILLISECONDS = 1_000
_AWAY_SECONDS = 1.0
_RETRY_IDLE_SECONDS = 0.2
_SWEEPER = Session(role="SWEEPER")

Handle = Callable[["Connection", Sequence[Envelope]], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """Says how often, and how long after, an event is tried again: backoff with full jitter."""

    attempts: int = 6
    first_seconds: float = 1.0
    longest_seconds: float = 300.0

    def delay_seconds(self, attempt_count: int) -> float:
        """Return how long to wait after so many tries."""
        longest = min(self.longest_seconds, self.first_seconds * 2 ** (attempt_count - 1))
        return random.uniform(longest / 2, longest)  # noqa: S311 - jitter, not a secret


class EventConsumer:
    """Reads every partition of one service's events for one purpose."""

    def __init__(
        self,
        *,
        consumer: str,
        source: str,
        database: Database,
        schema: str,
        valkey: Valkey,
        handle: Handle,
        retries: Retries | None = None,
    ) -> None:
        """Take the events of service `source` as `consumer`.

        `valkey` needs a time limit above a second. `handle` is given events in order and does
        everything on the connection; it is called again with one event at a time when it raises.
        """
        self._consumer = consumer
        self._source = source
        self._database = database
        self._schema = schema
        self._valkey = valkey
        self._handle = handle
        self._retries = retries or Retries()
        self._failures = Failures(schema, consumer)
        self._turn = f"""
            SELECT stream_id FROM {schema}.event_positions
            WHERE consumer = $1 AND source = $2 AND partition = $3 FOR UPDATE SKIP LOCKED
        """  # noqa: S608 - the schema is ours
        self._advance = f"""
            UPDATE {schema}.event_positions SET stream_id = $4
            WHERE consumer = $1 AND source = $2 AND partition = $3
        """  # noqa: S608 - the schema is ours
        self._open = f"""
            INSERT INTO {schema}.event_positions (consumer, source, partition) VALUES ($1, $2, $3)
            ON CONFLICT DO NOTHING
        """  # noqa: S608 - the schema is ours
        self._claim = f"""
            INSERT INTO {schema}.event_inbox (consumer, event_id)
            SELECT $1, id FROM unnest($2::uuid[]) AS id ON CONFLICT DO NOTHING RETURNING event_id
        """  # noqa: S608 - the schema is ours

    async def run(self) -> None:
        """Consume until cancelled."""
        readers = [partial(self._read_forever, number) for number in range(PARTITIONS)]
        await HeldTasks().hold(*readers, self._retry_forever)

    async def _read_forever(self, partition: int) -> None:
        key = stream_key(self._source, partition)
        while True:
            try:
                after = await self._position(partition)
                answer = await self._valkey.xread(
                    {key: after}, count=_READ_MOST, block=_BLOCK_MILLISECONDS
                )
                if answer:
                    entries = (
                        next(iter(answer.values())) if isinstance(answer, dict) else answer[0][1]
                    )
                    await self.take(partition, entries)
            except (DependencyUnavailableError, *VALKEY_AWAY) as error:
                _log.warning("events_not_read", source=self._source, error=type(error).__name__)
                await asyncio.sleep(_AWAY_SECONDS)

    async def _position(self, partition: int) -> str:
        place = (self._consumer, self._source, partition)
        async with self._database.transaction(_SWEEPER) as connection:
            await connection.execute(self._open, *place)
            return str(
                await connection.fetchval(self._turn.replace("FOR UPDATE SKIP LOCKED", ""), *place)
            )

    async def take(self, partition: int, entries: Sequence[Any]) -> int:
        """Handle entries of a stream, unless another process does; return how many were new."""
        place = (self._consumer, self._source, partition)
        async with self._database.transaction(_SWEEPER) as connection:
            position = await connection.fetchval(self._turn, *place)
            if position is None:
                return 0
            fresh = [one for one in entries if _order(_entry(one)[0]) > _order(position)]
            if not fresh:
                return 0
            events = [Envelope.FromString(envelope) for one in fresh for envelope in _entry(one)[1]]
            rows = await connection.fetch(
                self._claim, self._consumer, [event.event_id for event in events]
            )
            unseen = {str(row[0]) for row in rows}
            wanted = [event for event in events if event.event_id in unseen]
            if wanted:
                await self._handle_all(connection, wanted)
            await connection.execute(self._advance, *place, _text(_entry(fresh[-1])[0]))
        _TAKEN.labels(self._consumer).inc(len(wanted))
        return len(wanted)

    async def _handle_all(self, connection: "Connection", events: Sequence[Envelope]) -> None:
        blocked = await self._failures.blocked(connection, {_aggregate(one) for one in events})
        if not blocked and await self._tried(connection, events) == "":
            return
        for event in events:
            aggregate = _aggregate(event)
            if aggregate in blocked:
                await self._failures.wait_behind(connection, event, aggregate)
                continue
            error = await self._tried(connection, [event])
            if error:
                blocked.add(aggregate)
                delay = self._retries.delay_seconds(1)
                await self._failures.failed_first(
                    connection, event, aggregate, error=error, delay_seconds=delay
                )

    async def _tried(self, connection: "Connection", events: Sequence[Envelope]) -> str:
        """Handle events; return "", or what went wrong with nothing done."""
        try:
            async with connection.transaction():
                await self._handle(connection, events)
        except (DependencyUnavailableError, OSError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever is wrong with an event is its handler's
            _FAILED.labels(self._consumer).inc()
            return f"{type(error).__name__}: {error}"[:500]
        return ""

    async def _retry_forever(self) -> None:
        while True:
            try:
                retried = await self.retry_one()
            except (DependencyUnavailableError, *VALKEY_AWAY) as error:
                _log.warning("events_not_retried", error=type(error).__name__)
                retried = False
            if not retried:
                await asyncio.sleep(_RETRY_IDLE_SECONDS)

    async def retry_one(self) -> bool:
        """Try again what is due, the first of its aggregate; say whether there was anything."""
        async with self._database.transaction(_SWEEPER) as connection:
            waiting = await self._failures.due(connection)
            if waiting is None:
                return False
            event = Envelope.FromString(waiting.envelope)
            error = await self._tried(connection, [event])
            attempt_count = waiting.attempt_count + 1
            if not error:
                await self._failures.done(connection, waiting.failure_id)
                _TAKEN.labels(self._consumer).inc()
            elif attempt_count >= self._retries.attempts:
                await self._failures.dead(connection, waiting.failure_id, error=error)
                _log.error("dead_letter", consumer=self._consumer, event_id=event.event_id)
            else:
                await self._failures.failed_again(
                    connection,
                    waiting.failure_id,
                    error=error,
                    delay_seconds=self._retries.delay_seconds(attempt_count),
                )
        return True


def _aggregate(event: Envelope) -> str:
    return f"{event.aggregate_type}/{event.aggregate_id}"


def _entries_of(answer: Any) -> Sequence[Any]:
    """Return the entries of one stream: a map with RESP3, pairs with RESP2."""
    entries: Sequence[Any] = (
        next(iter(answer.values())) if isinstance(answer, dict) else answer[0][1]
    )
    return entries


def _entry(entry: Any) -> tuple[bytes, Sequence[bytes]]:
    """Return id and envelopes of an entry: its values, whichever way the client gives them."""
    stream_id, fields = entry
    envelopes = list(fields.values()) if isinstance(fields, dict) else fields[1::2]
    return stream_id, envelopes


def _text(stream_id: bytes | str) -> str:
    return stream_id.decode() if isinstance(stream_id, bytes) else stream_id


def _order(stream_id: bytes | str) -> tuple[int, int]:
    milliseconds, _, number = _text(stream_id).partition("-")
    return int(milliseconds), int(number or 0)
