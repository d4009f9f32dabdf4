"""Opens Valkey for one service: a single server or a cluster, by the same calls."""

from typing import Any, cast
from urllib.parse import urlsplit

import hiredis
from redis.asyncio import (
    BlockingConnectionPool,
    Connection,
    Redis,
    RedisCluster,
    UnixDomainSocketConnection,
)
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    ClusterDownError,
    ClusterError,
    MaxConnectionsError,
    ReadOnlyError,
    RedisClusterException,
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
    RedisClusterException,
    TryAgainError,
)
"""Says by its type alone that Valkey is away."""

VALKEY_AWAY = (*VALKEY_ERRORS, OSError)
"""Says so around a call to Valkey, where an OSError can mean nothing else."""

CONNECTIONS_MAX = 32
_CONNECT_SECONDS = 2.0
_PORT = 6379
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
        return _open_cluster(url, timeout_seconds)
    pool = open_pool(url, timeout_seconds=timeout_seconds, connections_max=connections_max)
    return Redis.from_pool(pool)


class _Cluster(RedisCluster):
    """Finds the slots of reads of streams and of function calls by itself.

    The client would ask a node which keys the command has, each time, and always the same node:
    when that one dies nothing works any more, wherever it is.
    """

    async def _determine_slot(self, command: str, *args: Any) -> int:
        """Return the slot of the command's keys."""
        if command == "XREAD":
            return int(self.keyslot(args[args.index(b"STREAMS") + 1]))
        if command == "FCALL" and int(args[1]) > 0:
            return int(self.keyslot(args[2]))
        return await super()._determine_slot(command, *args)


def _open_cluster(urls: str, timeout_seconds: float) -> RedisCluster:
    client = _Cluster(
        startup_nodes=[ClusterNode(host, port) for host, port in nodes_of(urls)],
        socket_timeout=timeout_seconds,
        socket_connect_timeout=_CONNECT_SECONDS,
        retry=Retry(NoBackoff(), 0),
        # While a replica takes over, the other masters' slots are served.
        require_full_coverage=False,
    )
    # The only way: the client takes no class of connections.
    client.connection_kwargs["connection_class"] = _ClusterConnection
    for node in client.nodes_manager.startup_nodes.values():
        node.connection_class = _ClusterConnection
    return client


def nodes_of(urls: str) -> list[tuple[str, int]]:
    """Return host and port of the nodes of a cluster: `redis://one:7001/0,redis://two:7002/0`."""
    nodes = []
    for url in urls.split(","):
        parts = urlsplit(url.strip())
        nodes.append((parts.hostname or "", parts.port or _PORT))
    return nodes


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


class _ClusterConnection(_PacksInC, Connection):
    """Speaks to a node of a cluster.

    When the client learns the cluster anew, it closes connections that calls still use, and these
    find no stream, or a transport of uvloop that says so in its own way.
    """

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Send; raises ConnectionError when the connection was closed meanwhile."""
        try:
            await super().send_packed_command(command, check_health)
        except (RuntimeError, AttributeError) as error:
            await self.disconnect(nowait=True)
            raise RedisConnectionError("the connection was closed") from error

    async def read_response(self, *args: Any, **values: Any) -> Any:
        """Read; raises ConnectionError when the connection was closed meanwhile."""
        try:
            return await super().read_response(*args, **values)
        except (RuntimeError, AttributeError) as error:
            await self.disconnect(nowait=True)
            raise RedisConnectionError("the connection was closed") from error


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
