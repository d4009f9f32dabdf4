"""What every counter of IdentityService does: in memory and in Valkey, by the same tests."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from services.identity.attempts import (
    ATTEMPTS_MAX,
    ATTEMPTS_PER_ADDRESS_MAX,
    WINDOW_SECONDS,
    ValkeyLogInAttempts,
)
from services.identity.domain import ApiKeyId, KeyUses, Phone, TenantId
from services.identity.errors import TooManyAttemptsError
from services.identity.ports import ApiKeyUses, LogInAttempts
from services.identity.usage import ValkeyApiKeyUses
from services.shared.valkey import Valkey, open_valkey
from tests.support.identity_fakes import FakeAttempts, FakeUses

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TENANT = TenantId("tenant")
PHONE = Phone("+441514960123")
ADDRESS = "192.0.2.1"


@pytest.fixture
async def valkey(valkey_url: str) -> AsyncIterator[Valkey]:
    client = open_valkey(valkey_url, cluster=False)
    yield client
    await client.aclose()


@pytest.fixture(params=["memory", "valkey"])
def attempts(request: pytest.FixtureRequest, valkey: Valkey) -> LogInAttempts:
    if request.param == "memory":
        return FakeAttempts(limit=ATTEMPTS_PER_ADDRESS_MAX)
    return ValkeyLogInAttempts(valkey)


@pytest.fixture(params=["memory", "valkey"])
def uses(request: pytest.FixtureRequest, valkey: Valkey) -> ApiKeyUses:
    return FakeUses() if request.param == "memory" else ValkeyApiKeyUses(valkey)


async def test_attempts_beyond_the_limit_are_refused(attempts: LogInAttempts) -> None:
    for _ in range(ATTEMPTS_PER_ADDRESS_MAX):
        await attempts.begin(TENANT, PHONE, ip_address=ADDRESS)

    with pytest.raises(TooManyAttemptsError) as refusal:
        await attempts.begin(TENANT, PHONE, ip_address=ADDRESS)

    assert refusal.value.retry_after_seconds is not None
    assert 0 < refusal.value.retry_after_seconds <= WINDOW_SECONDS
    await attempts.begin(TENANT, Phone("+441514960124"), ip_address=ADDRESS)
    await attempts.begin(TenantId("another"), PHONE, ip_address=ADDRESS)


async def test_a_success_forgets_the_wrong_attempts(attempts: LogInAttempts) -> None:
    for _ in range(ATTEMPTS_PER_ADDRESS_MAX):
        await attempts.begin(TENANT, PHONE, ip_address=ADDRESS)

    await attempts.succeed(TENANT, PHONE, ip_address=ADDRESS)

    await attempts.begin(TENANT, PHONE, ip_address=ADDRESS)


async def test_guesses_from_many_addresses_are_bounded_together(valkey: Valkey) -> None:
    attempts = ValkeyLogInAttempts(valkey)
    for number in range(ATTEMPTS_MAX):
        await attempts.begin(TENANT, PHONE, ip_address=f"198.51.100.{number}")

    with pytest.raises(TooManyAttemptsError) as refusal:
        await attempts.begin(TENANT, PHONE, ip_address=ADDRESS)

    assert refusal.value.metadata["max_attempts"] == str(ATTEMPTS_MAX)


async def test_an_owner_who_logs_in_does_not_give_guessers_new_attempts(valkey: Valkey) -> None:
    attempts = ValkeyLogInAttempts(valkey)
    for number in range(ATTEMPTS_MAX - 1):
        await attempts.begin(TENANT, PHONE, ip_address=f"198.51.100.{number}")
        await attempts.begin(TENANT, PHONE, ip_address=ADDRESS)
        await attempts.succeed(TENANT, PHONE, ip_address=ADDRESS)

    await attempts.begin(TENANT, PHONE, ip_address="203.0.113.1")
    with pytest.raises(TooManyAttemptsError):
        await attempts.begin(TENANT, PHONE, ip_address="203.0.113.2")


async def test_counters_of_attempts_end_and_hold_no_phone(valkey: Valkey) -> None:
    await ValkeyLogInAttempts(valkey).begin(TENANT, PHONE, ip_address=ADDRESS)

    keys = await valkey.keys("*")

    assert len(keys) == 2
    assert all(PHONE.encode() not in key and PHONE[1:].encode() not in key for key in keys)
    for key in keys:
        assert 0 < await valkey.ttl(key) <= WINDOW_SECONDS


async def test_uses_are_taken_once(uses: ApiKeyUses) -> None:
    key_id = ApiKeyId("key")
    await uses.add(key_id, tenant_id=TENANT, count=3, now=NOW)

    taken = await uses.take()

    assert taken == [KeyUses(key_id=key_id, tenant_id=TENANT, count=3, last_use_time=NOW)]
    assert not await uses.take()
    await uses.put_back(taken)
    assert await uses.take() == taken


async def test_uses_of_one_key_add_up_and_keep_the_last_time(valkey: Valkey) -> None:
    uses = ValkeyApiKeyUses(valkey)
    key_id = ApiKeyId("key")
    for count, seconds in ((1, 0), (2, 9), (4, 5)):
        now = NOW + timedelta(seconds=seconds)
        await uses.add(key_id, tenant_id=TENANT, count=count, now=now)

    last = NOW + timedelta(seconds=9)
    assert await uses.take() == [
        KeyUses(key_id=key_id, tenant_id=TENANT, count=7, last_use_time=last)
    ]


async def test_without_valkey_people_log_in_and_keys_work_uncounted() -> None:
    away = open_valkey("unix:///nowhere/valkey.sock", cluster=False)
    attempts = ValkeyLogInAttempts(away)

    for _ in range(ATTEMPTS_PER_ADDRESS_MAX + 1):
        await attempts.begin(TENANT, PHONE, ip_address=ADDRESS)
    await attempts.succeed(TENANT, PHONE, ip_address=ADDRESS)
    await ValkeyApiKeyUses(away).add(ApiKeyId("key"), tenant_id=TENANT, count=1, now=NOW)

    await away.aclose()
