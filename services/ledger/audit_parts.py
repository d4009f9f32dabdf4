"""Puts together what an auditor looks at: the chain, reconciliations, and expected payments.

Called by app.py.
"""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, NamedTuple

from services.ledger import audit_messages
from services.ledger.domain.reconciliation import Report
from services.ledger.operations.reconciling import Reconciler
from services.ledger.operations.sealing import Auditor, Sealer
from services.ledger.operations.transfers import Transfers
from services.ledger.ports import NewEvent
from services.ledger.settings import LedgerSettings
from services.ledger.store.chain import PostgresChainStore
from services.ledger.store.reconciliation import PostgresReconciliationStore, expect_payments
from services.shared.clock import Clock
from services.shared.events.consumer import EventConsumer
from services.shared.ids import IdSource
from services.shared.postgres import Database, open_database
from services.shared.rpc.process import Background
from services.shared.valkey import open_valkey
from wayfare.event.v1.envelope_pb2 import Envelope

if TYPE_CHECKING:
    from services.shared.postgres import Connection

# Who tells of completed trips.
_SOURCES = ("booking", "matching")
# A read of a stream waits for a second.
_VALKEY_SECONDS = 5.0
# Reconciliations at once, about: what takes minutes holds up nothing else.
_POOL_SIZE = 3


class AuditParts(NamedTuple):
    """Is what answers the calls, and the work beside them."""

    auditor: Auditor
    reconciler: Reconciler
    background: Sequence[Background]


async def audit_parts(
    stack: AsyncExitStack,
    settings: LedgerSettings,
    *,
    database: Database,
    transfers: Transfers,
    clock: Clock,
    ids: IdSource,
) -> AuditParts:
    """Return the parts; what is opened is closed by `stack`."""
    patient = await open_database(
        settings.database_url.get_secret_value(),
        pool_size=_POOL_SIZE,
        statement_seconds=settings.ledger_audit_statement_seconds,
    )
    stack.push_async_callback(patient.close)
    streams = open_valkey(
        settings.valkey_url.get_secret_value(),
        cluster=settings.valkey_cluster,
        timeout_seconds=_VALKEY_SECONDS,
    )
    stack.push_async_callback(streams.aclose)

    def event_of(tenant_id: str, report: Report) -> NewEvent:
        return audit_messages.event_of(tenant_id, report, event_id=ids.new_id())

    chain = PostgresChainStore(database)
    sealer = Sealer(
        store=chain,
        clock=clock,
        every_seconds=settings.ledger_seal_seconds,
        block_max=settings.ledger_seal_block_max,
    )
    auditor = Auditor(
        store=chain, transfers=transfers, clock=clock, walk_seconds=settings.ledger_walk_seconds
    )
    reconciler = Reconciler(
        store=PostgresReconciliationStore(patient),
        event_of=event_of,
        clock=clock,
        hour=settings.ledger_reconcile_hour,
    )
    consumers = [
        EventConsumer(
            consumer="expected-payments",
            source=source,
            database=database,
            schema="ledger",
            valkey=streams,
            handle=take_completed_trips,
            wants=audit_messages.is_completed_trip,
        )
        for source in _SOURCES
    ]
    background = [sealer.run, reconciler.run_forever, *(one.run for one in consumers)]
    return AuditParts(auditor, reconciler, background)


async def take_completed_trips(connection: "Connection", events: Sequence[Envelope]) -> None:
    """Keep what completed trips are to be paid."""
    payments = audit_messages.expected_payments_of(events)
    if payments:
        await expect_payments(connection, payments)
