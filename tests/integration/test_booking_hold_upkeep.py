"""Holds that ended are forgotten, and no others."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from services.booking.operations.upkeep import Upkeep
from services.booking.store.holds import PostgresEndedHolds
from services.shared.clock import SystemClock
from services.shared.postgres import Database, Session, open_database
from tests.support.booking_process import BookingProcess
from tests.support.booking_seats import held, release
from tests.support.location_values import TENANT
from tests.support.stack_fixtures import TestDatabase
from wayfare.booking.v1 import booking_service_pb2 as pb

pytestmark = pytest.mark.integration


class LaterClock(SystemClock):
    """Is a day ahead."""

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(days=1)


@pytest.fixture
async def database(migrated_database: TestDatabase) -> AsyncIterator[Database]:
    opened = await open_database(migrated_database.dsn_for("booking"), pool_size=1)
    yield opened
    await opened.close()


async def known_holds(database: Database) -> set[str]:
    async with database.transaction(Session(tenant_id=TENANT, role="SERVICE")) as connection:
        rows = await connection.fetch("SELECT hold_id::text FROM booking.holds")
    return {row["hold_id"] for row in rows}


async def test_released_holds_are_forgotten_in_time_and_live_ones_kept(
    booking: BookingProcess, database: Database
) -> None:
    trip = await booking.trip()
    ended, passenger = await held(booking, trip, "1A")
    await release(booking, ended, passenger)
    live, other = await held(booking, trip, "1B")
    store = PostgresEndedHolds(database)

    young = await Upkeep(store=store, clock=LaterClock(), days_kept=1).forget_old()
    old = await Upkeep(store=store, clock=LaterClock(), days_kept=0).forget_old()
    again = await Upkeep(store=store, clock=LaterClock(), days_kept=0).forget_old()

    assert (young, old, again) == (0, 1, 0)
    assert await known_holds(database) == {live.hold_id}
    shown = await booking.call("ListHolds", pb.ListHoldsRequest(), other)
    assert [hold.hold_id for hold in shown.holds] == [live.hold_id]


async def test_batches_are_bounded(booking: BookingProcess, database: Database) -> None:
    trip = await booking.trip()
    for seat_number in ("1A", "1B", "1C"):
        await release(booking, *await held(booking, trip, seat_number))
    store, before = PostgresEndedHolds(database), LaterClock().now()

    counts = [await store.forget(before=before, most=2) for _ in range(3)]

    assert counts == [2, 1, 0]


async def test_postgresql_lets_nobody_delete_a_hold_that_keeps_seats_or_became_a_booking(
    booking: BookingProcess, database: Database, migrated_database: TestDatabase
) -> None:
    trip = await booking.trip()
    live, _ = await held(booking, trip, "1A")
    booked, passenger = await held(booking, trip, "1B")
    await release(booking, booked, passenger)
    ended, passenger = await held(booking, trip, "1C")
    await release(booking, ended, passenger)
    async with database.transaction(Session(tenant_id=TENANT, role="SERVICE")) as connection:
        await connection.execute(
            "UPDATE booking.holds SET booking_id = gen_random_uuid() WHERE hold_id = $1",
            booked.hold_id,
        )

    later = LaterClock().now()

    for session in (Session(tenant_id=TENANT, role="SERVICE"), Session(role="SWEEPER")):
        async with database.transaction(session) as connection:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute("DELETE FROM booking.holds")
    async with database.transaction(Session(tenant_id=TENANT, role="SERVICE")) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetchval("SELECT booking.forget_holds($1, 10)", later)
    assert ended.hold_id in await known_holds(database)
    async with database.transaction(Session(role="SWEEPER")) as connection:
        await connection.fetchval("SELECT booking.forget_holds($1, 10)", later)

    assert await known_holds(database) == {live.hold_id, booked.hold_id}
