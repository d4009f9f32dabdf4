"""CreateApiKey, ListApiKeys, RevokeApiKey, VerifyApiKey and their counts, over ports in memory."""

from datetime import datetime, timedelta

import pytest

from services.identity.domain import API_KEYS_MAX, Actor, ApiKey, ApiKeyId, KeyUses, RequestId
from services.identity.errors import (
    ApiKeyInvalidError,
    ApiKeyUnknownError,
    ExpireTimePassedError,
    PageTokenInvalidError,
    TooManyApiKeysError,
)
from services.identity.operations.api_keys import NewApiKey
from services.shared.errors import RequestIdReusedError
from tests.support.identity_operations import Operations


@pytest.fixture
def operations() -> Operations:
    return Operations()


@pytest.fixture
async def admin(operations: Operations) -> Actor:
    return await operations.add_admin()


async def created(
    operations: Operations,
    admin: Actor,
    *,
    request_id: RequestId | None = None,
    expire_time: datetime | None = None,
    display_name: str = "Partner",
) -> tuple[ApiKey, str]:
    wanted = NewApiKey(
        display_name=display_name,
        requests_per_minute=0,
        expire_time=expire_time,
        request_id=request_id or operations.request_id(),
    )
    return await operations.api_keys.create(admin, wanted)


async def test_a_new_key_verifies_and_has_the_default_limit(
    operations: Operations, admin: Actor
) -> None:
    api_key, text = await created(operations, admin)

    verified = await operations.api_keys.verify(text, use_count=0)

    assert verified == api_key
    assert api_key.requests_per_minute == 600
    assert text.startswith(f"wf_{api_key.key_id}_")


async def test_the_secret_is_not_kept(operations: Operations, admin: Actor) -> None:
    _, text = await created(operations, admin)

    kept = f"{operations.store.rows.api_keys}{operations.store.rows.requests}"
    assert text.rpartition("_")[2] not in kept


async def test_a_repeated_creation_gives_the_same_key_and_secret(
    operations: Operations, admin: Actor
) -> None:
    request_id = operations.request_id()
    first = await created(operations, admin, request_id=request_id)

    assert await created(operations, admin, request_id=request_id) == first
    with pytest.raises(RequestIdReusedError):
        await created(operations, admin, request_id=request_id, display_name="Other")
    assert len(operations.store.rows.api_keys) == 1


async def test_a_request_id_belongs_to_its_caller(operations: Operations, admin: Actor) -> None:
    request_id = operations.request_id()
    first, _ = await created(operations, admin, request_id=request_id)

    second, _ = await created(operations, await operations.add_admin(), request_id=request_id)

    assert first.key_id != second.key_id


async def test_a_wrong_secret_or_made_up_key_is_refused_alike(
    operations: Operations, admin: Actor
) -> None:
    (first, text), (_, other_text) = (
        await created(operations, admin),
        await created(operations, admin),
    )
    secret, other_secret = text.rpartition("_")[2], other_text.rpartition("_")[2]
    refusals = set()
    for made_up in (
        "",
        "wf",
        "wf__",
        f"wf_{first.key_id}_",
        f"wf_{first.key_id}_{other_secret}",
        f"wf_{first.key_id.upper()}_{secret}",
        f"xx_{first.key_id}_{secret}",
        f"{text}A",
    ):
        with pytest.raises(ApiKeyInvalidError) as refusal:
            await operations.api_keys.verify(made_up, use_count=1)
        refusals.add(str(refusal.value))

    assert len(refusals) == 1
    assert not operations.uses.uses


async def test_a_revoked_key_stops_working_and_stays_revoked(
    operations: Operations, admin: Actor
) -> None:
    api_key, text = await created(operations, admin)
    revoked = await operations.api_keys.revoke(admin, api_key.key_id, request_id=None)
    operations.clock.pass_time(timedelta(minutes=1))

    again = await operations.api_keys.revoke(
        admin, api_key.key_id, request_id=operations.request_id()
    )

    assert again == revoked
    with pytest.raises(ApiKeyInvalidError):
        await operations.api_keys.verify(text, use_count=1)


async def test_an_expired_key_stops_working(operations: Operations, admin: Actor) -> None:
    expire_time = operations.clock.now() + timedelta(hours=1)
    _, text = await created(operations, admin, expire_time=expire_time)
    await operations.api_keys.verify(text, use_count=1)
    operations.clock.pass_time(timedelta(hours=1))

    with pytest.raises(ApiKeyInvalidError):
        await operations.api_keys.verify(text, use_count=1)


async def test_a_key_cannot_expire_before_it_is_made(operations: Operations, admin: Actor) -> None:
    with pytest.raises(ExpireTimePassedError):
        await created(operations, admin, expire_time=operations.clock.now())


async def test_an_unknown_key_is_not_revoked(operations: Operations, admin: Actor) -> None:
    with pytest.raises(ApiKeyUnknownError):
        await operations.api_keys.revoke(admin, ApiKeyId("no such key"), request_id=None)


async def test_a_tenant_has_a_bounded_number_of_working_keys(
    operations: Operations, admin: Actor
) -> None:
    api_key, _ = await created(operations, admin)
    for _ in range(API_KEYS_MAX - 1):
        await created(operations, admin)

    with pytest.raises(TooManyApiKeysError):
        await created(operations, admin)

    await operations.api_keys.revoke(admin, api_key.key_id, request_id=None)
    await created(operations, admin)


async def test_keys_are_listed_newest_first_with_or_without_the_inactive(
    operations: Operations, admin: Actor
) -> None:
    keys = [(await created(operations, admin))[0] for _ in range(3)]
    await operations.api_keys.revoke(admin, keys[1].key_id, request_id=None)

    async def listed(*, include_inactive: bool) -> list[ApiKeyId]:
        ids: list[ApiKeyId] = []
        token = ""
        while True:
            page = await operations.api_keys.list_api_keys(
                admin, include_inactive=include_inactive, page_size=1, page_token=token
            )
            ids += [api_key.key_id for api_key in page.api_keys]
            token = page.next_page_token
            if not token:
                return ids

    assert await listed(include_inactive=False) == [keys[2].key_id, keys[0].key_id]
    assert await listed(include_inactive=True) == [key.key_id for key in keys[::-1]]


async def test_a_page_token_of_another_filter_is_refused(
    operations: Operations, admin: Actor
) -> None:
    for _ in range(2):
        await created(operations, admin)
    page = await operations.api_keys.list_api_keys(
        admin, include_inactive=False, page_size=1, page_token=""
    )

    with pytest.raises(PageTokenInvalidError):
        await operations.api_keys.list_api_keys(
            admin, include_inactive=True, page_size=1, page_token=page.next_page_token
        )


async def test_uses_are_counted_and_written(operations: Operations, admin: Actor) -> None:
    api_key, text = await created(operations, admin)
    await operations.api_keys.verify(text, use_count=0)
    operations.clock.pass_time(timedelta(seconds=30))
    await operations.api_keys.verify(text, use_count=41)

    assert await operations.upkeep.write_api_key_uses() == 2

    kept = operations.store.rows.api_keys[api_key.key_id]
    assert (kept.request_count, kept.last_use_time) == (42, operations.clock.now())
    assert await operations.upkeep.write_api_key_uses() == 0


async def test_uses_of_a_key_that_is_gone_are_dropped(operations: Operations) -> None:
    api_key_id = ApiKeyId(operations.ids.new_id())
    admin = await operations.add_admin()
    operations.uses.uses.append(
        KeyUses(
            key_id=api_key_id,
            tenant_id=admin.tenant_id,
            count=1,
            last_use_time=operations.clock.now(),
        )
    )

    assert await operations.upkeep.write_api_key_uses() == 1
