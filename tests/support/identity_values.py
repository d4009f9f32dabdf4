"""Values of IdentityService's domain that are in order, and their way into a store."""

import hashlib
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from services.identity.domain import (
    ApiKey,
    ApiKeyId,
    ClaimedRequest,
    Phone,
    RequestId,
    Role,
    SessionId,
    StoredSession,
    Tenant,
    TenantId,
    User,
    UserId,
    UserStatus,
)
from services.identity.ports import Store
from services.shared.clock import SystemClock
from services.shared.ids import Uuid7Source

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
_ids = Uuid7Source(SystemClock())
HASH = "$argon2id$made-up"


def new_id() -> str:
    """Return a UUIDv7."""
    return _ids.new_id()


async def added_tenant(store: Store) -> TenantId:
    tenant_id = TenantId(new_id())
    async with store.transaction(tenant_id) as transaction:
        tenant = Tenant(tenant_id=tenant_id, display_name="Demo", create_time=NOW)
        assert await transaction.tenants.add(tenant)
    return tenant_id


def a_user(tenant_id: TenantId, **values: object) -> User:
    user = User(
        user_id=UserId(new_id()),
        tenant_id=tenant_id,
        phone=Phone(f"+1202{uuid.uuid4().int % 10**7:07d}"),
        display_name="Ada",
        role=Role.PASSENGER,
        status=UserStatus.ACTIVE,
        create_time=NOW,
        update_time=NOW,
    )
    return replace(user, **values)  # type: ignore[arg-type]  # fields by name


async def added_user(store: Store, tenant_id: TenantId, **values: object) -> User:
    user = a_user(tenant_id, **values)
    async with store.transaction(tenant_id) as transaction:
        assert await transaction.users.add(user, password_hash=HASH)
    return user


def a_session(user: User, **values: object) -> StoredSession:
    session = StoredSession(
        session_id=SessionId(new_id()),
        tenant_id=user.tenant_id,
        user_id=user.user_id,
        token_seed=bytes(32),
        generation=0,
        token_hash=hashlib.sha256(b"0").digest(),
        token_expire_time=NOW + timedelta(days=30),
        create_time=NOW,
        expire_time=NOW + timedelta(days=90),
    )
    return replace(session, **values)  # type: ignore[arg-type]  # fields by name


async def added_session(store: Store, user: User, **values: object) -> StoredSession:
    session = a_session(user, **values)
    async with store.transaction(user.tenant_id) as transaction:
        await transaction.sessions.add(session)
    return session


def an_api_key(user: User, **values: object) -> ApiKey:
    api_key = ApiKey(
        key_id=ApiKeyId(new_id()),
        tenant_id=user.tenant_id,
        display_name="Partner",
        requests_per_minute=60,
        creator_user_id=user.user_id,
        create_time=NOW,
        secret_seed=bytes(32),
        secret_hash=hashlib.sha256(uuid.uuid4().bytes).digest(),
    )
    return replace(api_key, **values)  # type: ignore[arg-type]  # fields by name


def a_request(tenant_id: TenantId, **values: object) -> ClaimedRequest:
    request = ClaimedRequest(
        tenant_id=tenant_id,
        caller="anonymous",
        request_id=RequestId(new_id()),
        method="SignUp",
        body_hash=hashlib.sha256(b"body").digest(),
        result_id=new_id(),
        create_time=NOW,
    )
    return replace(request, **values)  # type: ignore[arg-type]  # fields by name
