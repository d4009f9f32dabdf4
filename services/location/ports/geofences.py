"""Holds what operations need of the store of geofences."""

from collections.abc import Sequence
from typing import Protocol

from services.location.domain.geofences import Geofence

GEOFENCES_MOST = 10_000
"""Is how many geofences a tenant may have."""


class GeofenceStore(Protocol):
    """Keeps geofences. Every method raises DependencyUnavailableError when it is away."""

    async def create(self, geofence: Geofence, *, request_id: str, body_hash: bytes) -> Geofence:
        """Keep a geofence, or return the one that the same request made before.

        Raises RequestIdReusedError and TooManyGeofencesError.
        """
        ...

    async def delete(self, geofence_id: str, *, tenant_id: str) -> None:
        """Forget a geofence of the tenant, if there is one."""
        ...

    async def page(
        self, tenant_id: str, *, kind: int, after: tuple[str, str] | None, most: int
    ) -> Sequence[Geofence]:
        """Return the tenant's geofences by name, after a name and id; kind 0 means any."""
        ...

    async def of_tenant(self, tenant_id: str) -> Sequence[Geofence]:
        """Return all geofences of the tenant."""
        ...
