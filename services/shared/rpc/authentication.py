"""Finds out who calls.

Access tokens, API keys, and the certificate that Envoy's mesh listener checked.
"""

import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import jwt

from services.shared.clock import Clock
from services.shared.errors import DomainError, Kind
from services.shared.rpc.caller import Caller, CallerKind

ISSUER = "wayfare-identity"
AUDIENCE = "wayfare"
_ROLES = frozenset({"PASSENGER", "DRIVER", "CONDUCTOR", "BUSINESS", "ADMIN"})
_SPIFFE = re.compile(r"(?:^|;)URI=spiffe://wayfare/([a-z-]+)(?:;|$)")
_CACHE_MAX = 20_000
_RELOAD_SECONDS = 5.0


class CredentialsMissingError(DomainError):
    """Says that the method needs credentials and the call has none."""

    kind = Kind.UNAUTHENTICATED
    reason = "CREDENTIALS_MISSING"


class TokenInvalidError(DomainError):
    """Says that the token or key is not one of ours."""

    kind = Kind.UNAUTHENTICATED
    reason = "TOKEN_INVALID"


class TokenExpiredError(DomainError):
    """Says that the token was valid once."""

    kind = Kind.UNAUTHENTICATED
    reason = "TOKEN_EXPIRED"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeyGrant:
    """Says what an API key may do: it acts as BUSINESS of its tenant, so many times a minute."""

    key_id: str
    tenant_id: str
    requests_per_minute: int


class ApiKeyVerifier(Protocol):
    """Looks up API keys."""

    async def verify(self, api_key: str) -> ApiKeyGrant:
        """Return what `api_key` may do. Raises TokenInvalidError if it is unknown or revoked."""
        ...


class JwksFile:
    """Holds the public keys of access tokens.

    Reads the file again when a token names a key that it lacks.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        """Read the keys from `path` at the first use."""
        self._path = path
        self._clock = clock
        self._keys: dict[str, jwt.PyJWK] = {}
        self._read_at = float("-inf")

    def key(self, key_id: str) -> jwt.PyJWK | None:
        """Return the key called `key_id`, or None. The file is read at most every 5 seconds."""
        if key_id not in self._keys and self._clock.monotonic() - self._read_at > _RELOAD_SECONDS:
            self._read_at = self._clock.monotonic()
            content = json.loads(self._path.read_text())
            self._keys = {key["kid"]: jwt.PyJWK(key) for key in content["keys"]}
        return self._keys.get(key_id)


class TokenVerifier:
    """Verifies access tokens.

    Ed25519 signature, issuer, audience, times (RFC 8725: the algorithm is fixed).
    """

    def __init__(self, keys: JwksFile, clock: Clock) -> None:
        """Verify by `keys`; remembers at most 20,000 verified tokens until they expire."""
        self._keys = keys
        self._clock = clock
        self._verified: OrderedDict[bytes, Caller] = OrderedDict()

    def verify(self, token: str) -> Caller:
        """Return the user that `token` speaks for.

        Raises TokenExpiredError or TokenInvalidError.
        """
        digest = hashlib.sha256(token.encode()).digest()
        caller = self._verified.get(digest)
        if caller is None:
            caller = self._caller_of(self._claims(token))
            self._verified[digest] = caller
            if len(self._verified) > _CACHE_MAX:
                self._verified.popitem(last=False)
        expire_time = caller.token_expire_time
        if expire_time is None or expire_time <= self._clock.now():
            self._verified.pop(digest, None)
            raise TokenExpiredError(
                "the access token has expired; refresh the session",
                metadata={"expire_time": expire_time.isoformat() if expire_time else ""},
            )
        return caller

    def _claims(self, token: str) -> dict[str, Any]:
        try:
            header = jwt.get_unverified_header(token)
            key = self._keys.key(str(header.get("kid", "")))
            if key is None:
                raise TokenInvalidError("the access token names a key that is not ours")
            # Expiry is judged by our own clock in `verify`, so that tests can move it.
            return jwt.decode(
                token,
                key.key,
                algorithms=["EdDSA"],
                audience=AUDIENCE,
                issuer=ISSUER,
                options={
                    "require": ["exp", "iat", "sub", "aud", "iss"],
                    "verify_exp": False,
                    "verify_iat": False,
                },
            )
        except jwt.PyJWTError:
            raise TokenInvalidError("the access token is not valid") from None

    def _caller_of(self, claims: Mapping[str, Any]) -> Caller:
        role = str(claims.get("role", ""))
        tenant_id = str(claims.get("tenant_id", ""))
        if role not in _ROLES or not tenant_id:
            raise TokenInvalidError("the access token names no role or tenant of ours")
        return Caller(
            kind=CallerKind.USER,
            user_id=str(claims["sub"]),
            tenant_id=tenant_id,
            role=role,
            pending=claims.get("status") != "ACTIVE",
            session_id=str(claims.get("sid", "")),
            token_expire_time=datetime.fromtimestamp(float(claims["exp"]), UTC),
        )


class Authenticator:
    """Finds out who calls from the call's metadata."""

    def __init__(self, tokens: TokenVerifier, api_keys: ApiKeyVerifier) -> None:
        """Verify tokens and API keys by the given verifiers."""
        self._tokens = tokens
        self._api_keys = api_keys

    async def authenticate(self, metadata: Mapping[str, str]) -> Caller:
        """Return the caller; ANONYMOUS when the call brings nothing.

        Raises TokenExpiredError or TokenInvalidError if what it brings is not good.
        """
        ip_address = ip_address_of(metadata)
        # Only Envoy can set this header: the edge strips it, the mesh listener replaces it.
        certificate = metadata.get("x-forwarded-client-cert", "")
        if certificate:
            return Caller(
                kind=CallerKind.SERVICE, service=_service_of(certificate), ip_address=ip_address
            )
        authorization = metadata.get("authorization", "")
        if authorization:
            scheme, _, token = authorization.partition(" ")
            if scheme.lower() != "bearer" or not token:
                raise TokenInvalidError("authorization must be `Bearer` and an access token")
            return replace(self._tokens.verify(token.strip()), ip_address=ip_address)
        api_key = metadata.get("x-api-key", "")
        if api_key:
            grant = await self._api_keys.verify(api_key)
            return Caller(
                kind=CallerKind.API_KEY,
                tenant_id=grant.tenant_id,
                role="BUSINESS",
                api_key_id=grant.key_id,
                api_key_requests_per_minute=grant.requests_per_minute,
                ip_address=ip_address,
            )
        return Caller(ip_address=ip_address)


def ip_address_of(metadata: Mapping[str, str]) -> str:
    """Return the caller's address: the last one named, because Envoy appends what it saw."""
    return metadata.get("x-forwarded-for", "").rpartition(",")[2].strip()


def _service_of(certificate: str) -> str:
    match = _SPIFFE.search(certificate)
    return match.group(1) if match else ""
