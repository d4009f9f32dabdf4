"""Reconciles a tenant's books: on demand, and every night by the clock."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import date

import structlog
from prometheus_client import Counter, Gauge

from services.ledger.audit_errors import ReconciliationUnknownError
from services.ledger.audit_ports import ReconciliationStore
from services.ledger.domain.accounts import derived_id
from services.ledger.domain.reconciliation import DISCREPANCIES_MAX, Check, GatewayLine, Report
from services.ledger.ports import NewEvent
from services.shared.clock import Clock
from services.shared.errors import DependencyUnavailableError, RequestIdReusedError
from services.shared.ids import is_uuid

_log = structlog.get_logger()
_DISCREPANCIES = Gauge(
    "wayfare_ledger_discrepancies",
    "What the newest reconciliation by this process found: alert on any",
    ["tenant_id", "check"],
)
_MADE = Counter("wayfare_ledger_reconciliations_total", "Reconciliations made", ["by"])
_FAILURES = Counter(
    "wayfare_ledger_reconciliation_failures_total", "Reconciliations by the clock that failed"
)
_EVERY_SECONDS = 60.0
_BY_CLOCK = bytes(16)

EventOf = Callable[[str, Report], NewEvent]


class Reconciler:
    """Makes and keeps reports."""

    def __init__(
        self, *, store: ReconciliationStore, event_of: EventOf, clock: Clock, hour: int
    ) -> None:
        """Reconcile by the clock after `hour` in UTC; `event_of` makes the event of a report."""
        self._store = store
        self._event_of = event_of
        self._clock = clock
        self._hour = hour

    async def run(
        self,
        tenant_id: str,
        checks: Sequence[Check],
        gateway_lines: Sequence[GatewayLine],
        *,
        request_id: str,
        body_hash: bytes,
    ) -> Report:
        """Reconcile now, or return the report that the same request made before.

        Raises RequestIdReusedError.
        """
        report_id = derived_id("reconciliation", tenant_id, request_id)
        kept = await self._store.find(tenant_id, report_id)
        if kept is None:
            await self._make(tenant_id, report_id, checks, gateway_lines, body_hash=body_hash)
            kept = await self._store.find(tenant_id, report_id)
        if kept is None:
            raise DependencyUnavailableError("postgresql")
        report, kept_hash = kept
        if kept_hash != body_hash:
            raise RequestIdReusedError(request_id)
        return report

    async def report(self, tenant_id: str, reconciliation_id: str) -> Report:
        """Return a report, or the newest of "latest". Raises ReconciliationUnknownError."""
        if reconciliation_id == "latest":
            newest = await self._store.newest(tenant_id)
            if newest is None:
                raise ReconciliationUnknownError(reconciliation_id)
            return newest
        kept = None
        if is_uuid(reconciliation_id):
            kept = await self._store.find(tenant_id, reconciliation_id)
        if kept is None:
            raise ReconciliationUnknownError(reconciliation_id)
        return kept[0]

    async def run_forever(self) -> None:
        """Reconcile by the clock until cancelled."""
        while True:
            await asyncio.sleep(_EVERY_SECONDS)
            try:
                await self.run_due()
            except DependencyUnavailableError as error:
                _log.warning("nothing_reconciled", error=error.reason)

    async def run_due(self) -> int:
        """Reconcile the tenants that had none today, once each; return how many there were."""
        now = self._clock.now()
        if now.hour < self._hour:
            return 0
        made = 0
        for tenant_id in await self._store.tenants_without(now.date()):
            try:
                made += await self._run_by_clock(tenant_id, now.date())
            except DependencyUnavailableError:
                raise
            except Exception as error:  # noqa: BLE001 - of one tenant: the others go on
                # One that takes too long must not hold up those of others. It is tried again.
                _FAILURES.inc()
                _log.error("reconciliation_failed", tenant_id=tenant_id, exc_info=error)
        return made

    async def _run_by_clock(self, tenant_id: str, day: date) -> bool:
        async with self._store.clock_turn(tenant_id) as ours:
            report_id = derived_id("reconciliation", tenant_id, "clock", str(day))
            if not ours or await self._store.find(tenant_id, report_id) is not None:
                return False
            await self._make(tenant_id, report_id, list(Check), [], day=day)
        return True

    async def _make(
        self,
        tenant_id: str,
        report_id: str,
        checks: Sequence[Check],
        gateway_lines: Sequence[GatewayLine],
        *,
        body_hash: bytes = _BY_CLOCK,
        day: date | None = None,
    ) -> None:
        checks = [check for check in Check if check in checks] or list(Check)
        now = self._clock.now()
        found = await self._store.examine(
            tenant_id, checks, now=now, gateway_lines=gateway_lines, most=DISCREPANCIES_MAX
        )
        report = Report(
            reconciliation_id=report_id,
            until_time=now,
            create_time=now,
            checks=checks,
            transfer_count=found.transfer_count,
            account_count=found.account_count,
            discrepancy_count=sum(found.counts.values()),
            discrepancies=found.discrepancies,
            scheduled_date=day,
        )
        event = self._event_of(tenant_id, report)
        await self._store.keep(tenant_id, report, event, body_hash=body_hash)
        _MADE.labels("call" if day is None else "clock").inc()
        for check, count in found.counts.items():
            _DISCREPANCIES.labels(tenant_id, check).set(count)
        if report.discrepancy_count:
            _log.error(
                "books_do_not_agree",
                tenant_id=tenant_id,
                reconciliation_id=report_id,
                discrepancies=report.discrepancy_count,
            )
