"""Which positions are worth sending at the interval that the server asked for.

DriverSession asks here.
"""

from enum import StrEnum

from wayfare.location.v1 import position_pb2

# Servers refuse positions that were captured closer together (UPDATE_TOO_FREQUENT).
_LEAST_SECONDS = 1.0
# Phones measure every second give or take some milliseconds: the third fix after 2.99 s is meant
# for 3 s.
_TOLERANCE = 0.95


class Pacing(StrEnum):
    """Says what becomes of positions that come faster than the server asked for."""

    # The newest waits until the interval is over; those before it are left out. For phones.
    CONFLATE = "CONFLATE"
    # Everything is sent. For replays and tests.
    KEEP = "KEEP"


class PositionPacer:
    """Holds at most one position back. Measures by capture time, as the server does."""

    def __init__(self, pacing: Pacing) -> None:
        self._pacing = pacing
        self.min_interval_seconds = 0.0
        self.conflated_count = 0
        self._held: position_pb2.Position | None = None
        self._last_seconds: float | None = None

    @property
    def has_held(self) -> bool:
        """Say whether a position is held back."""
        return self._held is not None

    def offer(self, position: position_pb2.Position) -> position_pb2.Position | None:
        """Return the position if it is to be sent now.

        None if it is held back in place of the one before.
        """
        if self._held is not None:
            self.conflated_count += 1
            self._held = None
        if self._pacing is Pacing.KEEP or self._wait_seconds(position) <= (
            self.min_interval_seconds * (1 - _TOLERANCE)
        ):
            return self._sent(position)
        self._held = position
        return None

    def hold_seconds(self) -> float:
        """Return how long the held position waits for a newer one."""
        return 0.0 if self._held is None else max(0.0, self._wait_seconds(self._held))

    def release(self, *, early: bool = False) -> position_pb2.Position | None:
        """Return the held position, which is then sent, or None.

        `early`: a status comes after it, or nobody will measure again. One that the server would
        refuse as too frequent is left out.
        """
        held, self._held = self._held, None
        if held is None:
            return None
        if early and self._since_last_seconds(held) < _LEAST_SECONDS:
            self.conflated_count += 1
            return None
        return self._sent(held)

    def _sent(self, position: position_pb2.Position) -> position_pb2.Position:
        self._last_seconds = _capture_seconds(position)
        return position

    def _since_last_seconds(self, position: position_pb2.Position) -> float:
        if self._last_seconds is None:
            return self.min_interval_seconds + _LEAST_SECONDS
        return _capture_seconds(position) - self._last_seconds

    def _wait_seconds(self, position: position_pb2.Position) -> float:
        since = self._since_last_seconds(position)
        # An older one than the last is sent at once, so that the server says what it thinks of it.
        return 0.0 if since < 0 else self.min_interval_seconds - since


def _capture_seconds(position: position_pb2.Position) -> float:
    return position.capture_time.seconds + position.capture_time.nanos / 1e9
