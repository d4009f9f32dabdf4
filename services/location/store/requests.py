"""Claims request ids in PostgreSQL, in the transaction of what the request does."""

from services.shared.errors import RequestIdReusedError
from services.shared.postgres import Connection


async def claim_request(
    connection: Connection, tenant_id: str, request_id: str, body_hash: bytes
) -> bool:
    """Say whether the request is new. Raises RequestIdReusedError if its id had another body."""
    row = await connection.fetchrow(
        "INSERT INTO location.requests AS request (tenant_id, request_id, body_hash)"
        " VALUES ($1, $2, $3)"
        " ON CONFLICT (tenant_id, request_id) DO UPDATE SET request_id = request.request_id"
        " RETURNING body_hash, xmax = 0 AS is_new",
        tenant_id,
        request_id,
        body_hash,
    )
    if row is None or row["body_hash"] != body_hash:
        raise RequestIdReusedError(request_id)
    return bool(row["is_new"])
