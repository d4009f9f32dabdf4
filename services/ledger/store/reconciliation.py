"""Looks for discrepancies in PostgreSQL and keeps reports.

Implements audit_ports.ReconciliationStore.
"""

import json
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from services.ledger.audit_ports import Findings
from services.ledger.domain.reconciliation import (
    Check,
    Discrepancy,
    ExpectedPayment,
    GatewayLine,
    Report,
)
from services.ledger.ports import NewEvent
from services.ledger.store.chain import ALONG_INDEX, TENANTS
from services.ledger.store.checks import STATEMENTS
from services.shared.postgres import Database, Session

if TYPE_CHECKING:
    import asyncpg

    from services.shared.postgres import Connection

_SWEEPER = Session(role="SWEEPER")
_PAY_WITHIN = timedelta(days=1)
_TRIPS_BACK = timedelta(days=60)
_MOVE_WITHIN = timedelta(minutes=1)

_COUNTS = """
SELECT (SELECT count(*) FROM ledger.transfers WHERE tenant_id = $1),
  (SELECT count(*) FROM ledger.accounts WHERE tenant_id = $1)
"""
_REPORT = """
SELECT reconciliation_id::text, body_hash, scheduled_date, until_time, create_time, checks,
  transfer_count, account_count, discrepancy_count, discrepancies
FROM ledger.reconciliations WHERE tenant_id = $1
"""
_FIND = f"{_REPORT} AND reconciliation_id = $2"
_NEWEST = f"{_REPORT} ORDER BY create_time DESC, reconciliation_id DESC LIMIT 1"
_KEEP = """
INSERT INTO ledger.reconciliations (reconciliation_id, tenant_id, body_hash, scheduled_date,
  until_time, create_time, checks, transfer_count, account_count, discrepancy_count, discrepancies)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING
RETURNING 1
"""
_KEEP_EVENT = """
INSERT INTO ledger.events (aggregate_type, aggregate_id, aggregate_version, tenant_id, envelope)
VALUES ($1, $2, $3, $4, $5)
"""
_WITHOUT = f"""
{TENANTS} AND NOT EXISTS (SELECT 1 FROM ledger.reconciliations r
  WHERE r.tenant_id = tenants.tenant_id AND r.scheduled_date = $1)
"""  # noqa: S608 - all of it is ours
_TURN = "SELECT pg_try_advisory_xact_lock(hashtextextended('ledger.reconcile/' || $1, 0))"
_EXPECT = """
INSERT INTO ledger.expected_payments (tenant_id, trip_id, passenger_id, payment_reference,
  currency_code, amount_minor, complete_time)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::bigint[],
  $7::timestamptz[]) ON CONFLICT DO NOTHING
"""


class PostgresReconciliationStore:
    """Works on all tables of the ledger; reports are its own."""

    def __init__(self, database: Database) -> None:
        """Take a database of role wayfare_ledger whose statements may take minutes."""
        self._database = database

    async def find(self, tenant_id: str, reconciliation_id: str) -> tuple[Report, bytes] | None:
        """Return a kept report and the hash of what was asked for."""
        async with self._database.transaction(_service(tenant_id)) as connection:
            row = await connection.fetchrow(_FIND, tenant_id, reconciliation_id)
        return None if row is None else (_report(row), row["body_hash"])

    async def newest(self, tenant_id: str) -> Report | None:
        """Return the report that was made last."""
        async with self._database.transaction(_service(tenant_id)) as connection:
            row = await connection.fetchrow(_NEWEST, tenant_id)
        return None if row is None else _report(row)

    async def examine(
        self,
        tenant_id: str,
        checks: Collection[Check],
        *,
        now: datetime,
        gateway_lines: Sequence[GatewayLine],
        most: int,
    ) -> Findings:
        """Make the checks, all on one snapshot; return at most so many discrepancies."""
        found: list[Discrepancy] = []
        counts: dict[Check, int] = {}
        async with self._database.transaction(_service(tenant_id), snapshot=True) as connection:
            transfer_count, account_count = await connection.fetchrow(_COUNTS, tenant_id) or (0, 0)
            for check in checks:
                values = _values(check, now, gateway_lines)
                rows = await connection.fetch(STATEMENTS[check], tenant_id, most, *values)
                counts[check] = rows[0]["count"] if rows else 0
                found += [_discrepancy(check, row) for row in rows[: most - len(found)]]
        return Findings(
            transfer_count=transfer_count,
            account_count=account_count,
            discrepancies=found,
            counts=counts,
        )

    async def keep(
        self, tenant_id: str, report: Report, event: NewEvent, *, body_hash: bytes
    ) -> None:
        """Keep a report and its event, unless it is kept already."""
        async with self._database.transaction(_service(tenant_id)) as connection:
            is_new = await connection.fetchval(
                _KEEP,
                report.reconciliation_id,
                tenant_id,
                body_hash,
                report.scheduled_date,
                report.until_time,
                report.create_time,
                list(report.checks),
                report.transfer_count,
                report.account_count,
                report.discrepancy_count,
                json.dumps([_kept(one) for one in report.discrepancies]),
            )
            if is_new:
                place = (event.aggregate_type, event.aggregate_id, event.aggregate_version)
                await connection.execute(_KEEP_EVENT, *place, tenant_id, event.envelope)

    async def tenants_without(self, day: date) -> list[str]:
        """Return the tenants with transfers for which the clock made no report on a day."""
        async with self._database.transaction(_SWEEPER) as connection:
            await connection.execute(ALONG_INDEX)
            return [row[0] for row in await connection.fetch(_WITHOUT, day)]

    @asynccontextmanager
    async def clock_turn(self, tenant_id: str) -> AsyncIterator[bool]:
        """Take the turn to reconcile by the clock until the block ends; False if another has it."""
        async with self._database.transaction(_service(tenant_id)) as connection:
            yield bool(await connection.fetchval(_TURN, tenant_id))


async def expect_payments(connection: "Connection", payments: Sequence[ExpectedPayment]) -> None:
    """Keep what completed trips are to be paid, in the transaction of an event's consumer."""
    await connection.execute(
        _EXPECT,
        [one.tenant_id for one in payments],
        [one.trip_id for one in payments],
        [one.passenger_id for one in payments],
        [one.payment_reference for one in payments],
        [one.currency_code or None for one in payments],
        [one.amount_minor for one in payments],
        [one.complete_time for one in payments],
    )


def _values(check: Check, now: datetime, lines: Sequence[GatewayLine]) -> tuple[Any, ...]:
    """Return the parameters of a check after the first two."""
    if check is Check.TRIPS_PAID:
        return now - _PAY_WITHIN, now - _TRIPS_BACK
    if check is Check.GATEWAY_EQUALS_LEDGER:
        return (
            now - _MOVE_WITHIN,
            [line.deposit_id for line in lines],
            [line.gateway for line in lines],
            [line.gateway_payment_id for line in lines],
            [line.currency_code for line in lines],
            [line.amount_minor for line in lines],
        )
    return ()


def _discrepancy(check: Check, row: "asyncpg.Record") -> Discrepancy:
    return Discrepancy(
        check=check,
        subject=row["subject"],
        description=row["description"],
        currency_code=row["currency_code"] or "",
        found_minor=row["found"],
        expected_minor=row["expected"],
    )


def _kept(found: Discrepancy) -> dict[str, Any]:
    return {
        "check": found.check,
        "subject": found.subject,
        "description": found.description,
        "currency_code": found.currency_code,
        "found_minor": found.found_minor,
        "expected_minor": found.expected_minor,
    }


def _report(row: "asyncpg.Record") -> Report:
    return Report(
        reconciliation_id=row["reconciliation_id"],
        until_time=row["until_time"],
        create_time=row["create_time"],
        checks=[Check(one) for one in row["checks"]],
        transfer_count=row["transfer_count"],
        account_count=row["account_count"],
        discrepancy_count=row["discrepancy_count"],
        discrepancies=[
            Discrepancy(**{**one, "check": Check(one["check"])})
            for one in json.loads(row["discrepancies"])
        ],
        scheduled_date=row["scheduled_date"],
    )


def _service(tenant_id: str) -> Session:
    return Session(tenant_id=tenant_id, role="SERVICE")
