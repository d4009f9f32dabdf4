"""Keeps what BookingService told of scheduled trips. Everything works on a consumer's connection.

The tenant of an event is set on the connection for as long as the event is handled; the tables show
a tenant its own rows alone.
"""

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


async def keep_passenger(
    connection: "Connection", trip_id: str, tenant_id: str, *, user_id: str, joined: bool
) -> None:
    """Remember that somebody has a booking on the trip, or has none any more."""
    if not joined:
        await connection.execute(
            "DELETE FROM location.booked_passengers WHERE trip_id = $1 AND user_id = $2",
            trip_id,
            user_id,
        )
        return
    await connection.execute(
        "INSERT INTO location.booked_passengers (trip_id, user_id, tenant_id)"
        " VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        trip_id,
        user_id,
        tenant_id,
    )


async def keep_expected(
    connection: "Connection", trip_id: str, tenant_id: str, expected_count: int
) -> None:
    """Keep how many passengers are expected."""
    await connection.execute(
        "INSERT INTO location.booked_trips (trip_id, tenant_id, expected_count)"
        " VALUES ($1, $2, $3)"
        " ON CONFLICT (trip_id) DO UPDATE SET expected_count = excluded.expected_count",
        trip_id,
        tenant_id,
        expected_count,
    )


async def find(connection: "Connection", trip_id: str) -> BookedTrip | None:
    """Return what is known of a trip, or None."""
    row = await connection.fetchrow(
        "SELECT tenant_id::text, trip, capacity_count, expected_count, is_cancelled"
        " FROM location.booked_trips WHERE trip_id = $1",
        trip_id,
    )
    if row is None:
        return None
    people = await connection.fetch(
        "SELECT user_id::text FROM location.booked_passengers WHERE trip_id = $1", trip_id
    )
    passenger_ids = frozenset(one[0] for one in people)
    return BookedTrip(row[0], row[1], row[2], row[3], row[4], passenger_ids)
