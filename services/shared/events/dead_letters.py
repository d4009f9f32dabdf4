"""Is what people do with events that no try could handle: look, try again, drop.

Used by `wayfare dlq`, with the rights of the database's administrator.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from services.shared.postgres import Database, Session

if TYPE_CHECKING:
    from services.shared.postgres import Connection

_SWEEPER = Session(role="SWEEPER")
_COLUMNS = (
    "failure_id, consumer, event_id, aggregate, attempt_count, error, create_time, dead_time,"
    " envelope"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """Is one event that a consumer gave up."""

    schema: str
    failure_id: int
    consumer: str
    event_id: str
    aggregate: str
    attempt_count: int
    error: str
    create_time: datetime
    dead_time: datetime
    envelope: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """Is how much of a consumer's events could not be handled."""

    schema: str
    consumer: str
    dead_count: int
    waiting_count: int


async def consuming_schemas(database: Database) -> list[str]:
    """Return the schemas of the services that consume events, sorted."""
    async with database.transaction(_SWEEPER) as connection:
        rows = await connection.fetch(
            "SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.relname = 'event_failures' AND c.relkind = 'r'"
            " AND n.nspname ~ '^[a-z_]+$' ORDER BY 1"
        )
    return [row[0] for row in rows]


class DeadLetters:
    """Is the dead letters of one service's consumers."""

    def __init__(self, database: Database, schema: str) -> None:
        """Work on a schema of `consuming_schemas`; never on a caller's text."""
        self._database = database
        self._schema = schema
        self._failures = f"{schema}.event_failures"

    async def backlog(self) -> list[Backlog]:
        """Return how much each consumer could not handle, those without anything left out."""
        async with self._database.transaction(_SWEEPER) as connection:
            rows = await connection.fetch(
                "SELECT consumer, count(dead_time), count(*) - count(dead_time)"  # noqa: S608
                f" FROM {self._failures} GROUP BY consumer ORDER BY consumer"
            )
        return [
            Backlog(schema=self._schema, consumer=row[0], dead_count=row[1], waiting_count=row[2])
            for row in rows
        ]

    async def newest(self, *, consumer: str = "", most: int) -> list[DeadLetter]:
        """Return the newest dead letters, of one consumer or of all."""
        async with self._database.transaction(_SWEEPER) as connection:
            rows = await connection.fetch(
                f"SELECT {_COLUMNS} FROM {self._failures} WHERE dead_time IS NOT NULL"  # noqa: S608
                " AND ($1 = '' OR consumer = $1) ORDER BY dead_time DESC, failure_id DESC LIMIT $2",
                consumer,
                most,
            )
        return [self._letter(row) for row in rows]

    async def find(self, event_id: str) -> list[DeadLetter]:
        """Return the dead letters of an event: several consumers may have given it up."""
        async with self._database.transaction(_SWEEPER) as connection:
            rows = await connection.fetch(
                f"SELECT {_COLUMNS} FROM {self._failures}"  # noqa: S608
                " WHERE dead_time IS NOT NULL AND event_id = $1 ORDER BY consumer",
                event_id,
            )
        return [self._letter(row) for row in rows]

    async def retry(self, *, consumer: str, event_id: str | None, actor: str) -> int:
        """Put a dead letter of a consumer back in line, or all of them; return how many.

        They get all their tries again, the oldest of an aggregate first; what comes after them of
        the same aggregate waits again.
        """
        async with self._database.transaction(_SWEEPER) as connection:
            rows = await connection.fetch(
                f"UPDATE {self._failures} SET dead_time = NULL, attempt_count = 0,"  # noqa: S608
                " next_time = now() WHERE dead_time IS NOT NULL AND consumer = $1"
                " AND ($2::uuid IS NULL OR event_id = $2)"
                " RETURNING consumer, event_id, aggregate, error",
                consumer,
                event_id,
            )
            await self._audit(connection, "RETRY", rows, reason="", actor=actor)
        return len(rows)

    async def drop(self, *, consumer: str, event_id: str, reason: str, actor: str) -> int:
        """Delete a dead letter; return whether there was one, as 1 or 0.

        The event stays in the event store of the service where it happened.
        """
        async with self._database.transaction(_SWEEPER) as connection:
            rows = await connection.fetch(
                f"DELETE FROM {self._failures} WHERE dead_time IS NOT NULL AND consumer = $1"  # noqa: S608
                " AND event_id = $2 RETURNING consumer, event_id, aggregate, error",
                consumer,
                event_id,
            )
            await self._audit(connection, "DROP", rows, reason=reason, actor=actor)
        return len(rows)

    async def _audit(
        self, connection: "Connection", action: str, rows: Any, *, reason: str, actor: str
    ) -> None:
        await connection.executemany(
            f"INSERT INTO {self._schema}.dead_letter_audit"  # noqa: S608
            " (action, consumer, event_id, aggregate, error, reason, actor)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7)",
            [(action, *row, reason, actor) for row in rows],
        )

    def _letter(self, row: Any) -> DeadLetter:
        values = dict(row)
        values["event_id"] = str(values["event_id"])
        return DeadLetter(schema=self._schema, **values)
