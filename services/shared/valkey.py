"""Opens Valkey for one service: a single server or a cluster, by the same calls."""

from typing import Any, cast

import hiredis
from redis.asyncio import (
    BlockingConnectionPool,
    Connection,
    Redis,
    RedisCluster,
    UnixDomainSocketConnection,
)
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    ClusterDownError,
    ClusterError,
    MaxConnectionsError,
    ReadOnlyError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from services.shared.errors import DependencyUnavailableError

Valkey = Any
"""A `Redis` or a `RedisCluster` client: their typed signatures differ, what we call does not."""

VALKEY_ERRORS = (
    RedisConnectionError,
    RedisTimeoutError,
    ClusterDownError,
    ClusterError,
    MaxConnectionsError,
    ReadOnlyError,
    TryAgainError,
)
"""Says by its type alone that Valkey is away."""

VALKEY_AWAY = (*VALKEY_ERRORS, OSError)
"""Says so around a call to Valkey, where an OSError can mean nothing else."""

CONNECTIONS_MAX = 32
_CONNECT_SECONDS = 2.0
# How long a call waits for one of the connections: calls have deadlines of their own.
_TURN_SECONDS = 20.0


def open_valkey(
    url: str,
    *,
    cluster: bool,
    timeout_seconds: float = 2.0,
    connections_max: int = CONNECTIONS_MAX,
) -> Valkey:
    """Return a client that connects at its first use and answers bytes.

    A call that gets no answer within `timeout_seconds` fails; nothing is retried here, because only
    the caller knows what may be repeated. Calls beyond `connections_max` at once wait for their
    turn.
    """
    if cluster:
        return RedisCluster.from_url(
            url, socket_timeout=timeout_seconds, socket_connect_timeout=_CONNECT_SECONDS
        )
    pool = open_pool(url, timeout_seconds=timeout_seconds, connections_max=connections_max)
    return Redis.from_pool(pool)


def open_pool(
    url: str, *, timeout_seconds: float = 2.0, connections_max: int = CONNECTIONS_MAX
) -> BlockingConnectionPool:
    """Return connections to a single server, for a library that makes its own client.

    Bounded, because thousands of phones that come at once must wait for Valkey and not each open a
    connection to it, which it would refuse.
    """
    pool: BlockingConnectionPool = BlockingConnectionPool.from_url(
        url,
        max_connections=connections_max,
        timeout=_TURN_SECONDS,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=_CONNECT_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )
    # The only way: from_url chooses the class by the URL's scheme.
    pool.connection_class = _PACKING.get(pool.connection_class, pool.connection_class)
    return pool


class _PacksInC:
    """Packs commands with hiredis, as the synchronous client does: a third of the time."""

    def pack_command(self, *args: Any) -> list[bytes]:
        """Return the command as the protocol has it."""
        if isinstance(args[0], str) and " " in args[0]:
            args = (*args[0].split(), *args[1:])
        return [hiredis.pack_command(args)]


class _PackingConnection(_PacksInC, Connection):
    """Speaks to Valkey over TCP."""


class _PackingUnixConnection(_PacksInC, UnixDomainSocketConnection):
    """Speaks to Valkey over a Unix socket."""


_PACKING: dict[type, type] = {
    Connection: _PackingConnection,
    UnixDomainSocketConnection: _PackingUnixConnection,
}


async def ping_valkey(client: Valkey) -> None:
    """Ask Valkey for an answer. Raises DependencyUnavailableError if it gives none."""
    try:
        await cast("Any", client).ping()
    except VALKEY_AWAY as error:
        raise DependencyUnavailableError("valkey") from error
