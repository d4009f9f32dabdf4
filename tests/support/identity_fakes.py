"""IdentityService's ports in memory. The contract suite holds the store to what PostgreSQL does."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from services.identity.domain import (
    ApiKey,
    ApiKeyId,
    ClaimedRequest,
    Credentials,
    KeyUses,
    Phone,
    RequestId,
    RevokeCause,
    Role,
    SessionId,
    StoredSession,
    Tenant,
    TenantId,
    User,
    UserId,
    UserStatus,
    is_active_admin,
)
from services.identity.errors import TooManyAttemptsError
from services.identity.ports import Transaction


class FakeClock:
    """Stands still until told to move."""

    def __init__(self) -> None:
        self.time = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()

    def pass_time(self, span: timedelta) -> None:
        self.time += span


class FakeIds:
    """Counts; later ids are greater, as UUIDv7 are."""

    def __init__(self) -> None:
        self._count = 0

    def new_id(self) -> str:
        self._count += 1
        return f"0198c000-0000-7000-8000-{self._count:012x}"


class FakeRandom:
    """Foreseeable, and never the same twice."""

    def __init__(self) -> None:
        self._count = 0

    def random_bytes(self, count: int) -> bytes:
        self._count += 1
        return hashlib.sha256(str(self._count).encode()).digest()[:count]


class FakeSecrets:
    """Derives with the keys that it has, newest first."""

    def __init__(self, *keys: bytes) -> None:
        self.keys = list(keys or (b"key",))

    def derive(self, seed: bytes, label: str) -> bytes:
        return self.derive_all(seed, label)[0]

    def derive_all(self, seed: bytes, label: str) -> Sequence[bytes]:
        return [hashlib.sha256(key + seed + label.encode()).digest() for key in self.keys]


class FakeAccessTokens:
    """Writes down what a token says."""

    def issue(
        self, user: User, session_id: SessionId, *, now: datetime, expire_time: datetime
    ) -> str:
        return f"{user.user_id} {user.role} {user.status} {session_id} {expire_time.isoformat()}"


class FakeHasher:
    """Hashes at once, and remembers how often it was asked."""

    def __init__(self) -> None:
        self.checks: list[bool] = []
        self.cost = 1

    async def hash(self, password: str) -> str:
        return f"$argon2id${self.cost}${password}"

    async def verify(self, password_hash: str | None, password: str) -> bool:
        self.checks.append(password_hash is not None)
        return password_hash is not None and password_hash.split("$", 3)[3] == password

    def needs_rehash(self, password_hash: str) -> bool:
        return not password_hash.startswith(f"$argon2id${self.cost}$")


class FakeAttempts:
    """Counts wrong passwords per phone, from anywhere."""

    def __init__(self, limit: int = 3) -> None:
        self.limit = limit
        self.counts: dict[tuple[str, str], int] = {}

    async def begin(self, tenant_id: TenantId, phone: Phone, *, ip_address: str) -> None:
        count = self.counts.get((tenant_id, phone), 0)
        if count >= self.limit:
            raise TooManyAttemptsError(
                attempts_max=self.limit, window_seconds=900, retry_after_seconds=900
            )
        self.counts[(tenant_id, phone)] = count + 1

    async def succeed(self, tenant_id: TenantId, phone: Phone, *, ip_address: str) -> None:
        self.counts.pop((tenant_id, phone), None)


class FakeUses:
    """Counts uses of API keys."""

    def __init__(self) -> None:
        self.uses: list[KeyUses] = []

    async def add(
        self, key_id: ApiKeyId, *, tenant_id: TenantId, count: int, now: datetime
    ) -> None:
        self.uses.append(
            KeyUses(key_id=key_id, tenant_id=tenant_id, count=count, last_use_time=now)
        )

    async def take(self) -> Sequence[KeyUses]:
        taken, self.uses = self.uses, []
        return taken

    async def put_back(self, uses: Sequence[KeyUses]) -> None:
        self.uses += uses


@dataclass
class _Rows:
    tenants: dict[str, Tenant] = field(default_factory=dict)
    users: dict[str, User] = field(default_factory=dict)
    password_hashes: dict[str, str] = field(default_factory=dict)
    sessions: dict[str, StoredSession] = field(default_factory=dict)
    api_keys: dict[str, ApiKey] = field(default_factory=dict)
    requests: dict[tuple[str, str, str], ClaimedRequest] = field(default_factory=dict)

    def copy(self) -> "_Rows":
        return _Rows(
            dict(self.tenants),
            dict(self.users),
            dict(self.password_hashes),
            dict(self.sessions),
            dict(self.api_keys),
            dict(self.requests),
        )


class FakeStore:
    """Keeps rows in memory; one transaction runs at a time, and a failed one leaves nothing."""

    def __init__(self) -> None:
        self.rows = _Rows()
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def transaction(self, tenant_id: TenantId) -> AsyncIterator[Transaction]:
        async with self._turn:
            before = self.rows.copy()
            try:
                yield _FakeTransaction(self.rows, tenant_id)
            except BaseException:
                self.rows = before
                raise

    async def find_api_key_by_hash(self, secret_hash: bytes) -> ApiKey | None:
        found = [key for key in self.rows.api_keys.values() if key.secret_hash == secret_hash]
        return found[0] if found else None

    async def forget_before(self, *, requests: datetime, sessions: datetime) -> int:
        old_requests = [k for k, r in self.rows.requests.items() if r.create_time < requests]
        old_sessions = [k for k, s in self.rows.sessions.items() if s.token_expire_time < sessions]
        for key in old_requests:
            del self.rows.requests[key]
        for session_id in old_sessions:
            del self.rows.sessions[session_id]
        return len(old_requests) + len(old_sessions)


class _FakeTransaction:
    def __init__(self, rows: _Rows, tenant_id: TenantId) -> None:
        self.tenants = _FakeTenants(rows, tenant_id)
        self.users = _FakeUsers(rows, tenant_id)
        self.sessions = _FakeSessions(rows, tenant_id)
        self.api_keys = _FakeApiKeys(rows, tenant_id)
        self.requests = _FakeRequests(rows, tenant_id)


class _FakeTenants:
    def __init__(self, rows: _Rows, tenant_id: TenantId) -> None:
        self._rows, self._tenant_id = rows.tenants, tenant_id

    async def find(self) -> Tenant | None:
        return self._rows.get(self._tenant_id)

    async def add(self, tenant: Tenant) -> bool:
        return self._rows.setdefault(tenant.tenant_id, tenant) is tenant


class _FakeUsers:
    def __init__(self, rows: _Rows, tenant_id: TenantId) -> None:
        self._all, self._hashes, self._tenant_id = rows.users, rows.password_hashes, tenant_id

    def _own(self) -> list[User]:
        return [user for user in self._all.values() if user.tenant_id == self._tenant_id]

    async def find(self, user_id: UserId, *, lock: bool = False) -> User | None:
        user = self._all.get(user_id)
        return user if user and user.tenant_id == self._tenant_id else None

    async def find_by_phone(self, phone: Phone) -> User | None:
        return next((user for user in self._own() if user.phone == phone), None)

    async def find_credentials(self, phone: Phone) -> Credentials | None:
        user = await self.find_by_phone(phone)
        if user is None:
            return None
        return Credentials(user=user, password_hash=self._hashes[user.user_id])

    async def set_password_hash(self, user_id: UserId, password_hash: str) -> None:
        self._hashes[user_id] = password_hash

    async def add(self, user: User, *, password_hash: str) -> bool:
        if await self.find_by_phone(user.phone):
            return False
        self._all[user.user_id] = user
        self._hashes[user.user_id] = password_hash
        return True

    async def save(self, user: User) -> None:
        self._all[user.user_id] = user

    async def count_other_admins(self, user_id: UserId) -> int:
        return sum(is_active_admin(user) and user.user_id != user_id for user in self._own())

    async def list(
        self, *, role: Role | None, status: UserStatus | None, before: UserId | None, limit: int
    ) -> Sequence[User]:
        found = [
            user
            for user in self._own()
            if role in (None, user.role)
            and status in (None, user.status)
            and (before is None or user.user_id < before)
        ]
        return sorted(found, key=lambda user: user.user_id, reverse=True)[:limit]


class _FakeSessions:
    def __init__(self, rows: _Rows, tenant_id: TenantId) -> None:
        self._rows, self._tenant_id = rows.sessions, tenant_id

    async def add(self, session: StoredSession) -> None:
        self._rows[session.session_id] = session

    async def find(self, session_id: SessionId, *, lock: bool = False) -> StoredSession | None:
        session = self._rows.get(session_id)
        return session if session and session.tenant_id == self._tenant_id else None

    async def rotate(
        self,
        session_id: SessionId,
        generation: int,
        *,
        token_hash: bytes,
        token_expire_time: datetime,
        request_id: RequestId,
        now: datetime,
    ) -> bool:
        session = await self.find(session_id)
        if session is None or session.generation != generation or session.revoke_time:
            return False
        self._rows[session_id] = replace(
            session,
            generation=generation + 1,
            token_hash=token_hash,
            token_expire_time=token_expire_time,
            rotate_request_id=request_id,
            rotate_time=now,
        )
        return True

    async def revoke(self, session_id: SessionId, *, cause: RevokeCause, now: datetime) -> bool:
        session = await self.find(session_id)
        if session is None or session.revoke_time or session.token_expire_time <= now:
            return False
        self._rows[session_id] = replace(session, revoke_time=now, revoke_cause=cause)
        return True

    async def revoke_all(self, user_id: UserId, *, cause: RevokeCause, now: datetime) -> int:
        own = [session for session in self._rows.values() if session.user_id == user_id]
        return sum([await self.revoke(s.session_id, cause=cause, now=now) for s in own])


class _FakeApiKeys:
    def __init__(self, rows: _Rows, tenant_id: TenantId) -> None:
        self._rows, self._tenant_id = rows.api_keys, tenant_id

    def _own(self) -> list[ApiKey]:
        return [key for key in self._rows.values() if key.tenant_id == self._tenant_id]

    async def add(self, api_key: ApiKey) -> None:
        self._rows[api_key.key_id] = api_key

    async def find(self, key_id: ApiKeyId) -> ApiKey | None:
        return next((key for key in self._own() if key.key_id == key_id), None)

    async def count_working(self, now: datetime) -> int:
        return sum(key.works_at(now) for key in self._own())

    async def revoke(self, key_id: ApiKeyId, *, now: datetime) -> None:
        api_key = await self.find(key_id)
        if api_key and api_key.revoke_time is None:
            self._rows[key_id] = replace(api_key, revoke_time=now)

    async def list(
        self, *, working_at: datetime | None, before: ApiKeyId | None, limit: int
    ) -> Sequence[ApiKey]:
        found = [
            key
            for key in self._own()
            if (working_at is None or key.works_at(working_at))
            and (before is None or key.key_id < before)
        ]
        return sorted(found, key=lambda key: key.key_id, reverse=True)[:limit]

    async def add_uses(self, key_id: ApiKeyId, *, count: int, last_use_time: datetime) -> None:
        api_key = await self.find(key_id)
        if api_key:
            last = max(api_key.last_use_time or last_use_time, last_use_time)
            self._rows[key_id] = replace(
                api_key, request_count=api_key.request_count + count, last_use_time=last
            )


class _FakeRequests:
    def __init__(self, rows: _Rows, tenant_id: TenantId) -> None:
        self._rows, self._tenant_id = rows.requests, tenant_id

    async def find(self, caller: str, request_id: RequestId) -> ClaimedRequest | None:
        return self._rows.get((self._tenant_id, caller, request_id))

    async def claim(self, request: ClaimedRequest) -> ClaimedRequest | None:
        key = (self._tenant_id, request.caller, request.request_id)
        earlier = self._rows.get(key)
        if earlier is None:
            self._rows[key] = request
        return earlier
