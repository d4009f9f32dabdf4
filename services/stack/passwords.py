"""Secrets of one home that are made once and kept in files of mode 0600."""

import base64
import os
import secrets
from pathlib import Path


def read_or_create_secret(path: Path, *, characters: int = 24) -> str:
    """Return the secret in a file; make it, at random, when the file is absent."""
    if path.exists():
        return path.read_text(encoding="ascii").strip()
    secret = secrets.token_urlsafe(characters)[:characters]
    write_private_file(path, f"{secret}\n".encode("ascii"))
    return secret


def read_or_create_key(path: Path, *, key_id: str = "") -> str:
    """Return a file's key of 32 bytes as base64; make it, at random, when the file is absent.

    With `key_id` it is `<key_id>:<base64>`, as a ring of keys has it.
    """
    if not path.exists():
        key = base64.b64encode(secrets.token_bytes(32)).decode("ascii")
        write_private_file(path, f"{key_id}:{key}\n".removeprefix(":").encode("ascii"))
    return path.read_text(encoding="ascii").strip()


def write_private_file(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read; readers never see half of it."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    unfinished.replace(path)
