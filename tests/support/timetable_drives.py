"""Drives of real timetable trips, with what phones and networks do to positions."""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from random import Random

from services.location.domain.positions import Fix
from services.location.domain.route import Route, RouteStop
from services.location.domain.timetable import ShapePoint
from services.stack.replay.motion import Call, FeedTrip, simulate_calls, simulate_fixes
from services.stack.replay.timetable import read_trips

CAIRNS = Path("data/gtfs_cairns/cairns_gtfs.zip")
SERVICE_DATE = date(2014, 6, 3)
_DEGREE = 111_195.0


@dataclass(frozen=True)
class Drive:
    """One trip as it was driven: its route, when it was where, and its fixes without faults."""

    trip: FeedTrip
    route: Route
    calls: Sequence[Call]
    fixes: Sequence[Fix]


@dataclass(frozen=True)
class Faults:
    """How often what goes wrong: shares of fixes."""

    spikes: float = 0.05
    duplicates: float = 0.05
    gaps: int = 3
    gap_seconds: float = 90.0
    shuffled_batches: float = 0.1


@functools.cache
def cairns_trips(begin: str, until: str) -> list[FeedTrip]:
    """Read the trips of a part of a Tuesday."""
    return read_trips(CAIRNS, SERVICE_DATE, begin=begin, until=until)


def route_of(trip: FeedTrip) -> Route:
    return Route(
        stops=tuple(
            RouteStop(
                stop_id=stop.stop_id,
                distance_meters=stop.distance_meters,
                latitude=stop.latitude,
                longitude=stop.longitude,
                arrival_milliseconds=int(stop.arrival_time.timestamp() * 1000),
                departure_milliseconds=int(stop.departure_time.timestamp() * 1000),
            )
            for stop in trip.stops
        ),
        shape=tuple(ShapePoint(*point) for point in trip.shape),
        distances=tuple(point[2] for point in trip.shape),
        is_straight=False,
    )


def drive(trip: FeedTrip, seed: int, *, interval_seconds: float = 5.0) -> Drive:
    random = Random(f"{seed}:{trip.timetable_trip_id}")
    calls = simulate_calls(trip, random)
    begin = int(calls[0].arrival_time.timestamp() * 1000)
    points = simulate_fixes(
        trip, calls, random, interval_seconds=interval_seconds, noise_meters=4.0
    )
    fixes = [
        Fix(
            point.latitude,
            point.longitude,
            begin + int(point.offset.total_seconds() * 1000),
            4.0,
        )
        for point in points
    ]
    return Drive(trip, route_of(trip), calls, fixes)


def with_faults(one: Drive, seed: int, faults: Faults) -> Iterator[Fix]:
    """Yield the drive's fixes as a server may get them."""
    random = Random(seed)
    fixes = list(one.fixes)
    first, last = fixes[0].capture_milliseconds, fixes[-1].capture_milliseconds
    for _ in range(faults.gaps):
        # The beginning and the end are seen: a trip that nobody saw end has no last stop.
        begin = random.uniform(first + 60_000, max(first + 60_001, last - 150_000))
        end = min(begin + faults.gap_seconds * 1000 * random.random(), last - 60_000)
        fixes = [fix for fix in fixes if not begin <= fix.capture_milliseconds <= end]
    sent: list[Fix] = []
    for fix in fixes:
        sent.append(_spike(fix, random) if random.random() < faults.spikes else fix)
        if random.random() < faults.duplicates:
            sent.append(random.choice(sent[-8:]))
    index = 0
    while index < len(sent):
        batch = sent[index : index + 6]
        if random.random() < faults.shuffled_batches:
            random.shuffle(batch)
        yield from batch
        index += 6


def _spike(fix: Fix, random: Random) -> Fix:
    angle = random.uniform(0, 2 * math.pi)
    north, east = 200 * math.sin(angle), 200 * math.cos(angle)
    return fix._replace(
        latitude=fix.latitude + north / _DEGREE,
        longitude=fix.longitude + east / (_DEGREE * math.cos(math.radians(fix.latitude))),
        accuracy_meters=2.0,
    )
