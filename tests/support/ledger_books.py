"""Whether the ledger's books agree, asked of PostgreSQL by one who sees everything."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncpg

_UNBALANCED = """
SELECT count(*) FROM (
  SELECT transfer_id FROM ledger.entries WHERE tenant_id = $1
  GROUP BY transfer_id, layer HAVING sum(amount_minor) <> 0) AS wrong
"""
_WRONG_BALANCES = """
WITH summed AS (
  SELECT account_id, coalesce(sum(amount_minor) FILTER (WHERE layer = 'POSTED'), 0) AS posted,
    coalesce(sum(-amount_minor) FILTER (WHERE (layer = 'PENDING' AND amount_minor < 0)
      OR (layer = 'RELEASED' AND amount_minor > 0)), 0) AS pending_out
  FROM ledger.entries WHERE tenant_id = $1 GROUP BY account_id
), kept AS (
  SELECT a.account_id, a.posted_minor + coalesce(sum(d.posted_minor), 0) AS posted,
    a.pending_out_minor + coalesce(sum(d.pending_out_minor), 0) AS pending_out
  FROM ledger.accounts a LEFT JOIN ledger.account_deltas d USING (account_id)
  WHERE a.tenant_id = $1 GROUP BY a.account_id
)
SELECT count(*) FROM kept LEFT JOIN summed USING (account_id)
WHERE kept.posted <> coalesce(summed.posted, 0)
  OR kept.pending_out <> coalesce(summed.pending_out, 0)
"""
_OVERDRAWN = """
SELECT count(*) FROM ledger.accounts
WHERE tenant_id = $1 AND posted_minor - pending_out_minor < limit_minor
"""
# One event of each transfer and of each state of a deposit or withdrawal, and none besides.
_WRONG_EVENTS = """
WITH told AS (
  SELECT aggregate_type AS type, aggregate_id AS id, aggregate_version AS version
  FROM ledger.events WHERE tenant_id = $1
    AND aggregate_type IN ('transfer', 'deposit', 'withdrawal')
), happened AS (
  SELECT 'transfer' AS type, coalesce(pending_id, transfer_id)::text AS id,
    CASE WHEN pending_id IS NULL THEN 1 ELSE 2 END AS version
  FROM ledger.transfers WHERE tenant_id = $1
  UNION ALL
  SELECT 'deposit', deposit_id::text, generate_series(1, version)
  FROM ledger.deposits WHERE tenant_id = $1
  UNION ALL
  SELECT 'withdrawal', withdrawal_id::text, generate_series(1, version)
  FROM ledger.withdrawals WHERE tenant_id = $1
)
SELECT count(*) FROM told FULL JOIN happened USING (type, id, version)
WHERE told IS NULL OR happened IS NULL
"""
# What a worker has to finish: money that is due, what is to follow the money or a decision.
_UNFINISHED = """
SELECT (SELECT count(*) FROM ledger.deposits WHERE tenant_id = $1 AND step <> 'NONE')
  + (SELECT count(*) FROM ledger.withdrawals w
    WHERE tenant_id = $1 AND (state = 'APPROVED' OR outcome <> state OR (state = 'HOLDING'
      AND EXISTS (SELECT 1 FROM ledger.transfers t WHERE t.transfer_id = w.transfer_id))))
"""
_BALANCES = """
WITH summed AS (
  SELECT account_id, coalesce(sum(amount_minor) FILTER (WHERE layer = 'POSTED'), 0) AS posted,
    coalesce(sum(-amount_minor) FILTER (WHERE (layer = 'PENDING' AND amount_minor < 0)
      OR (layer = 'RELEASED' AND amount_minor > 0)), 0) AS pending_out
  FROM ledger.entries WHERE tenant_id = $1 GROUP BY account_id
), kept AS (
  SELECT a.account_id, a.posted_minor + coalesce(sum(d.posted_minor), 0) AS posted,
    a.pending_out_minor + coalesce(sum(d.pending_out_minor), 0) AS pending_out
  FROM ledger.accounts a LEFT JOIN ledger.account_deltas d USING (account_id)
  WHERE a.tenant_id = $1 GROUP BY a.account_id
)
SELECT count(*) FROM kept LEFT JOIN summed USING (account_id)
WHERE kept.posted <> coalesce(summed.posted, 0)
  OR kept.pending_out <> coalesce(summed.pending_out, 0)
"""
_OVERDRAWN = """
SELECT count(*) FROM ledger.accounts
WHERE tenant_id = $1 AND posted_minor - pending_out_minor < limit_minor
"""
_EVENTS_WITHOUT_GAPS = """
SELECT (SELECT count(*) FROM ledger.events WHERE tenant_id = $1)
  = (SELECT count(*) FROM ledger.transfers WHERE tenant_id = $1)
"""
_BALANCES = """
SELECT a.account_id::text, (a.posted_minor + coalesce(sum(d.posted_minor), 0))::bigint
FROM ledger.accounts a LEFT JOIN ledger.account_deltas d USING (account_id)
WHERE a.tenant_id = $1 GROUP BY a.account_id
HAVING a.posted_minor + coalesce(sum(d.posted_minor), 0) <> 0
"""
_PENDING = """
SELECT coalesce(sum(pending_out_minor), 0) + coalesce(sum(pending_in_minor), 0)
  + (SELECT coalesce(sum(pending_out_minor) + sum(pending_in_minor), 0)
    FROM ledger.account_deltas WHERE tenant_id = $1)
FROM ledger.accounts WHERE tenant_id = $1
"""
_GAPS = """
SELECT count(*) FROM (
  SELECT 1 FROM ledger.events WHERE tenant_id = $1 GROUP BY aggregate_type, aggregate_id
  HAVING count(*) <> max(aggregate_version) OR min(aggregate_version) <> 1) AS wrong
"""


async def assert_books_agree(admin: "asyncpg.Connection[Any]", tenant_id: str) -> None:
    """Check that debits are credits, balances are their entries, and no wallet is overdrawn.

    And that whatever happened has its event, once and without gaps.
    """
    assert await admin.fetchval(_UNBALANCED, tenant_id) == 0
    assert await admin.fetchval(_WRONG_BALANCES, tenant_id) == 0
    assert await admin.fetchval(_OVERDRAWN, tenant_id) == 0
    assert await admin.fetchval(_WRONG_EVENTS, tenant_id) == 0
    assert await admin.fetchval(_GAPS, tenant_id) == 0


async def balances(admin: "asyncpg.Connection[Any]", tenant_id: str) -> dict[str, int]:
    """Return what is posted to every account, those with nothing left out."""
    return {row[0]: row[1] for row in await admin.fetch(_BALANCES, tenant_id)}


async def pending(admin: "asyncpg.Connection[Any]", tenant_id: str) -> int:
    """Return the sum of all that is pending, in and out."""
    return int(await admin.fetchval(_PENDING, tenant_id))


async def unfinished(admin: "asyncpg.Connection[Any]", tenant_id: str) -> int:
    """Return how many deposits and withdrawals workers have to finish."""
    return int(await admin.fetchval(_UNFINISHED, tenant_id))


class MovingClock:
    """Tells the time that the test sets."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 11, 24, tzinfo=UTC)

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return self.moment.timestamp()
