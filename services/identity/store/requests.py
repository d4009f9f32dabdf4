"""SQL of remembered writes."""

from typing import TYPE_CHECKING

from services.identity.domain import ClaimedRequest, RequestId, TenantId

if TYPE_CHECKING:
    import asyncpg

    from services.shared.postgres import Connection

_FIND = """
SELECT tenant_id, caller, request_id, method, body_hash, result_id, create_time
FROM identity.requests WHERE caller = $1 AND request_id = $2
"""

# A conflict with a transaction that is still open waits for its end.
_CLAIM = """
INSERT INTO identity.requests
  (tenant_id, caller, request_id, method, body_hash, result_id, create_time)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (tenant_id, caller, request_id) DO NOTHING
RETURNING request_id
"""


class PostgresRequests:
    """The writes that a transaction's tenant remembers."""

    def __init__(self, connection: "Connection") -> None:
        """Take the transaction's connection."""
        self._connection = connection

    async def find(self, caller: str, request_id: RequestId) -> ClaimedRequest | None:
        """Return what a caller did under a request id, or None."""
        row = await self._connection.fetchrow(_FIND, caller, request_id)
        return None if row is None else _request_of(row)

    async def claim(self, request: ClaimedRequest) -> ClaimedRequest | None:
        """Remember a write; return the one that the caller did under this id before, or None."""
        claimed = await self._connection.fetchval(
            _CLAIM,
            request.tenant_id,
            request.caller,
            request.request_id,
            request.method,
            request.body_hash,
            request.result_id,
            request.create_time,
        )
        if claimed is not None:
            return None
        return await self.find(request.caller, request.request_id)


def _request_of(row: "asyncpg.Record") -> ClaimedRequest:
    return ClaimedRequest(
        tenant_id=TenantId(str(row["tenant_id"])),
        caller=row["caller"],
        request_id=RequestId(str(row["request_id"])),
        method=row["method"],
        body_hash=row["body_hash"],
        result_id=str(row["result_id"]),
        create_time=row["create_time"],
    )
