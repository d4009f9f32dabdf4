"""Asks for reconciliations, and sorts what they found."""

from collections.abc import Sequence
from typing import Any

from tests.support.ledger_process import LedgerProcess, pb
from tests.support.location_values import new_id
from wayfare.ledger.v1 import audit_pb2
from wayfare.ledger.v1.audit_pb2 import Reconciliation

BOOKS = (
    audit_pb2.RECONCILIATION_CHECK_DEBITS_EQUAL_CREDITS,
    audit_pb2.RECONCILIATION_CHECK_BALANCES_EQUAL_ENTRIES,
)
TRIPS = (audit_pb2.RECONCILIATION_CHECK_TRIPS_PAID,)
GATEWAY = (audit_pb2.RECONCILIATION_CHECK_GATEWAY_EQUALS_LEDGER,)
ALL = (*BOOKS, *TRIPS, *GATEWAY)
Found = dict[str, list[str]]


async def reconcile(ledger: LedgerProcess, checks: Sequence[int], **values: Any) -> Reconciliation:
    request = pb.RunReconciliationRequest(
        **{"checks": checks, "request_id": new_id(), **values},
    )
    report: Reconciliation = await ledger.call(
        "RunReconciliation", request, ledger.bearer("ADMIN", new_id())
    )
    return report


def found_in(report: Reconciliation) -> Found:
    """Return the descriptions by subject."""
    found: Found = {}
    for one in report.discrepancies:
        found.setdefault(one.subject, []).append(one.description)
    assert report.discrepancy_count == len(report.discrepancies)
    return found
