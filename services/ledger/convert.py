"""Pure conversion between the contract and the domain. Called by the servicer."""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache

from google.protobuf.timestamp_pb2 import Timestamp
from google.type import money_pb2

from services.ledger.domain.accounts import Account, AccountKey, AccountKind
from services.ledger.domain.settlement import PaymentMethod, Settlement
from services.ledger.domain.transfers import Phase, Posting, Transfer, WantedTransfer
from services.ledger.errors import CurrencyMismatchError
from services.ledger.operations.transfers import Refund
from services.ledger.ports import NewEvent, StatementLine
from services.shared.errors import DomainError, FieldViolation, RequestInvalidError
from services.shared.ids import is_uuid
from services.shared.money import (
    NANOS_PER_UNIT,
    Money,
    minor_units_exponent,
    money_from_proto,
    money_to_proto,
)
from services.shared.rpc.timestamps import timestamp_of
from wayfare.event.v1.envelope_pb2 import Envelope
from wayfare.ledger.v1 import account_pb2, events_pb2, ledger_service_pb2, transfer_pb2

_KINDS: dict[int, AccountKind] = {
    number: AccountKind(name.removeprefix("ACCOUNT_KIND_"))
    for name, number in account_pb2.AccountKind.items()
    if number
}
_KIND_NUMBERS = {
    AccountKind(name.removeprefix("ACCOUNT_KIND_")): number
    for name, number in account_pb2.AccountKind.items()
    if number
}
_PHASE_NUMBERS = {
    Phase(name.removeprefix("TRANSFER_PHASE_")): number
    for name, number in transfer_pb2.TransferPhase.items()
    if number
}
SIDE_DEBIT = transfer_pb2.SIDE_DEBIT
_HASH_BYTES = 16
_POSTINGS_MIN = 2
_ACCOUNTS_KEPT = 100_000
_RECORDED_URL = f"type.googleapis.com/{events_pb2.TransferRecorded.DESCRIPTOR.full_name}"


def wanted_of(message: transfer_pb2.NewTransfer, tenant_id: str) -> WantedTransfer:
    """Return the wanted transfer. Raises RequestInvalidError or MoneyInvalidError."""
    pending_id = message.post_pending_transfer_id or message.void_pending_transfer_id
    timeout = None
    if message.HasField("pending_timeout"):
        if not message.pending:
            raise _invalid("transfers.pending_timeout", "only pending transfers have a timeout")
        timeout = message.pending_timeout.ToTimedelta()
    postings = postings_of(message.postings, tenant_id)
    phase = _resolving_phase(message) if pending_id else _new_phase(message)
    content = message.SerializeToString(deterministic=True)
    return WantedTransfer(
        transfer_id=message.transfer_id.lower(),
        phase=phase,
        kind=message.kind,
        currency_code=postings[0].key.currency_code if postings else "",
        postings=postings,
        body_hash=hashlib.blake2b(content, digest_size=_HASH_BYTES).digest(),
        reference=message.reference,
        timeout=timeout,
        pending_id=pending_id.lower(),
        linked=message.linked,
        source=message if postings else None,
    )


def _new_phase(message: transfer_pb2.NewTransfer) -> Phase:
    if len(message.postings) < _POSTINGS_MIN:
        raise _invalid("transfers.postings", "a transfer has at least two postings")
    if not message.kind:
        raise _invalid("transfers.kind", "a transfer says what it is for")
    return Phase.PENDING if message.pending else Phase.POSTED


def _resolving_phase(message: transfer_pb2.NewTransfer) -> Phase:
    if message.post_pending_transfer_id and message.void_pending_transfer_id:
        raise _invalid("transfers.void_pending_transfer_id", "post or void, not both")
    if message.pending:
        raise _invalid("transfers.pending", "what resolves a pending transfer is not pending")
    if message.reference:
        raise _invalid("transfers.reference", "a resolution has that of the pending transfer")
    if message.post_pending_transfer_id:
        return Phase.POST
    if message.postings:
        raise _invalid("transfers.postings", "a void is of the whole pending transfer")
    return Phase.VOID


def postings_of(messages: Sequence[transfer_pb2.Posting], tenant_id: str) -> list[Posting]:
    """Return postings with signed amounts; one that is not positive becomes 0, which is refused.

    Raises RequestInvalidError or MoneyInvalidError.
    """
    postings = []
    for message in messages:
        name, money = message.account, message.amount
        account_id, key, scale = _account(tenant_id, name.kind, name.subject, money.currency_code)
        amount, nanos = money.units * scale, money.nanos
        if nanos:
            minor, fraction = divmod(nanos, NANOS_PER_UNIT // scale)
            amount = amount + minor if 0 < nanos < NANOS_PER_UNIT and not fraction else 0
        if amount <= 0:
            amount = max(0, money_from_proto(money).amount_minor)
        postings.append(Posting(account_id, key, -amount if message.side == SIDE_DEBIT else amount))
    return postings


def key_of(name: account_pb2.AccountName, currency_code: str) -> AccountKey:
    """Return the account's key. Raises RequestInvalidError if subject and kind do not fit."""
    return _key(name.kind, name.subject, currency_code)


@lru_cache(_ACCOUNTS_KEPT)
def _account(
    tenant_id: str, kind: int, subject: str, currency_code: str
) -> tuple[str, AccountKey, int]:
    """Return id and key of an account, and how many minor units make a unit of its currency.

    The same ones come again and again.
    """
    key = _key(kind, subject, currency_code)
    return key.account_id(tenant_id), key, 10 ** minor_units_exponent(currency_code)


def _key(kind_number: int, subject: str, currency_code: str) -> AccountKey:
    kind = _KINDS[kind_number]
    if kind is AccountKind.WALLET:
        subject = subject.lower()
        if not is_uuid(subject):
            raise _invalid("account.subject", "the subject of a wallet is a user's UUID")
    elif kind is AccountKind.GATEWAY_CLEARING:
        if not (subject.isascii() and subject.isalpha() and subject.isupper()):
            raise _invalid("account.subject", "the subject of gateway clearing is a gateway's name")
    elif subject:
        raise _invalid("account.subject", "only wallets and gateway clearing have a subject")
    money_from_proto(money_pb2.Money(currency_code=currency_code))
    return AccountKey(kind, subject, currency_code)


def settlement_of(message: ledger_service_pb2.SettleTripRequest) -> Settlement:
    """Return the settlement. Raises MoneyInvalidError or CurrencyMismatchError."""
    cancelled = message.HasField("cancellation_fee")
    price = _money_of(message.cancellation_fee if cancelled else message.fare)
    tip = _money_of(message.tip)
    codes = {one.currency_code for one in (price, tip) if one is not None}
    if len(codes) > 1:
        raise CurrencyMismatchError(codes)
    return Settlement(
        tenant_id=message.tenant_id.lower(),
        trip_id=message.trip_id.lower(),
        passenger_id=message.passenger_user_id.lower(),
        driver_id=message.driver_user_id.lower(),
        method=PaymentMethod(
            ledger_service_pb2.PaymentMethod.Name(message.method).removeprefix("PAYMENT_METHOD_")
        ),
        currency_code=codes.pop() if codes else "",
        price_minor=price.amount_minor if price else 0,
        tip_minor=tip.amount_minor if tip else 0,
        cancelled=cancelled,
        commission_basis_points=message.commission_basis_points,
        pending_id=message.pending_transfer_id.lower(),
        request_id=message.request_id.lower(),
    )


def refund_of(message: ledger_service_pb2.RefundTransferRequest) -> Refund:
    """Return the refund. Raises MoneyInvalidError."""
    money = _money_of(message.amount) if message.HasField("amount") else None
    return Refund(
        transfer_id=message.transfer_id.lower(),
        amount_minor=money.amount_minor if money else None,
        currency_code=money.currency_code if money else "",
        borne_by_operator=message.borne_by_operator,
    )


def transfer_message(transfer: Transfer) -> transfer_pb2.Transfer:
    """Return the transfer as the contract has it."""
    message = transfer_pb2.Transfer(
        phase=_PHASE_NUMBERS[transfer.phase],
        kind=transfer.kind,
        create_time=_moment(transfer.create_time),
    )
    _fill(message, transfer)
    return message


def _fill(message: transfer_pb2.Transfer, transfer: Transfer) -> None:
    """Write what a transfer does not share with many others of its batch into a message.

    Field by field: half the time of passing them at once.
    """
    message.transfer_id = transfer.transfer_id
    if transfer.reference:
        message.reference = transfer.reference
    _fill_money(message.amount, transfer.amount_minor, transfer.currency_code)
    if transfer.pending_id:
        message.pending_transfer_id = transfer.pending_id
    if transfer.refund_of:
        message.refunded_transfer_id = transfer.refund_of
    if transfer.expire_time is not None:
        message.expire_time.FromDatetime(transfer.expire_time)
    if isinstance(transfer.source, transfer_pb2.NewTransfer):
        # As they came: encoding them anew is most of an event's cost.
        message.postings.MergeFrom(transfer.source.postings)
    else:
        message.postings.extend(map(_posting, transfer.postings))


def _posting(posting: Posting) -> transfer_pb2.Posting:
    return transfer_pb2.Posting(
        account=_name(posting.key),
        side=transfer_pb2.SIDE_CREDIT if posting.amount_minor > 0 else SIDE_DEBIT,
        amount=_money(abs(posting.amount_minor), posting.key.currency_code),
    )


@lru_cache(4)
def _moment(moment: datetime) -> Timestamp:
    """Return a moment as the contract has it; a batch has one for all of its transfers."""
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp


def account_message(account: Account) -> account_pb2.Account:
    """Return the account as the contract has it."""
    code = account.key.currency_code
    limit, available = account.limit_minor, account.available_minor
    return account_pb2.Account(
        account_id=account.account_id,
        name=_name(account.key),
        currency_code=code,
        posted=_money(account.posted_minor, code),
        pending_out=_money(account.pending_out_minor, code),
        pending_in=_money(account.pending_in_minor, code),
        available=None if available is None else _money(available, code),
        limit=None if limit is None else _money(limit, code),
        blocked=account.blocked,
        create_time=timestamp_of(account.create_time),
    )


def entry_message(line: StatementLine, currency_code: str) -> account_pb2.Entry:
    """Return a line of a statement as the contract has it."""
    return account_pb2.Entry(
        transfer_id=line.transfer_id,
        kind=line.kind,
        amount=_money(line.amount_minor, currency_code),
        balance=_money(line.balance_minor, currency_code),
        reference=line.reference,
        create_time=timestamp_of(line.create_time),
    )


def failure_message(
    index: int, transfer_id: str, error: DomainError
) -> transfer_pb2.TransferFailure:
    """Return why a transfer was not made as the contract has it."""
    return transfer_pb2.TransferFailure(
        index=index,
        transfer_id=transfer_id,
        reason=error.reason,
        message=error.message,
        metadata=error.metadata,
    )


def event_of(tenant_id: str, transfer: Transfer, *, event_id: str) -> NewEvent:
    """Return the event that tells of a transfer; a resolution is the second of what it resolved."""
    aggregate_id = transfer.pending_id or transfer.transfer_id
    version = 2 if transfer.pending_id else 1
    shared, shared_payload = _shared(
        tenant_id, version, transfer.phase, transfer.kind, transfer.create_time
    )
    recorded = events_pb2.TransferRecorded()
    _fill(recorded.transfer, transfer)
    envelope = Envelope()
    envelope.event_id = event_id
    envelope.aggregate_id = aggregate_id
    envelope.payload.value = shared_payload + recorded.SerializeToString()
    # Messages whose bytes follow each other are one message, that has the fields of both.
    content = shared + envelope.SerializeToString()
    return NewEvent("transfer", aggregate_id, version, content)


@lru_cache(64)
def _shared(
    tenant_id: str, version: int, phase: Phase, kind: str, create_time: datetime
) -> tuple[bytes, bytes]:
    """Return what the events of a batch have in common: of the envelope, and of its payload."""
    moment = _moment(create_time)
    envelope = Envelope(
        tenant_id=tenant_id,
        aggregate_type="transfer",
        aggregate_version=version,
        occur_time=moment,
    )
    envelope.payload.type_url = _RECORDED_URL
    recorded = events_pb2.TransferRecorded()
    recorded.transfer.phase = _PHASE_NUMBERS[phase]
    recorded.transfer.kind = kind
    recorded.transfer.create_time.CopyFrom(moment)
    return envelope.SerializeToString(), recorded.SerializeToString()


def money_of(message: money_pb2.Money) -> Money:
    """Return an amount that may be negative. Raises MoneyInvalidError."""
    return money_from_proto(message)


def _money_of(message: money_pb2.Money) -> Money | None:
    return money_from_proto(message) if message.currency_code or message.units else None


def _money(amount_minor: int, currency_code: str) -> money_pb2.Money:
    return money_to_proto(Money(currency_code=currency_code, amount_minor=amount_minor))


def _fill_money(message: money_pb2.Money, amount_minor: int, currency_code: str) -> None:
    """Write an amount that is not negative, as money_to_proto has it, without a message more."""
    scale = 10 ** minor_units_exponent(currency_code)
    units, minor = divmod(amount_minor, scale)
    message.currency_code = currency_code
    message.units = units
    if minor:
        message.nanos = minor * (NANOS_PER_UNIT // scale)


def _name(key: AccountKey) -> account_pb2.AccountName:
    return account_pb2.AccountName(kind=_KIND_NUMBERS[key.kind], subject=key.subject)


def _invalid(field: str, description: str) -> RequestInvalidError:
    return RequestInvalidError(
        f"{field}: {description}", fields=[FieldViolation(field=field, description=description)]
    )
