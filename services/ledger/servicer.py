"""RPC in and out: one method per RPC, which converts and calls one operation.

Policy and errors are the interceptor's.
"""

from typing import TYPE_CHECKING, Any

from services.ledger import convert
from services.ledger.audit_calls import AuditCalls
from services.ledger.calls import reader_of, required_field, tenant_of
from services.ledger.deposit_calls import DepositCalls
from services.ledger.domain.accounts import AccountKey, AccountKind
from services.ledger.operations.accounts import Accounts
from services.ledger.operations.deposits import Deposits
from services.ledger.operations.reconciling import Reconciler
from services.ledger.operations.reports import Reports
from services.ledger.operations.sealing import Auditor
from services.ledger.operations.transfers import Transfers
from services.ledger.operations.webhooks import Webhooks
from services.ledger.operations.withdrawals import Withdrawals
from services.ledger.withdrawal_calls import ReportCalls, WithdrawalCalls
from services.shared.rpc.caller import current_caller
from wayfare.ledger.v1 import ledger_service_pb2 as pb
from wayfare.ledger.v1.account_pb2 import Account
from wayfare.ledger.v1.ledger_service_pb2_grpc import LedgerServiceServicer
from wayfare.ledger.v1.transfer_pb2 import Transfer

if TYPE_CHECKING:
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]


class LedgerServicer(DepositCalls, WithdrawalCalls, ReportCalls, AuditCalls, LedgerServiceServicer):
    """Answers LedgerService; each area beside accounts and transfers has a file of its own."""

    def __init__(
        self,
        *,
        accounts: Accounts,
        transfers: Transfers,
        deposits: Deposits,
        webhooks: Webhooks,
        withdrawals: Withdrawals,
        reports: Reports,
        auditor: Auditor,
        reconciler: Reconciler,
    ) -> None:
        """Take the operations."""
        self._accounts = accounts
        self._transfers = transfers
        self._deposits = deposits
        self._webhooks = webhooks
        self._withdrawals = withdrawals
        self._reports = reports
        self._auditor = auditor
        self._reconciler = reconciler

    async def GetBalance(
        self, request: pb.GetBalanceRequest, context: "Context"
    ) -> pb.GetBalanceResponse:
        """Get what a person has."""
        caller = current_caller()
        user_id = request.user_id.lower() or caller.user_id
        if not user_id:
            raise required_field("user_id")
        reader = reader_of(caller, request.tenant_id, own=user_id == caller.user_id)
        wallets = await self._accounts.wallets(reader, user_id)
        return pb.GetBalanceResponse(wallets=map(convert.account_message, wallets))

    async def ListEntries(
        self, request: pb.ListEntriesRequest, context: "Context"
    ) -> pb.ListEntriesResponse:
        """List an account's posted entries."""
        caller = current_caller()
        code = request.currency_code
        own = AccountKey(AccountKind.WALLET, caller.user_id, code)
        key = convert.key_of(request.account, code) if request.HasField("account") else own
        page = await self._accounts.statement(
            reader_of(caller, "", own=key == own),
            key,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return pb.ListEntriesResponse(
            entries=[convert.entry_message(line, code) for line in page.lines],
            next_page_token=page.next_page_token,
        )

    async def UpdateAccount(self, request: pb.UpdateAccountRequest, context: "Context") -> Account:
        """Change the limit of a wallet, or block it."""
        paths = request.update_mask.paths
        limit = convert.money_of(request.account.limit) if "limit" in paths else None
        account = await self._accounts.update(
            current_caller().tenant_id,
            request.account.account_id.lower(),
            currency_code=limit.currency_code if limit else "",
            limit_minor=limit.amount_minor if limit else None,
            blocked=request.account.blocked if "blocked" in paths else None,
        )
        return convert.account_message(account)

    async def CreateTransfers(
        self, request: pb.CreateTransfersRequest, context: "Context"
    ) -> pb.CreateTransfersResponse:
        """Make transfers, each by itself or in chains."""
        tenant_id = request.tenant_id.lower()
        wanted = [convert.wanted_of(one, tenant_id) for one in request.transfers]
        # Another caller's transfers may follow in the same batch.
        wanted[-1].linked = False
        errors = await self._transfers.create(tenant_id, wanted)
        return pb.CreateTransfersResponse(
            failures=[
                convert.failure_message(index, one.transfer_id, error)
                for index, (one, error) in enumerate(zip(wanted, errors, strict=True))
                if error is not None
            ]
        )

    async def GetTransfer(self, request: pb.GetTransferRequest, context: "Context") -> Transfer:
        """Get a transfer."""
        caller = current_caller()
        reader = reader_of(caller, request.tenant_id, own=True)
        return convert.transfer_message(
            await self._transfers.find(reader, request.transfer_id.lower())
        )

    async def PostPending(self, request: pb.PostPendingRequest, context: "Context") -> Transfer:
        """Post a pending transfer."""
        tenant_id = request.tenant_id.lower()
        transfer = await self._transfers.post_pending(
            tenant_id,
            request.pending_transfer_id.lower(),
            convert.postings_of(request.postings, tenant_id),
            request_id=request.request_id.lower(),
        )
        return convert.transfer_message(transfer)

    async def VoidPending(self, request: pb.VoidPendingRequest, context: "Context") -> Transfer:
        """Void a pending transfer."""
        transfer = await self._transfers.void_pending(
            request.tenant_id.lower(),
            request.pending_transfer_id.lower(),
            request_id=request.request_id.lower(),
        )
        return convert.transfer_message(transfer)

    async def SettleTrip(self, request: pb.SettleTripRequest, context: "Context") -> Transfer:
        """Settle a trip for one passenger."""
        settlement = convert.settlement_of(request)
        return convert.transfer_message(await self._transfers.settle(settlement))

    async def RefundTransfer(
        self, request: pb.RefundTransferRequest, context: "Context"
    ) -> Transfer:
        """Give money back."""
        caller = current_caller()
        transfer = await self._transfers.refund(
            tenant_of(caller, request.tenant_id),
            convert.refund_of(request),
            request_id=request.request_id.lower(),
        )
        return convert.transfer_message(transfer)
