"""TripStore in memory. The contract suite holds it and the real store alike."""

from dataclasses import replace
from datetime import UTC, datetime

from services.location.domain.trips import TrackedTrip
from services.location.errors import TripNotTrackedError, TripOfAnotherTenantError
from services.shared.errors import DependencyUnavailableError, RequestIdReusedError


class MemoryTripStore:
    """Is TripStore in memory; `away` makes it answer nothing."""

    def __init__(self) -> None:
        self.away = False
        self._trips: dict[str, TrackedTrip] = {}
        self._requests: dict[tuple[str, str], bytes] = {}

    async def start(self, trip: TrackedTrip, *, request_id: str, body_hash: bytes) -> TrackedTrip:
        kept = self._trips.get(trip.trip_id)
        if not self._claim(trip.tenant_id, request_id, body_hash):
            return trip if kept is None else kept
        if kept is not None and kept.tenant_id != trip.tenant_id:
            self._requests.pop((trip.tenant_id, request_id))
            raise TripOfAnotherTenantError(trip.trip_id)
        if kept is not None and kept.stopped:
            self._requests.pop((trip.tenant_id, request_id))
            raise TripNotTrackedError(trip.trip_id)
        start_time = kept.start_time if kept else datetime.now(UTC)
        self._trips[trip.trip_id] = replace(trip, start_time=start_time)
        return self._trips[trip.trip_id]

    async def stop(
        self, trip_id: str, *, tenant_id: str, request_id: str, body_hash: bytes
    ) -> TrackedTrip | None:
        self._claim(tenant_id, request_id, body_hash)
        trip = self._trips.get(trip_id)
        if trip is None or trip.tenant_id != tenant_id:
            return None
        if not trip.stopped:
            trip = self._trips[trip_id] = replace(trip, stop_time=datetime.now(UTC))
        return trip

    async def get(self, trip_id: str, *, tenant_id: str) -> TrackedTrip | None:
        if self.away:
            raise DependencyUnavailableError("postgresql")
        trip = self._trips.get(trip_id)
        return trip if trip is not None and trip.tenant_id == tenant_id else None

    def _claim(self, tenant_id: str, request_id: str, body_hash: bytes) -> bool:
        if self.away:
            raise DependencyUnavailableError("postgresql")
        is_new = (tenant_id, request_id) not in self._requests
        if self._requests.setdefault((tenant_id, request_id), body_hash) != body_hash:
            raise RequestIdReusedError(request_id)
        return is_new
