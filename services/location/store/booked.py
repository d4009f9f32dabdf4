"""Keeps what BookingService told of scheduled trips. Everything works on a consumer's connection.

The tenant of an event is set on the connection for as long as the event is handled; the tables show
a tenant its own rows alone.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from services.shared.postgres import Connection


class BookedTrip(NamedTuple):
    """Is what is known of a trip; `trip` is None while only passengers are known."""

    tenant_id: str
    trip: bytes | None
    capacity_count: int
    expected_count: int
    cancelled: bool
    passenger_ids: frozenset[str]


async def act_for(connection: "Connection", tenant_id: str) -> None:
    """See and write one tenant's rows from now on; "" for none."""
    await connection.execute("SELECT set_config('app.tenant_id', $1, true)", tenant_id)


async def keep_trip(
    connection: "Connection", trip_id: str, tenant_id: str, *, trip: bytes, capacity_count: int
) -> None:
    """Keep a trip as it is now."""
    await connection.execute(
        "INSERT INTO location.booked_trips (trip_id, tenant_id, trip, capacity_count)"
        " VALUES ($1, $2, $3, $4) ON CONFLICT (trip_id) DO UPDATE SET"
        " trip = excluded.trip, capacity_count = excluded.capacity_count",
        trip_id,
        tenant_id,
        trip,
        capacity_count,
    )


async def keep_cancelled(connection: "Connection", trip_id: str, tenant_id: str) -> None:
    """Remember that a trip does not run."""
    await connection.execute(
        "INSERT INTO location.booked_trips (trip_id, tenant_id, is_cancelled)"
        " VALUES ($1, $2, true) ON CONFLICT (trip_id) DO UPDATE SET is_cancelled = true",
        trip_id,
        tenant_id,
    )


async def keep_passengers(
    connection: "Connection", tenant_id: str, passengers: Mapping[tuple[str, str], bool]
) -> None:
    """Remember by trip and user who has a booking on the trip, or has none any more."""
    joined = [one for one, travels in passengers.items() if travels]
    left = [one for one, travels in passengers.items() if not travels]
    if left:
        await connection.execute(
            "DELETE FROM location.booked_passengers WHERE (trip_id, user_id) IN"
            " (SELECT * FROM unnest($1::uuid[], $2::uuid[]))",
            *zip(*left, strict=True),
        )
    if joined:
        await connection.execute(
            "INSERT INTO location.booked_passengers (tenant_id, trip_id, user_id)"
            " SELECT $1, * FROM unnest($2::uuid[], $3::uuid[]) ON CONFLICT DO NOTHING",
            tenant_id,
            *zip(*joined, strict=True),
        )


async def keep_expected(
    connection: "Connection", tenant_id: str, expected_counts: Mapping[str, int]
) -> None:
    """Keep by trip how many passengers are expected."""
    if not expected_counts:
        return
    await connection.execute(
        "INSERT INTO location.booked_trips (tenant_id, trip_id, expected_count)"
        " SELECT $1, * FROM unnest($2::uuid[], $3::integer[])"
        " ON CONFLICT (trip_id) DO UPDATE SET expected_count = excluded.expected_count",
        tenant_id,
        list(expected_counts),
        list(expected_counts.values()),
    )


async def find(connection: "Connection", trip_ids: Sequence[str]) -> dict[str, BookedTrip]:
    """Return by trip what is known of it."""
    rows = await connection.fetch(
        "SELECT trip_id::text, tenant_id::text, trip, capacity_count, expected_count, is_cancelled"
        " FROM location.booked_trips WHERE trip_id = ANY ($1::uuid[])",
        trip_ids,
    )
    people = await connection.fetch(
        "SELECT trip_id::text, user_id::text FROM location.booked_passengers"
        " WHERE trip_id = ANY ($1::uuid[])",
        trip_ids,
    )
    passengers: dict[str, set[str]] = {}
    for trip_id, user_id in people:
        passengers.setdefault(trip_id, set()).add(user_id)
    return {
        row[0]: BookedTrip(
            row[1], row[2], row[3], row[4], row[5], frozenset(passengers.get(row[0], ()))
        )
        for row in rows
    }
