"""Pure conversion for fraud flags: from the ledger's events to movements, from flags to events."""

from datetime import UTC, datetime
from functools import lru_cache

from google.protobuf.timestamp_pb2 import Timestamp

from services.ledger.domain.fraud import Flag, Movement, MovementKind
from services.ledger.ports import NewEvent
from services.shared.money import money_from_proto
from services.shared.rpc.timestamps import timestamp_of
from wayfare.event.v1.envelope_pb2 import Envelope
from wayfare.ledger.v1 import account_pb2, events_pb2, transfer_pb2

_RECORDED = events_pb2.TransferRecorded.DESCRIPTOR.full_name
_WALLET = account_pb2.ACCOUNT_KIND_WALLET
_PHASES = (
    transfer_pb2.TRANSFER_PHASE_POSTED,
    transfer_pb2.TRANSFER_PHASE_PENDING,
    transfer_pb2.TRANSFER_PHASE_POST,
)
_OF_TRIPS = ("TRIP_FARE", "CANCELLATION_FEE")


def movements_of(envelope: bytes) -> list[Movement]:
    """Return what people moved by an event: at most one movement of each; none of most events.

    A withdrawal counts when it is requested, so that an ADMIN sees the flag before approving.
    Everything else counts when it is posted. What others did to a wallet does not count: earnings,
    refunds, and the commission that a driver owes of a cash trip.
    """
    event = Envelope.FromString(envelope)
    if event.payload.type_url.rpartition("/")[2] != _RECORDED:
        return []
    transfer = events_pb2.TransferRecorded.FromString(event.payload.value).transfer
    if transfer.phase not in _PHASES or transfer.refunded_transfer_id:
        return []
    # Each posting is looked at once: thousands of these come in a second.
    postings = [(one.account, one.side, one.amount) for one in transfer.postings]
    sides = {(account.kind, side) for account, side, _ in postings}
    withdraws = (account_pb2.ACCOUNT_KIND_WITHDRAWALS, transfer_pb2.SIDE_CREDIT) in sides
    requested = not transfer.pending_transfer_id
    pending = transfer.phase == transfer_pb2.TRANSFER_PHASE_PENDING
    if (not requested) if withdraws else pending:
        return []
    counted = transfer_pb2.SIDE_DEBIT
    if (account_pb2.ACCOUNT_KIND_GATEWAY_CLEARING, transfer_pb2.SIDE_DEBIT) in sides:
        kind, counted = MovementKind.DEPOSIT, transfer_pb2.SIDE_CREDIT
    elif withdraws:
        kind = MovementKind.WITHDRAWAL
    elif transfer.kind in _OF_TRIPS and (_WALLET, transfer_pb2.SIDE_CREDIT) not in sides:
        return []
    else:
        kind = MovementKind.PAYMENT
    amounts: dict[str, int] = {}
    for account, side, money in postings:
        if side == counted and account.kind == _WALLET:
            user_id = account.subject.lower()
            amount = money_from_proto(money).amount_minor
            amounts[user_id] = amounts.get(user_id, 0) + amount
    if not amounts:
        return []
    time = _moment(transfer.create_time.seconds, transfer.create_time.nanos)
    return [
        Movement(
            tenant_id=event.tenant_id,
            user_id=user_id,
            transfer_id=transfer.transfer_id,
            kind=kind,
            currency_code=transfer.amount.currency_code,
            amount_minor=amount,
            time=time,
        )
        for user_id, amount in amounts.items()
    ]


@lru_cache(4)
def _moment(seconds: int, nanos: int) -> datetime:
    """Return a moment as the domain has it; a batch has one for all of its transfers."""
    return Timestamp(seconds=seconds, nanos=nanos).ToDatetime(tzinfo=UTC)


def event_of(flag: Flag, *, event_id: str) -> NewEvent:
    """Return the event that tells of a flag."""
    flagged = events_pb2.FraudFlagged(
        user_id=flag.user_id,
        rule=events_pb2.FraudRule.Value(f"FRAUD_RULE_{flag.rule}"),
        transfer_id=flag.transfer_id,
        description=flag.description,
        flag_time=timestamp_of(flag.time),
    )
    envelope = Envelope(
        event_id=event_id,
        tenant_id=flag.tenant_id,
        aggregate_type="fraud",
        aggregate_id=flag.user_id,
        aggregate_version=flag.number,
        occur_time=timestamp_of(flag.time),
    )
    envelope.payload.Pack(flagged)
    return NewEvent("fraud", flag.user_id, flag.number, envelope.SerializeToString())
