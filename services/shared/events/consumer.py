"""Takes a service's events, each with effect once and in order per aggregate.

Position, inbox and effect commit in one transaction of the consumer's own database. An event that
cannot be handled waits there for another try, and with it those of the same aggregate; all others
go on. After the last try it is a dead letter.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from prometheus_client import Counter

from services.shared.errors import DependencyUnavailableError
from services.shared.events.failures import Failures, describe_failure
from services.shared.events.inbox import PRUNED_MOST, Inbox
from services.shared.events.lag import consumer_lag, oldest_not_taken
from services.shared.events.streams import PARTITIONS, order_of, stream_key
from services.shared.postgres import Database, Session, savepoint
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
_TURN_SECONDS = 0.1
_KEEP_SECONDS = 1.0
_RETRY_IDLE_SECONDS = 0.2
_PRUNE_SECONDS = 60.0
_LAG_SECONDS = 5.0
# Partitions whose events are handled at once: a pool of connections is shared with callers.
_TAKES_AT_ONCE = 2
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
        wants: Callable[[Envelope], bool] | None = None,
        retries: Retries | None = None,
    ) -> None:
        """Take the events of service `source` as `consumer`.

        `valkey` is a client of its own, with a time limit above a second: each of eight partitions
        holds one of its connections. `handle` is given events in order and does
        everything on the connection; it is called again with one event at a time when it raises.
        `wants` says which events are for this consumer at all; None: every one.
        """
        self._consumer = consumer
        self._source = source
        self._database = database
        self._schema = schema
        self._valkey = valkey
        self._handle = handle
        self._wants = wants
        self._retries = retries or Retries()
        self._failures = Failures(schema, consumer)
        self._inbox = Inbox(schema, consumer)
        self._lag = consumer_lag(consumer, source)
        self._takes = asyncio.Semaphore(_TAKES_AT_ONCE)
        # Since when a partition's position in the database is behind what was passed over.
        self._passed: dict[int, float] = {}
        self._turn = f"""
            SELECT stream_id FROM {schema}.event_positions
            WHERE consumer = $1 AND source = $2 AND partition = $3 FOR UPDATE SKIP LOCKED
        """  # noqa: S608 - the schema is ours
        self._advance = f"""
            UPDATE {schema}.event_positions SET stream_id = $4
            WHERE consumer = $1 AND source = $2 AND partition = $3
        """  # noqa: S608 - the schema is ours
        self._position = f"""
            SELECT stream_id FROM {schema}.event_positions
            WHERE consumer = $1 AND source = $2 AND partition = $3
        """  # noqa: S608 - the schema is ours
        self._positions = f"""
            SELECT partition, stream_id FROM {schema}.event_positions
            WHERE consumer = $1 AND source = $2
        """  # noqa: S608 - the schema is ours
        self._open = f"""
            INSERT INTO {schema}.event_positions (consumer, source, partition) VALUES ($1, $2, $3)
            ON CONFLICT DO NOTHING
        """  # noqa: S608 - the schema is ours

    async def run(self) -> None:
        """Consume until cancelled."""
        works: list[Callable[[], Awaitable[None]]] = [
            *(partial(self._read_forever, number) for number in range(PARTITIONS)),
            self._retry_forever,
            self._prune_forever,
            self._tell_lag_forever,
        ]
        await HeldTasks().hold(*(partial(self._keep_going, work) for work in works))

    async def _keep_going(self, work: Callable[[], Awaitable[None]]) -> None:
        """Begin again whatever ends: what goes wrong here must not end a process that serves."""
        while True:
            try:
                await work()
            except Exception as error:  # noqa: BLE001 - is told, and tried again
                _log.error("events_failed", source=self._source, exc_info=error)
            await asyncio.sleep(_AWAY_SECONDS)

    async def _read_forever(self, partition: int) -> None:
        after: str | None = None
        while True:
            try:
                after = await self.read(partition, after, wait_milliseconds=_BLOCK_MILLISECONDS)
                if after is None:
                    await asyncio.sleep(_TURN_SECONDS)
            except (DependencyUnavailableError, *VALKEY_AWAY) as error:
                _log.warning("events_not_read", source=self._source, error=type(error).__name__)
                after = None
                await asyncio.sleep(_AWAY_SECONDS)

    async def read(
        self, partition: int, after: str | None = None, *, wait_milliseconds: int | None = None
    ) -> str | None:
        """Take the next entries after `after`, or after the position kept; wait for some.

        Returns what to go on after, None if another process has the turn.
        """
        after = after or await self._read_position(partition)
        answer = await self._valkey.xread(
            {stream_key(self._source, partition): after}, count=_READ_MOST, block=wait_milliseconds
        )
        if answer:
            entries = _entries_of(answer)
        elif partition in self._passed:
            entries = [(after, ())]
        else:
            return after
        last = _text(_entry(entries[-1])[0])
        if answer and self._passes_over(partition, entries):
            return last
        async with self._takes:
            taken = await self.take(partition, entries)
        return None if taken is None else last

    def _passes_over(self, partition: int, entries: Sequence[Any]) -> bool:
        """Say whether nothing of this is wanted, nor worth a transaction that keeps the position.

        It is kept once a second and when nothing comes. A process that ends before that passes over
        the same events again.
        """
        if self._wants is None:
            return False
        now = asyncio.get_running_loop().time()
        since = self._passed.setdefault(partition, now)
        if now - since > _KEEP_SECONDS:
            return False
        return not any(
            self._wants(Envelope.FromString(envelope))
            for one in entries
            for envelope in _entry(one)[1]
        )

    async def _read_position(self, partition: int) -> str:
        place = (self._consumer, self._source, partition)
        async with self._database.transaction(_SWEEPER) as connection:
            await connection.execute(self._open, *place)
            return str(await connection.fetchval(self._position, *place))

    async def take(self, partition: int, entries: Sequence[Any]) -> int | None:
        """Handle entries of a stream; return how many events were new.

        None if another process has the turn, and nothing was done.
        """
        place = (self._consumer, self._source, partition)
        self._passed.pop(partition, None)
        async with self._database.transaction(_SWEEPER) as connection:
            position = await connection.fetchval(self._turn, *place)
            if position is None:
                return None
            fresh = [one for one in entries if order_of(_entry(one)[0]) > order_of(position)]
            if not fresh:
                return 0
            events = [Envelope.FromString(envelope) for one in fresh for envelope in _entry(one)[1]]
            # Of what was published twice and is read at once, the first.
            events_by_id: dict[str, Envelope] = {}
            # What is not wanted is passed over before the inbox: most of a service's events may be.
            for event in events:
                if self._wants is None or self._wants(event):
                    events_by_id.setdefault(event.event_id, event)
            unseen: Collection[str] = ()
            if events_by_id:
                unseen = await self._inbox.claim(connection, list(events_by_id))
            wanted = [event for id_, event in events_by_id.items() if id_ in unseen]
            if wanted:
                blocked = await self._failures.blocked(connection, {_aggregate(e) for e in wanted})
                await self._handle_all(connection, wanted, blocked)
            await connection.execute(self._advance, *place, _text(_entry(fresh[-1])[0]))
        _TAKEN.labels(self._consumer).inc(len(wanted))
        return len(wanted)

    async def _handle_all(
        self, connection: "Connection", events: Sequence[Envelope], blocked: set[str]
    ) -> None:
        """Handle events together; if that fails, by halves, until what fails is alone.

        What is of an aggregate in `blocked` waits; the aggregate of what failed is added.
        """
        free = []
        for event in events:
            if _aggregate(event) in blocked:
                await self._failures.wait_behind(connection, event, _aggregate(event))
            else:
                free.append(event)
        error = await self._tried(connection, free) if free else ""
        if not error:
            return
        if len(free) > 1:
            middle = len(free) // 2
            await self._handle_all(connection, free[:middle], blocked)
            await self._handle_all(connection, free[middle:], blocked)
            return
        _FAILED.labels(self._consumer).inc()
        aggregate = _aggregate(free[0])
        blocked.add(aggregate)
        delay = self._retries.delay_seconds(1)
        await self._failures.failed_first(
            connection, free[0], aggregate, error=error, delay_seconds=delay
        )

    async def _tried(self, connection: "Connection", events: Sequence[Envelope]) -> str:
        """Handle events; return "", or what went wrong with nothing done."""
        try:
            async with savepoint(connection):
                await self._handle(connection, events)
        except (DependencyUnavailableError, OSError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever is wrong with an event is its handler's
            return describe_failure(error)
        return ""

    async def _prune_forever(self) -> None:
        while True:
            # Processes that started together do not come together.
            await asyncio.sleep(random.uniform(0.5, 1.0) * _PRUNE_SECONDS)  # noqa: S311
            try:
                while await self.prune() == PRUNED_MOST:
                    pass
            except DependencyUnavailableError as error:
                _log.warning("inbox_not_pruned", error=type(error).__name__)

    async def prune(self) -> int:
        """Delete old entries of the inbox; return how many, at most PRUNED_MOST."""
        async with self._database.transaction(_SWEEPER) as connection:
            return await self._inbox.prune(connection)

    async def _tell_lag_forever(self) -> None:
        while True:
            try:
                await self.look_behind()
            except (DependencyUnavailableError, *VALKEY_AWAY) as error:
                _log.warning("lag_not_known", source=self._source, error=type(error).__name__)
            await asyncio.sleep(_LAG_SECONDS)

    async def look_behind(self) -> float:
        """Find out how far behind this consumer is, for its metric; return it in seconds."""
        async with self._database.transaction(_SWEEPER) as connection:
            rows = await connection.fetch(self._positions, self._consumer, self._source)
        positions = {row[0]: row[1] for row in rows}
        self._lag.waits_since(await oldest_not_taken(self._valkey, self._source, positions))
        return self._lag.seconds()

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
            if error:
                _FAILED.labels(self._consumer).inc()
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
