"""The text form of refresh tokens and API keys, and the hashes under which they are kept. Pure.

Used by the operations. A refresh token carries its tenant, session and generation in clear beside
256 secret bits, so that one look-up finds its row under row-level security, and an old token is
told from a made-up one.
"""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from services.identity.domain import ApiKeyId, SessionId, TenantId

_REFRESH_PREFIX = "wfr_"
_API_KEY_PREFIX = "wf"
_UUID_BYTES = 16
_GENERATION_BYTES = 4
_SECRET_BYTES = 32
_REFRESH_BYTES = 2 * _UUID_BYTES + _GENERATION_BYTES + _SECRET_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshToken:
    """A refresh token taken apart."""

    tenant_id: TenantId
    session_id: SessionId
    generation: int
    secret: bytes

    def text(self) -> str:
        """Return the form that clients keep: 95 characters."""
        packed = (
            UUID(self.tenant_id).bytes
            + UUID(self.session_id).bytes
            + self.generation.to_bytes(_GENERATION_BYTES, "big")
            + self.secret
        )
        return _REFRESH_PREFIX + _base64url(packed)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeyText:
    """An API key taken apart."""

    key_id: ApiKeyId
    secret: bytes

    def text(self) -> str:
        """Return the form that partners send: `wf_<key_id>_<secret>`, 83 characters."""
        return f"{_API_KEY_PREFIX}_{self.key_id}_{_base64url(self.secret)}"


def parse_refresh_token(text: str) -> RefreshToken | None:
    """Take a refresh token apart.

    Return None for anything that `RefreshToken.text` does not make.
    """
    if not text.startswith(_REFRESH_PREFIX):
        return None
    packed = _base64url_bytes(text.removeprefix(_REFRESH_PREFIX))
    if packed is None or len(packed) != _REFRESH_BYTES:
        return None
    generation = packed[2 * _UUID_BYTES : 2 * _UUID_BYTES + _GENERATION_BYTES]
    return RefreshToken(
        tenant_id=TenantId(str(UUID(bytes=packed[:_UUID_BYTES]))),
        session_id=SessionId(str(UUID(bytes=packed[_UUID_BYTES : 2 * _UUID_BYTES]))),
        generation=int.from_bytes(generation, "big"),
        secret=packed[-_SECRET_BYTES:],
    )


def parse_api_key(text: str) -> ApiKeyText | None:
    """Take an API key apart; return None for anything that `ApiKeyText.text` does not make."""
    prefix, _, rest = text.partition("_")
    key_id, _, secret_text = rest.partition("_")
    secret = _base64url_bytes(secret_text)
    if prefix != _API_KEY_PREFIX or secret is None or len(secret) != _SECRET_BYTES:
        return None
    try:
        canonical = str(UUID(key_id))
    except ValueError:
        return None
    return ApiKeyText(key_id=ApiKeyId(canonical), secret=secret) if canonical == key_id else None


def secret_hash(secret: bytes) -> bytes:
    """Return the hash under which a secret is kept.

    256 random bits need no salt and no slow hash.
    """
    return hashlib.sha256(secret).digest()


def same(left: bytes, right: bytes) -> bool:
    """Compare two secrets in a time that tells nothing."""
    return hmac.compare_digest(left, right)


def body_hash(fields: Mapping[str, object]) -> bytes:
    """Return the SHA-256 of a request's fields, in which no secret may be."""
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).digest()


def refresh_label(generation: int) -> str:
    """Name the secret of a generation for `SecretSource.derive`."""
    return f"refresh-token/{generation}"


API_KEY_LABEL = "api-key"


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode("ascii")


def _base64url_bytes(text: str) -> bytes | None:
    try:
        content = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    return content if _base64url(content) == text else None
