"""What PostgreSQL itself refuses of tickets, and who sees them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from services.booking.store import tickets as ticket_rows
from services.shared.postgres import Session
from tests.support.booking_process import BookingProcess
from tests.support.booking_tickets import Bus, bus_of
from tests.support.location_values import OTHER_TENANT, TENANT, new_id

pytestmark = pytest.mark.integration


@pytest.fixture
async def bus(booking: BookingProcess) -> AsyncIterator[Bus]:
    async with bus_of(booking) as made:
        yield made


@asynccontextmanager
async def session(
    bus: Bus, role: str, *, user_id: str = "", tenant_id: str = TENANT
) -> AsyncIterator[Any]:
    """Open a transaction of the service's role for somebody."""
    wanted = Session(tenant_id=tenant_id, user_id=user_id, role=role)
    async with bus.database.transaction(wanted) as connection:
        yield connection


async def test_a_passenger_has_one_good_ticket(bus: Bus) -> None:
    (issued,) = await bus.book("2A")
    (other,) = await bus.book("2B")
    second = replace(other, passenger_id=issued.passenger_id, ticket_id=new_id())

    with pytest.raises(asyncpg.UniqueViolationError, match="one_good"):
        async with session(bus, "SERVICE") as connection:
            await ticket_rows.insert(connection, TENANT, [second])
    await bus.revoke(issued)
    async with session(bus, "SERVICE") as connection:
        await ticket_rows.insert(connection, TENANT, [second])


async def test_a_ticket_names_a_key_and_a_trip_of_its_tenant(bus: Bus) -> None:
    (issued,) = await bus.book("2A")
    faults = [
        replace(issued, ticket_id=new_id(), passenger_id=new_id(), key_id="00000000"),
        replace(issued, ticket_id=new_id(), passenger_id=new_id(), trip_id=new_id()),
    ]

    for fault in faults:
        with pytest.raises(asyncpg.ForeignKeyViolationError):
            async with session(bus, "SERVICE") as connection:
                await ticket_rows.insert(connection, TENANT, [fault])
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with session(bus, "SERVICE") as connection:
            await ticket_rows.insert(
                connection, OTHER_TENANT, [replace(issued, ticket_id=new_id())]
            )


async def test_a_tenant_has_one_key_with_an_open_end(bus: Bus) -> None:
    await bus.book("2A")

    with pytest.raises(asyncpg.UniqueViolationError, match="one_is_open"):
        async with session(bus, "SERVICE") as connection:
            await connection.execute(
                "INSERT INTO booking.ticket_keys (tenant_id, key_id, resource_id, public_key,"
                " sealed_private_key, sign_start_time, create_time)"
                " VALUES ($1, 'ffffffff', $2, $3, '', now(), now())",
                *(TENANT, new_id(), bytes(32)),
            )


async def test_what_was_signed_scanned_and_taken_stays(bus: Bus) -> None:
    (issued,) = await bus.book("2A", pays_cash=True)
    await bus.verify(issued)
    changes = [
        ("UPDATE booking.tickets SET code = code", asyncpg.InsufficientPrivilegeError),
        ("UPDATE booking.tickets SET seat_number = '9Z'", asyncpg.InsufficientPrivilegeError),
        ("DELETE FROM booking.tickets", asyncpg.InsufficientPrivilegeError),
        ("UPDATE booking.scans SET reason = ''", asyncpg.InsufficientPrivilegeError),
        ("DELETE FROM booking.scans", asyncpg.InsufficientPrivilegeError),
        ("UPDATE booking.cash_takings SET amount_minor = 1", asyncpg.InsufficientPrivilegeError),
        ("DELETE FROM booking.ticket_revocations", asyncpg.InsufficientPrivilegeError),
        (
            "UPDATE booking.tickets SET use_scan_id = NULL",
            asyncpg.CheckViolationError,
        ),
        (
            "INSERT INTO booking.cash_takings SELECT * FROM booking.cash_takings",
            asyncpg.UniqueViolationError,
        ),
    ]

    for change, refusal in changes:
        with pytest.raises(refusal):
            async with session(bus, "SERVICE") as connection:
                await connection.execute(change)


async def test_people_see_their_own_tickets_and_nothing_of_the_rest(bus: Bus) -> None:
    amira, layla = new_id(), new_id()
    (own,) = await bus.book("2A", user_id=amira, pays_cash=True)
    await bus.book("2B", user_id=layla)
    await bus.verify(own)
    await bus.revoke(own)

    async with session(bus, "PASSENGER", user_id=amira) as connection:
        seen = await connection.fetch("SELECT ticket_id::text FROM booking.tickets")
        hidden = [
            await connection.fetchval(f"SELECT count(*) FROM booking.{table}")
            for table in (
                "ticket_keys",
                "ticket_revocations",
                "scans",
                "cash_takings",
                "boarding_marks",
                "boardings",
            )
        ]
    async with session(bus, "SERVICE", tenant_id=OTHER_TENANT) as connection:
        elsewhere = await connection.fetchval("SELECT count(*) FROM booking.tickets")
    async with session(bus, "SERVICE") as connection:
        all_of_it = await connection.fetchval("SELECT count(*) FROM booking.tickets")

    assert [row[0] for row in seen] == [own.ticket_id]
    assert hidden == [0] * 6
    assert (elsewhere, all_of_it) == (0, 2)
