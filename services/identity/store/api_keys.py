"""SQL of API keys."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from services.identity.domain import ApiKey, ApiKeyId, TenantId, UserId

if TYPE_CHECKING:
    import asyncpg

    from services.shared.postgres import Connection

_COLUMNS = """key_id, tenant_id, display_name, requests_per_minute, creator_user_id, secret_seed,
  secret_hash, create_time, expire_time, revoke_time, request_count, last_use_time"""

_ADD = f"""
INSERT INTO identity.api_keys ({_COLUMNS})
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
"""  # noqa: S608 - constants

_FIND = f"SELECT {_COLUMNS} FROM identity.api_keys WHERE key_id = $1"  # noqa: S608 - constants

FIND_BY_HASH = f"SELECT {_COLUMNS} FROM identity.api_keys WHERE secret_hash = $1"  # noqa: S608 - constants

# Two CreateApiKey at the limit would both see a free place: the second to count waits for the
# first.
_LOCK_KEYS = """
SELECT pg_advisory_xact_lock(
  hashtextextended('identity.api_keys/' || current_setting('app.tenant_id'), 0))
"""
_COUNT_WORKING = """
SELECT count(*) FROM identity.api_keys
WHERE revoke_time IS NULL AND (expire_time IS NULL OR expire_time > $1)
"""

_REVOKE = "UPDATE identity.api_keys SET revoke_time = $2 WHERE key_id = $1 AND revoke_time IS NULL"

_LIST = f"""
SELECT {_COLUMNS} FROM identity.api_keys
WHERE ($1::timestamptz IS NULL
       OR (revoke_time IS NULL AND (expire_time IS NULL OR expire_time > $1)))
  AND ($2::uuid IS NULL OR key_id < $2)
ORDER BY key_id DESC
LIMIT $3
"""  # noqa: S608 - constants

_ADD_USES = """
UPDATE identity.api_keys
SET request_count = request_count + $2, last_use_time = greatest(last_use_time, $3)
WHERE key_id = $1
"""


class PostgresApiKeys:
    """The API keys of a transaction's tenant."""

    def __init__(self, connection: "Connection") -> None:
        """Take the transaction's connection."""
        self._connection = connection

    async def add(self, api_key: ApiKey) -> None:
        """Add a key."""
        await self._connection.execute(
            _ADD,
            api_key.key_id,
            api_key.tenant_id,
            api_key.display_name,
            api_key.requests_per_minute,
            api_key.creator_user_id,
            api_key.secret_seed,
            api_key.secret_hash,
            api_key.create_time,
            api_key.expire_time,
            api_key.revoke_time,
            api_key.request_count,
            api_key.last_use_time,
        )

    async def find(self, key_id: ApiKeyId) -> ApiKey | None:
        """Return a key, or None."""
        row = await self._connection.fetchrow(_FIND, key_id)
        return None if row is None else api_key_of(row)

    async def count_working(self, now: datetime) -> int:
        """Count the working keys; nobody else counts until the end."""
        await self._connection.execute(_LOCK_KEYS)
        count: int = await self._connection.fetchval(_COUNT_WORKING, now)
        return count

    async def revoke(self, key_id: ApiKeyId, *, now: datetime) -> None:
        """End a key that has not ended."""
        await self._connection.execute(_REVOKE, key_id, now)

    async def list(
        self, *, working_at: datetime | None, before: ApiKeyId | None, limit: int
    ) -> Sequence[ApiKey]:
        """Return at most `limit` keys with ids below `before`, greatest id first."""
        rows = await self._connection.fetch(_LIST, working_at, before, limit)
        return [api_key_of(row) for row in rows]

    async def add_uses(self, key_id: ApiKeyId, *, count: int, last_use_time: datetime) -> None:
        """Add to the count of a key; its last use never goes back."""
        await self._connection.execute(_ADD_USES, key_id, count, last_use_time)


def api_key_of(row: "asyncpg.Record") -> ApiKey:
    """Return the key of a row."""
    return ApiKey(
        key_id=ApiKeyId(str(row["key_id"])),
        tenant_id=TenantId(str(row["tenant_id"])),
        display_name=row["display_name"],
        requests_per_minute=row["requests_per_minute"],
        creator_user_id=UserId(str(row["creator_user_id"])),
        create_time=row["create_time"],
        secret_seed=row["secret_seed"],
        secret_hash=row["secret_hash"],
        expire_time=row["expire_time"],
        revoke_time=row["revoke_time"],
        request_count=row["request_count"],
        last_use_time=row["last_use_time"],
    )
