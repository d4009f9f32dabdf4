"""Keeps geofences in PostgreSQL. Implements ports.geofences.GeofenceStore."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from services.location.domain.geofences import Circle, Geofence
from services.location.errors import TooManyGeofencesError
from services.location.ports.geofences import GEOFENCES_MOST
from services.location.store.requests import claim_request
from services.shared.postgres import Database, Session

_COLUMNS = "geofence_id, tenant_id, display_name, kind, shape, policy, create_time"


class PostgresGeofenceStore:
    """Keeps geofences; row-level security shows each tenant its own."""

    def __init__(self, database: Database) -> None:
        """Keep them in `database`."""
        self._database = database

    async def create(self, geofence: Geofence, *, request_id: str, body_hash: bytes) -> Geofence:
        """Keep a geofence, or return the one that the same request made before."""
        # The id of what a request makes is the request's own, so that a repeated one finds it.
        geofence = replace(geofence, geofence_id=request_id)
        tenant_id = geofence.tenant_id
        async with self._database.transaction(Session(tenant_id=tenant_id)) as connection:
            if not await claim_request(connection, tenant_id, request_id, body_hash):
                return await self._kept(connection, geofence)
            # One at a time per tenant, or two would both be the last one.
            await connection.execute("SELECT pg_advisory_xact_lock(hashtext($1))", tenant_id)
            count = await connection.fetchval("SELECT count(*) FROM location.geofences")
            if count >= GEOFENCES_MOST:
                raise TooManyGeofencesError(GEOFENCES_MOST)
            await connection.execute(
                "INSERT INTO location.geofences"
                " (geofence_id, tenant_id, display_name, kind, shape, policy, create_time)"
                " VALUES ($1, $2, $3, $4, $5, $6, $7)",
                geofence.geofence_id,
                tenant_id,
                geofence.display_name,
                geofence.kind,
                json.dumps(_shape_of(geofence)),
                json.dumps(_policy_of(geofence)),
                geofence.create_time,
            )
        return geofence

    async def _kept(self, connection: Any, geofence: Geofence) -> Geofence:
        row = await connection.fetchrow(
            f"SELECT {_COLUMNS} FROM location.geofences WHERE geofence_id = $1",  # noqa: S608 - constant
            geofence.geofence_id,
        )
        # Deleted since: the answer is what it was.
        return geofence if row is None else _geofence_of(row)

    async def delete(self, geofence_id: str, *, tenant_id: str) -> None:
        """Forget a geofence of the tenant, if there is one."""
        async with self._database.transaction(Session(tenant_id=tenant_id)) as connection:
            await connection.execute(
                "DELETE FROM location.geofences WHERE geofence_id = $1", geofence_id
            )

    async def page(
        self, tenant_id: str, *, kind: int, after: tuple[str, str] | None, most: int
    ) -> Sequence[Geofence]:
        """Return the tenant's geofences by name, after a name and id; kind 0 means any."""
        name, geofence_id = after or ("", "00000000-0000-0000-0000-000000000000")
        async with self._database.transaction(Session(tenant_id=tenant_id)) as connection:
            rows = await connection.fetch(
                f"SELECT {_COLUMNS} FROM location.geofences"  # noqa: S608 - constant
                " WHERE (display_name, geofence_id) > ($1, $2::uuid) AND ($3 = 0 OR kind = $3)"
                " ORDER BY display_name, geofence_id LIMIT $4",
                name,
                geofence_id,
                kind,
                most,
            )
        return [_geofence_of(row) for row in rows]

    async def of_tenant(self, tenant_id: str) -> Sequence[Geofence]:
        """Return all geofences of the tenant."""
        return await self.page(tenant_id, kind=0, after=None, most=GEOFENCES_MOST)


def _shape_of(geofence: Geofence) -> dict[str, Any]:
    if geofence.circle is not None:
        circle = geofence.circle
        return {"circle": [circle.latitude, circle.longitude, circle.radius_meters]}
    return {"corners": geofence.corners}


def _policy_of(geofence: Geofence) -> dict[str, Any]:
    return {
        "dwell_seconds": geofence.dwell_seconds,
        "exit_margin_meters": geofence.exit_margin_meters,
        "confirmation_count": geofence.confirmation_count,
        "accuracy_limit_meters": geofence.accuracy_limit_meters,
    }


def _geofence_of(row: Any) -> Geofence:
    shape, policy = json.loads(row["shape"]), json.loads(row["policy"])
    circle = None
    if "circle" in shape:
        latitude, longitude, radius = shape["circle"]
        circle = Circle(latitude=latitude, longitude=longitude, radius_meters=radius)
    return Geofence(
        geofence_id=str(row["geofence_id"]),
        tenant_id=str(row["tenant_id"]),
        display_name=row["display_name"],
        kind=row["kind"],
        circle=circle,
        corners=tuple((corner[0], corner[1]) for corner in shape.get("corners", ())),
        create_time=row["create_time"],
        **policy,
    )
