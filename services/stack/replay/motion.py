"""How a simulated vehicle drives a trip of a timetable: calls, small delays, and noisy fixes. Pure.

Everything random comes from one seeded source per trip, so that a run can be had again.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random

from services.stack.replay.traces import TracePoint

_METERS_PER_DEGREE = 111_195.0
_SPEED_RANGE = (10.0, 14.0)
_SPEED_LEAST = 4.0
_DWELL_SECONDS = (8.0, 20.0)
_DELAY_SECONDS_MAX = 45.0
_WAIT_SECONDS = 30.0
_SLOWNESS_RANGE = (0.95, 1.10)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedStop:
    """Is a call of a trip as the timetable has it; the distance is along the shape."""

    stop_id: str
    display_name: str
    latitude: float
    longitude: float
    arrival_time: datetime
    departure_time: datetime
    distance_meters: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedTrip:
    """Is a trip of a feed on its service day. The shape is (latitude, longitude, meters along)."""

    timetable_trip_id: str
    service_date: str
    route_short_name: str
    stops: tuple[FeedStop, ...]
    shape: tuple[tuple[float, float, float], ...]

    @property
    def begin(self) -> datetime:
        """Return when the timetable has it depart first."""
        return self.stops[0].departure_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Is when a simulated vehicle comes to a stop and leaves it, in the timetable's time."""

    arrival_time: datetime
    departure_time: datetime


def simulate_calls(trip: FeedTrip, random: Random) -> list[Call]:
    """Return when the vehicle calls at each stop.

    It stands at the first stop for a while, departs a little late and never early, drives to be on
    time where that is possible, and stands at the last stop for a while.
    """
    depart = trip.begin + timedelta(seconds=random.uniform(0, _DELAY_SECONDS_MAX))
    calls = [Call(arrival_time=depart - timedelta(seconds=_WAIT_SECONDS), departure_time=depart)]
    for before, stop in zip(trip.stops, trip.stops[1:], strict=False):
        way = stop.distance_meters - before.distance_meters
        left = (stop.arrival_time - depart).total_seconds()
        seconds = _leg_seconds(way, left, random)
        arrive = depart + timedelta(seconds=seconds)
        if stop is trip.stops[-1]:
            depart = arrive + timedelta(seconds=_WAIT_SECONDS)
        else:
            dwell = timedelta(seconds=random.uniform(*_DWELL_SECONDS))
            depart = max(arrive + dwell, stop.departure_time)
        calls.append(Call(arrival_time=arrive, departure_time=depart))
    return calls


def simulate_fixes(
    trip: FeedTrip,
    calls: Sequence[Call],
    random: Random,
    *,
    interval_seconds: float,
    noise_meters: float,
) -> Iterator[TracePoint]:
    """Yield a fix each interval; offsets count from the first call."""
    begin = calls[0].arrival_time
    count = math.floor((calls[-1].departure_time - begin).total_seconds() / interval_seconds)
    at = 0
    for number in range(count + 1):
        offset = timedelta(seconds=number * interval_seconds)
        while at + 1 < len(calls) and begin + offset >= calls[at + 1].arrival_time:
            at += 1
        along = _along(trip, calls, at, begin + offset)
        latitude, longitude, heading = locate(trip.shape, along)
        north, east = random.gauss(0, noise_meters), random.gauss(0, noise_meters)
        per_longitude = _METERS_PER_DEGREE * math.cos(math.radians(latitude))
        yield TracePoint(
            offset=offset,
            latitude=latitude + north / _METERS_PER_DEGREE,
            longitude=longitude + east / per_longitude,
            heading_degrees=heading,
        )


def locate(shape: Sequence[tuple[float, float, float]], along: float) -> tuple[float, float, float]:
    """Return latitude, longitude and heading, in degrees, at a distance along a shape."""
    after = bisect_right(shape, along, key=lambda point: point[2])
    after = min(max(after, 1), len(shape) - 1)
    (lat_one, lon_one, begin), (lat_two, lon_two, end) = shape[after - 1], shape[after]
    share = min(1.0, max(0.0, (along - begin) / (end - begin))) if end > begin else 0.0
    east = (lon_two - lon_one) * math.cos(math.radians(lat_one))
    heading = math.degrees(math.atan2(east, lat_two - lat_one)) % 360
    return (
        lat_one + share * (lat_two - lat_one),
        lon_one + share * (lon_two - lon_one),
        heading,
    )


def _leg_seconds(way_meters: float, left_seconds: float, random: Random) -> float:
    fastest = way_meters / random.uniform(*_SPEED_RANGE)
    # A vehicle with much time left does not crawl: it waits at the stop.
    slowest = max(fastest, way_meters / _SPEED_LEAST)
    return min(max(fastest, left_seconds * random.uniform(*_SLOWNESS_RANGE)), slowest)


def _along(trip: FeedTrip, calls: Sequence[Call], at: int, moment: datetime) -> float:
    here = trip.stops[at].distance_meters
    if moment <= calls[at].departure_time or at + 1 == len(calls):
        return here
    leg = (calls[at + 1].arrival_time - calls[at].departure_time).total_seconds()
    share = (moment - calls[at].departure_time).total_seconds() / leg if leg else 1.0
    # Gathers and loses speed smoothly; half-way it drives half as fast again as on average.
    eased = share * share * (3 - 2 * share)
    return here + eased * (trip.stops[at + 1].distance_meters - here)
