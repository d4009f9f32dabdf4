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
_PENDING = transfer_pb2.TRANSFER_PHASE_PENDING
_DEBIT, _CREDIT = transfer_pb2.SIDE_DEBIT, transfer_pb2.SIDE_CREDIT
_TAKEN_OUT = (account_pb2.ACCOUNT_KIND_WITHDRAWALS, _CREDIT)
_PAID_IN = (account_pb2.ACCOUNT_KIND_GATEWAY_CLEARING, _DEBIT)
_EARNED = (_WALLET, _CREDIT)
_OF_TRIPS = ("TRIP_FARE", "CANCELLATION_FEE")


def movements_of(envelope: bytes) -> list[Movement]:
    """Return what people moved by an event: at most one movement of each; none of most events.

    A withdrawal counts when it is requested, so that an ADMIN sees the flag before approving.
    Everything else counts when it is posted. What others did to a wallet does not count: earnings,
    refunds, and the commission that a driver owes of a cash trip.
    """
    event = Envelope.FromString(envelope)
    payload = event.payload
    if payload.type_url.rpartition("/")[2] != _RECORDED:
        return []
    transfer = events_pb2.TransferRecorded.FromString(payload.value).transfer
    phase = transfer.phase
    if phase not in _PHASES or transfer.refunded_transfer_id:
        return []
    # What is asked of a message is asked once: thousands of these come in a second.
    postings = [(one.account, one.side, one) for one in transfer.postings]
    sides = {(account.kind, side) for account, side, _ in postings}
    withdraws = _TAKEN_OUT in sides
    # A withdrawal counts when it is requested, all else when it is posted.
    if transfer.pending_transfer_id if withdraws else phase == _PENDING:
        return []
    counted = _DEBIT
    if _PAID_IN in sides:
        kind, counted = MovementKind.DEPOSIT, _CREDIT
    elif withdraws:
        kind = MovementKind.WITHDRAWAL
    elif _EARNED not in sides and transfer.kind in _OF_TRIPS:
        return []
    else:
        kind = MovementKind.PAYMENT
    amounts: dict[str, int] = {}
    for account, side, posting in postings:
        if side == counted and account.kind == _WALLET:
            user_id = account.subject.lower()
            amount = money_from_proto(posting.amount).amount_minor
            amounts[user_id] = amounts.get(user_id, 0) + amount
    if not amounts:
        return []
    create_time = transfer.create_time
    time = _moment(create_time.seconds, create_time.nanos)
    tenant_id, transfer_id = event.tenant_id, transfer.transfer_id
    code = transfer.amount.currency_code
    return [
        Movement(tenant_id, user_id, transfer_id, kind, code, amount, time)
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
