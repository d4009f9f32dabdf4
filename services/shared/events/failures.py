"""Keeps what a consumer could not handle: tries to come, what waits behind them, dead letters."""

import traceback
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import asyncpg

from services.shared.errors import DomainError
from wayfare.event.v1.envelope_pb2 import Envelope

if TYPE_CHECKING:
    from services.shared.postgres import Connection

_ERROR_CHARACTERS = 500


class Waiting(NamedTuple):
    """Is an event whose next try is due."""

    failure_id: int
    envelope: bytes
    attempt_count: int


def describe_failure(error: BaseException) -> str:
    """Return what went wrong without what it went wrong with: messages may hold people's data."""
    if isinstance(error, DomainError):
        return f"{type(error).__name__}: {error.reason}"[:_ERROR_CHARACTERS]
    if isinstance(error, asyncpg.PostgresError):
        named = (error.sqlstate, getattr(error, "constraint_name", None))
        return " ".join((type(error).__name__, *filter(None, named)))[:_ERROR_CHARACTERS]
    frames = traceback.extract_tb(error.__traceback__)
    where = f" in {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"[:_ERROR_CHARACTERS]


class Failures:
    """Is the table `<schema>.event_failures` of one consumer."""

    def __init__(self, schema: str, consumer: str) -> None:
        """Work on `schema`, which is ours and not a caller's text."""
        table = f"{schema}.event_failures"
        self._consumer = consumer
        self._blocked = f"""
            SELECT DISTINCT aggregate FROM {table}
            WHERE consumer = $1 AND dead_time IS NULL AND aggregate = ANY ($2::text[])
        """  # noqa: S608
        self._insert = f"""
            INSERT INTO {table}
              (consumer, event_id, aggregate, envelope, attempt_count, error, next_time)
            VALUES ($1, $2, $3, $4, $5, $6, now() + $7 * interval '1 second')
            ON CONFLICT (consumer, event_id) DO NOTHING
        """  # noqa: S608
        # The oldest of each aggregate: what waits behind it is not tried before.
        self._due = f"""
            SELECT f.failure_id, f.envelope, f.attempt_count FROM {table} f
            WHERE f.consumer = $1 AND f.dead_time IS NULL AND f.next_time <= now()
              AND NOT EXISTS (SELECT 1 FROM {table} older WHERE older.consumer = f.consumer
                AND older.aggregate = f.aggregate AND older.dead_time IS NULL
                AND older.failure_id < f.failure_id)
            ORDER BY f.next_time LIMIT 1 FOR UPDATE SKIP LOCKED
        """  # noqa: S608
        self._delete = f"DELETE FROM {table} WHERE failure_id = $1"  # noqa: S608
        self._again = f"""
            UPDATE {table} SET attempt_count = attempt_count + 1, error = $2,
              next_time = now() + $3 * interval '1 second' WHERE failure_id = $1
        """  # noqa: S608
        self._dead = f"""
            UPDATE {table} SET attempt_count = attempt_count + 1, error = $2, dead_time = now()
            WHERE failure_id = $1
        """  # noqa: S608

    async def blocked(self, connection: "Connection", aggregates: Collection[str]) -> set[str]:
        """Return those of these aggregates of which something waits."""
        rows = await connection.fetch(self._blocked, self._consumer, list(aggregates))
        return {row[0] for row in rows}

    async def failed_first(
        self,
        connection: "Connection",
        event: Envelope,
        aggregate: str,
        *,
        error: str,
        delay_seconds: float,
    ) -> None:
        """Keep an event whose first try failed."""
        await self._keep(connection, event, aggregate, 1, error, delay_seconds)

    async def wait_behind(self, connection: "Connection", event: Envelope, aggregate: str) -> None:
        """Keep an event that waits behind another of its aggregate."""
        await self._keep(connection, event, aggregate, 0, "", 0.0)

    async def _keep(
        self,
        connection: "Connection",
        event: Envelope,
        aggregate: str,
        attempt_count: int,
        error: str,
        delay_seconds: float,
    ) -> None:
        await connection.execute(
            self._insert,
            self._consumer,
            event.event_id,
            aggregate,
            event.SerializeToString(),
            attempt_count,
            error,
            delay_seconds,
        )

    async def due(self, connection: "Connection") -> Waiting | None:
        """Lock and return an event that is due for another try, or None."""
        row = await connection.fetchrow(self._due, self._consumer)
        return None if row is None else Waiting(*row)

    async def done(self, connection: "Connection", failure_id: int) -> None:
        """Forget an event that was handled."""
        await connection.execute(self._delete, failure_id)

    async def failed_again(
        self, connection: "Connection", failure_id: int, *, error: str, delay_seconds: float
    ) -> None:
        """Let an event wait for another try."""
        await connection.execute(self._again, failure_id, error, delay_seconds)

    async def dead(self, connection: "Connection", failure_id: int, *, error: str) -> None:
        """Give up an event: people look at it, and those behind it go on."""
        await connection.execute(self._dead, failure_id, error)
