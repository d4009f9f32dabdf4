"""Finds journeys from one place to another on a day, in one statement over two indexes."""

import math
from typing import TYPE_CHECKING, Any

from services.booking.domain.trips import Journey
from services.booking.ports.trips import FoundJourney, JourneySearch, Place
from services.booking.store.trip_rows import COLUMNS, with_stops

if TYPE_CHECKING:
    from services.shared.postgres import Connection

EARTH_RADIUS_METERS = 6_371_008.8
_METERS_PER_DEGREE = math.pi * EARTH_RADIUS_METERS / 180

# Of the pairs of stops of a trip the nearest ones count, of equally near ones the first. What is
# asked for is where the vehicle leaves on the day, so a trip whose nearest pair leaves on another
# day is not found by one that is farther away.
_STATEMENT = f"""
WITH day AS (
  SELECT DISTINCT s.trip_id FROM booking.trip_stops s
  WHERE s.tenant_id = $1 AND s.departure_date = $2 AND NOT s.no_pickup AND {{narrow}}
), pairs AS (
  SELECT DISTINCT ON (f.trip_id) f.trip_id, f.stop_index AS from_index, u.stop_index AS to_index,
    f.departure_time, f.departure_date, u.arrival_time, f.meters AS from_meters,
    u.meters AS to_meters
  FROM day
  CROSS JOIN LATERAL (
    SELECT s.*, {{from_meters}} AS meters FROM booking.trip_stops s
    WHERE s.trip_id = day.trip_id AND NOT s.no_pickup OFFSET 0) AS f
  CROSS JOIN LATERAL (
    SELECT s.*, {{to_meters}} AS meters FROM booking.trip_stops s
    WHERE s.trip_id = day.trip_id AND s.stop_index > f.stop_index AND NOT s.no_drop_off OFFSET 0
  ) AS u
  WHERE f.meters <= $3 AND u.meters <= $3
  ORDER BY f.trip_id, f.meters + u.meters, f.stop_index, u.stop_index
), found AS (
  SELECT p.* FROM pairs p
  CROSS JOIN LATERAL (
    SELECT cancel_time FROM booking.trips WHERE trip_id = p.trip_id OFFSET 0) AS t
  WHERE p.departure_date = $2 AND p.departure_time >= $4 AND t.cancel_time IS NULL
    AND ($5::timestamptz IS NULL
      OR (p.departure_time, p.arrival_time, p.trip_id) > ($5, $6::timestamptz, $7::uuid))
  ORDER BY p.departure_time, p.arrival_time, p.trip_id LIMIT $8
)
SELECT {COLUMNS}, from_index, to_index, from_meters, to_meters
FROM found JOIN booking.trips t ON t.trip_id = found.trip_id
ORDER BY found.departure_time, found.arrival_time, found.trip_id
"""  # noqa: S608 - constants of ours


async def find_journeys(
    connection: "Connection", search: JourneySearch, *, most: int
) -> list[FoundJourney]:
    """Return journeys, earliest departure first, then earliest arrival, then by trip."""
    arguments: list[Any] = [
        search.tenant_id,
        search.departure_date,
        search.radius_meters,
        search.depart_after_time,
        *(search.after or (None, None, None)),
        most,
    ]
    from_meters = _meters(search.origin, arguments)
    to_meters = _meters(search.destination, arguments)
    narrow = _narrow(search, arguments)
    statement = _STATEMENT.format(from_meters=from_meters, to_meters=to_meters, narrow=narrow)
    rows = await connection.fetch(statement, *arguments)
    trips = await with_stops(connection, rows)
    return [
        FoundJourney(
            trip,
            Journey(row["from_index"], row["to_index"]),
            row["from_meters"],
            row["to_meters"],
        )
        for trip, row in zip(trips, rows, strict=True)
    ]


def _meters(end: str | Place, arguments: list[Any]) -> str:
    """Return the SQL of how far a stop is from an end of the journey; infinite if another stop."""
    if isinstance(end, str):
        arguments.append(end)
        return f"CASE WHEN s.stop_id = ${len(arguments)} THEN 0.0::float8 ELSE 'infinity' END"
    arguments += [end.latitude, end.longitude]
    latitude, longitude = f"${len(arguments) - 1}::float8", f"${len(arguments)}::float8"
    half_chord = (
        f"sind((s.latitude - {latitude}) / 2) ^ 2 + cosd({latitude}) * cosd(s.latitude)"
        f" * sind((s.longitude - {longitude}) / 2) ^ 2"
    )
    return f"{2 * EARTH_RADIUS_METERS} * asin(sqrt(least(1.0, {half_chord})))"


def _narrow(search: JourneySearch, arguments: list[Any]) -> str:
    """Return the SQL that an index answers: stops of this name, or those of a band of latitude."""
    origin = search.origin
    if isinstance(origin, str):
        arguments.append(origin)
        return f"s.stop_id = ${len(arguments)}"
    height = search.radius_meters / _METERS_PER_DEGREE
    arguments += [origin.latitude - height, origin.latitude + height]
    return f"s.latitude BETWEEN ${len(arguments) - 1} AND ${len(arguments)}"
