"""Opens Valkey for one service: a single server or a cluster, by the same calls."""

from typing import Any, cast

from redis.asyncio import Redis, RedisCluster
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

VALKEY_AWAY = (
    RedisConnectionError,
    RedisTimeoutError,
    ClusterDownError,
    ClusterError,
    MaxConnectionsError,
    ReadOnlyError,
    TryAgainError,
    OSError,
)
_CONNECT_SECONDS = 2.0


def open_valkey(url: str, *, cluster: bool, timeout_seconds: float = 2.0) -> Valkey:
    """Return a client that connects at its first use and answers bytes.

    A call that gets no answer within `timeout_seconds` fails; nothing is retried here, because only
    the caller knows what may be repeated.
    """
    if cluster:
        return RedisCluster.from_url(
            url, socket_timeout=timeout_seconds, socket_connect_timeout=_CONNECT_SECONDS
        )
    return Redis.from_url(
        url,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=_CONNECT_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )


async def ping_valkey(client: Valkey) -> None:
    """Ask Valkey for an answer. Raises DependencyUnavailableError if it gives none."""
    try:
        await cast("Any", client).ping()
    except VALKEY_AWAY as error:
        raise DependencyUnavailableError("valkey") from error
