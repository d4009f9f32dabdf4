"""Finds the free drivers near a point. Called by ListNearbyDrivers and FollowNearby."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from services.location.domain.nearby import OLDEST_MILLISECONDS, Candidate, Hit, nearest
from services.location.domain.positions import Fix
from services.location.ports.views import FreeDriver, ViewStore
from services.shared.clock import Clock
from services.shared.errors import DependencyUnavailableError

VEHICLE_CLASSES = (0, 1, 2, 3, 4, 5)
"""Are the numbers of the contract's VehicleClass; 0 is a driver who named none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Says where to look, how far, and for what; class 0 means any."""

    tenant_id: str
    latitude: float
    longitude: float
    radius_meters: float
    vehicle_class: int = 0


class Found(NamedTuple):
    """Is a driver near a point."""

    driver: FreeDriver
    hit: Hit


class LastKnown(Protocol):
    """Answers from the database while live state is away."""

    async def free_drivers(
        self,
        tenant_id: str,
        *,
        latitude: float,
        longitude: float,
        radius_meters: float,
        vehicle_classes: Sequence[int],
        most: int,
        oldest_capture_milliseconds: int,
    ) -> Sequence[FreeDriver]:
        """Return what ViewStore.free_drivers returns, as it was up to 5 seconds ago."""
        ...


class Nearby:
    """Searches live state, and the database while live state is away."""

    def __init__(
        self,
        *,
        views: ViewStore,
        last_known: LastKnown,
        fix_of: Callable[[bytes], Fix | None],
        clock: Clock,
    ) -> None:
        """Search `views`; `fix_of` reads the position in a payload."""
        self._views = views
        self._last_known = last_known
        self._fix_of = fix_of
        self._clock = clock

    async def search(self, place: Place, *, most: int) -> tuple[list[Found], bool]:
        """Return the `most` nearest drivers, and whether the answer is degraded."""
        now = int(self._clock.now().timestamp() * 1000)
        degraded = False
        try:
            drivers = await self._ask(self._views, place, most, now)
        except DependencyUnavailableError:
            drivers = await self._ask(self._last_known, place, most, now)
            degraded = True
        known = {driver.driver_id: driver for driver in drivers}
        candidates = []
        for driver in known.values():
            fix = self._fix_of(driver.payload)
            if fix is not None:
                candidates.append(Candidate(driver.driver_id, fix))
        hits = nearest(
            candidates,
            latitude=place.latitude,
            longitude=place.longitude,
            radius_meters=place.radius_meters,
            now_milliseconds=int(self._clock.now().timestamp() * 1000),
        )
        return [Found(known[hit.key], hit) for hit in hits[:most]], degraded

    async def _ask(
        self, source: LastKnown, place: Place, most: int, now_milliseconds: int
    ) -> Sequence[FreeDriver]:
        classes = (place.vehicle_class,) if place.vehicle_class else VEHICLE_CLASSES
        return await source.free_drivers(
            place.tenant_id,
            latitude=place.latitude,
            longitude=place.longitude,
            radius_meters=place.radius_meters,
            vehicle_classes=classes,
            most=most,
            oldest_capture_milliseconds=now_milliseconds - OLDEST_MILLISECONDS,
        )
