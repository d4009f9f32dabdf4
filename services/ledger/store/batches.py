"""SQL of one batch: lock, look, record."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import asyncpg

from services.ledger.domain.accounts import Funds
from services.ledger.domain.deciding import Outcome
from services.ledger.domain.transfers import Transfer
from services.ledger.ports import BatchConflictError, LedgerRefusedError, NewEvent
from services.ledger.store.rows import TRANSFERS_WITH_POSTINGS, transfer_of

if TYPE_CHECKING:
    from services.shared.postgres import Connection

# In the order of their ids, so that no two batches wait for each other. The platform's own
# accounts are not locked.
_LOCK = """
SELECT account_id, subject, currency_code, posted_minor, pending_out_minor, limit_minor,
  is_blocked
FROM ledger.accounts WHERE account_id = ANY ($1::uuid[]) AND kind = 'WALLET'
ORDER BY account_id FOR NO KEY UPDATE
"""

# The same lock as ledger.check_refunds.
_WAIT = """
SELECT pg_advisory_xact_lock(hashtextextended(id::text, 0))
FROM (SELECT id FROM unnest($1::uuid[]) AS id ORDER BY id) AS ids
"""

_MADE = "SELECT transfer_id, body_hash FROM ledger.transfers WHERE transfer_id = ANY ($1::uuid[])"

_RESOLUTIONS = """
SELECT pending_id, phase FROM ledger.transfers WHERE pending_id = ANY ($1::uuid[])
"""

_REFUNDED = """
SELECT refund_of, sum(amount_minor)::bigint AS amount_minor
FROM ledger.transfers WHERE refund_of = ANY ($1::uuid[]) GROUP BY refund_of
"""

_RECORD_TRANSFERS = """
INSERT INTO ledger.transfers (transfer_id, tenant_id, phase, kind, currency_code, amount_minor,
  posting_count,
  pending_id, refund_of, reference, body_hash, expire_time, create_time)
SELECT transfer_id, $1, phase, kind, currency_code, amount_minor, posting_count, pending_id,
  refund_of, reference,
  body_hash, expire_time, $2
FROM unnest($3::uuid[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::smallint[],
  $9::uuid[], $10::uuid[],
  $11::text[], $12::bytea[], $13::timestamptz[])
  AS new (transfer_id, phase, kind, currency_code, amount_minor, posting_count, pending_id,
    refund_of, reference,
    body_hash, expire_time)
"""

_RECORD_ENTRIES = """
INSERT INTO ledger.entries
  (transfer_id, posting_index, account_id, tenant_id, layer, currency_code, amount_minor)
SELECT transfer_id, posting_index, account_id, $1, layer, currency_code, amount_minor
FROM unnest($2::uuid[], $3::smallint[], $4::uuid[], $5::text[], $6::text[], $7::bigint[])
  AS new (transfer_id, posting_index, account_id, layer, currency_code, amount_minor)
"""

_RECORD_EVENTS = """
INSERT INTO ledger.events (aggregate_type, aggregate_id, aggregate_version, tenant_id, envelope)
SELECT aggregate_type, aggregate_id, aggregate_version, $1, envelope
FROM unnest($2::text[], $3::text[], $4::bigint[], $5::bytea[])
  AS new (aggregate_type, aggregate_id, aggregate_version, envelope)
"""


class PostgresBatch:
    """One open transaction of one tenant."""

    def __init__(self, connection: "Connection", tenant_id: str) -> None:
        """Take a connection on which the tenant is set."""
        self._connection = connection
        self._tenant_id = tenant_id

    async def lock_wallets(self, account_ids: Collection[str]) -> dict[str, Funds]:
        """Lock the wallets among these accounts, in the order of their ids."""
        rows = await self._connection.fetch(_LOCK, list(account_ids))
        return {
            str(row[0]): Funds(
                subject=row[1],
                currency_code=row[2],
                balance_minor=row[3] - row[4],
                limit_minor=row[5],
                blocked=row[6],
            )
            for row in rows
        }

    async def wait_for_targets(self, transfer_ids: Collection[str]) -> None:
        """Wait for others who resolve or refund the same transfers."""
        await self._connection.fetch(_WAIT, list(transfer_ids))

    async def made(self, transfer_ids: Collection[str]) -> dict[str, bytes]:
        """Return the content hashes of those transfers that were made."""
        rows = await self._connection.fetch(_MADE, transfer_ids)
        return {str(row[0]): row[1] for row in rows}

    async def targets(self, transfer_ids: Collection[str]) -> dict[str, Transfer]:
        """Return these transfers with their postings."""
        rows = await self._connection.fetch(TRANSFERS_WITH_POSTINGS, list(transfer_ids))
        return {str(row["transfer_id"]): transfer_of(row) for row in rows}

    async def resolutions(self, pending_ids: Collection[str]) -> dict[str, str]:
        """Return in which phase these pending transfers were resolved."""
        rows = await self._connection.fetch(_RESOLUTIONS, list(pending_ids))
        return {str(row[0]): row[1] for row in rows}

    async def refunded(self, transfer_ids: Collection[str]) -> dict[str, int]:
        """Return how much was given back of these transfers."""
        rows = await self._connection.fetch(_REFUNDED, list(transfer_ids))
        return {str(row[0]): row[1] for row in rows}

    async def record(self, outcomes: Sequence[Outcome], events: Sequence[NewEvent]) -> None:
        """Write transfers, entries and events.

        Raises BatchConflictError or LedgerRefusedError; the transaction is over then.
        """
        try:
            await self._connection.execute(_RECORD_TRANSFERS, *self._transfer_columns(outcomes))
            await self._connection.execute(_RECORD_ENTRIES, *self._entry_columns(outcomes))
            await self._connection.execute(
                _RECORD_EVENTS,
                self._tenant_id,
                [event.aggregate_type for event in events],
                [event.aggregate_id for event in events],
                [event.aggregate_version for event in events],
                [event.envelope for event in events],
            )
        except asyncpg.UniqueViolationError as error:
            raise BatchConflictError(str(error)) from error
        except asyncpg.DeadlockDetectedError as error:
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
            [one.transfer_id for one in made],
            [one.phase for one in made],
            [one.kind for one in made],
            [one.currency_code for one in made],
            [one.amount_minor for one in made],
            [len(one.postings) for one in made],
            [one.pending_id or None for one in made],
            [one.refund_of or None for one in made],
            [one.reference for one in made],
            [one.body_hash for one in made],
            [one.expire_time for one in made],
        )

    def _entry_columns(self, outcomes: Sequence[Outcome]) -> Sequence[Any]:
        transfer_ids: list[str] = []
        indexes: list[int] = []
        account_ids: list[str] = []
        layers: list[str] = []
        currency_codes: list[str] = []
        amounts: list[int] = []
        for outcome in outcomes:
            transfer = outcome.transfer
            if transfer is None:
                continue
            for index, (layer, account_id, amount) in enumerate(outcome.entries):
                transfer_ids.append(transfer.transfer_id)
                indexes.append(index)
                account_ids.append(account_id)
                layers.append(layer)
                currency_codes.append(transfer.currency_code)
                amounts.append(amount)
        return (
            self._tenant_id,
            transfer_ids,
            indexes,
            account_ids,
            layers,
            currency_codes,
            amounts,
        )


def _is_refusal(error: asyncpg.PostgresError) -> bool:
    """Say whether a rule of the schema refused: a constraint, a policy, or a trigger (WL…)."""
    code = str(getattr(error, "sqlstate", ""))
    return code.startswith(("23", "WL")) or code == "42501"
