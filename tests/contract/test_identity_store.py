"""What every store of IdentityService does: the one in memory and PostgreSQL, by the same tests."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.identity.domain import (
    ClaimedRequest,
    Credentials,
    RequestId,
    RevokeCause,
    Role,
    Tenant,
    TenantId,
    UserStatus,
)
from services.identity.ports import Store
from services.identity.store import PostgresStore
from services.shared.postgres import open_database
from tests.support.identity_fakes import FakeStore
from tests.support.identity_values import (
    HASH,
    NOW,
    a_request,
    a_user,
    added_session,
    added_tenant,
    added_user,
    an_api_key,
    new_id,
)
from tests.support.stack_fixtures import TestDatabase


@pytest.fixture(params=["memory", "postgresql"])
def dsn(request: pytest.FixtureRequest) -> str | None:
    """Return where PostgreSQL is, or None for the store in memory."""
    if request.param == "memory":
        return None
    test_database: TestDatabase = request.getfixturevalue("module_database")
    return test_database.dsn_for("identity")


@pytest.fixture
async def store(dsn: str | None) -> AsyncIterator[Store]:
    if dsn is None:
        yield FakeStore()
        return
    database = await open_database(dsn, pool_size=10)
    yield PostgresStore(database)
    await database.close()


@pytest.fixture
async def tenant_id(store: Store) -> TenantId:
    return await added_tenant(store)


async def test_a_tenant_is_added_once(store: Store, tenant_id: TenantId) -> None:
    again = Tenant(tenant_id=tenant_id, display_name="Other", create_time=NOW)
    async with store.transaction(tenant_id) as transaction:
        assert not await transaction.tenants.add(again)
        found = await transaction.tenants.find()
    assert found is not None
    assert found.display_name == "Demo"


async def test_an_unknown_tenant_is_not_found(store: Store) -> None:
    async with store.transaction(TenantId(new_id())) as transaction:
        assert await transaction.tenants.find() is None


async def test_an_account_is_found_by_id_and_phone_as_it_was_added(
    store: Store, tenant_id: TenantId
) -> None:
    user = await added_user(store, tenant_id)

    async with store.transaction(tenant_id) as transaction:
        assert await transaction.users.find(user.user_id) == user
        assert await transaction.users.find(user.user_id, lock=True) == user
        assert await transaction.users.find_by_phone(user.phone) == user
        found = await transaction.users.find_credentials(user.phone)
    assert found == Credentials(user=user, password_hash=HASH)


async def test_a_phone_has_one_account_per_tenant(store: Store, tenant_id: TenantId) -> None:
    user = await added_user(store, tenant_id)

    async with store.transaction(tenant_id) as transaction:
        second = a_user(tenant_id, phone=user.phone)
        assert not await transaction.users.add(second, password_hash=HASH)
    await added_user(store, await added_tenant(store), phone=user.phone)


async def test_nothing_of_one_tenant_is_seen_by_another(store: Store, tenant_id: TenantId) -> None:
    user = await added_user(store, tenant_id)
    session = await added_session(store, user)
    api_key, request = an_api_key(user), a_request(tenant_id)
    async with store.transaction(tenant_id) as transaction:
        await transaction.api_keys.add(api_key)
        await transaction.requests.claim(request)

    async with store.transaction(await added_tenant(store)) as transaction:
        assert await transaction.users.find(user.user_id) is None
        assert await transaction.users.find_by_phone(user.phone) is None
        assert await transaction.users.find_credentials(user.phone) is None
        assert not await transaction.users.list(role=None, status=None, before=None, limit=9)
        assert await transaction.sessions.find(session.session_id) is None
        cause = RevokeCause.LOGGED_OUT
        assert not await transaction.sessions.revoke(session.session_id, cause=cause, now=NOW)
        assert not await transaction.sessions.revoke_all(user.user_id, cause=cause, now=NOW)
        assert await transaction.api_keys.find(api_key.key_id) is None
        assert not await transaction.api_keys.list(working_at=None, before=None, limit=9)
        assert await transaction.requests.find("anonymous", request.request_id) is None


async def test_a_failed_transaction_leaves_nothing(store: Store, tenant_id: TenantId) -> None:
    user = a_user(tenant_id)

    async def add_and_fail() -> None:
        async with store.transaction(tenant_id) as transaction:
            await transaction.users.add(user, password_hash=HASH)
            raise LookupError

    with pytest.raises(LookupError):
        await add_and_fail()

    async with store.transaction(tenant_id) as transaction:
        assert await transaction.users.find(user.user_id) is None


async def test_a_changed_account_is_saved(store: Store, tenant_id: TenantId) -> None:
    user = await added_user(store, tenant_id)
    after = replace(
        user,
        display_name="Bob",
        role=Role.DRIVER,
        approve_time=NOW,
        update_time=NOW + timedelta(seconds=1),
    )

    async with store.transaction(tenant_id) as transaction:
        await transaction.users.save(after)
        await transaction.users.set_password_hash(user.user_id, f"{HASH}2")

    async with store.transaction(tenant_id) as transaction:
        assert await transaction.users.find(user.user_id) == after
        found = await transaction.users.find_credentials(user.phone)
    assert found == Credentials(user=after, password_hash=f"{HASH}2")


async def test_accounts_are_listed_newest_first_by_filter_and_page(
    store: Store, tenant_id: TenantId
) -> None:
    passengers = [await added_user(store, tenant_id) for _ in range(3)]
    driver = await added_user(store, tenant_id, role=Role.DRIVER, status=UserStatus.PENDING)

    async with store.transaction(tenant_id) as transaction:
        users = transaction.users
        everybody = await users.list(role=None, status=None, before=None, limit=9)
        assert {user.user_id for user in everybody} == {
            user.user_id for user in [*passengers, driver]
        }
        ids = [user.user_id for user in everybody]
        assert ids == sorted(ids, reverse=True)
        page = await users.list(role=None, status=None, before=everybody[1].user_id, limit=1)
        assert page == [everybody[2]]
        drivers = await users.list(role=Role.DRIVER, status=None, before=None, limit=9)
        assert drivers == [driver]
        pending = await users.list(role=None, status=UserStatus.PENDING, before=None, limit=9)
        assert pending == [driver]


async def test_other_active_admins_are_counted(store: Store, tenant_id: TenantId) -> None:
    first = await added_user(store, tenant_id, role=Role.ADMIN)
    await added_user(store, tenant_id, role=Role.ADMIN)
    await added_user(store, tenant_id, role=Role.ADMIN, status=UserStatus.SUSPENDED)

    async with store.transaction(tenant_id) as transaction:
        assert await transaction.users.count_other_admins(first.user_id) == 1


async def test_a_session_rotates_only_from_its_current_generation(
    store: Store, tenant_id: TenantId
) -> None:
    session = await added_session(store, await added_user(store, tenant_id))
    request_id = RequestId(new_id())
    token_hash = hashlib.sha256(b"1").digest()

    async def rotate() -> bool:
        async with store.transaction(tenant_id) as transaction:
            return await transaction.sessions.rotate(
                session.session_id,
                0,
                token_hash=token_hash,
                token_expire_time=NOW + timedelta(days=31),
                request_id=request_id,
                now=NOW,
            )

    assert sorted(await asyncio.gather(*(rotate() for _ in range(10)))) == [False] * 9 + [True]
    async with store.transaction(tenant_id) as transaction:
        assert await transaction.sessions.find(session.session_id) == replace(
            session,
            generation=1,
            token_hash=token_hash,
            token_expire_time=NOW + timedelta(days=31),
            rotate_request_id=request_id,
            rotate_time=NOW,
        )


async def test_a_session_ends_once_and_does_not_rotate_after(
    store: Store, tenant_id: TenantId
) -> None:
    session = await added_session(store, await added_user(store, tenant_id))

    async with store.transaction(tenant_id) as transaction:
        cause = RevokeCause.TOKEN_REUSED
        assert await transaction.sessions.revoke(session.session_id, cause=cause, now=NOW)
        assert not await transaction.sessions.revoke(session.session_id, cause=cause, now=NOW)
        rotated = await transaction.sessions.rotate(
            session.session_id,
            0,
            token_hash=session.token_hash,
            token_expire_time=NOW,
            request_id=RequestId(new_id()),
            now=NOW,
        )
        assert not rotated
        found = await transaction.sessions.find(session.session_id, lock=True)
    assert found == replace(session, revoke_time=NOW, revoke_cause=cause)


async def test_all_open_sessions_of_a_user_end_together(store: Store, tenant_id: TenantId) -> None:
    user = await added_user(store, tenant_id)
    for _ in range(2):
        await added_session(store, user)
    await added_session(store, user, token_expire_time=NOW - timedelta(seconds=1))
    other = await added_session(store, await added_user(store, tenant_id))

    async with store.transaction(tenant_id) as transaction:
        cause = RevokeCause.SUSPENDED
        assert await transaction.sessions.revoke_all(user.user_id, cause=cause, now=NOW) == 2
        found = await transaction.sessions.find(other.session_id)
    assert found == other


async def test_an_api_key_is_found_by_the_hash_of_its_secret_and_only_so(
    store: Store, tenant_id: TenantId
) -> None:
    api_key = an_api_key(await added_user(store, tenant_id))
    async with store.transaction(tenant_id) as transaction:
        await transaction.api_keys.add(api_key)

    assert await store.find_api_key_by_hash(api_key.secret_hash) == api_key
    assert await store.find_api_key_by_hash(bytes(32)) is None


async def test_working_api_keys_are_listed_and_counted_apart(
    store: Store, tenant_id: TenantId
) -> None:
    user = await added_user(store, tenant_id)
    revoked, expired, working = (
        an_api_key(user),
        an_api_key(user, expire_time=NOW),
        an_api_key(user, expire_time=NOW + timedelta(seconds=1)),
    )
    async with store.transaction(tenant_id) as transaction:
        for api_key in (revoked, expired, working):
            await transaction.api_keys.add(api_key)
        await transaction.api_keys.revoke(revoked.key_id, now=NOW)
        await transaction.api_keys.revoke(revoked.key_id, now=NOW + timedelta(days=1))

    async with store.transaction(tenant_id) as transaction:
        api_keys = transaction.api_keys
        assert await api_keys.count_working(NOW) == 1
        assert await api_keys.list(working_at=NOW, before=None, limit=9) == [working]
        everything = await api_keys.list(working_at=None, before=None, limit=9)
        assert len(everything) == 3
        assert await api_keys.list(working_at=None, before=everything[0].key_id, limit=1) == [
            everything[1]
        ]
        found = await api_keys.find(revoked.key_id)
    assert found == replace(revoked, revoke_time=NOW)


async def test_uses_add_up_and_the_last_use_never_goes_back(
    store: Store, tenant_id: TenantId
) -> None:
    api_key = an_api_key(await added_user(store, tenant_id))
    later = NOW + timedelta(seconds=5)
    async with store.transaction(tenant_id) as transaction:
        await transaction.api_keys.add(api_key)
        await transaction.api_keys.add_uses(api_key.key_id, count=3, last_use_time=later)
        await transaction.api_keys.add_uses(api_key.key_id, count=4, last_use_time=NOW)
        found = await transaction.api_keys.find(api_key.key_id)
    assert found == replace(api_key, request_count=7, last_use_time=later)


async def test_of_many_claims_of_one_request_the_first_is_remembered(
    store: Store, tenant_id: TenantId
) -> None:
    request_id = RequestId(new_id())

    async def claim() -> ClaimedRequest | None:
        request = a_request(tenant_id, request_id=request_id)
        async with store.transaction(tenant_id) as transaction:
            return await transaction.requests.claim(request)

    answers = await asyncio.gather(*(claim() for _ in range(10)))

    assert answers.count(None) == 1
    remembered = {answer.result_id for answer in answers if answer is not None}
    assert len(remembered) == 1
    async with store.transaction(tenant_id) as transaction:
        assert await transaction.requests.find("somebody else", request_id) is None


async def test_a_claim_of_a_failed_transaction_is_free_again(
    store: Store, tenant_id: TenantId
) -> None:
    request = a_request(tenant_id)

    async def claim_and_fail() -> None:
        async with store.transaction(tenant_id) as transaction:
            await transaction.requests.claim(request)
            raise LookupError

    with pytest.raises(LookupError):
        await claim_and_fail()

    async with store.transaction(tenant_id) as transaction:
        assert await transaction.requests.claim(request) is None


async def test_old_requests_and_ended_sessions_are_forgotten_and_no_others(
    store: Store, tenant_id: TenantId
) -> None:
    now = datetime.now(UTC)
    user = await added_user(store, tenant_id)
    long_ago = now - timedelta(days=40)
    ended = await added_session(store, user, token_expire_time=long_ago, expire_time=long_ago)
    tomorrow = now + timedelta(days=1)
    open_session = await added_session(
        store, user, token_expire_time=tomorrow, expire_time=tomorrow
    )
    old = a_request(tenant_id, create_time=now - timedelta(days=2))
    new = a_request(tenant_id, create_time=now)
    async with store.transaction(tenant_id) as transaction:
        for request in (old, new):
            await transaction.requests.claim(request)

    await store.forget_before(requests=now - timedelta(days=1), sessions=now - timedelta(days=30))

    async with store.transaction(tenant_id) as transaction:
        assert await transaction.requests.find("anonymous", old.request_id) is None
        assert await transaction.requests.find("anonymous", new.request_id) == new
        assert await transaction.sessions.find(ended.session_id) is None
        assert await transaction.sessions.find(open_session.session_id) == open_session
