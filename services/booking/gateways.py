"""Calls LedgerService, with the transfers of many bookings in one call.

While a call is under way the next one gathers: a single booking waits for nobody, and four hundred
a second cost the ledger a few calls.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.rpc import error_details_pb2
from google.type import money_pb2
from grpc_status import rpc_status
from prometheus_client import Histogram

from services.booking.domain.charges import (
    Charge,
    ChargePhase,
    OpenedDeposit,
    Refund,
    WantedDeposit,
)
from services.shared.clock import Clock
from services.shared.errors import DependencyUnavailableError, OverloadedError
from services.shared.money import Money, money_to_proto
from services.shared.rpc.client import DeadlineSpentError
from services.shared.tasks import HeldTasks
from wayfare.ledger.v1 import account_pb2, deposit_pb2, transfer_pb2
from wayfare.ledger.v1 import ledger_service_pb2 as pb
from wayfare.ledger.v1.ledger_service_pb2_grpc import LedgerServiceStub

_CALL_SECONDS = 10.0
_GATHERED = Histogram(
    "wayfare_booking_charges_gathered",
    "Transfers asked of the ledger in one call",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
# These say that the ledger, or the way to it, is in no state to answer: the same may go through
# later. All other codes with a reason are its answer.
_AWAY = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNIMPLEMENTED,
)
_WALLET = account_pb2.ACCOUNT_KIND_WALLET
_REVENUE = account_pb2.AccountName(kind=account_pb2.ACCOUNT_KIND_REVENUE)
_CASH_FLOAT = account_pb2.AccountName(kind=account_pb2.ACCOUNT_KIND_CASH_FLOAT)


@dataclass(slots=True)
class _Waiting:
    transfer: transfer_pb2.NewTransfer
    done: "asyncio.Future[str]" = field(repr=False)


class LedgerGateway:
    """Is the ledger, as bookings see it. Implements ports.Ledger."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        *,
        clock: Clock,
        new_id: Callable[[], str],
        calls_at_once: int,
        gather_seconds: float,
        transfers_max: int = 500,
        waiting_max: int = 20_000,
    ) -> None:
        """Call over `channel`, `calls_at_once` at a time with `transfers_max` transfers each.

        A process that is busy lets transfers gather for `gather_seconds`. Callers are refused when
        `waiting_max` wait.
        """
        self._stub: Any = LedgerServiceStub(channel)
        self._clock = clock
        self._new_id = new_id
        self._calls_at_once = calls_at_once
        self._gather_seconds = gather_seconds
        self._transfers_max = transfers_max
        self._waiting_max = waiting_max
        self._waiting_count = 0
        self._taken_at = float("-inf")
        self._queues: OrderedDict[str, deque[_Waiting]] = OrderedDict()
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Make calls until cancelled; who still waits then is told to come again."""
        try:
            await HeldTasks().hold(*[self._call_forever] * self._calls_at_once)
        finally:
            for queue in self._queues.values():
                _fail(queue)
            self._queues.clear()

    async def charge(self, charge: Charge) -> str:
        """Make a transfer; return "" when it is made, or the reason why not."""
        if self._waiting_count >= self._waiting_max:
            raise OverloadedError(
                "more payments wait than the ledger can take soon",
                metadata={"waiting_max": str(self._waiting_max)},
                retry_after_seconds=1.0,
            )
        waiting = _Waiting(transfer_of(charge), asyncio.get_running_loop().create_future())
        self._queues.setdefault(charge.tenant_id, deque()).append(waiting)
        self._waiting_count += 1
        self._wake.set()
        return await waiting.done

    async def refund(self, refund: Refund) -> str:
        """Give money back; return "" when it is done, or the reason why not."""
        request = pb.RefundTransferRequest(
            tenant_id=refund.tenant_id,
            transfer_id=refund.transfer_id,
            amount=_money(refund),
            request_id=refund.request_id,
        )
        answer = await self._ask(self._stub.RefundTransfer, request)
        return answer if isinstance(answer, str) else ""

    async def open_deposit(self, wanted: WantedDeposit) -> OpenedDeposit | str:
        """Open a deposit; return where to pay it, or the reason why not."""
        name = f"GATEWAY_{wanted.gateway}"
        if name not in deposit_pb2.Gateway.keys():  # noqa: SIM118 - an enum's names, not a mapping
            return "GATEWAY_NOT_CONFIGURED"
        request = pb.CreateDepositRequest(
            gateway=deposit_pb2.Gateway.Value(name),
            amount=_money(wanted),
            return_url=wanted.return_url,
            request_id=wanted.request_id,
            tenant_id=wanted.tenant_id,
            user_id=wanted.user_id,
            reference=wanted.reference,
        )
        request.expire_time.FromDatetime(wanted.expire_time)
        answer = await self._ask(self._stub.CreateDeposit, request)
        if isinstance(answer, str):
            return answer
        return OpenedDeposit(
            deposit_id=answer.deposit.deposit_id,
            checkout_url=answer.checkout.url,
            form_fields=dict(answer.checkout.form_fields),
        )

    async def _ask(self, method: Any, request: Any) -> Any:
        """Call; return the answer or the reason of a refusal. Raises DependencyUnavailableError."""
        try:
            return await method(request, timeout=_CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            reason = _reason_of(error)
            if error.code() in _AWAY or not reason:
                raise DependencyUnavailableError("ledger") from error
            return reason
        except DeadlineSpentError:
            raise DependencyUnavailableError("ledger") from None

    async def _call_forever(self) -> None:
        while True:
            await self._wake.wait()
            if not self._queues:
                self._wake.clear()
                continue
            await self._gather()
            if not self._queues:
                continue
            tenant_id, taken = self._take()
            try:
                await self._create(tenant_id, taken)
            finally:
                _fail(taken)

    async def _gather(self) -> None:
        quiet = self._clock.monotonic() - self._taken_at > self._gather_seconds
        if not quiet and self._waiting_count < self._transfers_max:
            await asyncio.sleep(self._gather_seconds)
        self._taken_at = self._clock.monotonic()

    def _take(self) -> tuple[str, list[_Waiting]]:
        """Take transfers of one tenant; tenants take turns."""
        tenant_id, queue = self._queues.popitem(last=False)
        taken = [queue.popleft() for _ in range(min(len(queue), self._transfers_max))]
        if queue:
            self._queues[tenant_id] = queue
        self._waiting_count -= len(taken)
        return tenant_id, taken

    async def _create(self, tenant_id: str, taken: list[_Waiting]) -> None:
        """Make the transfers and tell who waits. Whoever is told nothing may ask again."""
        _GATHERED.observe(len(taken))
        request = pb.CreateTransfersRequest(
            tenant_id=tenant_id,
            transfers=[one.transfer for one in taken],
            request_id=self._new_id(),
        )
        try:
            answer = await self._ask(self._stub.CreateTransfers, request)
        except DependencyUnavailableError:
            return
        if isinstance(answer, str):
            await self._create_each(tenant_id, taken, answer)
            return
        reasons = {failure.index: failure.reason for failure in answer.failures}
        for index, one in enumerate(taken):
            if not one.done.done():
                one.done.set_result(reasons.get(index, ""))

    async def _create_each(self, tenant_id: str, taken: list[_Waiting], reason: str) -> None:
        """One of them is nothing that the ledger can read: find out which."""
        if len(taken) > 1:
            for one in taken:
                await self._create(tenant_id, [one])
        elif not taken[0].done.done():
            taken[0].done.set_result(reason)


def transfer_of(charge: Charge) -> transfer_pb2.NewTransfer:
    """Return the ledger's words for a charge."""
    transfer = transfer_pb2.NewTransfer(transfer_id=charge.transfer_id)
    if charge.phase is ChargePhase.POST:
        transfer.post_pending_transfer_id = charge.pending_id
        return transfer
    if charge.phase is ChargePhase.VOID:
        transfer.void_pending_transfer_id = charge.pending_id
        return transfer
    amount = _money(charge)
    source = _CASH_FLOAT
    if charge.user_id:
        source = account_pb2.AccountName(kind=_WALLET, subject=charge.user_id)
    transfer.kind = "TRIP_FARE" if charge.user_id else "TRIP_FARE_CASH"
    transfer.reference = charge.reference
    transfer.pending = True
    transfer.postings.add(account=source, side=transfer_pb2.SIDE_DEBIT, amount=amount)
    transfer.postings.add(account=_REVENUE, side=transfer_pb2.SIDE_CREDIT, amount=amount)
    if charge.timeout_seconds is not None:
        transfer.pending_timeout.FromSeconds(charge.timeout_seconds)
    return transfer


def _money(amount: Charge | Refund | WantedDeposit) -> money_pb2.Money:
    return money_to_proto(
        Money(currency_code=amount.currency_code, amount_minor=amount.amount_minor)
    )


def _reason_of(error: grpc.aio.AioRpcError) -> str:
    """Return the reason in the error's ErrorInfo, "" if it has none."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # an AioRpcError has what it reads
    for detail in () if status is None else status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return str(info.reason)
    return ""


def _fail(waiting: deque[_Waiting] | list[_Waiting]) -> None:
    for one in waiting:
        if not one.done.done():
            one.done.set_exception(DependencyUnavailableError("ledger"))
