"""Holds a trip of a timetable: its stops, its shape, and the moments of one service day. Pure.

Times of a timetable are seconds since noon minus 12 hours of the service day, in the agency's time
zone, and may pass 24 hours (GTFS, Field Types, Time). On most days that is midnight; on a day when
the clock changes it is an hour beside, so that times after the change are right.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from services.location.domain.positions import EARTH_RADIUS_METERS, Fix, distance_meters

_CANDIDATE_METERS = 150.0
_RADIANS_METERS = math.radians(1.0) * EARTH_RADIUS_METERS


class ShapePoint(NamedTuple):
    """Is one point of the way of a trip, in degrees, and how far along the way it is."""

    latitude: float
    longitude: float
    distance_meters: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TimetableStop:
    """Is one call of a trip at a stop. `distance_meters` along the shape is None when untold."""

    stop_id: str
    stop_sequence: int
    display_name: str
    latitude: float
    longitude: float
    arrival_seconds: int
    departure_seconds: int
    distance_meters: float | None = None
    no_pickup: bool = False
    no_drop_off: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TimetableTrip:
    """Is a trip of a timetable, on no day yet. Without a shape the way is straight."""

    timetable_trip_id: str
    route_id: str
    route_short_name: str
    short_name: str
    headsign: str
    direction_id: int | None
    stops: tuple[TimetableStop, ...]
    shape: tuple[ShapePoint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStop:
    """Is one call at a stop on one day. Times are aware; the distance is along the plan's shape."""

    stop_id: str
    stop_sequence: int
    display_name: str
    latitude: float
    longitude: float
    arrival_time: datetime
    departure_time: datetime
    distance_meters: float
    no_pickup: bool = False
    no_drop_off: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TripPlan:
    """Is a trip of a timetable on one service day. Immutable: a newer feed has plans of its own.

    `start_date` and `start_time` are what GTFS-Realtime's TripDescriptor wants. The shape has two
    points at least, and the distances of the stops never fall.
    """

    timetable_trip_id: str
    service_date: date
    route_id: str
    route_short_name: str
    short_name: str
    headsign: str
    direction_id: int | None
    start_date: str
    start_time: str
    stops: tuple[PlannedStop, ...]
    shape: tuple[ShapePoint, ...]
    feed_id: str = ""


def service_day_start(service_date: date, time_zone: ZoneInfo) -> datetime:
    """Return noon minus 12 hours of a service day, from which its times are counted, in UTC."""
    noon = datetime.combine(service_date, time(12), tzinfo=time_zone)
    return noon.astimezone(UTC) - timedelta(hours=12)


def format_seconds(seconds: int) -> str:
    """Return seconds of a service day as GTFS writes them: 25:35:00 is 1:35 of the next morning."""
    minutes, second = divmod(seconds, 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{second:02d}"


def plan_trip(
    trip: TimetableTrip, *, service_date: date, time_zone: ZoneInfo, feed_id: str = ""
) -> TripPlan:
    """Return what `trip` is on one day."""
    start = service_day_start(service_date, time_zone)
    shape = trip.shape if len(trip.shape) >= 2 else straight_shape(trip.stops)
    distances = _distances_of(trip, shape)
    return TripPlan(
        timetable_trip_id=trip.timetable_trip_id,
        service_date=service_date,
        route_id=trip.route_id,
        route_short_name=trip.route_short_name,
        short_name=trip.short_name,
        headsign=trip.headsign,
        direction_id=trip.direction_id,
        start_date=f"{service_date:%Y%m%d}",
        start_time=format_seconds(trip.stops[0].departure_seconds),
        stops=tuple(
            PlannedStop(
                stop_id=stop.stop_id,
                stop_sequence=stop.stop_sequence,
                display_name=stop.display_name,
                latitude=stop.latitude,
                longitude=stop.longitude,
                arrival_time=start + timedelta(seconds=stop.arrival_seconds),
                departure_time=start + timedelta(seconds=stop.departure_seconds),
                distance_meters=distance,
                no_pickup=stop.no_pickup,
                no_drop_off=stop.no_drop_off,
            )
            for stop, distance in zip(trip.stops, distances, strict=True)
        ),
        shape=shape,
        feed_id=feed_id,
    )


def straight_shape(stops: Sequence[TimetableStop]) -> tuple[ShapePoint, ...]:
    """Return the way from stop to stop in straight lines."""
    return measured_shape([(stop.latitude, stop.longitude) for stop in stops])


def measured_shape(points: Sequence[tuple[float, float]]) -> tuple[ShapePoint, ...]:
    """Return the points with their great-circle distance along the way, in meters."""
    shape: list[ShapePoint] = []
    travelled = 0.0
    before: Fix | None = None
    for latitude, longitude in points:
        here = Fix(latitude, longitude, 0)
        travelled += distance_meters(before, here) if before is not None else 0.0
        shape.append(ShapePoint(latitude, longitude, travelled))
        before = here
    return tuple(shape)


def _distances_of(trip: TimetableTrip, shape: tuple[ShapePoint, ...]) -> list[float]:
    told = [stop.distance_meters for stop in trip.stops if stop.distance_meters is not None]
    if len(told) == len(trip.stops) and len(trip.shape) >= 2:
        return told
    if len(trip.shape) < 2:
        return [point.distance_meters for point in shape]
    return stop_distances(shape, [(stop.latitude, stop.longitude) for stop in trip.stops])


def stop_distances(
    shape: Sequence[ShapePoint], stops: Sequence[tuple[float, float]]
) -> list[float]:
    """Return how far along the shape each stop is; never falling, in meters.

    Each stop has a candidate wherever the shape passes it. Of all ways to choose one per stop that
    never go back, the one with the least sum of squared distances from the shape is taken, by
    dynamic programming; so loops and roads driven in both directions come out right.
    """
    # Per candidate of the stop before: the cost of the best choice that ends there.
    layers: list[list[tuple[float, float, int]]] = []
    for latitude, longitude in stops:
        candidates = _candidates(shape, latitude, longitude)
        layer: list[tuple[float, float, int]] = []
        for along, offset in candidates:
            cost, parent = _best_before(layers[-1], along) if layers else (0.0, 0)
            if cost < math.inf:
                layer.append((along, cost + offset * offset, parent))
        if not layer:
            # Nothing lies ahead: the stop is taken to be where the one before is.
            best = min(range(len(layers[-1])), key=lambda index: layers[-1][index][1])
            along, cost, _ = layers[-1][best]
            nearest = min(offset for _, offset in candidates)
            layer.append((along, cost + nearest * nearest, best))
        layers.append(layer)
    return _traced(layers)


def _traced(layers: Sequence[Sequence[tuple[float, float, int]]]) -> list[float]:
    index = min(range(len(layers[-1])), key=lambda number: layers[-1][number][1])
    distances: list[float] = []
    for layer in reversed(layers):
        along, _, parent = layer[index]
        distances.append(along)
        index = parent
    distances.reverse()
    return distances


def _best_before(layer: Sequence[tuple[float, float, int]], along: float) -> tuple[float, int]:
    best, parent = math.inf, 0
    for index, (before, cost, _) in enumerate(layer):
        if before <= along and cost < best:
            best, parent = cost, index
    return best, parent


def _candidates(
    shape: Sequence[ShapePoint], latitude: float, longitude: float
) -> list[tuple[float, float]]:
    """Return (distance along, distance from the shape) wherever the shape comes closest."""
    passes = _passes(shape, latitude, longitude)
    limit = max(_CANDIDATE_METERS, 2 * min(offset for _, offset in passes))
    last = len(passes) - 1
    return [
        (along, offset)
        for index, (along, offset) in enumerate(passes)
        if offset <= limit
        and (index == 0 or offset <= passes[index - 1][1])
        and (index == last or offset <= passes[index + 1][1])
    ]


def _passes(
    shape: Sequence[ShapePoint], latitude: float, longitude: float
) -> list[tuple[float, float]]:
    """Project a stop on every segment, on a plane that touches the earth there."""
    per_longitude = _RADIANS_METERS * math.cos(math.radians(latitude))
    points = [
        (
            (point.longitude - longitude) * per_longitude,
            (point.latitude - latitude) * _RADIANS_METERS,
            point.distance_meters,
        )
        for point in shape
    ]
    passes: list[tuple[float, float]] = []
    for (x_one, y_one, along_one), (x_two, y_two, along_two) in itertools.pairwise(points):
        x_way, y_way = x_two - x_one, y_two - y_one
        square = x_way * x_way + y_way * y_way
        share = -(x_one * x_way + y_one * y_way) / square if square else 0.0
        share = min(1.0, max(0.0, share))
        offset = math.hypot(x_one + share * x_way, y_one + share * y_way)
        passes.append((along_one + share * (along_two - along_one), offset))
    return passes
