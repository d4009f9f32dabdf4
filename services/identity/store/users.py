"""SQL of accounts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from services.identity.domain import Credentials, Phone, Role, TenantId, User, UserId, UserStatus

if TYPE_CHECKING:
    import asyncpg

    from services.shared.postgres import Connection

_COLUMNS = """user_id, tenant_id, phone, display_name, role, status,
  create_time, update_time, approve_time"""

_FIND = f"SELECT {_COLUMNS} FROM identity.users WHERE user_id = $1"  # noqa: S608 - constants
_FIND_LOCKED = f"{_FIND} FOR NO KEY UPDATE"
_FIND_BY_PHONE = f"SELECT {_COLUMNS} FROM identity.users WHERE phone = $1"  # noqa: S608 - constants
_FIND_CREDENTIALS = f"""
SELECT {_COLUMNS}, password_hash FROM identity.users WHERE phone = $1
"""  # noqa: S608 - constants
_SET_PASSWORD_HASH = "UPDATE identity.users SET password_hash = $2 WHERE user_id = $1"  # noqa: S105 - SQL

_ADD = f"""
INSERT INTO identity.users ({_COLUMNS}, password_hash)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
ON CONFLICT (tenant_id, phone) DO NOTHING
RETURNING user_id
"""  # noqa: S608 - constants

_SAVE = """
UPDATE identity.users
SET display_name = $2, role = $3, status = $4, update_time = $5, approve_time = $6
WHERE user_id = $1
"""

# Two ADMINs who demote each other would both see the other one: the second to count waits for the
# first.
_LOCK_ADMINS = """
SELECT pg_advisory_xact_lock(hashtextextended('identity.admins/' ||
current_setting('app.tenant_id'), 0))
"""
_COUNT_OTHER_ADMINS = """
SELECT count(*) FROM identity.users WHERE role = 'ADMIN' AND status = 'ACTIVE' AND user_id <> $1
"""

_LIST = f"""
SELECT {_COLUMNS} FROM identity.users
WHERE ($1::text IS NULL OR role = $1)
  AND ($2::text IS NULL OR status = $2)
  AND ($3::uuid IS NULL OR user_id < $3)
ORDER BY user_id DESC
LIMIT $4
"""  # noqa: S608 - constants


class PostgresUsers:
    """The accounts of a transaction's tenant."""

    def __init__(self, connection: "Connection") -> None:
        """Take the transaction's connection."""
        self._connection = connection

    async def find(self, user_id: UserId, *, lock: bool = False) -> User | None:
        """Return an account, or None; with `lock` nobody else changes it until the end."""
        row = await self._connection.fetchrow(_FIND_LOCKED if lock else _FIND, user_id)
        return None if row is None else _user_of(row)

    async def find_by_phone(self, phone: Phone) -> User | None:
        """Return the account of a phone, or None."""
        row = await self._connection.fetchrow(_FIND_BY_PHONE, phone)
        return None if row is None else _user_of(row)

    async def find_credentials(self, phone: Phone) -> Credentials | None:
        """Return the account of a phone with its password hash, or None, with the same work."""
        row = await self._connection.fetchrow(_FIND_CREDENTIALS, phone)
        if row is None:
            return None
        return Credentials(user=_user_of(row), password_hash=row["password_hash"])

    async def set_password_hash(self, user_id: UserId, password_hash: str) -> None:
        """Replace the password hash of an account."""
        await self._connection.execute(_SET_PASSWORD_HASH, user_id, password_hash)

    async def add(self, user: User, *, password_hash: str) -> bool:
        """Add an account; return False when its phone has one."""
        added = await self._connection.fetchval(
            _ADD,
            user.user_id,
            user.tenant_id,
            user.phone,
            user.display_name,
            user.role,
            user.status,
            user.create_time,
            user.update_time,
            user.approve_time,
            password_hash,
        )
        return added is not None

    async def save(self, user: User) -> None:
        """Write the name, role, status and moments of an account."""
        await self._connection.execute(
            _SAVE,
            user.user_id,
            user.display_name,
            user.role,
            user.status,
            user.update_time,
            user.approve_time,
        )

    async def count_other_admins(self, user_id: UserId) -> int:
        """Count the active ADMINs besides an account; nobody else counts until the end."""
        await self._connection.execute(_LOCK_ADMINS)
        count: int = await self._connection.fetchval(_COUNT_OTHER_ADMINS, user_id)
        return count

    async def list(
        self, *, role: Role | None, status: UserStatus | None, before: UserId | None, limit: int
    ) -> Sequence[User]:
        """Return at most `limit` accounts with ids below `before`, greatest id first."""
        rows = await self._connection.fetch(_LIST, role, status, before, limit)
        return [_user_of(row) for row in rows]


def _user_of(row: "asyncpg.Record") -> User:
    return User(
        user_id=UserId(str(row["user_id"])),
        tenant_id=TenantId(str(row["tenant_id"])),
        phone=Phone(row["phone"]),
        display_name=row["display_name"],
        role=Role(row["role"]),
        status=UserStatus(row["status"]),
        create_time=row["create_time"],
        update_time=row["update_time"],
        approve_time=row["approve_time"],
    )
