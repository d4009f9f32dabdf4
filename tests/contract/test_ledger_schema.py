"""What PostgreSQL itself refuses, under the service's own role, whatever its code does."""

import uuid
from collections.abc import AsyncIterator, Sequence

import asyncpg
import pytest

from tests.support.ledger_rows import Books, Row, refused
from tests.support.location_values import new_id
from tests.support.stack_fixtures import TestDatabase

pytestmark = pytest.mark.integration

OTHER_TENANT = "0198c000-0000-7000-8000-000000000002"


@pytest.fixture
async def books(migrated_database: TestDatabase) -> AsyncIterator[Books]:
    connection = await asyncpg.connect(migrated_database.dsn_for("ledger"))
    try:
        made = Books(connection)
        await made.open()
        yield made
    finally:
        await connection.close()


async def test_entries_move_the_balance(books: Books) -> None:
    await books.deposit(500)
    hold = await books.hold(200)
    assert await books.balance() == (500, 200)

    await books.record(
        [*books.paid(150), *books.released(200)], phase="POST", pending_id=hold, amount=150
    )

    assert await books.balance() == (350, 0)


async def test_an_unbalanced_transfer_is_refused(books: Books) -> None:
    with refused("WL002"):
        await books.record([("POSTED", books.clearing, -100), ("POSTED", books.wallet, 101)])


async def test_entries_cannot_be_added_to_a_transfer_later(books: Books) -> None:
    transfer_id = await books.deposit(500)

    with refused("WL002"):
        await books.add(transfer_id, books.paid(100), first=2)


async def test_a_wallet_does_not_fall_below_its_limit(books: Books) -> None:
    await books.deposit(500)
    await books.hold(300)

    with refused("23514"):
        await books.record(books.paid(201))
    with refused("23514"):
        await books.hold(201)
    await books.record(books.paid(200))


@pytest.mark.parametrize("table", ["transfers", "entries", "events"])
@pytest.mark.parametrize(
    "change", ["UPDATE ledger.{} SET tenant_id = tenant_id", "DELETE FROM ledger.{}"]
)
async def test_nothing_recorded_is_changed_or_removed(
    books: Books, migrated_database: TestDatabase, table: str, change: str
) -> None:
    await books.deposit(500)
    owner = await asyncpg.connect(migrated_database.owner_dsn)
    try:
        with refused("42501"):
            await books.connection.execute(change.format(table))
        with refused("WL001"):
            await owner.execute(change.format(table))
        with refused("WL001"):
            await owner.execute(f"TRUNCATE ledger.{table}")
    finally:
        await owner.close()


async def test_a_balance_is_not_written_by_hand(books: Books) -> None:
    with refused("42501"):
        await books.connection.execute("UPDATE ledger.accounts SET posted_minor = 1000000")


async def test_a_pending_transfer_is_resolved_once(books: Books) -> None:
    await books.deposit(500)
    hold = await books.hold(200)
    await books.record(books.released(200), phase="VOID", pending_id=hold)

    with refused("23505"):
        await books.record(books.released(200), phase="EXPIRE", pending_id=hold)


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([("paid", 250), ("released", 200)], id="more than was pending"),
        pytest.param([("paid", 100), ("released", 100)], id="less set free than was pending"),
    ],
)
async def test_a_resolution_that_does_not_fit_is_refused(
    books: Books, rows: Sequence[tuple[str, int]]
) -> None:
    await books.deposit(500)
    hold = await books.hold(200)
    entries = [row for name, amount in rows for row in getattr(books, name)(amount)]

    with refused("WL003"):
        await books.record(entries, phase="POST", pending_id=hold)


async def test_no_more_is_refunded_than_was_paid(books: Books) -> None:
    await books.deposit(500)
    paid = await books.record(books.paid(300))
    back: list[Row] = [("POSTED", books.wallet, 200), ("POSTED", books.revenue, -200)]
    await books.record(back, refund_of=paid)

    with refused("WL004"):
        await books.record(back, refund_of=paid)


async def test_an_account_of_another_currency_or_none_is_refused(books: Books) -> None:
    with refused("WL005"):
        await books.record([("POSTED", books.clearing, -1), ("POSTED", str(uuid.uuid4()), 1)])


async def test_another_tenant_sees_and_writes_nothing(books: Books) -> None:
    await books.deposit(500)
    await books.act(tenant=OTHER_TENANT)

    for table in ("accounts", "transfers", "entries", "events"):
        assert await books.connection.fetchval(f"SELECT count(*) FROM ledger.{table}") == 0
    with refused("42501"):
        await books.deposit(500)


async def test_a_person_sees_their_own_rows_under_the_services_role(books: Books) -> None:
    await books.deposit(500)

    await books.act(role="PERSON", user=books.user)
    mine = await books.connection.fetch("SELECT account_id, amount_minor FROM ledger.entries")
    await books.act(role="PERSON", user=new_id())
    others = await books.connection.fetch("SELECT account_id FROM ledger.entries")
    accounts = await books.connection.fetch("SELECT account_id FROM ledger.accounts")
    transfers = await books.connection.fetch("SELECT transfer_id FROM ledger.transfers")

    assert [(str(row[0]), row[1]) for row in mine] == [(books.wallet, 500)]
    assert (others, accounts, transfers) == ([], [], [])
    with refused("42501"):
        await books.deposit(500)
