"""Finds how far along its route a vehicle is. Pure.

The route is the trip's shape with its stops. Of all places where the route passes near a fix, the
one that fits what was known before is taken, so that loops, and roads driven in both directions,
come out right.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from services.location.domain.geometry import Plane, share_and_distance
from services.location.domain.positions import Fix
from services.location.domain.timetable import ShapePoint, TripPlan, measured_shape
from services.location.domain.trips import TripStop

OFF_ROUTE_METERS = 150.0
_BACK_METERS = 400.0
_AHEAD_METERS = 400.0
_AHEAD_METERS_PER_SECOND = 45.0
# A place that needs 20 m more or less of driving is as good as one a meter farther from the fix.
_SURPRISE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteStop:
    """Is a stop on a route: meters from its beginning, and when the timetable has it there."""

    stop_id: str
    distance_meters: float
    latitude: float
    longitude: float
    arrival_milliseconds: int | None
    departure_milliseconds: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Is the way of a trip. A straight one only knows the stops and not the roads between."""

    stops: tuple[RouteStop, ...]
    shape: tuple[ShapePoint, ...]
    distances: tuple[float, ...]
    is_straight: bool

    @property
    def length_meters(self) -> float:
        """Return how long the way is."""
        return self.distances[-1]


def route_of_plan(plan: TripPlan) -> Route:
    """Return the route of a trip of the timetable."""
    return Route(
        stops=tuple(
            RouteStop(
                stop_id=stop.stop_id,
                distance_meters=stop.distance_meters,
                latitude=stop.latitude,
                longitude=stop.longitude,
                arrival_milliseconds=_milliseconds(stop.arrival_time),
                departure_milliseconds=_milliseconds(stop.departure_time),
            )
            for stop in plan.stops
        ),
        shape=plan.shape,
        distances=tuple(point.distance_meters for point in plan.shape),
        is_straight=False,
    )


def route_of_stops(stops: Sequence[TripStop]) -> Route | None:
    """Return the straight route of a trip that no timetable has; None with fewer than two stops."""
    if len(stops) < 2:
        return None
    before, last = stops[-2], stops[-1]
    # Goes on beyond the last stop, so that a vehicle can be seen to have passed it.
    beyond = (2 * last.latitude - before.latitude, 2 * last.longitude - before.longitude)
    shape = measured_shape([*((stop.latitude, stop.longitude) for stop in stops), beyond])
    return Route(
        stops=tuple(
            RouteStop(
                stop_id=stop.stop_id,
                distance_meters=point.distance_meters,
                latitude=stop.latitude,
                longitude=stop.longitude,
                arrival_milliseconds=_milliseconds(
                    stop.scheduled_arrival_time or stop.scheduled_departure_time
                ),
                departure_milliseconds=_milliseconds(
                    stop.scheduled_departure_time or stop.scheduled_arrival_time
                ),
            )
            for stop, point in zip(stops, shape[:-1], strict=True)
        ),
        shape=shape,
        distances=tuple(point.distance_meters for point in shape),
        is_straight=True,
    )


def _milliseconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp() * 1000)


def first_place(route: Route, fix: Fix) -> float | None:
    """Return the first place along the route that is near a fix, in meters, or None."""
    places = _places(route, fix, 0.0, route.length_meters)
    limit = _limit(route)
    near = [(along, offset) for along, offset in places if offset <= limit]
    if not near:
        return None
    # The first time that the route comes about as close as it ever does.
    closest = min(offset for _, offset in near)
    return next(along for along, offset in near if offset <= closest + 10.0)


def place_after(
    route: Route, fix: Fix, *, along_meters: float, seconds: float, expected_meters: float
) -> float | None:
    """Return where along the route a vehicle is that was at `along_meters` some seconds ago.

    Of several places the one nearest to `expected_meters`; None when it is off its route.
    """
    places = _places(
        route,
        fix,
        along_meters - _BACK_METERS,
        along_meters + _AHEAD_METERS + _AHEAD_METERS_PER_SECOND * seconds,
    )
    limit = _limit(route)
    best, best_cost = None, float("inf")
    for along, offset in places:
        cost = offset + _SURPRISE * abs(along - expected_meters)
        if offset <= limit and cost < best_cost:
            best, best_cost = along, cost
    return best


def _limit(route: Route) -> float:
    # Roads between two stops go around by as much as half of their distance.
    if route.is_straight:
        longest = max(b - a for a, b in zip(route.distances, route.distances[1:], strict=False))
        return max(OFF_ROUTE_METERS, 0.5 * longest)
    return OFF_ROUTE_METERS


def _places(route: Route, fix: Fix, least: float, most: float) -> list[tuple[float, float]]:
    """Return (along, distance) of the closest place on each segment between two distances."""
    distances, shape = route.distances, route.shape
    first = max(0, bisect_right(distances, least) - 1)
    last = min(len(distances) - 1, bisect_left(distances, most))
    plane = Plane(fix.latitude, fix.longitude)
    here = (0.0, 0.0)
    places = []
    before = plane.at(shape[first].latitude, shape[first].longitude)
    for index in range(first, last):
        after = plane.at(shape[index + 1].latitude, shape[index + 1].longitude)
        share, offset = share_and_distance(here, before, after)
        along = distances[index] + share * (distances[index + 1] - distances[index])
        places.append((along, offset))
        before = after
    return places
