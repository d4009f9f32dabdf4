"""Keeps the keys that sign tickets. Implements ports.tickets.TicketKeyStore."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from services.booking.domain.tickets import PublishedKey
from services.booking.ports.requests import WriteRequest
from services.booking.ports.tickets import KeptKey, ListedKey
from services.booking.store import requests
from services.shared.clock import Clock
from services.shared.postgres import Database, Session

if TYPE_CHECKING:
    from services.shared.postgres import Connection

# A trip that is late is over later than its tickets say.
_FORGET_AFTER = timedelta(days=2)

_KEYS = """
SELECT key_id, resource_id, public_key, sealed_private_key, sign_start_time, sign_end_time
FROM booking.ticket_keys WHERE tenant_id = $1 ORDER BY sign_start_time DESC, key_id DESC
"""
_BY_RESOURCE = """
SELECT key_id, resource_id, public_key, sealed_private_key, sign_start_time, sign_end_time
FROM booking.ticket_keys WHERE tenant_id = $1 AND resource_id = $2
"""
_INSERT = """
INSERT INTO booking.ticket_keys (tenant_id, key_id, resource_id, public_key, sealed_private_key,
  sign_start_time, create_time)
VALUES ($1, $2, $3, $4, $5, $6, $7)
"""
_TURN = "SELECT pg_advisory_xact_lock(hashtextextended('booking.ticket_keys:' || $1, 0))"
# A key that was to sign later, and is replaced before, signs nothing.
_END = """
UPDATE booking.ticket_keys SET sign_end_time = greatest(sign_start_time, $2)
WHERE tenant_id = $1 AND (sign_end_time IS NULL OR sign_end_time > $2)
"""
_LISTED = """
SELECT * FROM (
  SELECT k.key_id, k.public_key, k.sign_start_time, k.sign_end_time,
    CASE WHEN k.sign_end_time <= $2 THEN coalesce((
      SELECT max(t.end_time) FROM booking.tickets t
      WHERE t.tenant_id = k.tenant_id AND t.key_id = k.key_id), k.sign_end_time) + $3
    END AS forget_time
  FROM booking.ticket_keys k
  WHERE k.tenant_id = $1
    AND ($4::timestamptz IS NULL OR (k.sign_start_time, k.key_id) < ($4, $5))
) AS listed
WHERE forget_time IS NULL OR forget_time > $2
ORDER BY sign_start_time DESC, key_id DESC LIMIT $6
"""


class PostgresTicketKeyStore:
    """Keeps keys in booking.ticket_keys."""

    def __init__(self, database: Database, clock: Clock) -> None:
        """Take the database of role wayfare_booking."""
        self._database = database
        self._clock = clock

    async def keys(self, tenant_id: str) -> list[KeptKey]:
        """Return all keys of a tenant, the one that signs latest first."""
        async with self._database.transaction(_service(tenant_id)) as connection:
            return [_kept(row) for row in await connection.fetch(_KEYS, tenant_id)]

    async def begin(self, tenant_id: str, key: KeptKey) -> None:
        """Keep the first key of a tenant; does nothing if there is one by now."""
        async with self._database.transaction(_service(tenant_id)) as connection:
            await connection.execute(_TURN, tenant_id)
            if not await connection.fetch(_KEYS, tenant_id):
                await self._insert(connection, tenant_id, key)

    async def rotate(self, key: KeptKey, request: WriteRequest) -> KeptKey:
        """Keep a key and end the others where it starts; return it, or what the request made."""
        tenant_id = request.tenant_id
        async with self._database.transaction(_service(tenant_id)) as connection:
            await connection.execute(_TURN, tenant_id)
            made = await requests.claim(connection, request, key.resource_id, self._clock.now())
            if made is not None:
                return _kept(await connection.fetchrow(_BY_RESOURCE, tenant_id, made))
            await connection.execute(_END, tenant_id, key.published.sign_start_time)
            await self._insert(connection, tenant_id, key)
        return key

    async def listed(
        self, tenant_id: str, *, before: tuple[datetime, str] | None, most: int
    ) -> list[ListedKey]:
        """Return keys that may be forgotten by nobody yet, newest first."""
        async with self._database.transaction(_service(tenant_id)) as connection:
            rows = await connection.fetch(
                _LISTED, tenant_id, self._clock.now(), _FORGET_AFTER, *(before or (None, "")), most
            )
        return [ListedKey(_published(row), row["forget_time"]) for row in rows]

    async def _insert(self, connection: "Connection", tenant_id: str, key: KeptKey) -> None:
        published = key.published
        await connection.execute(
            _INSERT,
            tenant_id,
            published.key_id,
            key.resource_id,
            published.public_key,
            key.sealed_private_key,
            published.sign_start_time,
            self._clock.now(),
        )


def _kept(row: Any) -> KeptKey:
    return KeptKey(
        published=_published(row),
        sealed_private_key=row["sealed_private_key"],
        resource_id=str(row["resource_id"]),
    )


def _published(row: Any) -> PublishedKey:
    return PublishedKey(
        key_id=row["key_id"],
        public_key=row["public_key"],
        sign_start_time=row["sign_start_time"],
        sign_end_time=row["sign_end_time"],
    )


def _service(tenant_id: str) -> Session:
    return Session(tenant_id=tenant_id, role="SERVICE")
