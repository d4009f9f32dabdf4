"""Rate limits on a real Valkey, transactions on a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from google.protobuf.empty_pb2 import Empty
from limits import RateLimitItemPerSecond
from limits.aio.storage import RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from services.shared.clock import SystemClock
from services.shared.errors import DependencyUnavailableError
from services.shared.postgres import Database, Session, open_database, savepoint
from services.shared.rpc.caller import Caller, CallerKind
from services.shared.rpc.gathered_hits import GatheredHits
from services.shared.rpc.policy import Idempotency, LimitSubject, MethodRule, RateLimitRule
from services.shared.rpc.rate_limits import RateLimitedError, RateLimiter, ValkeyRateLimiter
from services.shared.valkey import open_valkey
from tests.support.location_values import new_id
from tests.support.stack_fixtures import TestDatabase

USER = Caller(kind=CallerKind.USER, user_id="ada", role="DRIVER", ip_address="10.0.0.1")
OTHER = Caller(kind=CallerKind.USER, user_id="bob", role="DRIVER", ip_address="10.0.0.1")
SERVICE = Caller(kind=CallerKind.SERVICE, service="booking")


def a_rule(*limits: RateLimitRule, path: str = "/p/M") -> MethodRule:
    return MethodRule(
        path=path,
        public=False,
        roles=frozenset({"DRIVER"}),
        allow_pending=False,
        allow_api_key=False,
        internal_services=frozenset(),
        rate_limits=limits,
        max_seconds=None,
        idempotency=Idempotency.READ,
        request_class=Empty,
    )


def at_most(count: int, subject: LimitSubject = LimitSubject.USER) -> RateLimitRule:
    return RateLimitRule(max_requests=count, window_seconds=60, subject=subject)


async def passed(limiter: RateLimiter, caller: Caller, rule: MethodRule, times: int) -> int:
    count = 0
    for _ in range(times):
        try:
            await limiter.check(caller, rule)
        except RateLimitedError:
            continue
        count += 1
    return count


@pytest.fixture
async def limiter(valkey_url: str) -> AsyncIterator[ValkeyRateLimiter]:
    limiter = ValkeyRateLimiter(valkey_url, cluster=False, clock=SystemClock())
    yield limiter
    await limiter.close()


async def test_a_caller_passes_as_often_as_the_limit_says(limiter: ValkeyRateLimiter) -> None:
    assert await passed(limiter, USER, a_rule(at_most(3)), 5) == 3


async def test_the_refusal_says_the_limit_and_when_to_come_again(
    limiter: ValkeyRateLimiter,
) -> None:
    rule = a_rule(at_most(1))
    await limiter.check(USER, rule)

    with pytest.raises(RateLimitedError) as caught:
        await limiter.check(USER, rule)

    assert caught.value.metadata == {
        "max_requests": "1",
        "window_seconds": "60",
        "subject": "USER",
    }
    assert caught.value.retry_after_seconds is not None
    assert 0 < caught.value.retry_after_seconds <= 60


async def test_users_and_methods_are_counted_apart(limiter: ValkeyRateLimiter) -> None:
    rule = a_rule(at_most(1))
    await limiter.check(USER, rule)

    await limiter.check(OTHER, rule)
    await limiter.check(USER, a_rule(at_most(1), path="/p/Other"))


async def test_an_address_is_counted_for_all_its_users(limiter: ValkeyRateLimiter) -> None:
    rule = a_rule(at_most(2, LimitSubject.IP))

    assert await passed(limiter, USER, rule, 1) + await passed(limiter, OTHER, rule, 3) == 2


async def test_services_are_not_counted(limiter: ValkeyRateLimiter) -> None:
    assert await passed(limiter, SERVICE, a_rule(at_most(1)), 5) == 5


async def test_an_api_key_has_its_own_limit(limiter: ValkeyRateLimiter) -> None:
    caller = Caller(
        kind=CallerKind.API_KEY, api_key_id="k", role="BUSINESS", api_key_requests_per_minute=2
    )

    assert await passed(limiter, caller, a_rule(at_most(100)), 5) == 2


async def test_calls_that_are_counted_together_pass_as_often_as_the_limit_says(
    limiter: ValkeyRateLimiter,
) -> None:
    rule, narrow = a_rule(at_most(7)), a_rule(at_most(3), path="/p/Narrow")

    counts = await asyncio.gather(
        *(passed(limiter, USER, rule, 1) for _ in range(40)),
        *(passed(limiter, OTHER, narrow, 1) for _ in range(40)),
    )

    assert (sum(counts[:40]), sum(counts[40:])) == (7, 3)


async def test_who_goes_away_keeps_nobody_else_from_being_counted(
    limiter: ValkeyRateLimiter,
) -> None:
    rule = a_rule(at_most(5))
    impatient = [asyncio.create_task(limiter.check(USER, rule)) for _ in range(3)]
    patient = [asyncio.create_task(limiter.check(OTHER, rule)) for _ in range(3)]
    await asyncio.sleep(0)

    for one in impatient:
        one.cancel()

    assert await asyncio.gather(*patient) == [None] * 3
    assert await passed(limiter, OTHER, rule, 5) == 2


async def test_gathered_calls_are_counted_as_the_library_counts(valkey_url: str) -> None:
    """Also when a window has passed, and weighs for the half of it that is still within reach."""
    client = open_valkey(valkey_url, cluster=False)
    storage = RedisStorage(
        "async+redis://", implementation="redispy", connection_pool=client.connection_pool
    )
    library, item = SlidingWindowCounterRateLimiter(storage), RateLimitItemPerSecond(6, 60)
    gathered = GatheredHits(client)

    async def by_library(name: str) -> bool:
        return await library.hit(item, name)

    async def by_gathered(name: str) -> bool:
        return await gathered.hit(item.key_for(name), limit=6, window_seconds=60)

    ways = {
        "library": [by_library] * 8,
        "gathered": [by_gathered] * 8,
        "both": [by_library, by_gathered] * 4,
    }
    passed_by: dict[str, list[int]] = {}
    try:
        for name, hits in ways.items():
            first = sum([await hit(name) for hit in hits])
            await client.pexpire(f"LIMITS:{{{item.key_for(name)}}}", 29_500)
            second = sum([await hit(name) for hit in hits])
            left = (await library.get_window_stats(item, name)).remaining
            passed_by[name] = [first, second, left]
    finally:
        await client.aclose()

    assert passed_by["library"] == [6, 4, 0]
    assert passed_by["gathered"] == passed_by["both"] == passed_by["library"]


async def test_two_processes_count_together(limiter: ValkeyRateLimiter, valkey_url: str) -> None:
    other, rule = (
        ValkeyRateLimiter(valkey_url, cluster=False, clock=SystemClock()),
        a_rule(at_most(10)),
    )
    try:
        counts = await asyncio.gather(*(passed(one, USER, rule, 10) for one in (limiter, other)))
    finally:
        await other.close()

    assert sum(counts) == 10


async def test_without_valkey_each_process_counts_alone() -> None:
    limiter = ValkeyRateLimiter("unix:///nowhere.sock", cluster=False, clock=SystemClock())
    try:
        assert await passed(limiter, USER, a_rule(at_most(3)), 5) == 3
    finally:
        await limiter.close()


@pytest.fixture
async def database(module_database: TestDatabase) -> AsyncIterator[Database]:
    database = await open_database(module_database.dsn_for("location"), pool_size=1)
    yield database
    await database.close()


async def settings_of(connection: Any) -> list[str]:
    names = ("app.tenant_id", "app.user_id", "app.role")
    return [await connection.fetchval(f"SELECT current_setting('{name}')") for name in names]


async def test_a_transaction_carries_who_it_is_for(database: Database) -> None:
    session = Session(tenant_id=new_id(), user_id=new_id(), role="ADMIN")
    async with database.transaction(session) as connection:
        assert await settings_of(connection) == [session.tenant_id, session.user_id, "ADMIN"]


async def test_who_it_is_for_is_never_read_as_sql(database: Database) -> None:
    odd = "x'; SET LOCAL app.role = 'ADMIN'; --"
    async with database.transaction(Session(tenant_id=odd, user_id="ß\\'")) as connection:
        assert await settings_of(connection) == [odd, "ß\\'", ""]


async def test_a_savepoint_undoes_only_what_is_inside(database: Database) -> None:
    async with database.transaction(Session(role="SERVICE")) as connection:
        with suppress(ZeroDivisionError):
            async with savepoint(connection):
                await connection.execute("SET LOCAL app.role = 'ADMIN'")
                raise ZeroDivisionError
        assert await settings_of(connection) == ["", "", "SERVICE"]
        async with savepoint(connection):
            await connection.execute("SET LOCAL app.user_id = 'ada'")
        assert await settings_of(connection) == ["", "ada", "SERVICE"]


async def test_the_next_transaction_of_a_connection_is_for_nobody_else(database: Database) -> None:
    async with database.transaction(Session(tenant_id=new_id(), role="ADMIN")):
        pass
    async with database.transaction(Session()) as connection:
        assert await settings_of(connection) == ["", "", ""]


@pytest.mark.parametrize("fails", [True, False])
async def test_a_transaction_is_kept_whole_or_not_at_all(database: Database, fails: bool) -> None:
    session, request_id = Session(tenant_id=new_id()), new_id()
    try:
        async with database.transaction(session) as connection:
            await connection.execute(
                "INSERT INTO location.requests (tenant_id, request_id, body_hash)"
                " VALUES ($1, $2, $3)",
                session.tenant_id,
                request_id,
                b"a" * 32,
            )
            if fails:
                raise ValueError
    except ValueError:
        assert fails
    async with database.transaction(session) as connection:
        kept = await connection.fetchval("SELECT count(*) FROM location.requests")

    assert kept == (0 if fails else 1)


async def test_a_database_that_is_away_is_named() -> None:
    database = await open_database("postgresql://nobody@/none?host=/nowhere", pool_size=1)
    try:
        with pytest.raises(DependencyUnavailableError, match="postgresql"):
            await database.ping()
    finally:
        await database.close()
