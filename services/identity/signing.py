"""The server's keys: they sign access tokens, and secrets are derived from them.

Made by app.py from the folder of private keys; the operations see ports.AccessTokens and
ports.SecretSource.
"""

import hashlib
import hmac
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import jwt
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from jwt.algorithms import OKPAlgorithm

from services.identity.domain import SessionId, User
from services.shared.ids import IdSource
from services.shared.rpc.authentication import AUDIENCE, ISSUER

_DERIVATION_INFO = b"wayfare identity derived secrets v1"
_SECRET_BYTES = 32


class SigningKeysMissingError(Exception):
    """Says that the folder has no key to sign with; the process must not start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """One private key, and the secret that is derived from it."""

    key_id: str
    private_key: Ed25519PrivateKey = field(repr=False)
    derivation_key: bytes = field(repr=False)


class SigningKeys:
    """All keys that are still kept, newest (lexically greatest id) first."""

    def __init__(self, keys: Sequence[SigningKey]) -> None:
        """Take at least one key."""
        if not keys:
            raise SigningKeysMissingError("There is no signing key.")
        self._keys = sorted(keys, key=lambda key: key.key_id, reverse=True)

    @property
    def newest(self) -> SigningKey:
        """Return the key that signs."""
        return self._keys[0]

    def derive(self, seed: bytes, label: str) -> bytes:
        """Return the 32 bytes that the newest key makes of a seed and a label."""
        return _derived(self.newest, seed, label=label)

    def derive_all(self, seed: bytes, label: str) -> Sequence[bytes]:
        """Return what each key makes of a seed and a label, newest key first."""
        return [_derived(key, seed, label=label) for key in self._keys]

    def jwks(self) -> bytes:
        """Return the public halves of all keys as a JSON Web Key Set."""
        return json.dumps({"keys": [_public_jwk(key) for key in self._keys]}).encode()


class Ed25519AccessTokens:
    """Makes access tokens with the newest key."""

    def __init__(self, keys: SigningKeys, ids: IdSource) -> None:
        """Take the keys, and the source of token ids."""
        self._keys = keys
        self._ids = ids

    def issue(
        self, user: User, session_id: SessionId, *, now: datetime, expire_time: datetime
    ) -> str:
        """Return a signed JWT for a user and session."""
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": user.user_id,
            "tenant_id": user.tenant_id,
            "role": user.role.value,
            "status": user.status.value,
            "sid": session_id,
            "iat": int(now.timestamp()),
            "exp": int(expire_time.timestamp()),
            "jti": self._ids.new_id(),
        }
        key = self._keys.newest
        return jwt.encode(claims, key.private_key, algorithm="EdDSA", headers={"kid": key.key_id})


class SystemRandom:
    """The operating system's randomness."""

    def random_bytes(self, count: int) -> bytes:
        """Return that many bytes that nobody can guess."""
        return secrets.token_bytes(count)


def load_signing_keys(folder: Path) -> SigningKeys:
    """Read every `<kid>.pem` of a folder (PKCS8).

    Raises SigningKeysMissingError when there is none.
    """
    paths = sorted(folder.glob("*.pem"))
    if not paths:
        raise SigningKeysMissingError(f"There is no <kid>.pem in {folder}.")
    return SigningKeys([signing_key(path.stem, path.read_bytes()) for path in paths])


def signing_key(key_id: str, pem: bytes) -> SigningKey:
    """Return the key of a PKCS8 PEM.

    Raises SigningKeysMissingError when it is not an Ed25519 key.
    """
    private_key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(private_key, Ed25519PrivateKey):
        raise SigningKeysMissingError(f"The key {key_id} is not an Ed25519 key.")
    derivation = HKDF(
        algorithm=hashes.SHA256(), length=_SECRET_BYTES, salt=None, info=_DERIVATION_INFO
    )
    return SigningKey(
        key_id=key_id,
        private_key=private_key,
        derivation_key=derivation.derive(private_key.private_bytes_raw()),
    )


def _derived(key: SigningKey, seed: bytes, *, label: str) -> bytes:
    return hmac.digest(key.derivation_key, seed + label.encode(), hashlib.sha256)


def _public_jwk(key: SigningKey) -> dict[str, str]:
    public = OKPAlgorithm.to_jwk(key.private_key.public_key(), as_dict=True)
    return {**public, "kid": key.key_id, "use": "sig", "alg": "EdDSA"}
