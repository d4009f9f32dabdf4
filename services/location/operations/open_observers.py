"""Opens what the watch observes: a trip's stops, a driver's geofences."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from services.location.domain.eta import StopExpectation
from services.location.domain.geofences import FenceIndex
from services.location.domain.route import Route, RouteStop, route_of_plan, route_of_stops
from services.location.domain.stop_progress import StopEvent
from services.location.domain.timetable import TripPlan, stop_distances
from services.location.domain.trips import TrackedTrip
from services.location.operations.observers import FenceObserver, Transition, TripObserver
from services.location.operations.watch import Observer
from services.location.ports.geofences import GeofenceStore
from services.location.ports.live import Publisher
from services.location.ports.timetables import TimetableStore
from services.location.ports.trips import TripStore
from services.shared.errors import DependencyUnavailableError

_FRESH_SECONDS = 8.0
_TENANTS_MAX = 1_000


class TenantFences:
    """Knows the geofences of the tenants whose drivers send positions here."""

    def __init__(self, geofences: GeofenceStore) -> None:
        """Read from `geofences`."""
        self._geofences = geofences
        self._indexes: OrderedDict[str, FenceIndex] = OrderedDict()

    async def load(self, tenant_id: str) -> FenceIndex:
        """Return the tenant's geofences as they are now; they are kept fresh from then on."""
        index = FenceIndex(await self._geofences.of_tenant(tenant_id))
        self._indexes[tenant_id] = index
        if len(self._indexes) > _TENANTS_MAX:
            self._indexes.popitem(last=False)
        return index

    def current(self, tenant_id: str) -> FenceIndex:
        """Return the tenant's geofences as they were some seconds ago."""
        return self._indexes.get(tenant_id) or FenceIndex(())

    async def known(self, tenant_id: str) -> FenceIndex:
        """Return what is known, and read what is not."""
        return self._indexes.get(tenant_id) or await self.load(tenant_id)

    async def run(self) -> None:
        """Read all again every few seconds until cancelled."""
        while True:
            await asyncio.sleep(_FRESH_SECONDS)
            for tenant_id in list(self._indexes):
                with suppress(DependencyUnavailableError):
                    await self.load(tenant_id)


class OpenObservers:
    """Makes observers for the watch."""

    def __init__(
        self,
        *,
        trips: TripStore,
        timetables: TimetableStore,
        fences: TenantFences,
        encode_event: Callable[[StopEvent], bytes],
        encode_expectations: Callable[[Sequence[StopExpectation]], bytes],
        encode_transition: Callable[[Transition], bytes],
    ) -> None:
        """Read from the stores; tell what the encoders make."""
        self._trips = trips
        self._timetables = timetables
        self._fences = fences
        self._encode_event = encode_event
        self._encode_expectations = encode_expectations
        self._encode_transition = encode_transition

    async def of_trip(self, publisher: Publisher, trip_id: str) -> Observer | None:
        """Return the observer of a trip's stops; None when it has none."""
        trip = await self._trips.get(trip_id, tenant_id=publisher.tenant_id)
        if trip is None:
            return None
        plan = None
        if trip.timetable_trip_id and trip.service_date is not None:
            plan = await self._timetables.trip_plan(
                trip.tenant_id, trip.timetable_trip_id, trip.service_date
            )
        route = route_of_trip(trip, plan)
        if route is None:
            return None
        return TripObserver(
            route,
            encode_event=self._encode_event,
            encode_expectations=self._encode_expectations,
        )

    async def of_driver(self, publisher: Publisher, _trip_id: str) -> Observer | None:
        """Return the observer of a driver and the tenant's geofences; None when there are none."""
        tenant_id = publisher.tenant_id
        index = await self._fences.known(tenant_id)
        if not index.by_id:
            return None
        return FenceObserver(
            lambda: self._fences.current(tenant_id),
            vehicle_id=publisher.vehicle_id,
            encode=self._encode_transition,
        )


def route_of_trip(trip: TrackedTrip, plan: TripPlan | None) -> Route | None:
    """Return the route of a trip: the timetable's shape, with the trip's own stops and times."""
    if plan is None:
        return route_of_stops(trip.stops)
    route = route_of_plan(plan)
    own = route_of_stops(trip.stops)
    if own is None:
        return route
    if [stop.stop_id for stop in own.stops] == [stop.stop_id for stop in route.stops]:
        distances = [stop.distance_meters for stop in route.stops]
    else:
        places = [(stop.latitude, stop.longitude) for stop in own.stops]
        distances = stop_distances(plan.shape, places)
    return replace(
        route,
        stops=tuple(
            _at(stop, distance) for stop, distance in zip(own.stops, distances, strict=True)
        ),
    )


def _at(stop: RouteStop, distance: float) -> RouteStop:
    return replace(stop, distance_meters=distance)
