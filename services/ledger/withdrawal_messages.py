"""Pure conversion of withdrawals between the contract and the domain."""

from services.ledger.convert import money_of
from services.ledger.domain.withdrawals import State, Withdrawal
from services.ledger.operations.withdrawals import WithdrawalRequest
from services.ledger.ports import NewEvent
from services.shared.money import Money, money_to_proto
from services.shared.rpc.timestamps import timestamp_of
from wayfare.event.v1.envelope_pb2 import Envelope
from wayfare.ledger.v1 import events_pb2, ledger_service_pb2, withdrawal_pb2

_PREFIX = "WITHDRAWAL_STATE_"


def request_of(
    message: ledger_service_pb2.RequestWithdrawalRequest, *, tenant_id: str, user_id: str
) -> WithdrawalRequest:
    """Return what a person asks for. Raises MoneyInvalidError."""
    money = money_of(message.amount)
    return WithdrawalRequest(
        tenant_id=tenant_id,
        user_id=user_id,
        currency_code=money.currency_code,
        amount_minor=money.amount_minor,
        payout_destination=message.payout_destination,
        request_id=message.request_id.lower(),
    )


def state_of(number: "withdrawal_pb2.WithdrawalState.ValueType") -> State | None:
    """Return the state, or None for the unspecified one."""
    if not number:
        return None
    return State(withdrawal_pb2.WithdrawalState.Name(number).removeprefix(_PREFIX))


def withdrawal_message(withdrawal: Withdrawal) -> withdrawal_pb2.Withdrawal:
    """Return a withdrawal as the contract has it."""
    money = Money(currency_code=withdrawal.currency_code, amount_minor=withdrawal.amount_minor)
    ended = withdrawal.state in (State.REJECTED, State.FAILED)
    return withdrawal_pb2.Withdrawal(
        withdrawal_id=withdrawal.withdrawal_id,
        user_id=withdrawal.user_id,
        amount=money_to_proto(money),
        state=withdrawal_pb2.WithdrawalState.Value(_PREFIX + withdrawal.state),
        payout_destination=withdrawal.payout_destination,
        reason=withdrawal.reason if ended else "",
        decided_by_user_id="" if withdrawal.state is State.REQUESTED else withdrawal.decided_by,
        transfer_id=withdrawal.transfer_id,
        payout_id=withdrawal.payout_id,
        create_time=timestamp_of(withdrawal.create_time),
        update_time=timestamp_of(withdrawal.update_time),
    )


def event_of(withdrawal: Withdrawal, *, event_id: str) -> NewEvent:
    """Return the event that tells of a withdrawal's new state."""
    envelope = Envelope(
        event_id=event_id,
        tenant_id=withdrawal.tenant_id,
        aggregate_type="withdrawal",
        aggregate_id=withdrawal.withdrawal_id,
        aggregate_version=withdrawal.version,
        occur_time=timestamp_of(withdrawal.update_time),
    )
    changed = events_pb2.WithdrawalChanged(withdrawal=withdrawal_message(withdrawal))
    envelope.payload.Pack(changed)
    return NewEvent(
        "withdrawal",
        withdrawal.withdrawal_id,
        withdrawal.version,
        envelope.SerializeToString(),
    )
