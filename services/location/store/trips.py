"""Keeps tracked trips in PostgreSQL. Implements ports.TripStore."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import asyncpg

from services.location.domain.trips import TrackedTrip, TripStop
from services.location.errors import TripNotTrackedError, TripOfAnotherTenantError
from services.location.store.requests import claim_request
from services.shared.clock import Clock
from services.shared.errors import DependencyUnavailableError
from services.shared.postgres import Connection, Database, Session

_SWEEP_SECONDS = 3600.0
_COLUMNS = (
    "trip_id, tenant_id, driver_id, vehicle_id, stops, expected_count, start_time, stop_time,"
    " timetable_trip_id, service_date, capacity_count"
)


class PostgresTripStore:
    """Keeps tracked trips; row-level security shows each tenant its own."""

    def __init__(self, database: Database, clock: Clock) -> None:
        """Keep them in `database`, with times by `clock`."""
        self._database = database
        self._clock = clock

    async def start(self, trip: TrackedTrip, *, request_id: str, body_hash: bytes) -> TrackedTrip:
        """Keep `trip`, or replace what is kept of it."""
        async with self._database.transaction(Session(tenant_id=trip.tenant_id)) as connection:
            if not await claim_request(connection, trip.tenant_id, request_id, body_hash):
                # The same request again: what others changed since then stays as it is.
                return await _read_trip(connection, trip.trip_id) or trip
            kept = await connection.fetchrow(
                "SELECT stop_time FROM location.tracked_trips WHERE trip_id = $1 FOR UPDATE",
                trip.trip_id,
            )
            if kept is not None and kept["stop_time"] is not None:
                raise TripNotTrackedError(trip.trip_id)
            try:
                await _write_trip(connection, trip, self._clock.now())
            except asyncpg.InsufficientPrivilegeError:
                # The row exists and row-level security hides it.
                raise TripOfAnotherTenantError(trip.trip_id) from None
            await _write_followers(connection, trip)
            return await _read_trip(connection, trip.trip_id) or trip

    async def stop(
        self, trip_id: str, *, tenant_id: str, request_id: str, body_hash: bytes
    ) -> TrackedTrip | None:
        """Mark the trip as stopped and return it, or None when the tenant has no such trip."""
        async with self._database.transaction(Session(tenant_id=tenant_id)) as connection:
            await claim_request(connection, tenant_id, request_id, body_hash)
            await _mark_stopped(connection, trip_id, self._clock.now())
            return await _read_trip(connection, trip_id)

    async def get(self, trip_id: str, *, tenant_id: str) -> TrackedTrip | None:
        """Return the tenant's trip with its followers and stops, or None."""
        async with self._database.transaction(Session(tenant_id=tenant_id)) as connection:
            return await _read_trip(connection, trip_id)

    async def read_on(self, connection: Connection, trip_id: str) -> TrackedTrip | None:
        """Return the tenant's trip, in the transaction of `connection`."""
        return await _read_trip(connection, trip_id)

    async def kept_on(self, connection: Connection, trip_ids: Sequence[str]) -> set[str]:
        """Return which of these trips of the tenant are kept, in its transaction."""
        rows = await connection.fetch(
            "SELECT trip_id::text FROM location.tracked_trips WHERE trip_id = ANY ($1::uuid[])",
            trip_ids,
        )
        return {row[0] for row in rows}

    async def start_on(self, connection: Connection, trip: TrackedTrip) -> TrackedTrip:
        """Keep `trip`, or replace what is kept of it, in the transaction of `connection`."""
        await _write_trip(connection, trip, self._clock.now())
        await _write_followers(connection, trip)
        return await _read_trip(connection, trip.trip_id) or trip

    async def stop_on(self, connection: Connection, trip_id: str) -> TrackedTrip | None:
        """Mark the trip as stopped, in the transaction of `connection`."""
        await _mark_stopped(connection, trip_id, self._clock.now())
        return await _read_trip(connection, trip_id)

    async def sweep_requests(self) -> None:
        """Forget requests after a day, once an hour until cancelled."""
        while True:
            with suppress(DependencyUnavailableError):
                async with self._database.transaction(Session(role="SWEEPER")) as connection:
                    await connection.execute(
                        "DELETE FROM location.requests WHERE create_time < now() - interval '1 day'"
                    )
            await asyncio.sleep(_SWEEP_SECONDS)


async def _mark_stopped(connection: Connection, trip_id: str, now: datetime) -> None:
    await connection.execute(
        "UPDATE location.tracked_trips SET stop_time = $2 WHERE trip_id = $1 AND stop_time IS NULL",
        trip_id,
        now,
    )


async def _write_trip(connection: Connection, trip: TrackedTrip, now: datetime) -> None:
    await connection.execute(
        "INSERT INTO location.tracked_trips"
        " (trip_id, tenant_id, driver_id, vehicle_id, stops, expected_count, start_time,"
        " timetable_trip_id, service_date, capacity_count)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
        " ON CONFLICT (trip_id) DO UPDATE SET driver_id = excluded.driver_id,"
        " vehicle_id = excluded.vehicle_id, stops = excluded.stops,"
        " expected_count = excluded.expected_count,"
        " timetable_trip_id = excluded.timetable_trip_id,"
        " service_date = excluded.service_date, capacity_count = excluded.capacity_count",
        trip.trip_id,
        trip.tenant_id,
        trip.driver_id,
        trip.vehicle_id,
        json.dumps([_stop_to_json(stop) for stop in trip.stops]),
        trip.expected_count,
        now,
        trip.timetable_trip_id,
        trip.service_date,
        trip.capacity_count,
    )


async def _write_followers(connection: Connection, trip: TrackedTrip) -> None:
    await connection.execute("DELETE FROM location.trip_followers WHERE trip_id = $1", trip.trip_id)
    await connection.execute(
        "INSERT INTO location.trip_followers (trip_id, tenant_id, user_id, is_conductor)"
        " SELECT $1::uuid, $2::uuid, user_id, false FROM unnest($3::uuid[]) AS user_id"
        " UNION ALL SELECT $1::uuid, $2::uuid, user_id, true FROM unnest($4::uuid[]) AS user_id"
        " ON CONFLICT DO NOTHING",
        trip.trip_id,
        trip.tenant_id,
        sorted(trip.follower_ids - trip.conductor_ids),
        sorted(trip.conductor_ids),
    )


async def _read_trip(connection: Connection, trip_id: str) -> TrackedTrip | None:
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS} FROM location.tracked_trips WHERE trip_id = $1",  # noqa: S608 - constant
        trip_id,
    )
    if row is None:
        return None
    people = await connection.fetch(
        "SELECT user_id, is_conductor FROM location.trip_followers WHERE trip_id = $1", trip_id
    )
    return TrackedTrip(
        trip_id=str(row["trip_id"]),
        tenant_id=str(row["tenant_id"]),
        driver_id=str(row["driver_id"]),
        vehicle_id=row["vehicle_id"],
        follower_ids=frozenset(str(p["user_id"]) for p in people if not p["is_conductor"]),
        conductor_ids=frozenset(str(p["user_id"]) for p in people if p["is_conductor"]),
        stops=tuple(_stop_from_json(stop) for stop in json.loads(row["stops"])),
        expected_count=row["expected_count"],
        start_time=row["start_time"],
        stop_time=row["stop_time"],
        timetable_trip_id=row["timetable_trip_id"],
        service_date=row["service_date"],
        capacity_count=row["capacity_count"],
    )


def _stop_to_json(stop: TripStop) -> dict[str, Any]:
    return {
        "stop_id": stop.stop_id,
        "display_name": stop.display_name,
        "latitude": stop.latitude,
        "longitude": stop.longitude,
        "arrival": stop.scheduled_arrival_time.isoformat() if stop.scheduled_arrival_time else None,
        "departure": (
            stop.scheduled_departure_time.isoformat() if stop.scheduled_departure_time else None
        ),
    }


def _stop_from_json(stop: Mapping[str, Any]) -> TripStop:
    return TripStop(
        stop_id=stop["stop_id"],
        display_name=stop["display_name"],
        latitude=stop["latitude"],
        longitude=stop["longitude"],
        scheduled_arrival_time=_time(stop["arrival"]),
        scheduled_departure_time=_time(stop["departure"]),
    )


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
