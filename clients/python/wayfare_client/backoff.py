"""How long to wait before trying again. Calls and streams use it."""

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Waits between attempts: exponential with full jitter, so that thousands of phones spread.

    Attempt n (from 0) waits for a random time between `floor_seconds` and
    min(`ceiling_seconds`, `first_seconds` * 2^n), as in "Exponential Backoff And Jitter"
    (Amazon Architecture Blog).
    """

    floor_seconds: float
    first_seconds: float
    ceiling_seconds: float

    def delay_seconds(
        self, attempt: int, random: Random, *, at_least_seconds: float = 0.0
    ) -> float:
        """Return how long to wait; what the server asked for (RetryInfo) is added to, never cut."""
        # The exponent is bounded because 2.0 ** 1024 overflows on a phone that is offline for days.
        reach = min(self.ceiling_seconds, self.first_seconds * 2.0 ** min(attempt, 32))
        return at_least_seconds + random.uniform(self.floor_seconds, max(self.floor_seconds, reach))
