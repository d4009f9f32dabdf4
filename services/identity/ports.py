"""What the operations need from the world, as Protocols.

The real ones are store/ (PostgreSQL), attempts.py and usage.py (Valkey), passwords.py (argon2id)
and signing.py (Ed25519). The fakes of the unit tests have the same faces, and one contract suite
runs against both.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol

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
)


class Tenants(Protocol):
    """The tenant of a transaction."""

    async def find(self) -> Tenant | None:
        """Return the tenant, or None."""

    async def add(self, tenant: Tenant) -> bool:
        """Add the tenant; return False when it exists."""


class Users(Protocol):
    """The accounts of the transaction's tenant."""

    async def find(self, user_id: UserId, *, lock: bool = False) -> User | None:
        """Return an account, or None.

        With `lock` nobody else changes it until the transaction ends.
        """

    async def find_by_phone(self, phone: Phone) -> User | None:
        """Return the account of a phone, or None."""

    async def find_credentials(self, phone: Phone) -> Credentials | None:
        """Return the account of a phone with its password hash, or None, with the same work."""

    async def set_password_hash(self, user_id: UserId, password_hash: str) -> None:
        """Replace the password hash of an account."""

    async def add(self, user: User, *, password_hash: str) -> bool:
        """Add an account; return False when its phone has one."""

    async def save(self, user: User) -> None:
        """Write the name, role, status and moments of an account."""

    async def count_other_admins(self, user_id: UserId) -> int:
        """Count the active ADMINs besides an account.

        Nobody else counts until the transaction ends.
        """

    async def list(
        self, *, role: Role | None, status: UserStatus | None, before: UserId | None, limit: int
    ) -> Sequence[User]:
        """Return at most `limit` accounts with ids below `before`, greatest id first."""


class Sessions(Protocol):
    """The sessions of the transaction's tenant."""

    async def add(self, session: StoredSession) -> None:
        """Add a session."""

    async def find(self, session_id: SessionId, *, lock: bool = False) -> StoredSession | None:
        """Return a session, or None.

        With `lock` nobody else changes it until the transaction ends.
        """

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
        """Replace the refresh token of a generation by the next.

        Return False when that is not current.
        """

    async def revoke(self, session_id: SessionId, *, cause: RevokeCause, now: datetime) -> bool:
        """End a session; return False when it had ended."""

    async def revoke_all(self, user_id: UserId, *, cause: RevokeCause, now: datetime) -> int:
        """End every session of a user; return how many had not ended."""


class ApiKeys(Protocol):
    """The API keys of the transaction's tenant."""

    async def add(self, api_key: ApiKey) -> None:
        """Add a key."""

    async def find(self, key_id: ApiKeyId) -> ApiKey | None:
        """Return a key, or None."""

    async def count_working(self, now: datetime) -> int:
        """Count the working keys; nobody else counts until the transaction ends."""

    async def revoke(self, key_id: ApiKeyId, *, now: datetime) -> None:
        """End a key that has not ended."""

    async def list(
        self, *, working_at: datetime | None, before: ApiKeyId | None, limit: int
    ) -> Sequence[ApiKey]:
        """Return at most `limit` keys with ids below `before`, greatest id first.

        Only those that work then.
        """

    async def add_uses(self, key_id: ApiKeyId, *, count: int, last_use_time: datetime) -> None:
        """Add to the count of a key; its last use never goes back."""


class Requests(Protocol):
    """The writes that the transaction's tenant remembers."""

    async def find(self, caller: str, request_id: RequestId) -> ClaimedRequest | None:
        """Return what a caller did under a request id, or None."""

    async def claim(self, request: ClaimedRequest) -> ClaimedRequest | None:
        """Remember a write; return the one that the caller did under this id before, or None.

        Of two transactions that claim one id the second waits for the end of the first.
        """


class Transaction(Protocol):
    """One transaction of one tenant: everything in it happens, or nothing does."""

    @property
    def tenants(self) -> Tenants:
        """Return the tenant."""

    @property
    def users(self) -> Users:
        """Return the accounts."""

    @property
    def sessions(self) -> Sessions:
        """Return the sessions."""

    @property
    def api_keys(self) -> ApiKeys:
        """Return the API keys."""

    @property
    def requests(self) -> Requests:
        """Return the remembered writes."""


class Store(Protocol):
    """Where everything is kept."""

    def transaction(self, tenant_id: TenantId) -> AbstractAsyncContextManager[Transaction]:
        """Open a transaction; it commits when the block ends and rolls back when it raises."""

    async def find_api_key_by_hash(self, secret_hash: bytes) -> ApiKey | None:
        """Return the key of any tenant whose secret has this SHA-256, or None."""

    async def forget_before(self, *, requests: datetime, sessions: datetime) -> int:
        """Delete remembered writes made, and sessions ended, before these moments.

        Return how many.
        """


class PasswordHasher(Protocol):
    """Hashes passwords off the event loop; raises OverloadedError when too many wait."""

    async def hash(self, password: str) -> str:
        """Return the hash of a password, with its own salt and cost."""

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """Return whether the password has this hash; None takes as long and is never right."""

    def needs_rehash(self, password_hash: str) -> bool:
        """Return whether the hash was made with another cost than today's."""


class LogInAttempts(Protocol):
    """Counts wrong passwords per phone.

    Raises nothing when the counter is away, because limits per IP remain.
    """

    async def begin(self, tenant_id: TenantId, phone: Phone, *, ip_address: str) -> None:
        """Count an attempt as wrong until it succeeds.

        Raises TooManyAttemptsError beyond the limit.
        """

    async def succeed(self, tenant_id: TenantId, phone: Phone, *, ip_address: str) -> None:
        """Take the attempt back, and forget the wrong ones of this phone from this address."""


class ApiKeyUses(Protocol):
    """Counts uses of API keys until they are written to the store."""

    async def add(
        self, key_id: ApiKeyId, *, tenant_id: TenantId, count: int, now: datetime
    ) -> None:
        """Add to the count of a key; a count that cannot be kept is lost."""

    async def take(self) -> Sequence[KeyUses]:
        """Return what was counted since the last call, and count from zero again."""

    async def put_back(self, uses: Sequence[KeyUses]) -> None:
        """Count again what was taken and could not be written."""


class AccessTokens(Protocol):
    """Makes access tokens."""

    def issue(
        self, user: User, session_id: SessionId, *, now: datetime, expire_time: datetime
    ) -> str:
        """Return a signed JWT for a user and session."""


class SecretSource(Protocol):
    """Derives secrets from a seed, so that they can be given again without being stored."""

    def derive(self, seed: bytes, label: str) -> bytes:
        """Return the 32 bytes that the newest key makes of a seed and a label."""

    def derive_all(self, seed: bytes, label: str) -> Sequence[bytes]:
        """Return what each key that is still kept makes of a seed and a label, newest key first."""


class RandomSource(Protocol):
    """Randomness that nobody can guess."""

    def random_bytes(self, count: int) -> bytes:
        """Return that many bytes."""
