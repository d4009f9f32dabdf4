"""What was read of a feed: small tables as objects, the two large ones as arrays of numbers."""

import math
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import NamedTuple

from services.location.domain.timetable import ShapePoint, measured_shape

ABSENT = -1
"""Is a time, or the number of a shape, that the feed does not tell."""

NO_PICKUP, NO_DROP_OFF = 1, 2

UNITS_PER_DEGREE = 10_000_000


class Route(NamedTuple):
    """Is a row of routes.txt."""

    route_id: str
    short_name: str
    long_name: str
    route_type: int


class Stop(NamedTuple):
    """Is a row of stops.txt at which vehicles call."""

    stop_id: str
    display_name: str
    latitude: float
    longitude: float


@dataclass(slots=True, kw_only=True)
class Service:
    """Is the days on which trips run. Bit 0 of `weekdays` is Monday; no dates: only added days."""

    service_id: str
    weekdays: int = 0
    first_date: date | None = None
    last_date: date | None = None
    added: set[date] = field(default_factory=set)
    removed: set[date] = field(default_factory=set)

    def runs_on(self, day: date) -> bool:
        """Say whether the trips of this service run on a day."""
        if day in self.added:
            return True
        if self.first_date is None or self.last_date is None or day in self.removed:
            return False
        weekly = self.weekdays >> day.weekday() & 1 == 1
        return weekly and self.first_date <= day <= self.last_date

    def span(self) -> tuple[date, date] | None:
        """Return the first and the last day of which something is told, or None of nothing."""
        days = set(self.added)
        if self.weekdays and self.first_date is not None and self.last_date is not None:
            days |= {self.first_date, self.last_date}
        return (min(days), max(days)) if days else None


class Trip(NamedTuple):
    """Is a row of trips.txt; `shape` is the number of its shape, or ABSENT."""

    trip_id: str
    route_id: str
    service_id: str
    headsign: str
    short_name: str
    direction_id: int
    shape: int
    line: int


@dataclass(slots=True)
class Shapes:
    """Holds all points of shapes.txt. Those of shape n are `starts[n]` to `starts[n + 1]`."""

    numbers: dict[str, int] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)
    starts: "array[int]" = field(default_factory=lambda: array("q", [0]))
    latitudes: "array[int]" = field(default_factory=lambda: array("i"))
    longitudes: "array[int]" = field(default_factory=lambda: array("i"))
    told: "array[float]" = field(default_factory=lambda: array("d"))

    def place(self, number: int) -> range:
        """Return where the points of a shape are."""
        return range(self.starts[number], self.starts[number + 1])

    def points(self, number: int) -> tuple[ShapePoint, ...]:
        """Return the points of a shape, measured along the way."""
        return measured_shape(
            [
                (self.latitudes[at] / UNITS_PER_DEGREE, self.longitudes[at] / UNITS_PER_DEGREE)
                for at in self.place(number)
            ]
        )

    def packed(self, number: int) -> bytes:
        """Return the points of a shape as little-endian pairs of int32, as the table keeps them."""
        return b"".join(
            struct.pack("<ii", self.latitudes[at], self.longitudes[at]) for at in self.place(number)
        )

    def tells_distances(self, number: int) -> bool:
        """Say whether the feed tells how far along the way every point is."""
        place = self.place(number)
        return len(place) > 1 and not any(math.isnan(self.told[at]) for at in place)


@dataclass(slots=True)
class StopTimes:
    """Holds stop_times.txt: those of trip n are `starts[n]` to `starts[n + 1]`, in their order.

    Trips and stops are numbers here, times seconds of the service day. `closed` has the flags
    NO_PICKUP and NO_DROP_OFF.
    """

    starts: "array[int]"
    stops: "array[int]"
    sequences: "array[int]"
    arrivals: "array[int]"
    departures: "array[int]"
    told: "array[float]"
    closed: "array[int]"

    def place(self, trip: int) -> range:
        """Return where the calls of a trip are."""
        return range(self.starts[trip], self.starts[trip + 1])


@dataclass(slots=True, kw_only=True)
class Feed:
    """Is a whole feed that was found right."""

    sha256: bytes
    agency_name: str
    time_zone: str
    routes: dict[str, Route]
    stops: list[Stop]
    services: dict[str, Service]
    trips: list[Trip]
    shapes: Shapes
    stop_times: StopTimes

    def span(self) -> tuple[date, date]:
        """Return the first and the last day of service."""
        spans = [span for service in self.services.values() if (span := service.span())]
        return min(span[0] for span in spans), max(span[1] for span in spans)

    def used_trips(self) -> Iterator[int]:
        """Yield the numbers of the trips that call at two stops at least."""
        return (
            number for number in range(len(self.trips)) if len(self.stop_times.place(number)) > 1
        )
