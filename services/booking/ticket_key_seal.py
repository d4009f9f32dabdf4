"""Seals the private keys that sign tickets. Implements ports.tickets.KeySeal.

AES-256-GCM (NIST SP 800-38D) with a random nonce each, bound to the tenant. Secrets can be
replaced: the first of them seals, all of them open.
"""

import base64
import binascii
import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.booking.domain.tickets import public_key_of

_SECRET_BYTES = 32
_NONCE_BYTES = 12
_SECRETS_MAX = 16


class KeySecretInvalidError(ValueError):
    """Says that the setting of secrets cannot be read. Never holds a part of it."""


class KeySealBrokenError(Exception):
    """Says that no secret opens a key, or that what it opens is another key."""


class AesKeySeal:
    """Seals with the first secret, opens with any."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        """Take secrets of 32 bytes each."""
        self._ciphers = [AESGCM(secret) for secret in secrets]

    @classmethod
    def parse(cls, text: str) -> "AesKeySeal":
        """Read base64 of 32 bytes, several with commas. Raises KeySecretInvalidError."""
        secrets = []
        for place, one in enumerate(text.split(","), start=1):
            secret = _secret_of(one.strip())
            if len(secret) != _SECRET_BYTES:
                raise KeySecretInvalidError(f"ticket key secret {place} is not base64 of 32 bytes")
            secrets.append(secret)
        if len(secrets) > _SECRETS_MAX:
            raise KeySecretInvalidError(f"there are more than {_SECRETS_MAX} ticket key secrets")
        return cls(secrets)

    def seal(self, private_key: Ed25519PrivateKey, *, tenant_id: str) -> bytes:
        """Return nonce and encrypted key."""
        nonce = os.urandom(_NONCE_BYTES)
        plain = private_key.private_bytes_raw()
        return nonce + self._ciphers[0].encrypt(nonce, plain, _bound(tenant_id))

    def open(self, sealed: bytes, *, tenant_id: str, public_key: bytes) -> Ed25519PrivateKey:
        """Return the key. Raises KeySealBrokenError if it is not that of `public_key`."""
        nonce, encrypted = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        for cipher in self._ciphers:
            try:
                plain = cipher.decrypt(nonce, encrypted, _bound(tenant_id))
            except (InvalidTag, ValueError):
                continue
            private_key = Ed25519PrivateKey.from_private_bytes(plain)
            if public_key_of(private_key) == public_key:
                return private_key
        raise KeySealBrokenError("no secret opens the ticket key")


def _secret_of(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def _bound(tenant_id: str) -> bytes:
    return b"wayfare-ticket-key:" + tenant_id.encode()
