"""Chooses the drivers near a point: by exact distance, and none that is too old. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from services.location.domain.positions import Fix, distance_meters

OLDEST_MILLISECONDS = 60_000
"""Is how old a position may be that is shown to people who look for a ride."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Is a free driver somewhere around. `key` says which one, to whoever asks."""

    key: str
    fix: Fix


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """Is a driver near the point: meters from it, and milliseconds since the position's capture."""

    key: str
    distance_meters: float
    age_milliseconds: int


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
    for candidate in candidates:
        age = max(0, now_milliseconds - candidate.fix.capture_milliseconds)
        if age > OLDEST_MILLISECONDS:
            continue
        distance = distance_meters(here, candidate.fix)
        if distance <= radius_meters:
            hits.append(Hit(key=candidate.key, distance_meters=distance, age_milliseconds=age))
    hits.sort(key=lambda hit: (hit.distance_meters, hit.age_milliseconds))
    return hits
