"""Reduces a trip's positions to its way: without jitter, bounded, with its length. Pure.

The length is the geodesic sum on WGS 84 (Karney 2013, by geographiclib). Jitter would make a
vehicle that stands travel: a point counts once it is farther from the last one than their error.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from geographiclib.geodesic import Geodesic

from services.location.domain.geometry import Plane
from services.location.domain.positions import Fix, distance_meters

POINTS_MOST = 1_000
_STEP_LEAST_METERS = 10.0
_SPIKE_METERS = 80.0
_WGS84 = Geodesic.WGS84


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """Is the way of a trip: points, the oldest first, and the length of the whole way in meters."""

    points: tuple[Fix, ...]
    length_meters: float


def track_of(fixes: Sequence[Fix]) -> Track:
    """Return the way through fixes in the order of capture."""
    steps = _without_jitter(_without_spikes(fixes))
    length = sum(
        _WGS84.Inverse(
            one.latitude, one.longitude, other.latitude, other.longitude, Geodesic.DISTANCE
        )["s12"]
        for one, other in pairwise(steps)
    )
    return Track(points=tuple(simplified(steps, POINTS_MOST)), length_meters=length)


def _without_spikes(fixes: Sequence[Fix]) -> list[Fix]:
    """Leave out single fixes that lie far from both their neighbours, which are near each other."""
    kept = list(fixes[:1])
    for fix, after in pairwise(fixes[1:]):
        before = kept[-1]
        away = min(distance_meters(before, fix), distance_meters(fix, after))
        if away < _SPIKE_METERS or distance_meters(before, after) > away / 2:
            kept.append(fix)
    return [*kept, *fixes[-1:]] if len(fixes) > 1 else kept


def _without_jitter(fixes: Sequence[Fix]) -> list[Fix]:
    steps: list[Fix] = []
    for fix in fixes:
        if steps:
            error = max(
                _STEP_LEAST_METERS, fix.accuracy_meters or 0.0, steps[-1].accuracy_meters or 0.0
            )
            if distance_meters(steps[-1], fix) <= error:
                continue
        steps.append(fix)
    return steps


def simplified(points: Sequence[Fix], most: int) -> list[Fix]:
    """Return at most `most` points that look the same (Visvalingam and Whyatt 1993).

    The point whose triangle with its neighbours is smallest goes first; the ends stay.
    """
    if len(points) <= most:
        return list(points)
    plane = Plane(points[0].latitude, points[0].longitude)
    places = [plane.at(point.latitude, point.longitude) for point in points]
    before = list(range(-1, len(points) - 1))
    after = list(range(1, len(points) + 1))
    gone = [False] * len(points)

    def area(index: int) -> float:
        (x_one, y_one), (x_two, y_two) = places[before[index]], places[after[index]]
        x, y = places[index]
        return abs((x_one - x) * (y_two - y) - (x_two - x) * (y_one - y)) / 2

    areas = [0.0, *(area(index) for index in range(1, len(points) - 1)), 0.0]
    heap = [(areas[index], index) for index in range(1, len(points) - 1)]
    heapq.heapify(heap)
    left = len(points)
    while left > most:
        size, index = heapq.heappop(heap)
        if gone[index] or size != areas[index]:
            continue
        gone[index] = True
        left -= 1
        one, other = before[index], after[index]
        after[one], before[other] = other, one
        for neighbour in (one, other):
            if 0 < neighbour < len(points) - 1:
                # Not smaller than what went before it, or a curve would vanish from one end.
                areas[neighbour] = max(area(neighbour), size)
                heapq.heappush(heap, (areas[neighbour], neighbour))
    return [point for index, point in enumerate(points) if not gone[index]]
