"""Receipts of any transfer in any block hold, and not with any byte of them changed."""

import json
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from google.type import money_pb2
from hypothesis import given
from hypothesis import strategies as st

from services.ledger.domain.accounts import AccountKey, AccountKind
from services.ledger.domain.chain import Leaves, proof_of, seal_of
from services.ledger.domain.merkle import leaf_hash
from wayfare.ledger.v1 import account_pb2, audit_pb2, transfer_pb2
from wayfare_client.receipts import ReceiptInvalidError, verify_receipt

pytestmark = pytest.mark.unit

TENANT = "0198c000-0000-7000-8000-000000000001"
NOW = datetime(2026, 11, 26, 4, 5, 6, 789012, UTC)
PASSENGER = "0198c0de-0000-7000-8000-000000000001"
KEYS = (
    AccountKey(AccountKind.WALLET, PASSENGER, "EGP"),
    AccountKey(AccountKind.REVENUE, "", "EGP"),
)
NAMES = (
    account_pb2.AccountName(kind=account_pb2.ACCOUNT_KIND_WALLET, subject=PASSENGER),
    account_pb2.AccountName(kind=account_pb2.ACCOUNT_KIND_REVENUE),
)
SIDES = (transfer_pb2.SIDE_DEBIT, transfer_pb2.SIDE_CREDIT)
references = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)


def timestamp(moment: datetime) -> Timestamp:
    made = Timestamp()
    made.FromDatetime(moment)
    return made


def content_of(transfer_id: str, reference: str, amount_minor: int) -> bytes:
    """Return what is hashed of a payment of two postings."""
    amounts = zip(KEYS, (-amount_minor, amount_minor), strict=True)
    content: dict[str, Any] = {
        "amount_minor": str(amount_minor),
        "body_hash": "00" * 16,
        "create_time": "2026-11-26T04:05:06.789012",
        "currency_code": "EGP",
        "entries": [
            {
                "account_id": key.account_id(TENANT),
                "amount_minor": str(amount),
                "entry_number": str(place + 70),
                "layer": "POSTED",
                "posting_index": place,
            }
            for place, (key, amount) in enumerate(amounts)
        ],
        "kind": "TRIP_FARE",
        "phase": "POSTED",
        "posting_count": 2,
        "reference": reference,
        "tenant_id": TENANT,
        "transaction_id": "777",
        "transfer_id": transfer_id,
    }
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def receipt_of(reference: str, amount_minor: int, count: int, index: int) -> audit_pb2.Receipt:
    """Return the receipt of a payment of two postings, in a block of so many."""
    transfer_id = str(uuid.UUID(int=index + 1))
    content = content_of(transfer_id, reference, amount_minor)
    hashes = [leaf_hash(str(place).encode()) for place in range(count)]
    hashes[index] = leaf_hash(content)
    leaves = Leaves([uuid.UUID(int=place + 1).bytes for place in range(count)], hashes)
    seal = seal_of(None, leaves, last_transaction_id=777, seal_time=NOW)
    proof = proof_of(seal, leaves, transfer_id)
    assert proof is not None
    money = money_pb2.Money(
        currency_code="EGP", units=amount_minor // 100, nanos=amount_minor % 100 * 10_000_000
    )
    return audit_pb2.Receipt(
        transfer=transfer_pb2.Transfer(
            transfer_id=transfer_id,
            phase=transfer_pb2.TRANSFER_PHASE_POSTED,
            kind="TRIP_FARE",
            amount=money,
            postings=[
                transfer_pb2.Posting(account=name, side=side, amount=money)
                for name, side in zip(NAMES, SIDES, strict=True)
            ],
            reference=reference,
            create_time=timestamp(NOW),
        ),
        leaf_content=content,
        leaf_hash=proof.leaf_hash,
        leaf_index=index,
        audit_path=proof.audit_path,
        seal=audit_pb2.ChainSeal(
            block_number=1,
            merkle_root=seal.merkle_root,
            previous_hash=seal.previous_hash,
            block_hash=seal.block_hash,
            transfer_count=count,
            seal_time=timestamp(NOW),
        ),
    )


@st.composite
def receipts(draw: st.DrawFn) -> audit_pb2.Receipt:
    count = draw(st.integers(1, 40))
    return receipt_of(
        draw(references), draw(st.integers(1, 10**15)), count, draw(st.integers(0, count - 1))
    )


@given(receipts())
def test_a_receipt_holds_in_a_block_of_any_size(receipt: audit_pb2.Receipt) -> None:
    verify_receipt(receipt)


@given(receipts(), st.data())
def test_a_receipt_with_any_byte_changed_is_refused(
    receipt: audit_pb2.Receipt, data: st.DataObject
) -> None:
    encoded = bytearray(receipt.SerializeToString(deterministic=True))
    place = data.draw(st.integers(0, len(encoded) - 1))
    encoded[place] ^= data.draw(st.integers(1, 255))
    try:
        changed = audit_pb2.Receipt.FromString(bytes(encoded))
    except DecodeError:
        return
    if changed == receipt:
        # Another encoding of the same receipt.
        return

    with pytest.raises(ReceiptInvalidError):
        verify_receipt(changed)


def test_every_byte_of_one_receipt_is_under_the_seal() -> None:
    receipt = receipt_of("trip/1", 12_345, 11, 6)
    encoded = receipt.SerializeToString(deterministic=True)
    accepted = []
    for place in range(len(encoded)):
        for bit in range(8):
            changed = bytearray(encoded)
            changed[place] ^= 1 << bit
            try:
                other = audit_pb2.Receipt.FromString(bytes(changed))
                verify_receipt(other)
            except (DecodeError, ReceiptInvalidError):
                continue
            if other != receipt:
                accepted.append((place, bit))

    assert not accepted


def test_a_receipt_without_content_proves_its_leaf() -> None:
    receipt = receipt_of("trip/1", 12_345, 5, 4)
    receipt.ClearField("leaf_content")
    verify_receipt(receipt, without_content=True)

    with pytest.raises(ReceiptInvalidError, match="leaf_content"):
        verify_receipt(receipt)
    receipt.leaf_hash = leaf_hash(b"another")
    with pytest.raises(ReceiptInvalidError, match="audit_path"):
        verify_receipt(receipt, without_content=True)
