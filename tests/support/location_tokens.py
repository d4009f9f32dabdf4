"""Makes access tokens with an Ed25519 key of the test's own, good and bad ones."""

import json
import time
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm

from tests.support.location_values import TENANT, new_id

KEY_ID = "test-key"


class TokenMint:
    """Signs tokens as IdentityService does."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()

    def write_jwks(self, path: Path, key_id: str = KEY_ID) -> None:
        """Publish the public key."""
        key = json.loads(OKPAlgorithm.to_jwk(self._key.public_key()))
        path.write_text(json.dumps({"keys": [{**key, "kid": key_id, "alg": "EdDSA"}]}))

    def token(
        self,
        role: str,
        *,
        user_id: str = "",
        tenant_id: str = TENANT,
        lasts_seconds: float = 900,
        key_id: str = KEY_ID,
        **claims: Any,
    ) -> str:
        """Return an access token; a claim that is given as None is left out."""
        now = time.time()
        values = {
            "iss": "wayfare-identity",
            "aud": "wayfare",
            "sub": user_id or new_id(),
            "tenant_id": tenant_id,
            "role": role,
            "status": "ACTIVE",
            "sid": new_id(),
            "iat": int(now),
            "exp": now + lasts_seconds,
            "jti": new_id(),
            **claims,
        }
        kept = {name: value for name, value in values.items() if value is not None}
        return jwt.encode(kept, self._key, algorithm="EdDSA", headers={"kid": key_id})
