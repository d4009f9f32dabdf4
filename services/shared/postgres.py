"""Opens PostgreSQL for one service.

A pool, and transactions that carry tenant and user for row-level security.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
    # What the client says when a server that stops answers something else than it was asked.
    asyncpg.InternalClientError,
)
_BEGIN = "BEGIN"
_BEGIN_SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
# What stands between quotes as it is, whatever the server's settings are.
_PLAIN = re.compile(r"[A-Za-z0-9_-]{0,64}")
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
        begin = _BEGIN_SNAPSHOT if snapshot else _BEGIN
        try:
            async with self._connection() as connection:
                try:
                    await _begin(connection, begin, session)
                    yield connection
                except BaseException:
                    await connection.execute("ROLLBACK")
                    raise
                await connection.execute("COMMIT")
        except _AWAY as error:
            raise DependencyUnavailableError("postgresql") from error

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator["Connection"]:
        # The pool's own time limit costs a task more.
        async with asyncio.timeout(_ACQUIRE_SECONDS):
            connection = await self._pool.acquire()
        try:
            yield connection
        finally:
            await self._pool.release(connection)

    async def ping(self) -> None:
        """Ask PostgreSQL for an answer. Raises DependencyUnavailableError if it gives none."""
        try:
            async with self._connection() as connection:
                await connection.execute("SELECT 1")
        except _AWAY as error:
            raise DependencyUnavailableError("postgresql") from error

    async def close(self) -> None:
        """Close the pool; connections that are still in use are cut after 5 seconds."""
        try:
            await asyncio.wait_for(self._pool.close(), 5.0)
        except TimeoutError:
            self._pool.terminate()


@asynccontextmanager
async def savepoint(connection: "Connection") -> AsyncIterator[None]:
    """Undo what is done inside, and nothing else of the transaction, if it raises."""
    await connection.execute("SAVEPOINT inner_part")
    try:
        yield
    except BaseException:
        await connection.execute("ROLLBACK TO inner_part; RELEASE inner_part")
        raise
    await connection.execute("RELEASE inner_part")


async def _begin(connection: "Connection", begin: str, session: Session) -> None:
    """Begin a transaction and say for whom, by one way to PostgreSQL if that is safe."""
    if all(map(_PLAIN.fullmatch, (session.tenant_id, session.user_id, session.role))):
        await connection.execute(
            f"{begin}; SET LOCAL app.tenant_id = '{session.tenant_id}';"
            f" SET LOCAL app.user_id = '{session.user_id}'; SET LOCAL app.role = '{session.role}'"
        )
        return
    await connection.execute(begin)
    await connection.execute(
        "SELECT set_config('app.tenant_id', $1, true),"
        " set_config('app.user_id', $2, true), set_config('app.role', $3, true)",
        session.tenant_id,
        session.user_id,
        session.role,
    )


async def _leave_as_is(_connection: "asyncpg.Connection[Any]") -> None:
    """Do nothing: all that our transactions set ends with them."""


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
        # Else each transaction is followed by a RESET ALL, which takes a way to PostgreSQL.
        reset=_leave_as_is,
    )
    return Database(pool)
