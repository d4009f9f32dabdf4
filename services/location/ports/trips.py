"""Holds what operations need of the store of durable trips."""

from typing import Protocol

from services.location.domain.trips import TrackedTrip


class TripStore(Protocol):
    """Keeps trips for good. Every method raises DependencyUnavailableError when it is away."""

    async def start(self, trip: TrackedTrip, *, request_id: str, body_hash: bytes) -> TrackedTrip:
        """Keep `trip`, or replace what is kept of it.

        Raises RequestIdReusedError, TripNotTrackedError, TripOfAnotherTenantError.
        """
        ...

    async def stop(
        self, trip_id: str, *, tenant_id: str, request_id: str, body_hash: bytes
    ) -> TrackedTrip | None:
        """Mark the trip as stopped and return it, or None when the tenant has no such trip."""
        ...

    async def get(self, trip_id: str, *, tenant_id: str) -> TrackedTrip | None:
        """Return the tenant's trip with its followers and stops, or None."""
        ...
