"""Holds what a fix is, and by which rules a position is live. Pure."""

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

EARTH_RADIUS_METERS = 6_371_008.8
DAY_MILLISECONDS = 24 * 3600 * 1000
CONFIRMATIONS_LEAST = 2


class Fix(NamedTuple):
    """Is where a vehicle was and when: degrees, and milliseconds since 1970.

    A tuple, because one is made for every position. What the phone did not tell is None.
    """

    latitude: float
    longitude: float
    capture_milliseconds: int
    accuracy_meters: float | None = None
    speed_meters_per_second: float | None = None
    heading_degrees: float | None = None


def distance_meters(one: Fix, other: Fix) -> float:
    """Return the great-circle distance by the haversine formula (Sinnott 1984).

    Within 0.5 % of the ellipsoid's.
    """
    latitude_one = math.radians(one.latitude)
    latitude_other = math.radians(other.latitude)
    half_latitude = (latitude_other - latitude_one) / 2
    half_longitude = math.radians(other.longitude - one.longitude) / 2
    chord = (
        math.sin(half_latitude) ** 2
        + math.cos(latitude_one) * math.cos(latitude_other) * math.sin(half_longitude) ** 2
    )
    return 2 * EARTH_RADIUS_METERS * math.asin(min(1.0, math.sqrt(chord)))


class Refusal(StrEnum):
    """Says why a driver's message was refused; the values are reasons of the contract."""

    TOO_OLD = "POSITION_TOO_OLD"
    IN_FUTURE = "POSITION_IN_FUTURE"
    IMPLAUSIBLE = "POSITION_IMPLAUSIBLE"
    TOO_FREQUENT = "UPDATE_TOO_FREQUENT"
    TRIP_NOT_TRACKED = "TRIP_NOT_TRACKED"
    STATUS_NOT_ALLOWED = "STATUS_NOT_ALLOWED"
    SEQ_OUT_OF_ORDER = "SEQ_OUT_OF_ORDER"
    TRIP_REQUIRED = "TRIP_REQUIRED"
    HELLO_EXPECTED_FIRST = "HELLO_EXPECTED_FIRST"


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionRules:
    """Holds the bounds of the rules that the contract states at `Position`."""

    interval_least_seconds: float = 1.0
    positions_per_minute: int = 20
    future_seconds: float = 5.0
    speed_most_meters_per_second: float = 70.0
    fix_error_meters: float = 100.0


@dataclass(slots=True)
class PositionGate:
    """Decides for one driver which fixes may become live.

    Remembers the last one and a candidate.
    """

    rules: PositionRules
    last: Fix | None = None
    last_capture_milliseconds: int = 0
    _allowance: float = field(default=-1.0)
    _candidate: Fix | None = None
    _confirmations: int = 0

    def judge(self, fix: Fix, now_milliseconds: int) -> Refusal | None:
        """Return why `fix` is refused, or None: then it is the last one from now on."""
        capture = fix.capture_milliseconds
        if capture - now_milliseconds > self.rules.future_seconds * 1000:
            return Refusal.IN_FUTURE
        if now_milliseconds - capture > DAY_MILLISECONDS:
            return Refusal.TOO_OLD
        elapsed = capture - self.last_capture_milliseconds
        if elapsed <= 0:
            return Refusal.TOO_OLD
        if elapsed < self.rules.interval_least_seconds * 1000:
            return Refusal.TOO_FREQUENT
        allowance = self._refilled(elapsed)
        if allowance < 1.0:
            return Refusal.TOO_FREQUENT
        if (
            self.last is not None
            and not self._plausible(self.last, fix)
            and not self._confirmed(fix)
        ):
            return Refusal.IMPLAUSIBLE
        self._allowance = allowance - 1.0
        self.last = fix
        self.last_capture_milliseconds = capture
        self._candidate = None
        self._confirmations = 0
        return None

    def _confirmed(self, fix: Fix) -> bool:
        """Say whether `fix` is the second in a row that is plausible from a refused one."""
        if (
            self._candidate is not None
            and fix.capture_milliseconds <= self._candidate.capture_milliseconds
        ):
            # The same fix again, or an older one, says nothing new.
            return False
        if self._candidate is not None and self._plausible(self._candidate, fix):
            self._confirmations += 1
        else:
            self._confirmations = 0
        self._candidate = fix
        return self._confirmations >= CONFIRMATIONS_LEAST

    def _refilled(self, elapsed_milliseconds: int) -> float:
        per_minute = self.rules.positions_per_minute
        if self._allowance < 0:
            return float(per_minute)
        refill = elapsed_milliseconds * per_minute / 60_000
        return min(float(per_minute), self._allowance + refill)

    def _plausible(self, before: Fix, fix: Fix) -> bool:
        seconds = max(0, fix.capture_milliseconds - before.capture_milliseconds) / 1000
        reach = seconds * self.rules.speed_most_meters_per_second + self.rules.fix_error_meters
        # A cheap bound first: a degree of latitude is 111.2 km, one of longitude at most that.
        degrees = abs(fix.latitude - before.latitude) + abs(fix.longitude - before.longitude)
        return degrees * 111_320 <= reach or distance_meters(before, fix) <= reach
