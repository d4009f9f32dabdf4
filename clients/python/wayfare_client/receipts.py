"""Checks receipts: that a transfer is in the operator's books, unchanged, under a seal.

Pure, and independent of the service that made them: nothing is asked for and nothing is trusted but
the seal, whose `block_hash` one compares with a seal that was kept before, or that others have.

receipt = await client.ledger.GetReceipt(GetReceiptRequest(transfer_id=transfer_id))
verify_receipt(receipt)
"""

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp
from google.type import money_pb2

from wayfare.ledger.v1 import account_pb2, audit_pb2, transfer_pb2

_HASH_BYTES: Final = 32
_NANOS_PER_MICROSECOND: Final = 1_000
_NANOS_PER_UNIT: Final = 1_000_000_000
# Decimals of the currencies that have not two, as Wayfare has them.
_EXPONENTS: Final = {"BHD": 3, "IQD": 3, "JOD": 3, "KWD": 3, "LYD": 3, "OMR": 3, "TND": 3} | {
    "CLP": 0,
    "ISK": 0,
    "JPY": 0,
    "KRW": 0,
    "UGX": 0,
    "VND": 0,
    "XAF": 0,
    "XOF": 0,
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class ReceiptInvalidError(Exception):
    """Says that a receipt proves nothing, and why."""


def verify_receipt(receipt: audit_pb2.Receipt, *, without_content: bool = False) -> None:
    """Check a receipt: content, leaf, way to the root, and seal; return if all of it agrees.

    A receipt without `leaf_content`, as people get who see only their own postings, proves that its
    leaf is under the seal, but not what the leaf is of: it is refused unless `without_content`.

    Raises:
        ReceiptInvalidError: something of it was changed, or is missing.
    """
    _check_known(receipt)
    verify_seal(receipt.seal)
    if receipt.leaf_content or not without_content:
        if hashlib.sha256(b"\x00" + receipt.leaf_content).digest() != receipt.leaf_hash:
            raise ReceiptInvalidError("leaf_hash is not the hash of leaf_content")
        _check_content(receipt.transfer, receipt.leaf_content)
    _check_path(receipt)


def verify_seal(seal: audit_pb2.ChainSeal) -> None:
    """Check that a seal's hash is that of what the seal says.

    Raises:
        ReceiptInvalidError: it is not.
    """
    for name in ("merkle_root", "previous_hash", "block_hash"):
        if len(getattr(seal, name)) != _HASH_BYTES:
            raise ReceiptInvalidError(f"seal.{name} has not 32 bytes")
    if seal.block_number < 1 or seal.transfer_count < 1:
        raise ReceiptInvalidError("the seal is of no block")
    microseconds = (_moment(seal.seal_time) - _EPOCH) // timedelta(microseconds=1)
    numbers = (seal.block_number, seal.transfer_count, microseconds)
    head = b"".join(number.to_bytes(8, "big", signed=True) for number in numbers)
    content = head + seal.previous_hash + seal.merkle_root
    if hashlib.sha256(content).digest() != seal.block_hash:
        raise ReceiptInvalidError("the seal's block_hash is not the hash of the seal")


def _check_path(receipt: audit_pb2.Receipt) -> None:
    """Go from the leaf to the root: RFC 9162, section 2.1.3.2."""
    index, last = receipt.leaf_index, receipt.seal.transfer_count - 1
    hashed = receipt.leaf_hash
    if len(hashed) != _HASH_BYTES or not 0 <= index <= last:
        raise ReceiptInvalidError("the leaf is not one of the block")
    for beside in receipt.audit_path:
        if len(beside) != _HASH_BYTES or not last:
            raise ReceiptInvalidError("audit_path is not one of a block of this size")
        if index % 2 or index == last:
            hashed = _node(beside, hashed)
            while not index % 2 and index:
                index, last = index >> 1, last >> 1
        else:
            hashed = _node(hashed, beside)
        index, last = index >> 1, last >> 1
    if last or hashed != receipt.seal.merkle_root:
        raise ReceiptInvalidError("audit_path does not lead to the seal's merkle_root")


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def _check_content(transfer: transfer_pb2.Transfer, content: bytes) -> None:
    """Compare what is shown with what was hashed."""
    try:
        hashed: dict[str, Any] = json.loads(content)
        is_canonical = _canonical(hashed) == content
        expected = _transfer_of(hashed, [posting.account for posting in transfer.postings])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReceiptInvalidError("leaf_content is not that of the transfer") from error
    if not is_canonical:
        raise ReceiptInvalidError("leaf_content is not canonical JSON")
    if expected != transfer:
        raise ReceiptInvalidError("the transfer is not what was hashed")


def _canonical(value: object) -> bytes:
    """Return canonical JSON (RFC 8785), as far as text, small integers and null go."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def _transfer_of(
    hashed: Mapping[str, Any], accounts: Sequence[account_pb2.AccountName]
) -> transfer_pb2.Transfer:
    """Return the transfer that these contents are of; `accounts` are what its accounts are called.

    A pending transfer that was posted has set free what it held, which is not shown. Of one that
    was voided, what it set free is shown as it was held.
    """
    code, phase = hashed["currency_code"], hashed["phase"]
    shown = [one for one in hashed["entries"] if phase != "POST" or one["layer"] == "POSTED"]
    postings = []
    for entry, account in zip(shown, accounts, strict=True):
        # They are only written down where they are not the transfer's.
        if "currency_code" in entry or "tenant_id" in entry:
            raise ValueError("an entry is not of the transfer")
        if entry["account_id"] != _account_id(hashed["tenant_id"], account, code):
            raise ValueError("an account is called otherwise")
        amount = int(entry["amount_minor"])
        is_credit = (amount > 0) != (entry["layer"] == "RELEASED")
        side = transfer_pb2.SIDE_CREDIT if is_credit else transfer_pb2.SIDE_DEBIT
        postings.append(
            transfer_pb2.Posting(account=account, side=side, amount=_money(abs(amount), code))
        )
    expire_time = hashed.get("expire_time")
    return transfer_pb2.Transfer(
        transfer_id=hashed["transfer_id"],
        phase=transfer_pb2.TransferPhase.Value(f"TRANSFER_PHASE_{phase}"),
        kind=hashed["kind"],
        amount=_money(int(hashed["amount_minor"]), code),
        postings=postings,
        pending_transfer_id=hashed.get("pending_id", ""),
        refunded_transfer_id=hashed.get("refund_of", ""),
        reference=hashed["reference"],
        expire_time=None if expire_time is None else _timestamp(expire_time),
        create_time=_timestamp(hashed["create_time"]),
    )


def _account_id(tenant_id: str, account: account_pb2.AccountName, currency_code: str) -> str:
    """Return the id of an account, which follows from its name: a UUIDv8 of its SHA-256."""
    kind = account_pb2.AccountKind.Name(account.kind).removeprefix("ACCOUNT_KIND_")
    name = f"account/{tenant_id}/{kind}/{account.subject}/{currency_code}"
    digest = bytearray(hashlib.sha256(name.encode()).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    return str(uuid.UUID(bytes=bytes(digest)))


def _money(amount_minor: int, currency_code: str) -> money_pb2.Money:
    scale = 10 ** _EXPONENTS.get(currency_code, 2)
    units, minor = divmod(amount_minor, scale)
    nanos = minor * (_NANOS_PER_UNIT // scale)
    return money_pb2.Money(currency_code=currency_code, units=units, nanos=nanos)


def _timestamp(text: str) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(datetime.fromisoformat(text).replace(tzinfo=UTC))
    return timestamp


def _moment(timestamp: Timestamp) -> datetime:
    if timestamp.nanos % _NANOS_PER_MICROSECOND:
        raise ReceiptInvalidError("seal.seal_time is not in microseconds")
    try:
        return timestamp.ToDatetime(UTC)
    except (ValueError, OverflowError) as error:
        raise ReceiptInvalidError("seal.seal_time is no time") from error


def _check_known(receipt: audit_pb2.Receipt) -> None:
    """Check that nothing was added that the contract does not know: it would be unproven."""
    known = audit_pb2.Receipt()
    known.CopyFrom(receipt)
    known.DiscardUnknownFields()
    if known.SerializeToString(deterministic=True) != receipt.SerializeToString(deterministic=True):
        raise ReceiptInvalidError("the receipt has fields that the contract does not know")
