"""Transactions of one tenant, and the two things that go over all tenants."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from services.identity.domain import ApiKey, TenantId
from services.identity.ports import Transaction
from services.identity.store.api_keys import FIND_BY_HASH, PostgresApiKeys, api_key_of
from services.identity.store.requests import PostgresRequests
from services.identity.store.sessions import PostgresSessions
from services.identity.store.tenants import PostgresTenants
from services.identity.store.users import PostgresUsers
from services.shared.postgres import Database, Session

if TYPE_CHECKING:
    from services.shared.postgres import Connection


_SWEEPER = Session(role="SWEEPER")
# Small enough that a sweep never holds many locks; the next round takes the rest.
_SWEEP_ROWS_MAX = 5_000

_FORGET_REQUESTS = """
DELETE FROM identity.requests WHERE (tenant_id, caller, request_id) IN (
  SELECT tenant_id, caller, request_id FROM identity.requests WHERE create_time < $1 LIMIT $2)
"""

_FORGET_SESSIONS = """
DELETE FROM identity.sessions WHERE session_id IN (
  SELECT session_id FROM identity.sessions WHERE token_expire_time < $1 LIMIT $2)
"""


class PostgresTransaction:
    """One open transaction of one tenant."""

    def __init__(self, connection: "Connection", tenant_id: TenantId) -> None:
        """Take a connection on which the tenant is set."""
        self.tenants = PostgresTenants(connection, tenant_id)
        self.users = PostgresUsers(connection)
        self.sessions = PostgresSessions(connection)
        self.api_keys = PostgresApiKeys(connection)
        self.requests = PostgresRequests(connection)


class PostgresStore:
    """Opens transactions on the schema `identity`."""

    def __init__(self, database: Database) -> None:
        """Take the database of role wayfare_identity."""
        self._database = database

    @asynccontextmanager
    async def transaction(self, tenant_id: TenantId) -> AsyncIterator[Transaction]:
        """Open a transaction; it commits when the block ends and rolls back when it raises."""
        async with self._database.transaction(Session(tenant_id=tenant_id)) as connection:
            yield PostgresTransaction(connection, tenant_id)

    async def find_api_key_by_hash(self, secret_hash: bytes) -> ApiKey | None:
        """Return the key of any tenant whose secret has this SHA-256, or None."""
        async with self._database.transaction(Session()) as connection:
            # The one row that row-level security shows beyond a tenant's own: see policy
            # presented_key.
            await connection.execute(
                "SELECT set_config('app.api_key_hash', $1, true)", secret_hash.hex()
            )
            row = await connection.fetchrow(FIND_BY_HASH, secret_hash)
        return None if row is None else api_key_of(row)

    async def forget_before(self, *, requests: datetime, sessions: datetime) -> int:
        """Delete remembered writes made, and sessions ended, before these moments.

        Return how many.
        """
        async with self._database.transaction(_SWEEPER) as connection:
            forgotten = await connection.execute(_FORGET_REQUESTS, requests, _SWEEP_ROWS_MAX)
            ended = await connection.execute(_FORGET_SESSIONS, sessions, _SWEEP_ROWS_MAX)
        return _row_count(forgotten) + _row_count(ended)


def _row_count(command_tag: str) -> int:
    return int(command_tag.rpartition(" ")[2])
