"""Merkle trees and seals: against the reference log of RFC 6962, and what a block shows."""

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from services.ledger.domain.chain import Leaves, Seal, faults_of, seal_of
from services.ledger.domain.merkle import audit_path, leaf_hash, merkle_root

pytestmark = pytest.mark.unit

# The inputs and roots of certificate-transparency's own tests (merkletree, "Known Answer Tests").
INPUTS = (
    *("", "00", "10", "2021", "3031", "40414243", "5051525354555657"),
    "606162636465666768696a6b6c6d6e6f",
)
ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
NOW = datetime(2026, 11, 26, 4, 5, 6, 789012, UTC)


@pytest.mark.parametrize("count", range(1, 9))
def test_roots_are_those_of_the_reference_log(count: int) -> None:
    leaves = [leaf_hash(bytes.fromhex(one)) for one in INPUTS[:count]]

    assert merkle_root(leaves).hex() == ROOTS[count - 1]


def test_a_path_is_that_of_the_reference_log() -> None:
    leaves = [leaf_hash(bytes.fromhex(one)) for one in INPUTS]

    # Leaf 6 of 8 (the first leaf is 1), from the same tests.
    assert [one.hex() for one in audit_path(leaves, 5)] == [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]


def leaves_of(names: Sequence[str]) -> Leaves:
    return Leaves(
        [uuid.uuid5(uuid.NAMESPACE_URL, name).bytes for name in names],
        [leaf_hash(name.encode()) for name in names],
    )


def sealed(previous: Seal | None, leaves: Leaves) -> Seal:
    return seal_of(previous, leaves, last_transaction_id=700, seal_time=NOW)


def test_a_seal_says_what_the_contract_says() -> None:
    first = sealed(None, leaves_of(["a"]))
    second = sealed(first, leaves_of(["b", "c"]))

    microseconds = int(NOW.timestamp()) * 1_000_000 + 789_012
    numbers = b"".join(number.to_bytes(8, "big") for number in (2, 2, microseconds))
    content = numbers + first.block_hash + second.merkle_root
    assert first.previous_hash == bytes(32)
    assert second.block_hash == hashlib.sha256(content).digest()


def test_a_block_that_holds_has_no_faults() -> None:
    leaves = leaves_of(["a", "b", "c"])
    seal = sealed(None, leaves)

    assert faults_of(None, seal, kept=leaves, found=leaves) == []


def test_what_is_wrong_with_transfers_is_named() -> None:
    leaves = leaves_of(["a", "b", "c"])
    seal = sealed(None, leaves)
    found = Leaves(
        [leaves.ids[0], leaves.ids[1], uuid.UUID(int=7).bytes],
        [leaves.hashes[0], leaf_hash(b"B"), leaf_hash(b"x")],
    )

    faults = faults_of(None, seal, kept=leaves, found=found)

    assert [(one.transfer_id, one.description) for one in faults] == [
        (str(uuid.UUID(bytes=leaves.ids[1])), "the transfer or its entries are changed"),
        (
            str(uuid.UUID(bytes=leaves.ids[2])),
            "the transfer is missing, or its transaction changed",
        ),
        (str(uuid.UUID(int=7)), "the transfer was not there when the block was sealed"),
    ]


def test_every_field_of_a_seal_is_under_its_hash() -> None:
    leaves = leaves_of(["a", "b"])
    seal = sealed(None, leaves)
    changes: list[Seal] = [
        replace(seal, transfer_count=3),
        replace(seal, merkle_root=leaf_hash(b"")),
        replace(seal, block_hash=leaf_hash(b"")),
        replace(seal, previous_hash=leaf_hash(b"")),
        replace(seal, seal_time=NOW.replace(microsecond=0)),
    ]

    for changed in changes:
        descriptions = [
            one.description for one in faults_of(None, changed, kept=leaves, found=leaves)
        ]
        assert any("the seal is changed" in one for one in descriptions), changed


def test_a_broken_link_and_a_missing_block_are_named() -> None:
    first, leaves = sealed(None, leaves_of(["a"])), leaves_of(["b"])
    second = sealed(first, leaves)
    other = sealed(None, leaves_of(["z"]))

    (broken,) = faults_of(other, second, kept=leaves, found=leaves)
    (missing,) = faults_of(None, second, kept=leaves, found=leaves_of(["a", "b"]))

    assert broken.description == "the block does not follow block 1 as it is now"
    assert (missing.block_number, missing.description) == (1, "the block is missing")


def test_changed_and_missing_leaves_are_named() -> None:
    leaves = leaves_of(["a", "b"])
    seal = sealed(None, leaves)
    other = Leaves(leaves.ids, [leaf_hash(b"x"), leaves.hashes[1]])

    changed = faults_of(None, seal, kept=other, found=leaves)
    missing = faults_of(None, seal, kept=None, found=leaves)
    exchanged = faults_of(None, seal, kept=other, found=other)

    assert "do not have the Merkle root" in changed[0].description
    assert [one.description for one in missing] == ["the leaves of the block are missing"]
    assert len(exchanged) == 1
