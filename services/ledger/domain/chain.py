"""The chain of seals over a tenant's transfers: how a block is sealed, and what is wrong with one.

A block's leaves are the SHA-256 of 0x00 and the canonical JSON of each transfer with all of its
entries; store/chain.py makes them. Pure.
"""

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from services.ledger.domain.merkle import HASH_BYTES, audit_path, merkle_root

NO_HASH = bytes(HASH_BYTES)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Leaves(NamedTuple):
    """Are transfers in the order of a block, by the 16 bytes of their ids, and the hash of each."""

    ids: Sequence[bytes]
    hashes: Sequence[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """Is one seal. `last_transaction_id` is the last transaction of PostgreSQL that it covers."""

    block_number: int
    last_transaction_id: int
    transfer_count: int
    previous_hash: bytes
    merkle_root: bytes
    block_hash: bytes
    seal_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainFault:
    """Is one place where the chain does not hold; `transfer_id` is empty if a seal is wrong."""

    block_number: int
    transfer_id: str = ""
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """Shows that a leaf is in a sealed block."""

    leaf_hash: bytes
    leaf_index: int
    audit_path: Sequence[bytes]
    seal: Seal


def block_hash_of(
    block_number: int, transfer_count: int, seal_time: datetime, *, previous: bytes, root: bytes
) -> bytes:
    """Return the hash of a seal: SHA-256 of all that it says, integers as 8 bytes, big-endian."""
    microseconds = (seal_time - _EPOCH) // _MICROSECOND
    numbers = (block_number, transfer_count, microseconds)
    head = b"".join(number.to_bytes(8, "big", signed=True) for number in numbers)
    return hashlib.sha256(head + previous + root).digest()


def seal_of(
    previous: Seal | None, leaves: Leaves, *, last_transaction_id: int, seal_time: datetime
) -> Seal:
    """Return the seal that follows `previous` over these leaves."""
    number = previous.block_number + 1 if previous else 1
    before = previous.block_hash if previous else NO_HASH
    root = merkle_root(leaves.hashes)
    count = len(leaves.hashes)
    return Seal(
        block_number=number,
        last_transaction_id=last_transaction_id,
        transfer_count=count,
        previous_hash=before,
        merkle_root=root,
        block_hash=block_hash_of(number, count, seal_time, previous=before, root=root),
        seal_time=seal_time,
    )


def proof_of(seal: Seal, leaves: Leaves, transfer_id: str) -> Proof | None:
    """Return the proof that a transfer is in a block, or None if it is not."""
    wanted = uuid.UUID(transfer_id).bytes
    if wanted not in leaves.ids:
        return None
    index = leaves.ids.index(wanted)
    return Proof(
        leaf_hash=leaves.hashes[index],
        leaf_index=index,
        audit_path=audit_path(leaves.hashes, index),
        seal=seal,
    )


def faults_of(
    previous: Seal | None, seal: Seal, *, kept: Leaves | None, found: Leaves
) -> list[ChainFault]:
    """Return what is wrong with a block.

    `previous` is the seal before, None at the start; `kept` are the leaves that were kept when it
    was sealed, `found` those of the transfers and entries as they are now.
    """
    faults = _seal_faults(previous, seal)
    number = seal.block_number
    if kept is None:
        faults.append(_fault(number, "the leaves of the block are missing"))
    elif not kept.hashes or merkle_root(kept.hashes) != seal.merkle_root:
        faults.append(_fault(number, "the kept leaves do not have the Merkle root of the seal"))
    if kept == found:
        return faults
    if kept is not None:
        is_whole = number == (previous.block_number if previous else 0) + 1
        faults += _transfer_faults(number, kept, found, with_more=is_whole)
    if not faults and merkle_root(found.hashes) != seal.merkle_root:
        faults.append(_fault(number, "the order of the transfers is changed"))
    return faults


def _seal_faults(previous: Seal | None, seal: Seal) -> list[ChainFault]:
    number = seal.block_number
    before = previous.block_number if previous else 0
    faults = [
        _fault(missing, "the block is missing")
        for missing in range(before + 1, min(number, before + 101))
    ]
    expected = previous.block_hash if previous else NO_HASH
    if number == before + 1 and seal.previous_hash != expected:
        faults.append(_fault(number, f"the block does not follow block {before} as it is now"))
    block_hash = block_hash_of(
        number,
        seal.transfer_count,
        seal.seal_time,
        previous=seal.previous_hash,
        root=seal.merkle_root,
    )
    if block_hash != seal.block_hash:
        faults.append(_fault(number, "the seal is changed: its hash is not that of what it says"))
    return faults


def _transfer_faults(
    number: int, kept: Leaves, found: Leaves, *, with_more: bool
) -> list[ChainFault]:
    now = dict(zip(*found, strict=True))
    sealed = dict(zip(*kept, strict=True))
    faults = []
    for one, leaf in sealed.items():
        if one not in now:
            faults.append(
                _fault(number, "the transfer is missing, or its transaction changed", one)
            )
        elif now[one] != leaf:
            faults.append(_fault(number, "the transfer or its entries are changed", one))
    if with_more:
        faults += [
            _fault(number, "the transfer was not there when the block was sealed", one)
            for one in now
            if one not in sealed
        ]
    return faults


def _fault(number: int, description: str, transfer: bytes = b"") -> ChainFault:
    transfer_id = str(uuid.UUID(bytes=transfer)) if transfer else ""
    return ChainFault(block_number=number, transfer_id=transfer_id, description=description)
