"""RPC in and out of withdrawals and of the daily report."""

from typing import TYPE_CHECKING, Any

from services.ledger import report_messages, withdrawal_messages
from services.ledger.domain.withdrawals import Decision, State
from services.ledger.errors import RoleNotAllowedError
from services.ledger.operations.reports import Reports
from services.ledger.operations.withdrawals import Withdrawals
from services.ledger.ports import Reader
from services.shared.rpc.caller import current_caller
from wayfare.ledger.v1 import ledger_service_pb2 as pb
from wayfare.ledger.v1.audit_pb2 import DailyReport
from wayfare.ledger.v1.withdrawal_pb2 import Withdrawal

if TYPE_CHECKING:
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]

_STAFF = ("ADMIN", "BUSINESS")


class WithdrawalCalls:
    """Answers the methods of withdrawals."""

    _withdrawals: Withdrawals

    async def RequestWithdrawal(
        self, request: pb.RequestWithdrawalRequest, context: "Context"
    ) -> Withdrawal:
        """Hold an amount until an ADMIN decides."""
        caller = current_caller()
        wanted = withdrawal_messages.request_of(
            request, tenant_id=caller.tenant_id, user_id=caller.user_id
        )
        return withdrawal_messages.withdrawal_message(await self._withdrawals.request(wanted))

    async def ApproveWithdrawal(
        self, request: pb.ApproveWithdrawalRequest, context: "Context"
    ) -> Withdrawal:
        """Approve a withdrawal, which a worker pays out."""
        return await self._decide(request, State.APPROVED, "")

    async def RejectWithdrawal(
        self, request: pb.RejectWithdrawalRequest, context: "Context"
    ) -> Withdrawal:
        """Reject a withdrawal and free its amount."""
        return await self._decide(request, State.REJECTED, request.reason)

    async def _decide(
        self,
        request: pb.ApproveWithdrawalRequest | pb.RejectWithdrawalRequest,
        state: State,
        reason: str,
    ) -> Withdrawal:
        caller = current_caller()
        decision = Decision(
            state=state,
            withdrawal_id=request.withdrawal_id.lower(),
            admin_id=caller.user_id,
            role=caller.role,
            request_id=request.request_id.lower(),
            reason=reason,
        )
        decided = await self._withdrawals.decide(caller.tenant_id, decision)
        return withdrawal_messages.withdrawal_message(decided)

    async def ListWithdrawals(
        self, request: pb.ListWithdrawalsRequest, context: "Context"
    ) -> pb.ListWithdrawalsResponse:
        """List withdrawals, newest first."""
        caller = current_caller()
        sees_all = caller.role in _STAFF
        user_id = request.user_id.lower() or ("" if sees_all else caller.user_id)
        if not sees_all and user_id != caller.user_id:
            raise RoleNotAllowedError(caller.role)
        page = await self._withdrawals.page(
            Reader(tenant_id=caller.tenant_id, user_id=caller.user_id, sees_all=sees_all),
            user_id=user_id,
            state=withdrawal_messages.state_of(request.state),
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return pb.ListWithdrawalsResponse(
            withdrawals=map(withdrawal_messages.withdrawal_message, page.withdrawals),
            next_page_token=page.next_page_token,
        )


class ReportCalls:
    """Answers the method of the daily report."""

    _reports: Reports

    async def GetDailyReport(
        self, request: pb.GetDailyReportRequest, context: "Context"
    ) -> DailyReport:
        """Get what happened on a day."""
        wanted = report_messages.date_of(request.date) if request.HasField("date") else None
        report = await self._reports.daily(current_caller().tenant_id, wanted)
        return report_messages.report_message(report)
