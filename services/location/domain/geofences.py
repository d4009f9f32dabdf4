"""Decides when a vehicle enters and leaves an area, and when it stays there. Pure.

A fix counts by how surely it is on one side of the border: one whose accuracy reaches over it
counts half. Entering needs fixes in a row that agree, leaving needs them beyond a margin. A way
between two fixes that leads through the area is seen, if the next fix confirms that the vehicle
went there.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from functools import cached_property

from services.location.domain.geometry import (
    RADIAN_METERS,
    Plane,
    Point,
    crossing_share,
    distance_to_border,
    inside_polygon,
    share_and_distance,
)
from services.location.domain.positions import Fix

_CELLS_PER_DEGREE = 20
_CELLS_MOST = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Circle:
    """Is a circle on the ground: degrees and meters."""

    latitude: float
    longitude: float
    radius_meters: float


@dataclass(frozen=True, kw_only=True)
class Geofence:
    """Is an area that a tenant watches: a circle, or a polygon of (latitude, longitude) corners."""

    geofence_id: str
    tenant_id: str
    display_name: str
    kind: int
    circle: Circle | None = None
    corners: tuple[Point, ...] = ()
    dwell_seconds: float | None = None
    exit_margin_meters: float = 25.0
    confirmation_count: int = 2
    accuracy_limit_meters: float = 100.0
    create_time: datetime | None = None

    @cached_property
    def plane(self) -> Plane:
        """Return the plane on which the area is measured."""
        if self.circle is not None:
            return Plane(self.circle.latitude, self.circle.longitude)
        return Plane(*self.corners[0])

    @cached_property
    def border(self) -> tuple[Point, ...]:
        """Return the corners on the plane."""
        return tuple(self.plane.at(*corner) for corner in self.corners)

    @cached_property
    def bounds(self) -> tuple[float, float, float, float]:
        """Return south, west, north, east in degrees, with the margin of leaving around."""
        if self.circle is not None:
            corners = [(self.circle.latitude, self.circle.longitude)]
            reach = self.circle.radius_meters
        else:
            corners, reach = list(self.corners), 0.0
        north = (reach + self.exit_margin_meters) / RADIAN_METERS
        south_most = min(latitude for latitude, _ in corners) - north
        north_most = max(latitude for latitude, _ in corners) + north
        farthest = min(89.0, max(abs(south_most), abs(north_most)))
        east = north / math.cos(math.radians(farthest))
        longitudes = [longitude for _, longitude in corners]
        return south_most, min(longitudes) - east, north_most, max(longitudes) + east


class FenceEvent(StrEnum):
    """Says what happened; the values are those of the contract's GeofenceTransitionKind."""

    ENTERED = "ENTERED"
    EXITED = "EXITED"
    DWELLED = "DWELLED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """Is what is known of a vehicle and an area.

    `weight` adds up the fixes in a row that say otherwise than `inside`, the first of them captured
    at `since`. `passed` is the moment at which the way to the last fix led through the area.
    """

    inside: bool = False
    weight: float = 0.0
    since: int = 0
    entered: int = 0
    dwelled: bool = False
    passed: int = 0


OUTSIDE = Presence()


def signed_distance(fence: Geofence, fix: Fix) -> float:
    """Return how far a fix is outside of the border in meters; negative inside."""
    point = fence.plane.at(fix.latitude, fix.longitude)
    if fence.circle is not None:
        return math.hypot(*point) - fence.circle.radius_meters
    distance = distance_to_border(point, fence.border)
    return -distance if inside_polygon(point, fence.border) else distance


def observe(
    fence: Geofence, before: Presence, believed: Fix | None, last: Fix | None, fix: Fix
) -> tuple[Presence, Sequence[tuple[FenceEvent, int]]]:
    """Return what is known after a fix, and what happened and when (milliseconds).

    `last` is the fix before, `believed` the one before that: a way from there through the area is
    believed once `fix` lies beyond it too.
    """
    if fix.accuracy_meters is not None and fix.accuracy_meters > fence.accuracy_limit_meters:
        return before, ()
    signed = signed_distance(fence, fix)
    says_inside = signed <= (fence.exit_margin_meters if before.inside else 0.0)
    if says_inside == before.inside:
        return _as_before(fence, before, believed, last, fix)
    weight = 1.0 if abs(signed) >= (fix.accuracy_meters or 0.0) else 0.5
    since = before.since if before.weight else fix.capture_milliseconds
    total = before.weight + weight
    if total < fence.confirmation_count:
        return replace(before, weight=total, since=since, passed=0), ()
    if before.inside:
        return OUTSIDE, ((FenceEvent.EXITED, since),)
    return Presence(inside=True, entered=since), ((FenceEvent.ENTERED, since),)


def _as_before(
    fence: Geofence, before: Presence, believed: Fix | None, last: Fix | None, fix: Fix
) -> tuple[Presence, Sequence[tuple[FenceEvent, int]]]:
    capture = fix.capture_milliseconds
    if before.inside:
        stays = capture - before.entered
        dwells = fence.dwell_seconds is not None and stays >= fence.dwell_seconds * 1000
        if dwells and not before.dwelled:
            return replace(before, dwelled=True, weight=0.0), ((FenceEvent.DWELLED, capture),)
        return replace(before, weight=0.0), ()
    if before.passed:
        if believed is None or _passes(fence, believed, fix) is None:
            # The fix before was a spike, and so is the way back from it.
            return OUTSIDE, ()
        # From before it to here leads through the area too.
        moments = ((FenceEvent.ENTERED, before.passed), (FenceEvent.EXITED, before.passed))
        return OUTSIDE, moments
    passed = None
    if last is not None and not before.weight:
        passed = _passes(fence, last, fix)
    return (OUTSIDE if passed is None else replace(OUTSIDE, passed=passed)), ()


def _passes(fence: Geofence, start: Fix, end: Fix) -> int | None:
    """Return when the straight way between two fixes leads through the area, or None."""
    one = fence.plane.at(start.latitude, start.longitude)
    other = fence.plane.at(end.latitude, end.longitude)
    share = _share_within(fence, one, other)
    if share is None:
        return None
    span = end.capture_milliseconds - start.capture_milliseconds
    return start.capture_milliseconds + int(share * span)


def _share_within(fence: Geofence, one: Point, other: Point) -> float | None:
    if fence.circle is not None:
        share, distance = share_and_distance((0.0, 0.0), one, other)
        return share if distance <= fence.circle.radius_meters else None
    crossings = []
    before = fence.border[-1]
    for corner in fence.border:
        share_of_way = crossing_share(one, other, before, corner)
        if share_of_way is not None:
            crossings.append(share_of_way)
        before = corner
    # In and out: touching a corner is not passing.
    if len(crossings) < 2 or max(crossings) - min(crossings) <= 0:
        return None
    return (min(crossings) + max(crossings)) / 2


class FenceIndex:
    """Finds the areas of a tenant that may concern a place, by cells of a twentieth of a degree."""

    def __init__(self, fences: Sequence[Geofence]) -> None:
        """Put the areas into cells; very large ones concern every place."""
        self.by_id: Mapping[str, Geofence] = {fence.geofence_id: fence for fence in fences}
        self._cells: dict[tuple[int, int], list[Geofence]] = {}
        self._large: list[Geofence] = []
        for fence in fences:
            self._put(fence)

    def _put(self, fence: Geofence) -> None:
        south, west, north, east = (math.floor(bound * _CELLS_PER_DEGREE) for bound in fence.bounds)
        if (north - south + 1) * (east - west + 1) > _CELLS_MOST:
            self._large.append(fence)
            return
        for row in range(south, north + 1):
            for column in range(west, east + 1):
                self._cells.setdefault((row, column), []).append(fence)

    def near(self, fix: Fix) -> Sequence[Geofence]:
        """Return the areas that may concern a fix."""
        cell = (
            math.floor(fix.latitude * _CELLS_PER_DEGREE),
            math.floor(fix.longitude * _CELLS_PER_DEGREE),
        )
        found = self._cells.get(cell)
        if found is None:
            return self._large
        return [*found, *self._large] if self._large else found
