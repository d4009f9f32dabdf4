"""Opens PostgreSQL for one service.

A pool, and transactions that carry tenant and user for row-level security.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import asyncpg

from services.shared.errors import DependencyUnavailableError

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection = PoolConnectionProxy[Any]
else:
    Connection = asyncpg.Connection

_AWAY = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InterfaceError,
)
_CONNECT_SECONDS = 3.0
_ACQUIRE_SECONDS = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Says for whom a transaction runs.

    Empty text means nobody, and row-level security shows nothing.
    """

    tenant_id: str = ""
    user_id: str = ""
    role: str = ""


class Database:
    """Runs transactions over a pool of connections."""

    def __init__(self, pool: "asyncpg.Pool[Any]") -> None:
        """Take an open pool; see `open_database`."""
        self._pool = pool

    @asynccontextmanager
    async def transaction(
        self, session: Session, *, snapshot: bool = False
    ) -> AsyncIterator["Connection"]:
        """Run a transaction for `session`; commits at the end, rolls back on any error.

        With `snapshot` it only reads, and all statements see the same moment. Raises
        DependencyUnavailableError if PostgreSQL is away.
        """
        isolation: Literal["repeatable_read"] | None = "repeatable_read" if snapshot else None
        try:
            async with (
                self._pool.acquire(timeout=_ACQUIRE_SECONDS) as connection,
                connection.transaction(isolation=isolation, readonly=snapshot),
            ):
                await connection.execute(
                    "SELECT set_config('app.tenant_id', $1, true),"
                    " set_config('app.user_id', $2, true), set_config('app.role', $3, true)",
                    session.tenant_id,
                    session.user_id,
                    session.role,
                )
                yield connection
        except _AWAY as error:
            raise DependencyUnavailableError("postgresql") from error

    async def ping(self) -> None:
        """Ask PostgreSQL for an answer. Raises DependencyUnavailableError if it gives none."""
        try:
            async with self._pool.acquire(timeout=_ACQUIRE_SECONDS) as connection:
                await connection.execute("SELECT 1")
        except _AWAY as error:
            raise DependencyUnavailableError("postgresql") from error

    async def close(self) -> None:
        """Close the pool; connections that are still in use are cut after 5 seconds."""
        try:
            await asyncio.wait_for(self._pool.close(), 5.0)
        except TimeoutError:
            self._pool.terminate()


async def open_database(dsn: str, *, pool_size: int, statement_seconds: float = 10.0) -> Database:
    """Open a pool of at most `pool_size` connections, without connecting yet.

    No connection is made before the first use, so that a process can start while PostgreSQL is
    away.
    """
    pool = await asyncpg.create_pool(
        dsn,
        min_size=0,
        max_size=pool_size,
        timeout=_CONNECT_SECONDS,
        command_timeout=statement_seconds,
        server_settings={"statement_timeout": str(int(statement_seconds * 1000))},
        max_inactive_connection_lifetime=60.0,
    )
    return Database(pool)
