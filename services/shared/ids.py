"""Makes ids.

Every service takes its source of ids as an argument, so that tests can foresee them.
"""

import secrets
import uuid
from typing import Protocol

from services.shared.clock import Clock

_RANDOM_BITS = 74


class IdSource(Protocol):
    """Makes ids that nobody else makes."""

    def new_id(self) -> str:
        """Return a new UUID as text of 36 characters."""
        ...


class Uuid7Source:
    """Makes UUIDs of version 7, which sort by when they were made (RFC 9562, section 5.7)."""

    def __init__(self, clock: Clock) -> None:
        """Take the time from `clock`."""
        self._clock = clock

    def new_id(self) -> str:
        """Return a new UUIDv7: 48 bits of milliseconds, then random bits."""
        milliseconds = int(self._clock.now().timestamp() * 1000) & ((1 << 48) - 1)
        random_bits = secrets.randbits(_RANDOM_BITS)
        value = milliseconds << 80
        value |= 0x7 << 76
        value |= (random_bits >> 62) << 64
        value |= 0b10 << 62
        value |= random_bits & ((1 << 62) - 1)
        return str(uuid.UUID(int=value))


def is_uuid(text: str) -> bool:
    """Say whether `text` is a UUID in its canonical form of 36 characters."""
    if len(text) != 36:
        return False
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
