"""Counts calls by the contract's limits in Valkey, with the `limits` library."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NoReturn, Protocol

import structlog
from limits import RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage, Storage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.storage import storage_from_string

from services.shared.clock import Clock
from services.shared.errors import DomainError, Kind
from services.shared.rpc.caller import Caller, CallerKind
from services.shared.rpc.gathered_hits import GatheredHits
from services.shared.rpc.policy import LimitSubject, MethodRule, RateLimitRule
from services.shared.valkey import VALKEY_AWAY, nodes_of, open_pool

_log = structlog.get_logger()


class RateLimitedError(DomainError):
    """Says that the caller called too often, and when to come again."""

    kind = Kind.EXHAUSTED
    reason = "RATE_LIMITED"

    def __init__(self, rule: RateLimitRule, *, retry_after_seconds: float) -> None:
        """Say the limit and how long to wait."""
        super().__init__(
            f"at most {rule.max_requests} calls in {rule.window_seconds} s"
            f" per {rule.subject.value}",
            metadata={
                "max_requests": str(rule.max_requests),
                "window_seconds": str(rule.window_seconds),
                "subject": rule.subject.value,
            },
            retry_after_seconds=retry_after_seconds,
        )


class RateLimiter(Protocol):
    """Counts calls."""

    async def check(self, caller: Caller, rule: MethodRule) -> None:
        """Count the call. Raises RateLimitedError if it is one too many."""
        ...


class ValkeyRateLimiter:
    """Counts calls in Valkey, for all processes together.

    While Valkey is away, in each process alone.

    Windows slide: the count of the last window is weighed by how much of it is still within reach.
    """

    def __init__(self, valkey_url: str, *, cluster: bool, clock: Clock) -> None:
        """Count in the Valkey at `valkey_url`."""
        self._clock = clock
        self._pool = None if cluster else open_pool(valkey_url)
        options: dict[str, Any] = {} if self._pool is None else {"connection_pool": self._pool}
        storage = storage_from_string(
            _limits_url(valkey_url, cluster=cluster), implementation="redispy", **options
        )
        if not isinstance(storage, Storage):
            raise TypeError(f"{type(storage).__name__} is not an asynchronous storage")
        self._storage = storage
        # The library opens the client, and offers no other way to it.
        self._client: Any = storage.bridge.storage  # type: ignore[attr-defined]  # RedisStorage has it
        self._gathered = None if cluster else GatheredHits(self._client)
        self._shared = SlidingWindowCounterRateLimiter(storage)
        self._local = SlidingWindowCounterRateLimiter(MemoryStorage())

    async def check(self, caller: Caller, rule: MethodRule) -> None:
        """Count the call against every limit of its method. Raises RateLimitedError."""
        if caller.kind is CallerKind.SERVICE:
            return
        for limit, key in _limits_for(caller, rule):
            try:
                await self._hit_shared(limit, key)
            except VALKEY_AWAY as error:
                _log.warning("rate_limit_degraded", error=type(error).__name__)
                await self._hit(self._local, limit, key)

    async def close(self) -> None:
        """Close the connections to Valkey."""
        await self._client.aclose()
        if self._pool is not None:
            await self._pool.aclose()

    async def _hit_shared(self, limit: RateLimitRule, key: Sequence[str]) -> None:
        if self._gathered is None:
            await self._hit(self._shared, limit, key)
            return
        passed = await self._gathered.hit(
            _item_of(limit).key_for(*key),
            limit=limit.max_requests,
            window_seconds=limit.window_seconds,
        )
        if not passed:
            await self._refuse(self._shared, limit, key)

    async def _hit(
        self, limiter: SlidingWindowCounterRateLimiter, limit: RateLimitRule, key: Sequence[str]
    ) -> None:
        if not await limiter.hit(_item_of(limit), *key):
            await self._refuse(limiter, limit, key)

    async def _refuse(
        self, limiter: SlidingWindowCounterRateLimiter, limit: RateLimitRule, key: Sequence[str]
    ) -> NoReturn:
        stats = await limiter.get_window_stats(_item_of(limit), *key)
        wait_seconds = stats.reset_time - self._clock.now().timestamp()
        raise RateLimitedError(
            limit, retry_after_seconds=min(max(wait_seconds, 0.1), limit.window_seconds)
        )


@lru_cache(1_000)
def _item_of(limit: RateLimitRule) -> RateLimitItemPerSecond:
    return RateLimitItemPerSecond(limit.max_requests, limit.window_seconds, namespace="rate")


def _limits_for(
    caller: Caller, rule: MethodRule
) -> list[tuple[RateLimitRule, tuple[str, str, str]]]:
    counted: list[tuple[RateLimitRule, tuple[str, str, str]]] = []
    for limit in rule.rate_limits:
        subject = _subject_of(caller, limit.subject)
        if subject:
            # The braces keep the keys of one subject in one slot of a cluster.
            counted.append((limit, (rule.path, limit.subject.value, f"{{{subject}}}")))
    if caller.kind is CallerKind.API_KEY:
        own = RateLimitRule(
            max_requests=caller.api_key_requests_per_minute,
            window_seconds=60,
            subject=LimitSubject.API_KEY,
        )
        counted.append((own, ("*", "API_KEY", f"{{{caller.api_key_id}}}")))
    return counted


def _subject_of(caller: Caller, subject: LimitSubject) -> str:
    if subject is LimitSubject.IP:
        return caller.ip_address or "unknown"
    if subject is LimitSubject.API_KEY:
        return caller.api_key_id
    return caller.user_id or caller.api_key_id or caller.ip_address or "unknown"


def _limits_url(valkey_url: str, *, cluster: bool) -> str:
    if cluster:
        nodes = [f"{host}:{port}" for host, port in nodes_of(valkey_url)]
        return "async+redis+cluster://" + ",".join(nodes)
    if valkey_url.startswith("unix://"):
        return "async+redis+unix://" + valkey_url.removeprefix("unix://")
    return "async+" + valkey_url
