"""Sums up days in PostgreSQL. Implements report_ports.ReportStore."""

from datetime import datetime

import asyncpg

from services.ledger.report_ports import AccountTotal, KindTotal
from services.shared.errors import OverloadedError
from services.shared.postgres import Database, Session

_SECONDS = 20.0
_GRACE_SECONDS = 2.0

# One statement, so that all is of one moment. Balances are counted back from what the accounts have
# now: what it costs grows with the days since, and not with all history.
_TOTALS = """
WITH since AS MATERIALIZED (
  SELECT transfer_id, kind, currency_code, amount_minor, create_time < $3 AS is_of_day
  FROM ledger.transfers
  WHERE tenant_id = $1 AND create_time >= $2 AND phase IN ('POSTED', 'POST')
), moved AS (
  SELECT e.account_id,
    coalesce(sum(e.amount_minor) FILTER (WHERE s.is_of_day AND e.amount_minor > 0), 0) AS credited,
    coalesce(sum(-e.amount_minor) FILTER (WHERE s.is_of_day AND e.amount_minor < 0), 0) AS debited,
    coalesce(sum(e.amount_minor) FILTER (WHERE NOT s.is_of_day), 0) AS later
  FROM since s JOIN ledger.entries e ON e.transfer_id = s.transfer_id
  WHERE e.layer = 'POSTED' GROUP BY e.account_id
), gained AS (
  SELECT account_id, sum(posted_minor) AS posted FROM ledger.account_deltas
  WHERE tenant_id = $1 GROUP BY account_id
), totals AS (
  SELECT a.kind, CASE a.kind WHEN 'GATEWAY_CLEARING' THEN a.subject ELSE '' END AS subject,
    a.currency_code,
    sum(a.posted_minor + coalesce(g.posted, 0) - coalesce(m.later, 0)) AS closing,
    coalesce(sum(m.credited), 0) AS credited, coalesce(sum(m.debited), 0) AS debited
  FROM ledger.accounts a
  LEFT JOIN moved m ON m.account_id = a.account_id
  LEFT JOIN gained g ON g.account_id = a.account_id
  WHERE a.tenant_id = $1
  GROUP BY 1, 2, 3
)
SELECT true AS is_account, kind, subject, currency_code, 0::bigint AS transfer_count,
  closing::bigint AS closing, credited::bigint AS credited, debited::bigint AS debited
FROM totals WHERE closing <> 0 OR credited <> 0 OR debited <> 0
UNION ALL
SELECT false, kind, '', currency_code, count(*), 0, sum(amount_minor)::bigint, 0
FROM since WHERE is_of_day GROUP BY kind, currency_code
ORDER BY 1, 2, 3, 4
"""


class PostgresReportStore:
    """Reads the ledger's tables."""

    def __init__(self, database: Database) -> None:
        """Take the database of role wayfare_ledger."""
        self._database = database

    async def totals(
        self, tenant_id: str, *, start: datetime, end: datetime
    ) -> tuple[list[KindTotal], list[AccountTotal]]:
        """Return the sums from `start` until before `end`, all of one moment."""
        session = Session(tenant_id=tenant_id, role="SERVICE")
        try:
            async with self._database.transaction(session) as connection:
                await connection.execute(f"SET LOCAL statement_timeout = '{_SECONDS:.0f}s'")
                rows = await connection.fetch(
                    _TOTALS, tenant_id, start, end, timeout=_SECONDS + _GRACE_SECONDS
                )
        except asyncpg.QueryCanceledError as error:
            raise OverloadedError("the report of that day takes too long") from error
        kinds = [_kind_total(row) for row in rows if not row["is_account"]]
        return kinds, [_account_total(row) for row in rows if row["is_account"]]


def _kind_total(row: asyncpg.Record) -> KindTotal:
    return KindTotal(
        kind=row["kind"],
        currency_code=row["currency_code"],
        transfer_count=row["transfer_count"],
        amount_minor=row["credited"],
    )


def _account_total(row: asyncpg.Record) -> AccountTotal:
    return AccountTotal(
        kind=row["kind"],
        subject=row["subject"],
        currency_code=row["currency_code"],
        opening_minor=row["closing"] - row["credited"] + row["debited"],
        debits_minor=row["debited"],
        credits_minor=row["credited"],
        closing_minor=row["closing"],
    )
