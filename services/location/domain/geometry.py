"""Measures on a plane that touches the earth at a point; right to 0.1 % within 50 km. Pure.

The equirectangular projection: x east and y north, in meters (Snyder 1987, chapter 12).
"""

import math
from collections.abc import Sequence

from services.location.domain.positions import EARTH_RADIUS_METERS

RADIAN_METERS = math.radians(1.0) * EARTH_RADIUS_METERS
"""Is how many meters a degree of latitude has."""

Point = tuple[float, float]
"""Is x and y in meters, or latitude and longitude in degrees where it says so."""


class Plane:
    """Is a plane with its origin at a point given in degrees."""

    __slots__ = ("_latitude", "_longitude", "_per_longitude")

    def __init__(self, latitude: float, longitude: float) -> None:
        """Touch the earth there."""
        self._latitude = latitude
        self._longitude = longitude
        self._per_longitude = RADIAN_METERS * math.cos(math.radians(latitude))

    def at(self, latitude: float, longitude: float) -> Point:
        """Return where a place lies, the shorter way around the earth."""
        east = (longitude - self._longitude + 180.0) % 360.0 - 180.0
        return (east * self._per_longitude, (latitude - self._latitude) * RADIAN_METERS)


def share_and_distance(point: Point, start: Point, end: Point) -> tuple[float, float]:
    """Return how far along a segment (0 to 1) it is closest to a point, and how close it comes."""
    x_way, y_way = end[0] - start[0], end[1] - start[1]
    square = x_way * x_way + y_way * y_way
    share = 0.0
    if square > 0:
        share = ((point[0] - start[0]) * x_way + (point[1] - start[1]) * y_way) / square
        share = min(1.0, max(0.0, share))
    distance = math.hypot(start[0] + share * x_way - point[0], start[1] + share * y_way - point[1])
    return share, distance


def inside_polygon(point: Point, corners: Sequence[Point]) -> bool:
    """Say whether a point lies in a polygon, by counting crossings (Shimrat 1962)."""
    inside = False
    x, y = point
    before = corners[-1]
    for corner in corners:
        if (corner[1] > y) != (before[1] > y):
            crossing = before[0] + (y - before[1]) / (corner[1] - before[1]) * (
                corner[0] - before[0]
            )
            if x < crossing:
                inside = not inside
        before = corner
    return inside


def distance_to_border(point: Point, corners: Sequence[Point]) -> float:
    """Return how far a point is from the border of a polygon, inside or out."""
    before = corners[-1]
    nearest = math.inf
    for corner in corners:
        nearest = min(nearest, share_and_distance(point, before, corner)[1])
        before = corner
    return nearest


def crossing_share(start: Point, end: Point, one: Point, other: Point) -> float | None:
    """Return where along start→end it meets the segment one→other, from 0 to 1, or None."""
    x_way, y_way = end[0] - start[0], end[1] - start[1]
    x_other, y_other = other[0] - one[0], other[1] - one[1]
    cross = x_way * y_other - y_way * x_other
    if cross == 0:
        return None
    x_apart, y_apart = one[0] - start[0], one[1] - start[1]
    share = (x_apart * y_other - y_apart * x_other) / cross
    share_other = (x_apart * y_way - y_apart * x_way) / cross
    return share if 0 <= share <= 1 and 0 <= share_other <= 1 else None
