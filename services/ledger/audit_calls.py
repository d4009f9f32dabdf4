"""Is the RPC side of what an auditor looks at."""

from typing import TYPE_CHECKING, Any

from services.ledger import audit_messages
from services.ledger.calls import reader_of
from services.ledger.operations.reconciling import Reconciler
from services.ledger.operations.sealing import Auditor
from services.shared.rpc.caller import current_caller
from wayfare.ledger.v1 import ledger_service_pb2 as pb
from wayfare.ledger.v1.audit_pb2 import Receipt, Reconciliation

if TYPE_CHECKING:
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]


class AuditCalls:
    """Serves reconciliations, the chain and receipts; LedgerServicer sets the two operations."""

    _auditor: Auditor
    _reconciler: Reconciler

    async def RunReconciliation(
        self, request: pb.RunReconciliationRequest, context: "Context"
    ) -> Reconciliation:
        """Reconcile the tenant's books now."""
        report = await self._reconciler.run(
            current_caller().tenant_id,
            audit_messages.checks_of(request),
            audit_messages.gateway_lines_of(request),
            request_id=request.request_id.lower(),
            body_hash=audit_messages.hash_of(request),
        )
        return audit_messages.report_message(report)

    async def GetReconciliation(
        self, request: pb.GetReconciliationRequest, context: "Context"
    ) -> Reconciliation:
        """Get the report of a reconciliation."""
        tenant_id = current_caller().tenant_id
        report = await self._reconciler.report(tenant_id, request.reconciliation_id.lower())
        return audit_messages.report_message(report)

    async def VerifyChain(
        self, request: pb.VerifyChainRequest, context: "Context"
    ) -> pb.VerifyChainResponse:
        """Walk the tenant's chain of seals."""
        walk = await self._auditor.walk(
            current_caller().tenant_id,
            first=request.from_block_number,
            last=request.to_block_number,
        )
        return audit_messages.walk_message(walk)

    async def GetReceipt(self, request: pb.GetReceiptRequest, context: "Context") -> Receipt:
        """Get the proof that a transfer is in the books."""
        caller = current_caller()
        reader = reader_of(caller, "", own=True)
        return audit_messages.receipt_message(
            *await self._auditor.receipt(reader, request.transfer_id.lower())
        )
