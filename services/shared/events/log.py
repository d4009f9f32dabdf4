"""Reads a service's table of events in the order in which their transactions committed.

The table is `<schema>.events`: aggregate_type, aggregate_id, aggregate_version, tenant_id,
envelope, transaction_id (xid8), event_number. Numbers are given before the commit, so a reader that
went by them alone would pass over an event whose transaction commits late. What is older than every
transaction that still runs is complete: its order is (transaction_id, event_number).
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from services.shared.postgres import Database, Session
from wayfare.event.v1.envelope_pb2 import Envelope

if TYPE_CHECKING:
    from services.shared.postgres import Connection

_SWEEPER = Session(role="SWEEPER")
_REWIND_PAGE = 5_000
IN_ORDER = "set_config('enable_sort', 'off', true), set_config('enable_seqscan', 'off', true)"
"""Makes the rest of a transaction read events along their index, whatever the planner believes."""


class LoggedEvent(NamedTuple):
    """Is one event as it is kept."""

    transaction_id: int
    event_number: int
    aggregate: str
    envelope: bytes

    def occurred(self) -> float:
        """Return when it occurred, in seconds since 1970."""
        return Envelope.FromString(self.envelope).occur_time.ToMilliseconds() / 1000


class EventLog:
    """Is the events of one service, as its relay sees them."""

    def __init__(self, database: Database, schema: str) -> None:
        """Read `schema`.events; what is published is kept in `schema`.event_cursor."""
        self._database = database
        # Not the lock of the cursor's row, which is written down: a turn with nothing to publish
        # would wait for the disk, and keep it from those who commit.
        turn = f"hashtextextended('{schema}.event_cursor', 0)"
        self._take = f"SELECT pg_try_advisory_xact_lock({turn}), {IN_ORDER}"
        self._cursor = f"""
            SELECT transaction_id::text::bigint, event_number, stream_ids FROM {schema}.event_cursor
        """  # noqa: S608 - the schema is ours
        # The columns of the table, not those of the answer, are in the order of the index.
        self.read = f"""
            SELECT transaction_id::text::bigint, event_number,
              aggregate_type || '/' || aggregate_id, envelope
            FROM {schema}.events AS e
            WHERE (transaction_id, event_number) > ($1::text::xid8, $2)
              AND transaction_id < pg_snapshot_xmin(pg_current_snapshot())
            ORDER BY e.transaction_id, e.event_number LIMIT $3
        """  # noqa: S608 - the schema is ours
        self.newest = f"""
            SELECT transaction_id::text::bigint, event_number FROM {schema}.events AS e
            ORDER BY e.transaction_id DESC, e.event_number DESC OFFSET $1 LIMIT 1
        """  # noqa: S608 - the schema is ours
        self.advance = (
            f"UPDATE {schema}.event_cursor SET transaction_id = $1::text::xid8, event_number = $2"  # noqa: S608 - the schema is ours
            ", stream_ids = $3"
        )

    @asynccontextmanager
    async def turn(self) -> AsyncIterator["RelayTurn | None"]:
        """Take the turn to publish, which one process has at a time; None if another has it."""
        async with self._database.transaction(_SWEEPER) as connection:
            row = None
            if await connection.fetchval(self._take):
                row = await connection.fetchrow(self._cursor)
            if row is None:
                yield None
                return
            yield RelayTurn(connection, (row[0], row[1]), row[2], self)


class RelayTurn:
    """Is the turn to publish what comes next. The cursor moves when its transaction commits."""

    def __init__(
        self,
        connection: "Connection",
        cursor: tuple[int, int],
        stream_ids: Sequence[str],
        statements: EventLog,
    ) -> None:
        """Go on after `cursor`; the last entries in Valkey, by partition, were `stream_ids`."""
        self._connection = connection
        self._cursor = cursor
        self.stream_ids = stream_ids
        self._statements = statements

    async def next_events(self, most: int) -> Sequence[LoggedEvent]:
        """Return the events that come next."""
        number, event_number = self._cursor
        rows = await self._connection.fetch(self._statements.read, str(number), event_number, most)
        return [LoggedEvent(*row) for row in rows]

    async def published(self, last: LoggedEvent, stream_ids: Sequence[str]) -> None:
        """Remember that everything up to `last` is published, and the last entries in Valkey."""
        self.stream_ids = stream_ids
        await self._move(_place(last))

    async def rewind(self, most: int, *, since: float) -> None:
        """Go back, so that events come again: the newest `most`, and none from before `since`.

        What was not published yet comes in any case.
        """
        row = await self._connection.fetchrow(self._statements.newest, most)
        reached = self._cursor
        self._cursor = min(reached, (0, 0) if row is None else (row[0], row[1]))
        while events := await self.next_events(_REWIND_PAGE):
            for event in events:
                if _place(event) > reached or event.occurred() >= since:
                    await self._move(self._cursor)
                    return
                self._cursor = _place(event)
        await self._move(self._cursor)

    async def _move(self, cursor: tuple[int, int]) -> None:
        self._cursor = cursor
        await self._connection.execute(
            self._statements.advance, str(cursor[0]), cursor[1], self.stream_ids
        )


def _place(event: LoggedEvent) -> tuple[int, int]:
    return event.transaction_id, event.event_number
