"""Finds what trips have in common: the same stops after the same times. Most of a feed repeats."""

import math
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from services.location.gtfs.feed import ABSENT, Feed


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """Is the calls of some trips; seconds count from the trip's first departure."""

    stops: tuple[int, ...]
    sequences: tuple[int, ...]
    arrivals: tuple[int, ...]
    departures: tuple[int, ...]
    distances: tuple[float, ...] | None


class PatternFinder:
    """Returns the pattern of each trip; where the feed tells distances, they become meters."""

    def __init__(self, feed: Feed) -> None:
        """Take the feed."""
        self._feed = feed
        # Of each shape whose distances are told: these, and the meters at the same points.
        self._ways: dict[int, tuple[array[float], array[float]]] = {}

    def start_seconds(self, trip: int) -> int:
        """Return when a trip departs first."""
        stop_times = self._feed.stop_times
        return stop_times.departures[stop_times.place(trip).start]

    def pattern(self, trip: int) -> Pattern:
        """Return the pattern of a trip."""
        stop_times = self._feed.stop_times
        place = stop_times.place(trip)
        part = slice(place.start, place.stop)
        start = stop_times.departures[place.start]
        return Pattern(
            stops=tuple(stop_times.stops[part]),
            sequences=tuple(stop_times.sequences[part]),
            arrivals=tuple(time - start for time in stop_times.arrivals[part]),
            departures=tuple(time - start for time in stop_times.departures[part]),
            distances=self._meters(self._feed.trips[trip].shape, stop_times.told[part]),
        )

    def _meters(self, shape: int, told: Sequence[float]) -> tuple[float, ...] | None:
        shapes = self._feed.shapes
        if shape == ABSENT or any(math.isnan(value) for value in told):
            return None
        if shape not in self._ways:
            if not shapes.tells_distances(shape):
                return None
            place = shapes.place(shape)
            meters = array("d", (point.distance_meters for point in shapes.points(shape)))
            self._ways[shape] = (shapes.told[place.start : place.stop], meters)
        way_told, meters = self._ways[shape]
        return tuple(_interpolated(way_told, meters, value) for value in told)


def _interpolated(told: Sequence[float], meters: Sequence[float], value: float) -> float:
    after = min(max(bisect_right(told, value), 1), len(told) - 1)
    width = told[after] - told[after - 1]
    share = (value - told[after - 1]) / width if width else 0.0
    share = min(1.0, max(0.0, share))
    return meters[after - 1] + share * (meters[after] - meters[after - 1])
