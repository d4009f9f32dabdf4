"""What PostgreSQL itself refuses of bookings, whoever writes, and who sees which."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from services.booking.domain.booking import MOVES, BookingState
from tests.contract.test_booking_schema import act, add_trip, refused
from tests.support.location_values import OTHER_TENANT, TENANT, new_id
from tests.support.stack_fixtures import TestDatabase

pytestmark = pytest.mark.integration

Connection = Any
_INSERT = """
INSERT INTO booking.bookings (booking_id, tenant_id, booking_code, trip_id, user_id, hold_id, state,
  payment_method, payment_state, step, currency_code, amount_minor, seats, passenger_count,
  from_stop_index, to_stop_index, fees, gateway, return_url, allow_other_seats, pending_seconds,
  expire_time, create_time, event_version, refunded_minor, confirm_time)
VALUES ($1, $2, $3, $4, $5, $6, $7, 'WALLET', 'PAID', 'REST', 'EGP', 1000, '', 1, 0, 1, '', '', '',
  false, 60, now(), now(), 1, $8, NULL)
"""


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(dsn)
    try:
        await act(connection)
        yield connection
    finally:
        await connection.close()


@pytest.fixture
async def rows(module_database: TestDatabase) -> AsyncIterator[Connection]:
    """Connect as the service's own work."""
    async with connected(module_database.dsn_for("booking")) as connection:
        yield connection


async def add_booking(connection: Connection, **values: Any) -> str:
    """Insert a booking by hand, as a careless service would."""
    booking_id = new_id()
    await connection.execute(
        _INSERT,
        booking_id,
        values.get("tenant_id", TENANT),
        values.get("code", "7KQ2M4XP"),
        values.get("trip_id") or await add_trip(connection),
        values.get("user_id", new_id()),
        values.get("hold_id", new_id()),
        values.get("state", "CONFIRMED"),
        values.get("refunded_minor", 0),
    )
    return booking_id


@pytest.mark.parametrize("state", BookingState)
async def test_a_booking_moves_only_as_the_table_of_moves_says(
    rows: Connection, state: BookingState
) -> None:
    trip_id = await add_trip(rows)
    for number, target in enumerate(BookingState):
        booking_id = await add_booking(rows, state=state, trip_id=trip_id, code=f"7KQ2M4X{number}")
        move = rows.execute(
            "UPDATE booking.bookings SET state = $2 WHERE booking_id = $1", booking_id, target
        )
        if target is state or target in MOVES[state]:
            await move
        else:
            with refused("WB003"):
                await move


async def test_nobody_has_both_seats_and_the_money_back(rows: Connection) -> None:
    with refused("23514"):
        await add_booking(rows, state="CONFIRMED", refunded_minor=1)
    booking_id = await add_booking(rows)
    with refused("23514"):
        await rows.execute(
            "UPDATE booking.bookings SET refunded_minor = 1 WHERE booking_id = $1", booking_id
        )


async def test_nobody_gets_back_more_than_was_paid(rows: Connection) -> None:
    booking_id = await add_booking(rows, state="CANCELLED")

    with refused("23514"):
        await rows.execute(
            "UPDATE booking.bookings SET refunded_minor = 1001 WHERE booking_id = $1", booking_id
        )


async def test_a_hold_becomes_one_booking(rows: Connection) -> None:
    hold_id = new_id()
    await add_booking(rows, hold_id=hold_id)

    with refused("23505"):
        await add_booking(rows, hold_id=hold_id)


async def test_a_name_for_people_is_given_once_a_trip(rows: Connection) -> None:
    trip_id = await add_trip(rows)
    await add_booking(rows, trip_id=trip_id)

    with refused("23505"):
        await add_booking(rows, trip_id=trip_id)


async def test_what_is_sold_stays_as_it_was_sold(rows: Connection) -> None:
    booking_id = await add_booking(rows)

    for column, value in (("amount_minor", 1), ("user_id", new_id()), ("trip_id", new_id())):
        with refused("42501"):
            await rows.execute(f"UPDATE booking.bookings SET {column} = $1", value)
    with refused("42501"):
        await rows.execute("DELETE FROM booking.bookings WHERE booking_id = $1", booking_id)


async def test_a_person_sees_their_own_bookings_and_no_sealed_names(rows: Connection) -> None:
    nour, sami = new_id(), new_id()
    mine = await add_booking(rows, user_id=nour)
    await add_booking(rows, user_id=sami)
    await rows.execute(
        "INSERT INTO booking.passengers (passenger_id, tenant_id, booking_id, sealed)"
        " VALUES ($1, $2, $3, $4)",
        *(new_id(), TENANT, mine, bytes(40)),
    )

    await act(rows, role="PASSENGER", user=nour)
    seen = await rows.fetch("SELECT booking_id::text FROM booking.bookings")
    names = await rows.fetchval("SELECT count(*) FROM booking.passengers")
    await act(rows, tenant=OTHER_TENANT, role="ADMIN")
    others = await rows.fetchval("SELECT count(*) FROM booking.bookings")
    await act(rows)

    assert [row[0] for row in seen] == [mine]
    assert names == 0
    assert others == 0


async def test_sealed_names_are_never_changed(rows: Connection) -> None:
    with refused("42501"):
        await rows.execute("UPDATE booking.passengers SET sealed = ''")
    with refused("42501"):
        await rows.execute("DELETE FROM booking.passengers")
