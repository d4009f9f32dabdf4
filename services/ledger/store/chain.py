"""Keeps the chain of seals in PostgreSQL, and makes the leaves. Implements audit_ports.ChainStore.

PostgreSQL itself writes and hashes what is sealed: only 48 bytes of each transfer travel, and the
process that answers calls is not held up by thousands of them.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from services.ledger.audit_ports import Block, SealTurn
from services.ledger.domain.chain import Leaves, Seal
from services.ledger.domain.merkle import HASH_BYTES
from services.shared.postgres import Database, Session

if TYPE_CHECKING:
    import asyncpg

    from services.shared.postgres import Connection

_SWEEPER = Session(role="SWEEPER")
_ID_BYTES = 16
_UNSEALED_MOST = 1_000_000

# Canonical JSON (RFC 8785) of a transfer with all of its entries: members in the order of their
# names, 64-bit integers as strings, times in UTC without zone and without trailing zeros. What is
# NULL is left out, and of an entry the tenant and the currency that are the transfer's: every byte
# costs. Only the reference is a caller's text: what is of capital letters, or a number, needs no
# escapes.
_CONTENT = """
concat('{"amount_minor":"', t.amount_minor, '","body_hash":"', encode(t.body_hash, 'hex'),
  '","create_time":', to_json(t.create_time AT TIME ZONE 'UTC'),
  ',"currency_code":"', t.currency_code, '","entries":[', e.entries,
  ']', ',"expire_time":' || to_json(t.expire_time AT TIME ZONE 'UTC')::text,
  ',"kind":"', t.kind, '","pending_id":"' || t.pending_id,
  '","phase":"', t.phase, '","posting_count":', t.posting_count,
  ',"reference":', to_json(t.reference), ',"refund_of":"' || t.refund_of || '"',
  ',"tenant_id":"', t.tenant_id, '","transaction_id":"', t.transaction_id,
  '","transfer_id":"', t.transfer_id, '"}')
"""
_ENTRIES = """
CROSS JOIN LATERAL (
  SELECT string_agg(concat('{"account_id":"', account_id, '","amount_minor":"', amount_minor,
      CASE WHEN currency_code <> t.currency_code THEN '","currency_code":"' || currency_code END,
      '","entry_number":"', entry_number, '","layer":"', layer, '","posting_index":', posting_index,
      CASE WHEN tenant_id <> t.tenant_id THEN ',"tenant_id":"' || tenant_id || '"' END,
      '}'), ',' ORDER BY posting_index) AS entries
  FROM ledger.entries WHERE transfer_id = t.transfer_id) AS e
"""
_ONE_CONTENT = f"""
SELECT convert_to({_CONTENT}, 'UTF8') FROM ledger.transfers t {_ENTRIES}
WHERE t.tenant_id = $1 AND t.transfer_id = $2
"""  # noqa: S608 - all of it is ours
_LEAVES = f"""
SELECT string_agg(uuid_send(t.transfer_id), '' ORDER BY t.transaction_id, t.transfer_id),
  string_agg(sha256('\\x00' || convert_to({_CONTENT}, 'UTF8')), ''
    ORDER BY t.transaction_id, t.transfer_id)
FROM ledger.transfers t {_ENTRIES}
WHERE t.tenant_id = $1 AND t.transaction_id > $2::text::xid8
  AND t.transaction_id <= $3::text::xid8
"""  # noqa: S608 - all of it is ours
# Entries of one transfer lie together: their index gives them in order, a bitmap would be sorted.
_BY_INDEX = "SET LOCAL enable_bitmapscan = off"

# A transaction that is older than all that still run is complete, and so are those before it.
_BOUNDARY = """
SELECT max(transaction_id)::text::bigint FROM (
  SELECT transaction_id FROM ledger.transfers
  WHERE tenant_id = $1 AND transaction_id > $2::text::xid8
    AND transaction_id < pg_snapshot_xmin(pg_current_snapshot())
  ORDER BY transaction_id LIMIT $3) AS following
"""

# From tenant to tenant along the index, however many transfers there are of each, and whatever the
# planner believed when the table was small.
ALONG_INDEX = "SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off"
_TENANTS = """
WITH RECURSIVE tenants AS (
  (SELECT tenant_id FROM ledger.transfers ORDER BY tenant_id LIMIT 1)
  UNION ALL
  SELECT (SELECT tenant_id FROM ledger.transfers WHERE tenant_id > tenants.tenant_id
    ORDER BY tenant_id LIMIT 1)
  FROM tenants WHERE tenants.tenant_id IS NOT NULL
)
"""
TENANTS = f"{_TENANTS} SELECT tenant_id::text FROM tenants WHERE tenant_id IS NOT NULL"  # noqa: S608 - all of it is ours
# Where a tenant's chain ends is found before its transfers are looked at: else all of them are.
TO_SEAL = f"""
{_TENANTS}
SELECT tenants.tenant_id::text FROM tenants
CROSS JOIN LATERAL (
  SELECT coalesce((SELECT b.last_transaction_id FROM ledger.chain_blocks b
    WHERE b.tenant_id = tenants.tenant_id ORDER BY b.block_number DESC LIMIT 1), '0'::xid8)
      AS last_transaction_id OFFSET 0) AS sealed
CROSS JOIN LATERAL (
  SELECT FROM ledger.transfers t WHERE t.tenant_id = tenants.tenant_id
    AND t.transaction_id < pg_snapshot_xmin(pg_current_snapshot())
    AND t.transaction_id > sealed.last_transaction_id LIMIT 1) AS following
WHERE tenants.tenant_id IS NOT NULL
"""  # noqa: S608 - all of it is ours

_TURN = "SELECT pg_try_advisory_xact_lock(hashtextextended('ledger.seal/' || $1, 0))"
_SEAL = """
SELECT block_number, last_transaction_id::text::bigint, transfer_count, previous_hash, merkle_root,
  block_hash, seal_time
FROM ledger.chain_blocks b
"""
_NEWEST = f"{_SEAL} WHERE tenant_id = $1 ORDER BY block_number DESC LIMIT 1"
_ONE_SEAL = f"{_SEAL} WHERE tenant_id = $1 AND block_number = $2"
_BLOCK = """
SELECT b.block_number, b.last_transaction_id::text::bigint, b.transfer_count, b.previous_hash,
  b.merkle_root, b.block_hash, b.seal_time, l.transfer_ids, l.leaf_hashes
FROM ledger.chain_blocks b
LEFT JOIN ledger.chain_leaves l ON l.tenant_id = b.tenant_id AND l.block_number = b.block_number
"""
_NEXT_BLOCK = f"""
{_BLOCK} WHERE b.tenant_id = $1 AND b.block_number >= $2 ORDER BY b.block_number LIMIT 1
"""
_BLOCK_OF = f"""
{_BLOCK} WHERE b.tenant_id = $1 AND b.last_transaction_id >= (
  SELECT transaction_id FROM ledger.transfers WHERE tenant_id = $1 AND transfer_id = $2)
ORDER BY b.last_transaction_id LIMIT 1
"""  # noqa: S608 - all of it is ours
_KEEP = """
WITH block AS (
  INSERT INTO ledger.chain_blocks (tenant_id, block_number, last_transaction_id, transfer_count,
    previous_hash, merkle_root, block_hash, seal_time)
  VALUES ($1, $2, $3::text::xid8, $4, $5, $6, $7, $8)
)
INSERT INTO ledger.chain_leaves (tenant_id, block_number, transfer_ids, leaf_hashes)
VALUES ($1, $2, $9, $10)
"""
_UNSEALED = """
SELECT count(*) FROM (SELECT 1 FROM ledger.transfers
  WHERE tenant_id = $1 AND transaction_id > $2::text::xid8 LIMIT $3) AS unsealed
"""


class PostgresChainStore:
    """Works on chain_blocks and chain_leaves."""

    def __init__(self, database: Database) -> None:
        """Take the database of role wayfare_ledger."""
        self._database = database

    async def tenants_to_seal(self) -> list[str]:
        """Return the tenants that have transfers which are not sealed."""
        async with self._database.transaction(_SWEEPER) as connection:
            await connection.execute(ALONG_INDEX)
            return [row[0] for row in await connection.fetch(TO_SEAL)]

    @asynccontextmanager
    async def turn(self, tenant_id: str) -> AsyncIterator[SealTurn | None]:
        """Take the turn to seal until the block ends and commits; None if another has it."""
        async with self._database.transaction(_service(tenant_id)) as connection:
            if await connection.fetchval(_TURN, tenant_id):
                yield _Turn(connection, tenant_id)
            else:
                yield None

    async def seal(self, tenant_id: str, block_number: int) -> Seal | None:
        """Return one seal."""
        async with self._database.transaction(_service(tenant_id)) as connection:
            row = await connection.fetchrow(_ONE_SEAL, tenant_id, block_number)
        return None if row is None else _seal(row)

    async def next_block(self, tenant_id: str, from_number: int) -> Block | None:
        """Return the first block with this number or a greater one."""
        return await self._block(tenant_id, _NEXT_BLOCK, from_number)

    async def block_of(self, tenant_id: str, transfer_id: str) -> Block | None:
        """Return the block in which a transfer belongs; None if it is not sealed yet."""
        return await self._block(tenant_id, _BLOCK_OF, transfer_id)

    async def _block(self, tenant_id: str, statement: str, value: object) -> Block | None:
        async with self._database.transaction(_service(tenant_id)) as connection:
            row = await connection.fetchrow(statement, tenant_id, value)
        if row is None:
            return None
        ids, hashes = row["transfer_ids"], row["leaf_hashes"]
        return Block(seal=_seal(row), leaves=None if ids is None else _leaves(ids, hashes))

    async def leaves(self, tenant_id: str, *, after: int, up_to: int) -> Leaves:
        """Return the leaves of transfers and entries as they are now, by transactions."""
        async with self._database.transaction(_service(tenant_id)) as connection:
            return await _leaves_between(connection, tenant_id, after, up_to)

    async def unsealed_count(self, tenant_id: str, *, after: int) -> int:
        """Count the transfers after a transaction, up to a million."""
        async with self._database.transaction(_service(tenant_id)) as connection:
            count: int = await connection.fetchval(_UNSEALED, tenant_id, str(after), _UNSEALED_MOST)
        return count

    async def content(self, tenant_id: str, transfer_id: str) -> bytes:
        """Return what is hashed of a transfer as it is now; empty if it is gone."""
        async with self._database.transaction(_service(tenant_id)) as connection:
            content = await connection.fetchval(_ONE_CONTENT, tenant_id, transfer_id)
        return bytes(content or b"")


class _Turn:
    """Is the turn to seal: an open transaction with the tenant's lock."""

    def __init__(self, connection: "Connection", tenant_id: str) -> None:
        self._connection = connection
        self._tenant_id = tenant_id

    async def newest(self) -> Seal | None:
        row = await self._connection.fetchrow(_NEWEST, self._tenant_id)
        return None if row is None else _seal(row)

    async def next_leaves(self, after: int, most: int) -> tuple[int, Leaves] | None:
        boundary = await self._connection.fetchval(_BOUNDARY, self._tenant_id, str(after), most)
        if boundary is None:
            return None
        leaves = await _leaves_between(self._connection, self._tenant_id, after, boundary)
        return boundary, leaves

    async def keep(self, seal: Seal, leaves: Leaves) -> None:
        await self._connection.execute(
            _KEEP,
            self._tenant_id,
            seal.block_number,
            str(seal.last_transaction_id),
            seal.transfer_count,
            seal.previous_hash,
            seal.merkle_root,
            seal.block_hash,
            seal.seal_time,
            b"".join(leaves.ids),
            b"".join(leaves.hashes),
        )


async def _leaves_between(
    connection: "Connection", tenant_id: str, after: int, up_to: int
) -> Leaves:
    await connection.execute(_BY_INDEX)
    row = await connection.fetchrow(_LEAVES, tenant_id, str(after), str(up_to))
    if row is None or row[0] is None:
        return Leaves([], [])
    return _leaves(row[0], row[1])


def _leaves(transfer_ids: bytes, hashes: bytes) -> Leaves:
    return Leaves(_parts(transfer_ids, _ID_BYTES), _parts(hashes, HASH_BYTES))


def _parts(joined: bytes, size: int) -> list[bytes]:
    return [joined[start : start + size] for start in range(0, len(joined), size)]


def _seal(row: "asyncpg.Record") -> Seal:
    return Seal(
        block_number=row[0],
        last_transaction_id=row[1],
        transfer_count=row[2],
        previous_hash=row[3],
        merkle_root=row[4],
        block_hash=row[5],
        seal_time=row[6],
    )


def _service(tenant_id: str) -> Session:
    return Session(tenant_id=tenant_id, role="SERVICE")
