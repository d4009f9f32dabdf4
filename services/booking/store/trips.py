"""Keeps trips. Implements ports.trips.TripStore."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from services.booking.domain.trips import Trip
from services.booking.errors.trips import TripUnknownError
from services.booking.ports.requests import WriteRequest
from services.booking.ports.trips import (
    FoundJourney,
    JourneySearch,
    NewEvent,
    TripChange,
    TripListing,
)
from services.booking.store import events, requests
from services.booking.store.journeys import find_journeys
from services.booking.store.trip_rows import COLUMNS, FARES, TERMS, stop_columns, with_stops
from services.shared.clock import Clock
from services.shared.postgres import Database, Session

if TYPE_CHECKING:
    from services.shared.postgres import Connection

_INSERT = """
INSERT INTO booking.trips (trip_id, tenant_id, seat_layout_id, display_name, vehicle_class,
  vehicle_id, driver_id, conductor_ids, currency_code, fares, terms, time_zone,
  timetable_trip_id, service_date, stop_count, first_departure_time, last_departure_time,
  last_arrival_time, seat_version, event_version, create_time, update_time)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
  $20, $21, $21)
"""
_INSERT_STOPS = """
INSERT INTO booking.trip_stops (trip_id, tenant_id, stop_index, stop_id, display_name, latitude,
  longitude, arrival_time, departure_time, departure_date, no_pickup, no_drop_off, platform)
SELECT $1, $2, * FROM unnest($3::smallint[], $4::text[], $5::text[], $6::float8[], $7::float8[],
  $8::timestamptz[], $9::timestamptz[], $10::date[], $11::boolean[], $12::boolean[], $13::text[])
"""
_UPDATE = """
UPDATE booking.trips SET display_name = $2, vehicle_id = $3, driver_id = $4, conductor_ids = $5,
  currency_code = $6, fares = $7, terms = $8, first_departure_time = $9, last_departure_time = $10,
  last_arrival_time = $11, event_version = $12, cancel_time = $13, cancel_reason = $14,
  update_time = $15
WHERE trip_id = $1
"""
_UPDATE_STOPS = """
UPDATE booking.trip_stops s SET display_name = n.display_name, latitude = n.latitude,
  longitude = n.longitude, arrival_time = n.arrival_time, departure_time = n.departure_time,
  departure_date = n.departure_date, no_pickup = n.no_pickup, no_drop_off = n.no_drop_off,
  platform = n.platform
FROM unnest($2::smallint[], $3::text[], $4::text[], $5::float8[], $6::float8[], $7::timestamptz[],
  $8::timestamptz[], $9::date[], $10::boolean[], $11::boolean[], $12::text[])
  AS n (stop_index, stop_id, display_name, latitude, longitude, arrival_time, departure_time,
    departure_date, no_pickup, no_drop_off, platform)
WHERE s.trip_id = $1 AND s.stop_index = n.stop_index
"""
_INSERT_CREW = """
INSERT INTO booking.trip_crew (user_id, trip_id, tenant_id, departure_time)
SELECT user_id, $2, $3, $4 FROM unnest($1::uuid[]) AS new (user_id)
"""
_DELETE_CREW = "DELETE FROM booking.trip_crew WHERE trip_id = $1"
_FIND = f"SELECT {COLUMNS} FROM booking.trips t WHERE t.trip_id = $1"  # noqa: S608 - constants of ours
_LOCK = f"{_FIND} FOR NO KEY UPDATE"
_STATUS = """ AND (CASE WHEN t.cancel_time IS NOT NULL THEN 'CANCELLED'
  WHEN t.last_arrival_time <= $4 THEN 'COMPLETED'
  WHEN t.first_departure_time <= $4 THEN 'DEPARTED' ELSE 'SCHEDULED' END = $5 OR $5 = '')"""
_LIST = f"""
SELECT {COLUMNS} FROM booking.trips t
WHERE t.tenant_id = $1 AND t.first_departure_time >= $2 AND t.first_departure_time < $3
  AND ($6::timestamptz IS NULL OR (t.first_departure_time, t.trip_id) > ($6, $7::uuid)) {_STATUS}
ORDER BY t.first_departure_time, t.trip_id LIMIT $8
"""  # noqa: S608 - constants of ours
_LIST_CREW = f"""
SELECT {COLUMNS} FROM booking.trip_crew c
CROSS JOIN LATERAL (SELECT * FROM booking.trips WHERE trip_id = c.trip_id OFFSET 0) AS t
WHERE c.tenant_id = $1 AND c.user_id = $9 AND c.departure_time >= $2 AND c.departure_time < $3
  AND ($6::timestamptz IS NULL OR (c.departure_time, c.trip_id) > ($6, $7::uuid)) {_STATUS}
ORDER BY c.departure_time, c.trip_id LIMIT $8
"""  # noqa: S608 - constants of ours


class PostgresTripStore:
    """Keeps trips with their stops and crew."""

    def __init__(self, database: Database, clock: Clock) -> None:
        """Take the database of role wayfare_booking."""
        self._database = database
        self._clock = clock

    async def create(self, trip: Trip, event: NewEvent, request: WriteRequest) -> Trip:
        """Keep a new trip and its event; return it, or what the request made before."""
        tenant_id = request.tenant_id
        async with self._database.transaction(_service(tenant_id)) as connection:
            made = await requests.claim(connection, request, trip.trip_id, self._clock.now())
            if made is not None:
                return await _read(connection, made)
            await connection.execute(_INSERT, *_new_row(trip, tenant_id))
            await connection.execute(_INSERT_STOPS, trip.trip_id, tenant_id, *stop_columns(trip))
            await _write_crew(connection, trip, tenant_id)
            await events.keep(connection, tenant_id, [event])
        return trip

    async def made_by(self, request: WriteRequest) -> Trip | None:
        """Return the trip that the same request made or changed before."""
        async with self._database.transaction(_service(request.tenant_id)) as connection:
            made = await requests.made_by(connection, request)
            return None if made is None else await _read(connection, made)

    async def change(
        self, trip_id: str, request: WriteRequest, decide: Callable[[Trip], TripChange | None]
    ) -> Trip:
        """Change a trip under its lock; return it, unchanged if the request came before."""
        tenant_id = request.tenant_id
        async with self._database.transaction(_service(tenant_id)) as connection:
            row = await connection.fetchrow(_LOCK, trip_id)
            if row is None:
                raise TripUnknownError(trip_id)
            (trip,) = await with_stops(connection, [row])
            made = await requests.claim(connection, request, trip_id, self._clock.now())
            change = None if made is not None else decide(trip)
            if change is None:
                return trip
            await _write_change(connection, tenant_id, trip, change)
        return change.trip

    async def find(self, tenant_id: str, trip_id: str) -> Trip | None:
        """Return a trip of the tenant, or None."""
        async with self._database.transaction(_service(tenant_id)) as connection:
            row = await connection.fetchrow(_FIND, trip_id)
            return None if row is None else (await with_stops(connection, [row]))[0]

    async def by_departure(self, listing: TripListing, *, most: int) -> list[Trip]:
        """Return trips by when they leave their first stop."""
        arguments = (
            listing.tenant_id,
            listing.start_time,
            listing.end_time,
            listing.now,
            listing.status,
            *(listing.after or (None, None)),
            most,
        )
        async with self._database.transaction(_service(listing.tenant_id)) as connection:
            if listing.crew_id:
                rows = await connection.fetch(_LIST_CREW, *arguments, listing.crew_id)
            else:
                rows = await connection.fetch(_LIST, *arguments)
            return await with_stops(connection, rows)

    async def journeys(self, search: JourneySearch, *, most: int) -> list[FoundJourney]:
        """Return journeys, earliest departure first, then earliest arrival, then by trip."""
        async with self._database.transaction(_service(search.tenant_id)) as connection:
            return await find_journeys(connection, search, most=most)


async def _read(connection: "Connection", trip_id: str) -> Trip:
    (trip,) = await with_stops(connection, [await connection.fetchrow(_FIND, trip_id)])
    return trip


async def _write_change(
    connection: "Connection", tenant_id: str, before: Trip, change: TripChange
) -> None:
    trip = change.trip
    await connection.execute(
        _UPDATE,
        trip.trip_id,
        trip.display_name,
        trip.vehicle_id,
        trip.driver_id or None,
        list(trip.conductor_ids),
        trip.currency_code,
        FARES.dump_json(trip.fares).decode(),
        TERMS.dump_json(trip.terms).decode(),
        trip.stops[0].departure_time,
        trip.stops[-2].departure_time,
        trip.stops[-1].arrival_time,
        trip.event_version,
        trip.cancel_time,
        trip.cancel_reason,
        trip.update_time,
    )
    if trip.stops != before.stops:
        await connection.execute(_UPDATE_STOPS, trip.trip_id, *stop_columns(trip))
    if trip.crew_ids != before.crew_ids or trip.stops != before.stops:
        await connection.execute(_DELETE_CREW, trip.trip_id)
        await _write_crew(connection, trip, tenant_id)
    await events.keep(connection, tenant_id, [change.event])


async def _write_crew(connection: "Connection", trip: Trip, tenant_id: str) -> None:
    if trip.crew_ids:
        departure_time = trip.stops[0].departure_time
        crew = list(trip.crew_ids)
        await connection.execute(_INSERT_CREW, crew, trip.trip_id, tenant_id, departure_time)


def _new_row(trip: Trip, tenant_id: str) -> tuple[object, ...]:
    return (
        trip.trip_id,
        tenant_id,
        trip.seat_layout_id,
        trip.display_name,
        trip.vehicle_class,
        trip.vehicle_id,
        trip.driver_id or None,
        list(trip.conductor_ids),
        trip.currency_code,
        FARES.dump_json(trip.fares).decode(),
        TERMS.dump_json(trip.terms).decode(),
        trip.time_zone,
        trip.timetable_trip_id,
        trip.service_date,
        len(trip.stops),
        trip.stops[0].departure_time,
        trip.stops[-2].departure_time,
        trip.stops[-1].arrival_time,
        trip.seat_version,
        trip.event_version,
        trip.create_time,
    )


def _service(tenant_id: str) -> Session:
    return Session(tenant_id=tenant_id, role="SERVICE")
