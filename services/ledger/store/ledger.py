"""Keeps the ledger in PostgreSQL, schema `ledger`. Implements ports.LedgerStore."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime

from services.ledger.domain.accounts import Account, AccountKey, AccountKind, check_change
from services.ledger.domain.transfers import Transfer
from services.ledger.errors import AccountUnknownError
from services.ledger.ports import Batch, Reader, StatementLine
from services.ledger.store.batches import PostgresBatch
from services.ledger.store.rows import (
    TRANSFERS_WITH_POSTINGS,
    account_of,
    transfer_of,
)
from services.shared.clock import Clock
from services.shared.postgres import Database, Session

_SWEEPER = Session(role="SWEEPER")
_FOLD_MOST = 10_000

_OPEN = """
INSERT INTO ledger.accounts
  (account_id, tenant_id, kind, owner_id, subject, currency_code, limit_minor, create_time,
    update_time)
SELECT account_id, $1, kind, owner_id, subject, currency_code, limit_minor, $2, $2
FROM unnest($3::uuid[], $4::text[], $5::uuid[], $6::text[], $7::text[], $8::bigint[])
  AS new (account_id, kind, owner_id, subject, currency_code, limit_minor)
ORDER BY account_id
ON CONFLICT DO NOTHING
"""

_EXPIRED = """
SELECT p.tenant_id, p.transfer_id FROM ledger.transfers p
WHERE p.phase = 'PENDING' AND p.expire_time <= $1
  AND NOT EXISTS (SELECT 1 FROM ledger.transfers r WHERE r.pending_id = p.transfer_id)
ORDER BY p.expire_time LIMIT $2
"""

_WALLETS = """
SELECT account_id, kind, subject, currency_code, posted_minor, pending_out_minor,
  pending_in_minor, limit_minor, is_blocked, create_time
FROM ledger.accounts WHERE kind = 'WALLET' AND owner_id = $1
ORDER BY currency_code
"""

# The balance after each entry is counted back from the account's own, in the same snapshot.
_STATEMENT = """
WITH page AS (
  SELECT e.entry_number, e.transfer_id, e.amount_minor, t.kind, t.reference, t.create_time
  FROM ledger.entries e JOIN ledger.transfers t ON t.transfer_id = e.transfer_id
  WHERE e.account_id = $1 AND e.layer = 'POSTED' AND ($2::bigint IS NULL OR e.entry_number < $2)
  ORDER BY e.entry_number DESC LIMIT $4
), newest AS (
  SELECT coalesce($3::bigint, (SELECT posted_minor FROM ledger.accounts WHERE account_id = $1)
    + (SELECT coalesce(sum(posted_minor), 0) FROM ledger.account_deltas WHERE account_id = $1))
      AS balance_minor
)
SELECT page.entry_number, page.transfer_id, page.amount_minor, page.kind, page.reference,
  page.create_time,
  (newest.balance_minor - coalesce(sum(page.amount_minor) OVER (
    ORDER BY page.entry_number DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING),
      0))::bigint AS balance_minor
FROM page, newest ORDER BY page.entry_number DESC
"""

_UPDATE = """
UPDATE ledger.accounts
SET limit_minor = coalesce($2, limit_minor), is_blocked = coalesce($3, is_blocked), update_time
  = $4
WHERE account_id = $1 RETURNING account_id, kind, subject, currency_code, posted_minor,
  pending_out_minor, pending_in_minor, limit_minor, is_blocked, create_time
"""

_ACCOUNT = """
SELECT account_id, kind, subject, currency_code, posted_minor, pending_out_minor,
  pending_in_minor, limit_minor, is_blocked, create_time
FROM ledger.accounts WHERE account_id = $1 FOR NO KEY UPDATE
"""


class PostgresLedgerStore:
    """Opens transactions on the schema `ledger`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        """Take the database of role wayfare_ledger."""
        self._database = database
        self._clock = clock

    @asynccontextmanager
    async def batch(self, tenant_id: str) -> AsyncIterator[Batch]:
        """Open a transaction; it commits when the block ends and rolls back when it raises."""
        async with self._database.transaction(_service(tenant_id)) as connection:
            yield PostgresBatch(connection, tenant_id)

    async def open_accounts(
        self, tenant_id: str, keys: Mapping[str, AccountKey], *, limits: Mapping[str, int]
    ) -> None:
        """Open accounts that are not there yet; those that are stay as they are."""
        wallets = [key.kind is AccountKind.WALLET for key in keys.values()]
        async with self._database.transaction(_service(tenant_id)) as connection:
            await connection.execute(
                _OPEN,
                tenant_id,
                self._clock.now(),
                list(keys),
                [key.kind for key in keys.values()],
                [
                    key.subject if wallet else None
                    for key, wallet in zip(keys.values(), wallets, strict=True)
                ],
                [key.subject for key in keys.values()],
                [key.currency_code for key in keys.values()],
                [
                    limits.get(account_id, 0) if wallet else None
                    for account_id, wallet in zip(keys, wallets, strict=True)
                ],
            )

    async def expired(self, *, now: datetime, most: int) -> list[tuple[str, str]]:
        """Return tenant and id of pending transfers whose time is over, the oldest first."""
        async with self._database.transaction(_SWEEPER) as connection:
            rows = await connection.fetch(_EXPIRED, now, most)
        return [(str(row[0]), str(row[1])) for row in rows]

    async def fold(self) -> int:
        """Fold what the platform's accounts gained into their rows; return how many gains."""
        async with self._database.transaction(_SWEEPER) as connection:
            folded: int = await connection.fetchval("SELECT ledger.fold_deltas($1)", _FOLD_MOST)
        return folded

    async def find_transfer(self, reader: Reader, transfer_id: str) -> Transfer | None:
        """Return a transfer that the reader may see, or None."""
        async with self._database.transaction(_session(reader)) as connection:
            row = await connection.fetchrow(TRANSFERS_WITH_POSTINGS, [transfer_id])
        return None if row is None else transfer_of(row)

    async def wallets(self, reader: Reader, user_id: str) -> list[Account]:
        """Return a person's wallets by currency."""
        async with self._database.transaction(_session(reader)) as connection:
            rows = await connection.fetch(_WALLETS, user_id)
        return [account_of(row) for row in rows]

    async def statement(
        self, reader: Reader, account_id: str, *, before: tuple[int, int] | None, most: int
    ) -> list[StatementLine]:
        """Return posted entries, newest first; `before` is entry number and balance to go on at."""
        number, balance = before or (None, None)
        async with self._database.transaction(_session(reader)) as connection:
            rows = await connection.fetch(_STATEMENT, account_id, number, balance, most)
        return [
            StatementLine(
                entry_number=row["entry_number"],
                transfer_id=str(row["transfer_id"]),
                kind=row["kind"],
                amount_minor=row["amount_minor"],
                balance_minor=row["balance_minor"],
                reference=row["reference"],
                create_time=row["create_time"],
            )
            for row in rows
        ]

    async def update_account(
        self,
        tenant_id: str,
        account_id: str,
        *,
        currency_code: str,
        limit_minor: int | None,
        blocked: bool | None,
    ) -> Account:
        """Set limit or block of a wallet."""
        async with self._database.transaction(_service(tenant_id)) as connection:
            row = await connection.fetchrow(_ACCOUNT, account_id)
            if row is None:
                raise AccountUnknownError(account_id)
            account = account_of(row)
            check_change(account, currency_code=currency_code, limit_minor=limit_minor)
            rows = await connection.fetch(
                _UPDATE, account_id, limit_minor, blocked, self._clock.now()
            )
        return account_of(rows[0])


def _service(tenant_id: str) -> Session:
    return Session(tenant_id=tenant_id, role="SERVICE")


def _session(reader: Reader) -> Session:
    role = "SERVICE" if reader.sees_all else "PERSON"
    return Session(tenant_id=reader.tenant_id, user_id=reader.user_id, role=role)
