"""Chooses the drivers near a point: by exact distance, and none that is too old. Pure."""

from collections.abc import Iterable
from operator import itemgetter
from typing import NamedTuple

from services.location.domain.positions import Fix, distance_meters

OLDEST_MILLISECONDS = 60_000
"""Is how old a position may be that is shown to people who look for a ride."""


class Candidate(NamedTuple):
    """Is a free driver somewhere around. `key` says which one, to whoever asks."""

    key: str
    fix: Fix


class Hit(NamedTuple):
    """Is a driver near the point: meters from it, and milliseconds since the position's capture."""

    distance_meters: float
    age_milliseconds: int
    key: str


def nearest(
    candidates: Iterable[Candidate],
    *,
    latitude: float,
    longitude: float,
    radius_meters: float,
    now_milliseconds: int,
) -> list[Hit]:
    """Return those within the radius and not too old: by distance, of equal ones the freshest.

    Distances are great-circle ones. A clock that is a little behind the phone's gives age 0.
    """
    here = Fix(latitude, longitude, now_milliseconds)
    hits = []
    for key, fix in candidates:
        age = max(0, now_milliseconds - fix.capture_milliseconds)
        if age > OLDEST_MILLISECONDS:
            continue
        distance = distance_meters(here, fix)
        if distance <= radius_meters:
            hits.append(Hit(distance, age, key))
    hits.sort(key=itemgetter(0, 1))
    return hits
