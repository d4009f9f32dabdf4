"""Pure conversion of deposits and webhooks between the contract and the domain."""

from datetime import UTC

from google.type import money_pb2

from services.ledger.deposit_ports import Checkout
from services.ledger.domain.deposits import Deposit, GatewayName, WebhookOutcome
from services.ledger.operations.deposits import NewDeposit
from services.ledger.ports import NewEvent
from services.shared.money import Money, money_from_proto, money_to_proto
from services.shared.rpc.timestamps import timestamp_of
from wayfare.event.v1.envelope_pb2 import Envelope
from wayfare.ledger.v1 import deposit_pb2, events_pb2
from wayfare.ledger.v1 import ledger_service_pb2 as pb

_OUTCOMES = {
    WebhookOutcome.APPLIED: pb.WEBHOOK_OUTCOME_APPLIED,
    WebhookOutcome.DUPLICATE: pb.WEBHOOK_OUTCOME_DUPLICATE,
    WebhookOutcome.IGNORED: pb.WEBHOOK_OUTCOME_IGNORED,
}


def new_deposit_of(
    request: pb.CreateDepositRequest, *, tenant_id: str, user_id: str, caller: str
) -> NewDeposit:
    """Return what is asked for. Raises MoneyInvalidError."""
    money = money_from_proto(request.amount)
    timed = request.HasField("expire_time")
    return NewDeposit(
        tenant_id=tenant_id,
        user_id=user_id,
        caller=caller,
        gateway=GatewayName(
            deposit_pb2.Gateway.Name(request.gateway).removeprefix("GATEWAY_"),
        ),
        amount_minor=money.amount_minor,
        currency_code=money.currency_code,
        reference=request.reference,
        return_url=request.return_url,
        expire_time=request.expire_time.ToDatetime(UTC) if timed else None,
        request_id=request.request_id.lower(),
    )


def deposit_message(deposit: Deposit) -> deposit_pb2.Deposit:
    """Return the deposit as the contract has it."""
    return deposit_pb2.Deposit(
        deposit_id=deposit.deposit_id,
        user_id=deposit.user_id,
        gateway=deposit_pb2.Gateway.Value(f"GATEWAY_{deposit.gateway}"),
        amount=_money(deposit),
        state=deposit_pb2.DepositState.Value(f"DEPOSIT_STATE_{deposit.state}"),
        reference=deposit.reference,
        transfer_id=deposit.transfer_id,
        expire_time=timestamp_of(deposit.expire_time),
        create_time=timestamp_of(deposit.create_time),
        update_time=timestamp_of(deposit.update_time),
        gateway_payment_id=deposit.payment_id,
        charge_back_transfer_id=deposit.charge_back_transfer_id,
    )


def checkout_message(checkout: Checkout) -> deposit_pb2.Checkout:
    """Return how to pay as the contract has it."""
    return deposit_pb2.Checkout(url=checkout.url, form_fields=checkout.form_fields)


def outcome_message(outcome: WebhookOutcome) -> pb.ReceivePaymentWebhookResponse:
    """Return what became of a notification as the contract has it."""
    return pb.ReceivePaymentWebhookResponse(outcome=_OUTCOMES[outcome])


def event_of(deposit: Deposit, *, event_id: str) -> NewEvent:
    """Return the event that tells of a deposit as it is now."""
    envelope = Envelope(
        event_id=event_id,
        tenant_id=deposit.tenant_id,
        aggregate_type="deposit",
        aggregate_id=deposit.deposit_id,
        aggregate_version=deposit.version,
        occur_time=timestamp_of(deposit.update_time),
    )
    envelope.payload.Pack(events_pb2.DepositChanged(deposit=deposit_message(deposit)))
    return NewEvent("deposit", deposit.deposit_id, deposit.version, envelope.SerializeToString())


def _money(deposit: Deposit) -> money_pb2.Money:
    return money_to_proto(
        Money(currency_code=deposit.currency_code, amount_minor=deposit.amount_minor)
    )
