"""What PostgreSQL itself refuses of seats and holds, whoever writes; and who sees them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from tests.support.location_values import TENANT, new_id
from tests.support.stack_fixtures import TestDatabase

pytestmark = pytest.mark.integration

Connection = Any
_WRITE = """
SELECT booking.write_seats($1, '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}',
  $2::uuid[], $3::text[], $4::bigint[], $5::uuid[],
  $6::uuid[], $7::text[], $8::bigint[], $9::uuid[], $10::text[], $11::uuid[],
  $12::uuid[], $13::text[], $14::bigint[], $15::text[], $16::uuid[])
"""
Claim = tuple[str, str, int, str]
"""Is trip, seat, legs and owner."""


@asynccontextmanager
async def acting(database: TestDatabase, role: str, user_id: str = "") -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(database.dsn_for("booking"))
    try:
        await connection.execute(
            "SELECT set_config('app.tenant_id', $1, false), set_config('app.role', $2, false),"
            " set_config('app.user_id', $3, false)",
            *(TENANT, role, user_id),
        )
        yield connection
    finally:
        await connection.close()


async def write(
    connection: Connection,
    *,
    gone: Sequence[Claim] = (),
    moved: Sequence[tuple[Claim, str]] = (),
    new: Sequence[Claim] = (),
) -> None:
    """Write claims as the service does: HELD when new, BOOKED when they move."""
    await connection.execute(
        _WRITE,
        TENANT,
        *([claim[part] for claim in gone] for part in range(4)),
        *([claim[part] for claim, _ in moved] for part in range(4)),
        ["BOOKED"] * len(moved),
        [owner for _, owner in moved],
        *([claim[part] for claim in new] for part in range(3)),
        ["HELD"] * len(new),
        [claim[3] for claim in new],
    )


async def claims(connection: Connection, trip_id: str) -> list[tuple[str, int, str]]:
    rows = await connection.fetch(
        "SELECT seat_number, leg_index, state FROM booking.seat_claims WHERE trip_id = $1"
        " ORDER BY seat_number, leg_index",
        trip_id,
    )
    return [tuple(row) for row in rows]


async def test_nobody_gets_a_seat_on_a_leg_that_somebody_has(
    migrated_database: TestDatabase,
) -> None:
    trip, other_trip = new_id(), new_id()
    async with acting(migrated_database, "SERVICE") as connection:
        await write(connection, new=[(trip, "1A", 0b0110, new_id())])
        with pytest.raises(asyncpg.UniqueViolationError):
            await write(connection, new=[(trip, "1A", 0b1100, new_id())])
        await write(
            connection,
            new=[(trip, "1A", 0b1001, new_id()), (other_trip, "1A", 0b0110, new_id())],
        )

        assert await claims(connection, trip) == [("1A", leg, "HELD") for leg in range(4)]


async def test_only_who_has_a_seat_gives_it_up_or_hands_it_over(
    migrated_database: TestDatabase,
) -> None:
    trip, holder, booking, stranger = (new_id() for _ in range(4))
    async with acting(migrated_database, "SERVICE") as connection:
        await write(connection, new=[(trip, "1A", 0b111, holder)])
        for wrong in (
            {"gone": [(trip, "1A", 0b001, stranger)]},
            {"gone": [(trip, "1A", 0b1001, holder)]},
            {"moved": [((trip, "1A", 0b001, stranger), booking)]},
            {"moved": [((trip, "1B", 0b001, holder), booking)]},
        ):
            with pytest.raises(asyncpg.PostgresError) as refusal:
                await write(connection, **wrong)
            assert refusal.value.sqlstate == "WB002"
        # What one gives up another may take in the same step.
        await write(
            connection,
            gone=[(trip, "1A", 0b001, holder)],
            moved=[((trip, "1A", 0b110, holder), booking)],
            new=[(trip, "1A", 0b001, stranger)],
        )

        assert await claims(connection, trip) == [
            ("1A", 0, "HELD"),
            ("1A", 1, "BOOKED"),
            ("1A", 2, "BOOKED"),
        ]


async def test_the_last_leg_that_there_can_be_is_written_and_freed(
    migrated_database: TestDatabase,
) -> None:
    trip, holder, everything = new_id(), new_id(), (1 << 63) - 1
    async with acting(migrated_database, "SERVICE") as connection:
        await write(connection, new=[(trip, "NULL", everything, holder)])
        count = len(await claims(connection, trip))
        await write(connection, gone=[(trip, "NULL", everything, holder)])

        assert count == 63
        assert await claims(connection, trip) == []


async def test_a_person_sees_their_own_holds_and_no_claims(
    migrated_database: TestDatabase,
) -> None:
    trip, person = new_id(), new_id()
    async with acting(migrated_database, "SERVICE") as connection:
        for user_id in (person, new_id()):
            await connection.execute(
                "INSERT INTO booking.holds (hold_id, tenant_id, trip_id, user_id, state,"
                " from_stop_id, to_stop_id, from_stop_index, to_stop_index, seats, currency_code,"
                " expire_time, extension_count, is_together, body_hash, create_time)"
                " VALUES ($1, $2, $3, $4, 'ACTIVE', 'A', 'B', 0, 1, '1A/STANDARD/100', 'EGP',"
                " now(), 0, false, $5, now())",
                *(new_id(), TENANT, trip, user_id, bytes(32)),
            )
        await write(connection, new=[(trip, "1A", 1, new_id())])
    async with acting(migrated_database, "PERSON", person) as connection:
        holds = await connection.fetch("SELECT user_id::text FROM booking.holds")
        seen = await connection.fetchval("SELECT count(*) FROM booking.seat_claims")
        with pytest.raises(asyncpg.PostgresError):
            await write(connection, new=[(trip, "1B", 1, person)])

    assert [row[0] for row in holds] == [person]
    assert seen == 0


async def test_what_a_hold_was_made_of_is_not_changed(migrated_database: TestDatabase) -> None:
    async with acting(migrated_database, "SERVICE") as connection:
        for statement in (
            "UPDATE booking.holds SET seats = '9A/STANDARD/0'",
            "UPDATE booking.holds SET user_id = tenant_id",
            "DELETE FROM booking.holds",
            "UPDATE booking.seat_claims SET seat_number = '9A'",
            "UPDATE booking.seat_overrides SET reason = 'other'",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
