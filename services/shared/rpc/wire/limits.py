"""Says what one peer may do to a server: sizes, numbers, and how often."""

from collections.abc import Callable
from dataclasses import dataclass

MEBIBYTE = 1_048_576


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Is what a server bears of one connection."""

    message_bytes: int = 4 * MEBIBYTE
    streams: int = 100_000
    # What waits for the application, and for the rest of its message, in all calls of a connection.
    held_bytes: int = 256 * MEBIBYTE
    # Streams that are broken, or given up before they were answered: at once, and a second.
    resets: tuple[int, int] = (10_000, 1_000)
    # Frames that carry nothing of a call: PING, SETTINGS, PRIORITY, empty DATA, unknown ones.
    idle_frames: tuple[int, int] = (2_000, 200)
    write_buffer_bytes: int = 262_144
    # After how much silence a peer is asked for a sign of life, and how long it has for it.
    ping_after_seconds: float = 30.0
    ping_answer_seconds: float = 10.0


class Budget:
    """Bounds how often something may happen: a bucket of tokens that fills with time."""

    __slots__ = ("_burst", "_filled_at", "_left", "_now", "_per_second")

    def __init__(self, now: Callable[[], float], rate: tuple[int, int]) -> None:
        """Allow the first of `rate` at once, and the second each second."""
        self._now = now
        self._burst, self._per_second = rate
        self._left = float(self._burst)
        self._filled_at = now()

    def spend(self) -> bool:
        """Count one event; say False when it is one too many."""
        if self._left < 1:
            # The clock is asked only when the bucket is empty.
            now = self._now()
            gained = (now - self._filled_at) * self._per_second
            self._left = min(self._burst, self._left + gained)
            self._filled_at = now
            if self._left < 1:
                return False
        self._left -= 1
        return True
