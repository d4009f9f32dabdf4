"""Remembers what each request_id did, in the transaction that does it."""

from datetime import datetime
from typing import TYPE_CHECKING

from services.booking.ports.requests import WriteRequest
from services.shared.errors import RequestIdReusedError
from services.shared.postgres import Database, Session

if TYPE_CHECKING:
    from services.shared.postgres import Connection

# Another transaction with the same id is waited for.
_CLAIM = """
INSERT INTO booking.requests
  (tenant_id, caller_id, method, request_id, body_hash, resource_id, create_time)
VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING RETURNING 1
"""
_FIND = """
SELECT body_hash, resource_id FROM booking.requests
WHERE tenant_id = $1 AND caller_id = $2 AND method = $3 AND request_id = $4
"""
# Several processes may forget at once.
_FORGET = """
WITH old AS (
  SELECT ctid FROM booking.requests WHERE create_time < $1
  ORDER BY create_time LIMIT $2
), gone AS (
  DELETE FROM booking.requests WHERE ctid IN (SELECT ctid FROM old) RETURNING 1
)
SELECT count(*) FROM gone
"""


async def claim(
    connection: "Connection", request: WriteRequest, resource_id: str, now: datetime
) -> str | None:
    """Record the request; return None if it is new, else the id of what it made or changed.

    Raises RequestIdReusedError if it came with another body.
    """
    key = (request.tenant_id, request.caller_id, request.method, request.request_id)
    if await connection.fetchval(_CLAIM, *key, request.body_hash, resource_id, now):
        return None
    return await made_by(connection, request)


async def made_by(connection: "Connection", request: WriteRequest) -> str | None:
    """Return the id of what the request made or changed, None if it never came.

    Raises RequestIdReusedError if it came with another body.
    """
    key = (request.tenant_id, request.caller_id, request.method, request.request_id)
    row = await connection.fetchrow(_FIND, *key)
    if row is None:
        return None
    if row["body_hash"] != request.body_hash:
        raise RequestIdReusedError(request.request_id)
    return str(row["resource_id"])


class PostgresRequestStore:
    """Forgets old request ids, of all tenants."""

    def __init__(self, database: Database) -> None:
        """Take the database of role wayfare_booking."""
        self._database = database

    async def forget(self, *, before: datetime, most: int) -> int:
        """Forget at most so many that came before a time; return how many were forgotten."""
        async with self._database.transaction(Session(role="SWEEPER")) as connection:
            count: int = await connection.fetchval(_FORGET, before, most)
        return count
