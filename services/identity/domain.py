"""What an account, a session and an API key are, and every decision that needs no database.

Used by the operations, the stores and convert.py. Nothing here knows SQL, protos or the clock.
"""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NewType

from services.identity.errors import (
    NotADriverError,
    RoleNotAllowedError,
    StatusChangeNotAllowedError,
)

TenantId = NewType("TenantId", str)
UserId = NewType("UserId", str)
SessionId = NewType("SessionId", str)
ApiKeyId = NewType("ApiKeyId", str)
RequestId = NewType("RequestId", str)
# A phone number in E.164 form, made by phones.parse_phone.
Phone = NewType("Phone", str)

ACCESS_TOKEN_LIFETIME = timedelta(minutes=15)
API_KEY_CACHE_DURATION = timedelta(seconds=30)
API_KEYS_MAX = 100
API_KEY_REQUESTS_PER_MINUTE_DEFAULT = 600
PAGE_SIZE_DEFAULT = 50
PAGE_SIZE_MAX = 500


class Role(StrEnum):
    """What a person does for, or with, an operator."""

    PASSENGER = "PASSENGER"
    DRIVER = "DRIVER"
    CONDUCTOR = "CONDUCTOR"
    BUSINESS = "BUSINESS"
    ADMIN = "ADMIN"


class UserStatus(StrEnum):
    """Whether a person may use their account."""

    ACTIVE = "ACTIVE"
    PENDING = "PENDING"
    SUSPENDED = "SUSPENDED"


# The roles that people can give themselves; every other one is given by an ADMIN.
SIGN_UP_ROLES = frozenset({Role.PASSENGER, Role.DRIVER})

# The moves of UpdateUser. PENDING to ACTIVE is ApproveDriver's, and PENDING is only ever fallen
# back to.
_STATUS_MOVES: dict[UserStatus, frozenset[UserStatus]] = {
    UserStatus.ACTIVE: frozenset({UserStatus.SUSPENDED}),
    UserStatus.PENDING: frozenset({UserStatus.SUSPENDED}),
    UserStatus.SUSPENDED: frozenset({UserStatus.ACTIVE}),
}


class RevokeCause(StrEnum):
    """Why a session ended before its time."""

    LOGGED_OUT = "LOGGED_OUT"
    SUSPENDED = "SUSPENDED"
    TOKEN_REUSED = "TOKEN_REUSED"  # noqa: S105 - a cause, not a password


class Refresh(StrEnum):
    """What becomes of a refresh."""

    ROTATE = "ROTATE"
    REPLAY = "REPLAY"
    REUSE = "REUSE"
    REVOKED = "REVOKED"
    EXPIRED = "EXPIRED"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who asks: a signed-in person."""

    tenant_id: TenantId
    user_id: UserId
    session_id: SessionId


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """An operator or a school."""

    tenant_id: TenantId
    display_name: str
    create_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """The account of one person with one tenant."""

    user_id: UserId
    tenant_id: TenantId
    phone: Phone
    display_name: str
    role: Role
    status: UserStatus
    create_time: datetime
    update_time: datetime
    approve_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """An account with the hash of its password."""

    user: User
    password_hash: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class UserChange:
    """New values for an account; None leaves a field as it is."""

    display_name: str | None = None
    role: Role | None = None
    status: UserStatus | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSession:
    """A session as it is kept: without any token, only the seed and hash of its refresh token.

    `generation` counts the refreshes from 0. `token_hash` is the SHA-256 of the current
    generation's secret.
    """

    session_id: SessionId
    tenant_id: TenantId
    user_id: UserId
    token_seed: bytes
    generation: int
    token_hash: bytes
    token_expire_time: datetime
    create_time: datetime
    expire_time: datetime
    rotate_time: datetime | None = None
    rotate_request_id: RequestId | None = None
    revoke_time: datetime | None = None
    revoke_cause: RevokeCause | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSession:
    """A session as it is given to its user, tokens included."""

    session_id: SessionId
    user: User
    access_token: str
    access_token_expire_time: datetime
    refresh_token: str
    refresh_token_expire_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key of a partner's system, without its secret."""

    key_id: ApiKeyId
    tenant_id: TenantId
    display_name: str
    requests_per_minute: int
    creator_user_id: UserId
    create_time: datetime
    secret_seed: bytes
    secret_hash: bytes
    expire_time: datetime | None = None
    revoke_time: datetime | None = None
    request_count: int = 0
    last_use_time: datetime | None = None

    def works_at(self, now: datetime) -> bool:
        """Return whether the key is neither revoked nor expired."""
        return self.revoke_time is None and (self.expire_time is None or self.expire_time > now)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyUses:
    """Uses of one API key that are not written to the store yet."""

    key_id: ApiKeyId
    tenant_id: TenantId
    count: int
    last_use_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedRequest:
    """A write that was done, remembered by its caller and request id. Holds no secret.

    `body_hash` is the SHA-256 of the request without its password; `result_id` is what the write
    made.
    """

    tenant_id: TenantId
    caller: str
    request_id: RequestId
    method: str
    body_hash: bytes
    result_id: str
    create_time: datetime


def status_for(role: Role, *, approved: bool) -> UserStatus:
    """Return the status of an account that is not suspended."""
    return UserStatus.PENDING if role is Role.DRIVER and not approved else UserStatus.ACTIVE


def check_sign_up_role(role: Role) -> None:
    """Raise RoleNotAllowedError for a role that people cannot give themselves."""
    if role not in SIGN_UP_ROLES:
        raise RoleNotAllowedError(role, allowed_roles=_names(SIGN_UP_ROLES))


def approve(user: User, *, now: datetime) -> User:
    """Return the driver, approved. The same account when it was approved before."""
    if user.role is not Role.DRIVER:
        raise NotADriverError(user.role)
    if user.status is UserStatus.SUSPENDED:
        raise StatusChangeNotAllowedError(from_status=user.status, to_status=UserStatus.ACTIVE)
    if user.approve_time is not None:
        return user
    return replace(user, status=UserStatus.ACTIVE, approve_time=now, update_time=now)


def changed(user: User, change: UserChange, *, now: datetime) -> User:
    """Return the account with the change. The same account when nothing differs.

    A driver who was never approved is PENDING whenever they are not suspended.
    """
    role = change.role or user.role
    suspended = _suspended_after(user, change.status)
    status = (
        UserStatus.SUSPENDED
        if suspended
        else status_for(role, approved=user.approve_time is not None)
    )
    after = replace(
        user, display_name=change.display_name or user.display_name, role=role, status=status
    )
    return user if after == user else replace(after, update_time=now)


def _suspended_after(user: User, wanted: UserStatus | None) -> bool:
    if wanted is None or wanted is user.status:
        return user.status is UserStatus.SUSPENDED
    if wanted not in _STATUS_MOVES[user.status]:
        raise StatusChangeNotAllowedError(from_status=user.status, to_status=wanted)
    return wanted is UserStatus.SUSPENDED


def loses_admin(before: User, after: User) -> bool:
    """Return whether the change takes an active ADMIN away."""
    return is_active_admin(before) and not is_active_admin(after)


def is_active_admin(user: User) -> bool:
    """Return whether the account may administer now."""
    return user.role is Role.ADMIN and user.status is UserStatus.ACTIVE


def decide_refresh(
    session: StoredSession,
    generation: int,
    *,
    request_id: RequestId,
    now: datetime,
    replay_window: timedelta,
) -> Refresh:
    """Decide what becomes of a refresh with the authentic token of a generation.

    The caller holds the session locked, so that of many refreshes with one token exactly one
    rotates.
    """
    if session.revoke_time is not None:
        return Refresh.REVOKED
    if generation == session.generation:
        if session.token_expire_time <= now:
            return Refresh.EXPIRED
        if request_id == session.rotate_request_id:
            return Refresh.REQUEST_ID_REUSED
        return Refresh.ROTATE
    repeated = generation == session.generation - 1 and request_id == session.rotate_request_id
    if repeated and session.rotate_time is not None and now - session.rotate_time <= replay_window:
        return Refresh.REPLAY
    return Refresh.REUSE


def coerced_page_size(page_size: int) -> int:
    """Return the page size to use for the one that was asked for."""
    return min(page_size, PAGE_SIZE_MAX) if page_size > 0 else PAGE_SIZE_DEFAULT


def _names(roles: Collection[Role]) -> list[str]:
    return sorted(role.value for role in roles)
