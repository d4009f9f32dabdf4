"""Seals what travellers tell of themselves, so that PostgreSQL and its backups hold none of it.

AES-256-GCM (NIST SP 800-38D) with a random nonce each. A sealed text names its key, so keys can be
replaced: the first of the ring seals, all of it open. It is bound to tenant, booking and passenger:
moved to another row it does not open.
"""

import base64
import binascii
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.booking.domain.passengers import SealedTo, Traveller

_VERSION = 1
_NONCE_BYTES = 12
_KEY_BYTES = 32
_KEY_ID = re.compile(r"[a-z0-9-]{1,16}")
_KEYS_MAX = 16


class PassengerKeysInvalidError(ValueError):
    """Says that the setting of keys cannot be read. Never holds a part of it."""


class PassengerSealBrokenError(Exception):
    """Says that a sealed text is not what was sealed, is another row's, or its key is gone."""


@dataclass(frozen=True, slots=True)
class KeyRing:
    """Holds the keys by id; `current` seals."""

    current: str
    keys: Mapping[str, bytes]

    def __repr__(self) -> str:
        """Name the keys only by their ids."""
        return f"KeyRing({', '.join(self.keys)})"

    @classmethod
    def parse(cls, text: str) -> "KeyRing":
        """Read `<id>:<base64 of 32 bytes>`, several with commas; the first one seals.

        Raises PassengerKeysInvalidError, which tells which one is wrong by its place.
        """
        keys: dict[str, bytes] = {}
        for place, one in enumerate(text.split(","), start=1):
            key_id, _, encoded = one.strip().partition(":")
            try:
                key = base64.b64decode(encoded, validate=True)
            except binascii.Error:
                key = b""
            if not _KEY_ID.fullmatch(key_id) or len(key) != _KEY_BYTES or key_id in keys:
                raise PassengerKeysInvalidError(
                    f"passenger key {place} is not <id>:<base64 of 32 bytes> with an id of its own"
                )
            keys[key_id] = key
        if len(keys) > _KEYS_MAX:
            raise PassengerKeysInvalidError(f"there are more than {_KEYS_MAX} passenger keys")
        return cls(next(iter(keys)), keys)


class PassengerVault:
    """Seals and opens travellers. Implements ports.Vault."""

    def __init__(self, ring: KeyRing) -> None:
        """Take the keys."""
        self._current = ring.current
        self._ciphers = {key_id: AESGCM(key) for key_id, key in ring.keys.items()}

    def seal(self, traveller: Traveller, to: SealedTo) -> bytes:
        """Return the traveller sealed to one row."""
        plain = json.dumps(
            [traveller.full_name, traveller.document_kind, traveller.document_number],
            ensure_ascii=False,
            separators=(",", ":"),
        ).encode()
        key_id = self._current.encode()
        nonce = secrets.token_bytes(_NONCE_BYTES)
        head = bytes((_VERSION, len(key_id))) + key_id
        return head + nonce + self._ciphers[self._current].encrypt(nonce, plain, _bound(head, to))

    def open(self, sealed: bytes, to: SealedTo) -> Traveller:
        """Return the traveller. Raises PassengerSealBrokenError."""
        if len(sealed) < 2 or sealed[0] != _VERSION:
            raise PassengerSealBrokenError("the seal is of no known version")
        start = 2 + sealed[1]
        head, nonce = sealed[:start], sealed[start : start + _NONCE_BYTES]
        cipher = self._ciphers.get(head[2:].decode("ascii", "replace"))
        if cipher is None:
            raise PassengerSealBrokenError("the key is not on the ring")
        try:
            plain = cipher.decrypt(nonce, sealed[start + _NONCE_BYTES :], _bound(head, to))
        except (InvalidTag, ValueError):
            raise PassengerSealBrokenError("the seal does not open") from None
        full_name, document_kind, document_number = json.loads(plain)
        return Traveller(
            full_name=full_name, document_kind=document_kind, document_number=document_number
        )


def _bound(head: bytes, to: SealedTo) -> bytes:
    return head + f"{to.tenant_id}/{to.booking_id}/{to.passenger_id}".encode()
