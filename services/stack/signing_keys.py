"""The Ed25519 keys that sign access tokens, and the JWKS file by which everybody verifies them.

Made once per home. The file name is the key id; the lexically greatest one signs, so a newer date
takes over.
"""

import base64
import json
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from services.stack.passwords import write_private_file


def ensure_signing_key(folder: Path, *, now: datetime) -> None:
    """Make a first signing key, named after the moment, unless the folder has one."""
    if not any(folder.glob("*.pem")):
        pem = Ed25519PrivateKey.generate().private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        write_private_file(folder / f"{now:%Y%m%dT%H%M%SZ}.pem", pem)


def write_jwks(folder: Path, jwks_file: Path) -> None:
    """Write the public halves of every signing key in a folder as a JWKS document."""
    keys = [_public_jwk(path) for path in sorted(folder.glob("*.pem"))]
    jwks_file.write_text(json.dumps({"keys": keys}, indent=2) + "\n", encoding="ascii")


def _public_jwk(path: Path) -> dict[str, str]:
    key = load_pem_private_key(path.read_bytes(), password=None)
    raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    coordinate = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    return {
        "kty": "OKP",
        "crv": "Ed25519",
        "use": "sig",
        "alg": "EdDSA",
        "kid": path.stem,
        "x": coordinate,
    }
