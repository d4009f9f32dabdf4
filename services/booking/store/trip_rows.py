"""Turns rows of trips and their stops into trips, and back."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from pydantic import TypeAdapter

from services.booking.domain.trips import ClassFare, SalesTerms, Trip, TripStop

if TYPE_CHECKING:
    from services.shared.postgres import Connection

FARES = TypeAdapter(tuple[ClassFare, ...])
TERMS = TypeAdapter(SalesTerms)

# Of booking.trips t.
COLUMNS = """t.trip_id, t.seat_layout_id, t.display_name, t.vehicle_class, t.vehicle_id,
  t.driver_id, t.conductor_ids, t.currency_code, t.fares::text AS fares, t.terms::text AS terms,
  t.time_zone, t.timetable_trip_id, t.service_date, t.seat_version, t.event_version,
  t.cancel_time, t.cancel_reason, t.create_time, t.update_time"""

_STOPS = """
SELECT trip_id, stop_id, display_name, latitude, longitude, arrival_time, departure_time,
  no_pickup, no_drop_off, platform
FROM booking.trip_stops WHERE trip_id = ANY ($1::uuid[]) ORDER BY trip_id, stop_index
"""


async def with_stops(connection: "Connection", rows: Sequence[Any]) -> list[Trip]:
    """Return the trips of rows with COLUMNS, in their order, with their stops."""
    if not rows:
        return []
    stops: dict[str, list[TripStop]] = defaultdict(list)
    for row in await connection.fetch(_STOPS, [row["trip_id"] for row in rows]):
        stops[str(row["trip_id"])].append(_stop_of(row))
    return [_trip_of(row, stops[str(row["trip_id"])]) for row in rows]


def _stop_of(row: Any) -> TripStop:
    return TripStop(
        stop_id=row["stop_id"],
        display_name=row["display_name"],
        latitude=row["latitude"],
        longitude=row["longitude"],
        arrival_time=row["arrival_time"],
        departure_time=row["departure_time"],
        no_pickup=row["no_pickup"],
        no_drop_off=row["no_drop_off"],
        platform=row["platform"],
    )


def _trip_of(row: Any, stops: Iterable[TripStop]) -> Trip:
    return Trip(
        trip_id=str(row["trip_id"]),
        display_name=row["display_name"],
        seat_layout_id=str(row["seat_layout_id"]),
        vehicle_class=row["vehicle_class"],
        stops=tuple(stops),
        currency_code=row["currency_code"],
        fares=FARES.validate_json(row["fares"]),
        vehicle_id=row["vehicle_id"],
        driver_id=str(row["driver_id"] or ""),
        conductor_ids=tuple(map(str, row["conductor_ids"])),
        terms=TERMS.validate_json(row["terms"]),
        time_zone=row["time_zone"],
        timetable_trip_id=row["timetable_trip_id"],
        service_date=row["service_date"],
        seat_version=row["seat_version"],
        event_version=row["event_version"],
        cancel_reason=row["cancel_reason"],
        cancel_time=row["cancel_time"],
        create_time=row["create_time"],
        update_time=row["update_time"],
    )


def stop_columns(trip: Trip) -> tuple[list[Any], ...]:
    """Return the stops of a trip as columns: index, stop_id, …, in the order of the table."""
    zone, stops = ZoneInfo(trip.time_zone), trip.stops
    return (
        list(range(len(stops))),
        [one.stop_id for one in stops],
        [one.display_name for one in stops],
        [one.latitude for one in stops],
        [one.longitude for one in stops],
        [one.arrival_time for one in stops],
        [one.departure_time for one in stops],
        [one.departure_time.astimezone(zone).date() for one in stops],
        [one.no_pickup for one in stops],
        [one.no_drop_off for one in stops],
        [one.platform for one in stops],
    )
