"""SQL of one batch: lock, look, record."""

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import asyncpg

from services.ledger.domain.accounts import Funds
from services.ledger.domain.deciding import Outcome
from services.ledger.domain.transfers import Transfer
from services.ledger.ports import BatchConflictError, LedgerRefusedError, NewEvent
from services.ledger.store.rows import TRANSFERS_WITH_POSTINGS, transfer_of

if TYPE_CHECKING:
    from services.shared.postgres import Connection

# Lists travel as the text of arrays: asyncpg looks at each element of an array several times, and
# hundreds of thousands of them go by in a second. What may need quotes has them.

# In the order of their ids, so that no two batches wait for each other. The platform's own
# accounts are not locked. Id by id, because row-level security makes the planner expect one row,
# and it would go through all accounts for each.
_LOCK = """
SELECT a.*
FROM (SELECT id FROM unnest($1::text::uuid[]) AS id ORDER BY id) AS wanted
CROSS JOIN LATERAL (
  SELECT account_id::text, subject, currency_code, posted_minor - pending_out_minor, limit_minor,
    is_blocked
  FROM ledger.accounts WHERE account_id = wanted.id AND kind = 'WALLET' FOR NO KEY UPDATE) AS a
"""

_LOOK = _LOCK.replace("FOR NO KEY UPDATE", "OFFSET 0")

# The same lock as ledger.check_refunds.
_WAIT = """
SELECT pg_advisory_xact_lock(hashtextextended(id::text, 0))
FROM (SELECT id FROM unnest($1::text::uuid[]) AS id ORDER BY id) AS ids
"""

_MADE = """
SELECT t.* FROM unnest($1::text::uuid[]) AS wanted (id)
CROSS JOIN LATERAL (
  SELECT transfer_id::text, body_hash FROM ledger.transfers
  WHERE transfer_id = wanted.id OFFSET 0) AS t
"""

_RESOLUTIONS = """
SELECT t.* FROM unnest($1::text::uuid[]) AS wanted (id)
CROSS JOIN LATERAL (
  SELECT pending_id::text, phase FROM ledger.transfers
  WHERE pending_id = wanted.id OFFSET 0) AS t
"""

_REFUNDED = """
SELECT t.* FROM unnest($1::text::uuid[]) AS wanted (id)
CROSS JOIN LATERAL (
  SELECT wanted.id::text, coalesce(sum(amount_minor), 0)::bigint FROM ledger.transfers
  WHERE refund_of = wanted.id OFFSET 0) AS t
"""

# One statement: triggers see all of it, and the way to PostgreSQL is taken once.
_RECORD = """
WITH new_transfers AS (
  INSERT INTO ledger.transfers (transfer_id, tenant_id, phase, kind, currency_code, amount_minor,
    posting_count, pending_id, refund_of, reference, body_hash, expire_time, create_time)
  SELECT transfer_id, $1, phase, kind, currency_code, amount_minor, posting_count, pending_id,
    refund_of, reference, body_hash, expire_time, $2
  FROM unnest($3::text::uuid[], $4::text::text[], $5::text::text[], $6::text::text[],
    $7::text::bigint[], $8::text::smallint[], $9::text::uuid[], $10::text::uuid[],
    $11::text::text[], $12::text::bytea[], $13::text::timestamptz[])
    AS new (transfer_id, phase, kind, currency_code, amount_minor, posting_count, pending_id,
      refund_of, reference, body_hash, expire_time)
), new_entries AS (
  INSERT INTO ledger.entries
    (transfer_id, posting_index, account_id, tenant_id, layer, currency_code, amount_minor)
  SELECT transfer_id, posting_index, account_id, $1, layer, currency_code, amount_minor
  FROM unnest($14::text::uuid[], $15::text::smallint[], $16::text::uuid[], $17::text::text[],
    $18::text::text[], $19::text::bigint[])
    AS new (transfer_id, posting_index, account_id, layer, currency_code, amount_minor)
)
INSERT INTO ledger.events
  (aggregate_type, aggregate_id, aggregate_version, tenant_id, envelope)
SELECT aggregate_type, aggregate_id, aggregate_version, $1, envelope
FROM unnest($20::text::text[], $21::text::text[], $22::text::bigint[], $23::bytea[])
  AS new (aggregate_type, aggregate_id, aggregate_version, envelope)
"""


def _array(values: Iterable[str]) -> str:
    """Return the text of an array of values that need no quotes, or have them."""
    return "{" + ",".join(values) + "}"


def _quoted(text: str) -> str:
    """Return any text as an element of the text of an array."""
    if "\\" in text or '"' in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


class PostgresBatch:
    """One open transaction of one tenant."""

    def __init__(self, connection: "Connection", tenant_id: str) -> None:
        """Take a connection on which the tenant is set."""
        self._connection = connection
        self._tenant_id = tenant_id

    async def wallets(self, account_ids: Collection[str], *, lock: bool) -> dict[str, Funds]:
        """Return what the wallets among these accounts have; lock them by their ids."""
        rows = await self._connection.fetch(_LOCK if lock else _LOOK, _array(account_ids))
        return {
            account_id: Funds(subject, currency_code, balance, limit, blocked, balance)
            for account_id, subject, currency_code, balance, limit, blocked in rows
        }

    async def wait_for_targets(self, transfer_ids: Collection[str]) -> None:
        """Wait for others who resolve or refund the same transfers."""
        await self._connection.fetch(_WAIT, _array(transfer_ids))

    async def made(self, transfer_ids: Collection[str]) -> dict[str, bytes]:
        """Return the content hashes of those transfers that were made."""
        rows = await self._connection.fetch(_MADE, _array(transfer_ids))
        return {row[0]: row[1] for row in rows}

    async def targets(self, transfer_ids: Collection[str]) -> dict[str, Transfer]:
        """Return these transfers with their postings."""
        rows = await self._connection.fetch(TRANSFERS_WITH_POSTINGS, list(transfer_ids))
        return {str(row["transfer_id"]): transfer_of(row) for row in rows}

    async def resolutions(self, pending_ids: Collection[str]) -> dict[str, str]:
        """Return in which phase these pending transfers were resolved."""
        rows = await self._connection.fetch(_RESOLUTIONS, _array(pending_ids))
        return {row[0]: row[1] for row in rows}

    async def refunded(self, transfer_ids: Collection[str]) -> dict[str, int]:
        """Return how much was given back of these transfers."""
        rows = await self._connection.fetch(_REFUNDED, _array(transfer_ids))
        return {row[0]: row[1] for row in rows}

    async def record(self, outcomes: Sequence[Outcome], events: Sequence[NewEvent]) -> None:
        """Write transfers, entries and events.

        Raises BatchConflictError or LedgerRefusedError; the transaction is over then.
        """
        try:
            await self._connection.execute(
                _RECORD,
                *self._transfer_columns(outcomes),
                *_entry_columns(outcomes),
                _array([event.aggregate_type for event in events]),
                _array([event.aggregate_id for event in events]),
                _array([str(event.aggregate_version) for event in events]),
                [event.envelope for event in events],
            )
        except asyncpg.UniqueViolationError as error:
            raise BatchConflictError(str(error)) from error
        except (asyncpg.DeadlockDetectedError, asyncpg.LockNotAvailableError) as error:
            raise BatchConflictError(str(error)) from error
        except asyncpg.PostgresError as error:
            if not _is_refusal(error):
                raise
            raise LedgerRefusedError(str(error)) from error

    def _transfer_columns(self, outcomes: Sequence[Outcome]) -> Sequence[Any]:
        made = [outcome.transfer for outcome in outcomes if outcome.transfer is not None]
        return (
            self._tenant_id,
            made[0].create_time,
            _array([one.transfer_id for one in made]),
            _array([one.phase for one in made]),
            _array([_quoted(one.kind) for one in made]),
            _array([one.currency_code for one in made]),
            _array([str(one.amount_minor) for one in made]),
            _array([str(len(one.postings)) for one in made]),
            _array([one.pending_id or "NULL" for one in made]),
            _array([one.refund_of or "NULL" for one in made]),
            _array([_quoted(one.reference) for one in made]),
            _array([f'"\\\\x{one.body_hash.hex()}"' for one in made]),
            _array(
                [f'"{one.expire_time.isoformat()}"' if one.expire_time else "NULL" for one in made]
            ),
        )


def _entry_columns(outcomes: Sequence[Outcome]) -> Sequence[str]:
    transfer_ids: list[str] = []
    indexes: list[str] = []
    account_ids: list[str] = []
    layers: list[str] = []
    currency_codes: list[str] = []
    amounts: list[str] = []
    for outcome in outcomes:
        transfer = outcome.transfer
        if transfer is None:
            continue
        transfer_id, currency_code = transfer.transfer_id, transfer.currency_code
        for index, (layer, account_id, amount) in enumerate(outcome.entries):
            transfer_ids.append(transfer_id)
            indexes.append(str(index))
            account_ids.append(account_id)
            layers.append(layer)
            currency_codes.append(currency_code)
            amounts.append(str(amount))
    columns = (transfer_ids, indexes, account_ids, layers, currency_codes, amounts)
    return [_array(column) for column in columns]


def _is_refusal(error: asyncpg.PostgresError) -> bool:
    """Say whether a rule of the schema refused: a constraint, a policy, or a trigger (WL…)."""
    code = str(getattr(error, "sqlstate", ""))
    return code.startswith(("23", "WL")) or code == "42501"
