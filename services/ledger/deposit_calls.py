"""Is the RPC side of deposits and of the gateways' webhooks."""

from typing import TYPE_CHECKING, Any

from services.ledger import deposit_messages as messages
from services.ledger.calls import reader_of, required_field, tenant_of
from services.ledger.deposit_ports import WebhookPost
from services.ledger.domain.deposits import GatewayName
from services.ledger.operations.deposits import Deposits
from services.ledger.operations.webhooks import Webhooks
from services.shared.errors import FieldViolation, RequestInvalidError
from services.shared.rpc.caller import Caller, CallerKind, current_caller
from wayfare.ledger.v1 import ledger_service_pb2 as pb
from wayfare.ledger.v1.deposit_pb2 import Deposit

if TYPE_CHECKING:
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]

_ONLY_SERVICES = ("user_id", "reference", "expire_time")


class DepositCalls:
    """Serves CreateDeposit, GetDeposit and ReceivePaymentWebhook."""

    _deposits: Deposits
    _webhooks: Webhooks

    async def CreateDeposit(
        self, request: pb.CreateDepositRequest, context: "Context"
    ) -> pb.CreateDepositResponse:
        """Create a deposit and say how to pay it."""
        caller = current_caller()
        wanted = messages.new_deposit_of(
            request,
            tenant_id=tenant_of(caller, request.tenant_id),
            user_id=_depositor_of(caller, request),
            caller=caller.name,
        )
        deposit, checkout = await self._deposits.create(wanted)
        return pb.CreateDepositResponse(
            deposit=messages.deposit_message(deposit),
            checkout=messages.checkout_message(checkout),
        )

    async def GetDeposit(self, request: pb.GetDepositRequest, context: "Context") -> Deposit:
        """Get a deposit."""
        reader = reader_of(current_caller(), request.tenant_id, own=True)
        return messages.deposit_message(
            await self._deposits.find(reader, request.deposit_id.lower())
        )

    async def ReceivePaymentWebhook(
        self, request: pb.ReceivePaymentWebhookRequest, context: "Context"
    ) -> pb.ReceivePaymentWebhookResponse:
        """Take a gateway's notification."""
        headers = {
            key: value
            for key, value in context.invocation_metadata() or ()
            if isinstance(value, str)
        }
        post = WebhookPost(
            body=request.payload.data, content_type=request.payload.content_type, headers=headers
        )
        outcome = await self._webhooks.receive(GatewayName(request.gateway.upper()), post)
        return messages.outcome_message(outcome)


def _depositor_of(caller: Caller, request: pb.CreateDepositRequest) -> str:
    """Return whose wallet gets the money. Raises RequestInvalidError."""
    if caller.kind is CallerKind.SERVICE:
        if not request.user_id:
            raise required_field("user_id")
        return request.user_id.lower()
    given = {field.name for field, _ in request.ListFields()}
    named = [name for name in _ONLY_SERVICES if name in given]
    if named:
        message = f"{named[0]} is for services: people deposit into their own wallet"
        raise RequestInvalidError(
            message, fields=[FieldViolation(field=named[0], description=message)]
        )
    return caller.user_id
