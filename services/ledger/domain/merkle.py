"""Merkle trees of RFC 6962, section 2.1, over SHA-256. Pure."""

import hashlib
from collections.abc import Sequence

HASH_BYTES = 32
_LEAF, _NODE = b"\x00", b"\x01"


def leaf_hash(content: bytes) -> bytes:
    """Return the hash of a leaf."""
    return hashlib.sha256(_LEAF + content).digest()


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """Return the root over the hashes of leaves, of which there is at least one."""
    level = leaves
    while len(level) > 1:
        level = _parents(level)
    return level[0]


def audit_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Return the hashes beside the way from a leaf to the root, from the bottom."""
    path = []
    level = leaves
    while len(level) > 1:
        beside = index ^ 1
        # The last of an odd number has nobody beside it and rises as it is.
        if beside < len(level):
            path.append(level[beside])
        level, index = _parents(level), index >> 1
    return path


def _parents(level: Sequence[bytes]) -> list[bytes]:
    sha256 = hashlib.sha256
    parents = [
        sha256(_NODE + left + right).digest()
        for left, right in zip(level[::2], level[1::2], strict=False)
    ]
    if len(level) % 2:
        parents.append(level[-1])
    return parents
