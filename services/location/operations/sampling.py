"""Thins out the positions of trips that very many follow. Used by the follow hub.

A position costs as much as there are followers to write it to. Beyond a number of them a trip's
positions, and its expected arrivals, are told at most once per interval; the newest waits, and is
told at the interval's end, or before the next event: none that is the last is left out.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from prometheus_client import Counter

from services.location.operations.follower import VERSION

_SAMPLED_OUT = Counter(
    "wayfare_location_sampled_out_total", "Positions left out for many followers"
)


@dataclass(slots=True)
class _Held:
    told_at: float
    # The newest of each kind.
    payloads: dict[int, bytes] = field(default_factory=dict)
    timer: asyncio.TimerHandle | None = None


class Sampler:
    """Holds back positions of crowded trips."""

    def __init__(
        self, *, many: int, interval_seconds: float, deliver: Callable[[str, bytes], None]
    ) -> None:
        """Thin out beyond `many` followers; `deliver` tells a payload to a trip's followers."""
        self._many = many
        self._interval_seconds = interval_seconds
        self._deliver = deliver
        self._trips: dict[str, _Held] = {}

    def holds(self, trip_id: str, kind: int, payload: bytes, follower_count: int) -> bool:
        """Take what may be conflated; return whether it is held back, to be told later."""
        if follower_count <= self._many:
            if self._trips:
                self.release(trip_id)
                self._trips.pop(trip_id, None)
            return False
        loop = asyncio.get_running_loop()
        held = self._trips.get(trip_id)
        if held is None:
            self._trips[trip_id] = _Held(loop.time())
            return False
        left = held.told_at + self._interval_seconds - loop.time()
        if left <= 0 and not held.payloads:
            held.told_at = loop.time()
            return False
        if kind in held.payloads:
            _SAMPLED_OUT.inc()
        held.payloads[kind] = payload
        if held.timer is None:
            held.timer = loop.call_later(max(0.0, left), self._end_interval, trip_id)
        return True

    def release(self, trip_id: str) -> None:
        """Tell what is held back of a trip now: something follows that must come after it."""
        held = self._trips.get(trip_id)
        if held is None or not held.payloads:
            return
        payloads = sorted(held.payloads.values(), key=lambda payload: payload[VERSION])
        held.payloads.clear()
        for payload in payloads:
            self._deliver(trip_id, payload)

    def forget(self, trip_id: str) -> None:
        """Forget a trip that nobody follows any more."""
        held = self._trips.pop(trip_id, None)
        if held is not None and held.timer is not None:
            held.timer.cancel()

    def _end_interval(self, trip_id: str) -> None:
        held = self._trips.get(trip_id)
        if held is None:
            return
        held.timer = None
        held.told_at = asyncio.get_running_loop().time()
        self.release(trip_id)
