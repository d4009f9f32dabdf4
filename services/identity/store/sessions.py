"""SQL of sessions."""

from datetime import datetime
from typing import TYPE_CHECKING

from services.identity.domain import (
    RequestId,
    RevokeCause,
    SessionId,
    StoredSession,
    TenantId,
    UserId,
)

if TYPE_CHECKING:
    import asyncpg

    from services.shared.postgres import Connection

_COLUMNS = """session_id, tenant_id, user_id, token_seed, generation, token_hash, token_expire_time,
  create_time, expire_time, rotate_time, rotate_request_id, revoke_time, revoke_cause"""

_ADD = f"""
INSERT INTO identity.sessions ({_COLUMNS})
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
"""  # noqa: S608 - constants

_FIND = f"SELECT {_COLUMNS} FROM identity.sessions WHERE session_id = $1"  # noqa: S608 - constants
_FIND_LOCKED = f"{_FIND} FOR UPDATE"

# Compare and set: however many refreshes bring one token, the first to arrive finds its generation
# current.
_ROTATE = """
UPDATE identity.sessions
SET generation = generation + 1, token_hash = $3, token_expire_time = $4,
    rotate_request_id = $5, rotate_time = $6
WHERE session_id = $1 AND generation = $2 AND revoke_time IS NULL
RETURNING session_id
"""

_REVOKE = """
UPDATE identity.sessions SET revoke_time = $2, revoke_cause = $3
WHERE session_id = $1 AND revoke_time IS NULL AND token_expire_time > $2
RETURNING session_id
"""

# Locked in one order, so that two of these at once wait for each other and never deadlock.
_REVOKE_ALL = """
UPDATE identity.sessions SET revoke_time = $2, revoke_cause = $3
WHERE session_id IN (
  SELECT session_id FROM identity.sessions
  WHERE user_id = $1 AND revoke_time IS NULL AND token_expire_time > $2
  ORDER BY session_id
  FOR UPDATE)
RETURNING session_id
"""


class PostgresSessions:
    """The sessions of a transaction's tenant."""

    def __init__(self, connection: "Connection") -> None:
        """Take the transaction's connection."""
        self._connection = connection

    async def add(self, session: StoredSession) -> None:
        """Add a session."""
        await self._connection.execute(
            _ADD,
            session.session_id,
            session.tenant_id,
            session.user_id,
            session.token_seed,
            session.generation,
            session.token_hash,
            session.token_expire_time,
            session.create_time,
            session.expire_time,
            session.rotate_time,
            session.rotate_request_id,
            session.revoke_time,
            session.revoke_cause,
        )

    async def find(self, session_id: SessionId, *, lock: bool = False) -> StoredSession | None:
        """Return a session, or None; with `lock` nobody else changes it until the end."""
        row = await self._connection.fetchrow(_FIND_LOCKED if lock else _FIND, session_id)
        return None if row is None else _session_of(row)

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
        """Replace the refresh token of a generation by the next; return False when not current."""
        rotated = await self._connection.fetchval(
            _ROTATE, session_id, generation, token_hash, token_expire_time, request_id, now
        )
        return rotated is not None

    async def revoke(self, session_id: SessionId, *, cause: RevokeCause, now: datetime) -> bool:
        """End a session; return False when it had ended."""
        return await self._connection.fetchval(_REVOKE, session_id, now, cause) is not None

    async def revoke_all(self, user_id: UserId, *, cause: RevokeCause, now: datetime) -> int:
        """End every session of a user; return how many had not ended."""
        return len(await self._connection.fetch(_REVOKE_ALL, user_id, now, cause))


def _session_of(row: "asyncpg.Record") -> StoredSession:
    rotate_request_id, cause = row["rotate_request_id"], row["revoke_cause"]
    return StoredSession(
        session_id=SessionId(str(row["session_id"])),
        tenant_id=TenantId(str(row["tenant_id"])),
        user_id=UserId(str(row["user_id"])),
        token_seed=row["token_seed"],
        generation=row["generation"],
        token_hash=row["token_hash"],
        token_expire_time=row["token_expire_time"],
        create_time=row["create_time"],
        expire_time=row["expire_time"],
        rotate_time=row["rotate_time"],
        rotate_request_id=RequestId(str(rotate_request_id)) if rotate_request_id else None,
        revoke_time=row["revoke_time"],
        revoke_cause=RevokeCause(cause) if cause else None,
    )
