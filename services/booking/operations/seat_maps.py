"""Reads seat maps: from the cache if it can be, from PostgreSQL if it must."""

from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from services.booking.domain.layouts import SeatLayout
from services.booking.domain.seat_maps import SeatStates
from services.booking.domain.trips import Trip
from services.booking.errors.trips import TripUnknownError
from services.booking.ports.seat_maps import CachedSeats, SeatCache, SeatMapStore
from services.shared.clock import Clock
from services.shared.errors import DependencyUnavailableError

_log = structlog.get_logger()
_FRESH = timedelta(seconds=1)
_TRIPS_KEPT = 2_000
# After a failure the cache is left alone for so long, so that nobody waits for it in vain.
_AWAY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class SeatReading:
    """Is what was read of a trip's seats, and when that was true."""

    trip: Trip
    layout: SeatLayout
    states: SeatStates
    read_time: datetime
    degraded: bool


class SeatMaps:
    """Reads the seats of trips, at most a second old."""

    def __init__(self, *, store: SeatMapStore, cache: SeatCache, clock: Clock) -> None:
        """Read from `cache`, and from `store` what it has not."""
        self._store = store
        self._cache = cache
        self._clock = clock
        self._trips: OrderedDict[tuple[str, str], tuple[Trip, SeatLayout, float]] = OrderedDict()
        self._away_until = float("-inf")

    async def read(self, tenant_id: str, trip_id: str) -> SeatReading:
        """Return the seats of a trip. Raises TripUnknownError."""
        trip, layout = await self._trip(tenant_id, trip_id)
        now = self._clock.now()
        cached = await self._cached(trip_id)
        if cached is not None and timedelta(0) <= now - cached.read_time < _FRESH:
            states = SeatStates(layout, cached.version, cached.masks)
            return SeatReading(trip, layout, states, cached.read_time, degraded=False)
        states = await self._store.states(tenant_id, layout, trip_id)
        await self._keep(trip_id, CachedSeats(states.version, states.masks, now))
        return SeatReading(trip, layout, states, now, degraded=self.degraded)

    @property
    def degraded(self) -> bool:
        """Say whether the cache is away."""
        return self._clock.monotonic() < self._away_until

    async def _trip(self, tenant_id: str, trip_id: str) -> tuple[Trip, SeatLayout]:
        key = (tenant_id, trip_id)
        known = self._trips.get(key)
        if known is not None and self._clock.monotonic() < known[2]:
            return known[0], known[1]
        found = await self._store.trip(tenant_id, trip_id)
        if found is None:
            raise TripUnknownError(trip_id)
        self._trips[key] = (*found, self._clock.monotonic() + _FRESH.total_seconds())
        self._trips.move_to_end(key)
        if len(self._trips) > _TRIPS_KEPT:
            self._trips.popitem(last=False)
        return found

    async def _cached(self, trip_id: str) -> CachedSeats | None:
        if self.degraded:
            return None
        try:
            return await self._cache.get(trip_id)
        except DependencyUnavailableError:
            self._is_away()
            return None

    async def _keep(self, trip_id: str, seats: CachedSeats) -> None:
        if self.degraded:
            return
        try:
            await self._cache.put(trip_id, seats)
        except DependencyUnavailableError:
            self._is_away()

    def _is_away(self) -> None:
        self._away_until = self._clock.monotonic() + _AWAY_SECONDS
        _log.warning("seat_maps_without_valkey")
