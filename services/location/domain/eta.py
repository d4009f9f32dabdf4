"""Expects when a vehicle will be at its next stops: as likely as not, and surely not before. Pure.

The timetable gives how long each stretch takes; how fast the vehicle is compared with it lately
fades into the timetable's own pace within some minutes, as delays of buses do (Cathey and Dailey
2003 show that the last observed deviation is the best predictor for the next stops). A vehicle that
is early waits for its time at a stop. The spread grows with the time to go; P10 is the tenth
percentile of a normal distribution around P50, so that a passenger who is there by then misses the
vehicle at most one time in ten.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from services.location.domain.route import Route
from services.location.domain.stop_progress import Progress

_PACE_LEAST, _PACE_MOST = 0.5, 2.5
_PACE_FADES_SECONDS = 600.0
_PACE_WEIGHT_SECONDS = 180.0
_DWELL_SECONDS = 15.0
_SPEED_UNKNOWN = 7.0
# Percentile 10 of the standard normal distribution.
_Z_10 = 1.2816
_SPREAD_LEAST_SECONDS = 20.0
_SPREAD_SHARE = 0.15
STOPS_MOST = 21


@dataclass(frozen=True, slots=True, kw_only=True)
class StopExpectation:
    """Says when a vehicle is expected at a stop: at the median, and at the tenth percentile."""

    stop_id: str
    stop_index: int
    expected_milliseconds: int
    earliest_milliseconds: int
    distance_meters: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Is how a vehicle goes compared with its timetable: 1.2 takes a fifth longer."""

    factor: float = 1.0
    along: float = 0.0
    milliseconds: int = 0


def observed_pace(route: Route, before: Pace, progress: Progress) -> Pace:
    """Return the pace after progress; stretches with a stop in them do not count."""
    if progress.along is None:
        return before
    here = Pace(
        factor=before.factor, along=progress.along, milliseconds=progress.capture_milliseconds
    )
    if not before.milliseconds or progress.at_stop or progress.along - before.along < 50.0:
        # Too little to compare; go on measuring from where it began, unless it stands.
        return here if not before.milliseconds or progress.at_stop else before
    took = (progress.capture_milliseconds - before.milliseconds) / 1000
    planned = _run_seconds(route, before.along, progress.along)
    if planned <= 0 or took <= 0:
        return here
    weight = 1 - math.exp(-planned / _PACE_WEIGHT_SECONDS)
    seen = min(_PACE_MOST, max(_PACE_LEAST, took / planned))
    factor = before.factor + weight * (seen - before.factor)
    return Pace(factor=factor, along=progress.along, milliseconds=progress.capture_milliseconds)


def expect(
    route: Route, progress: Progress, pace: Pace, *, now_milliseconds: int
) -> Sequence[StopExpectation]:
    """Return when the vehicle is expected at each stop that it has not reached; at most 21."""
    if progress.along is None or progress.next_index >= len(route.stops):
        return ()
    moment = float(progress.capture_milliseconds)
    along = progress.along
    index = progress.next_index
    if progress.at_stop:
        moment = _leaves(route, index, moment, waits_here=True)
        along = max(along, route.stops[index].distance_meters)
        index += 1
    expectations: list[StopExpectation] = []
    for number in range(index, min(len(route.stops), index + STOPS_MOST)):
        stop = route.stops[number]
        ahead = (moment - progress.capture_milliseconds) / 1000
        factor = 1 + (pace.factor - 1) * math.exp(-ahead / _PACE_FADES_SECONDS)
        moment += 1000 * factor * _run_seconds(route, along, stop.distance_meters)
        along = max(along, stop.distance_meters)
        expected = max(moment, float(now_milliseconds))
        spread = _SPREAD_LEAST_SECONDS + _SPREAD_SHARE * (expected - now_milliseconds) / 1000
        expectations.append(
            StopExpectation(
                stop_id=stop.stop_id,
                stop_index=number,
                expected_milliseconds=int(expected),
                earliest_milliseconds=max(now_milliseconds, int(expected - _Z_10 * spread * 1000)),
                distance_meters=max(0.0, stop.distance_meters - progress.along),
            )
        )
        moment = _leaves(route, number, moment, waits_here=False)
    return expectations


def _leaves(route: Route, index: int, moment: float, *, waits_here: bool) -> float:
    """Return when a vehicle leaves a stop at which it is since `moment`: not before its time."""
    planned = route.stops[index].departure_milliseconds
    least = moment if waits_here else moment + 1000 * _DWELL_SECONDS
    arrival = route.stops[index].arrival_milliseconds
    if planned is None or arrival is None:
        return least
    if not waits_here:
        # A timetable whose stops take no time has the dwell in its runs.
        least = moment + min(1000 * _DWELL_SECONDS, float(planned - arrival))
    return max(least, float(planned))


def _run_seconds(route: Route, start: float, end: float) -> float:
    """Return how long the timetable takes from one place of the route to another, driving."""
    if end <= start:
        return 0.0
    seconds = 0.0
    stops = route.stops
    for index in range(len(stops) - 1):
        low, high = stops[index].distance_meters, stops[index + 1].distance_meters
        if high <= start or low >= end or high <= low:
            continue
        share = (min(end, high) - max(start, low)) / (high - low)
        seconds += share * _stretch_seconds(route, index)
    beyond = max(0.0, min(end, stops[0].distance_meters) - start)
    beyond += max(0.0, end - max(start, stops[-1].distance_meters))
    return seconds + beyond / _SPEED_UNKNOWN


def _stretch_seconds(route: Route, index: int) -> float:
    leaves = route.stops[index].departure_milliseconds
    arrives = route.stops[index + 1].arrival_milliseconds
    way = route.stops[index + 1].distance_meters - route.stops[index].distance_meters
    if leaves is None or arrives is None or arrives <= leaves:
        return way / _SPEED_UNKNOWN
    return (arrives - leaves) / 1000
