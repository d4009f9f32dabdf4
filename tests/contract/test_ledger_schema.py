"""What PostgreSQL itself refuses, under the service's own role, whatever its code does."""

import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import pytest

from services.ledger.domain.accounts import AccountKey, AccountKind
from tests.support.location_values import TENANT, new_id
from tests.support.stack_fixtures import TestDatabase

pytestmark = pytest.mark.integration

OTHER_TENANT = "0198c000-0000-7000-8000-000000000002"
Row = tuple[str, str, int]


class Books:
    """Writes rows by hand, as a careless service would."""

    def __init__(self, connection: "asyncpg.Connection[Any]") -> None:
        self.connection = connection
        self.user = new_id()
        self.wallet = self.id_of(AccountKind.WALLET, self.user)
        self.revenue = self.id_of(AccountKind.REVENUE)
        self.clearing = self.id_of(AccountKind.GATEWAY_CLEARING, "PAYHERE")

    def id_of(self, kind: AccountKind, subject: str = "", code: str = "EGP") -> str:
        return AccountKey(kind, subject, code).account_id(TENANT)

    async def act(self, *, tenant: str = TENANT, role: str = "SERVICE", user: str = "") -> None:
        for name, value in (("tenant_id", tenant), ("role", role), ("user_id", user)):
            await self.connection.execute("SELECT set_config($1, $2, false)", f"app.{name}", value)

    async def open(self) -> None:
        await self.act()
        accounts = [
            (self.wallet, "WALLET", self.user, self.user, 0),
            (self.revenue, "REVENUE", None, "", None),
            (self.clearing, "GATEWAY_CLEARING", None, "PAYHERE", None),
        ]
        for account_id, kind, owner, subject, limit in accounts:
            await self.connection.execute(
                "INSERT INTO ledger.accounts (account_id, tenant_id, kind, owner_id, subject,"
                " currency_code, limit_minor, create_time, update_time)"
                " VALUES ($1, $2, $3, $4, $5, 'EGP', $6, now(), now())",
                *(account_id, TENANT, kind, owner, subject, limit),
            )

    async def record(
        self,
        rows: Sequence[Row],
        *,
        phase: str = "POSTED",
        amount: int | None = None,
        **values: Any,
    ) -> str:
        """Insert a transfer and its entries (layer, account, amount) in one transaction."""
        transfer_id = new_id()
        posted = [row for row in rows if row[0] != "RELEASED"] or rows
        async with self.connection.transaction():
            await self.connection.execute(
                "INSERT INTO ledger.transfers (transfer_id, tenant_id, phase, kind, currency_code,"
                " amount_minor, posting_count, pending_id, refund_of, reference, body_hash,"
                " expire_time, create_time)"
                " VALUES ($1, $2, $3, 'TEST', 'EGP', $4, $5, $6, $7, '', $8, NULL, now())",
                transfer_id,
                TENANT,
                phase,
                amount or sum(max(0, row[2]) for row in posted),
                len(posted),
                values.get("pending_id"),
                values.get("refund_of"),
                bytes(16),
            )
            await self.add(transfer_id, rows)
        return transfer_id

    async def add(self, transfer_id: str, rows: Sequence[Row], *, first: int = 0) -> None:
        await self.connection.execute(
            "INSERT INTO ledger.entries (transfer_id, posting_index, account_id, tenant_id,"
            " layer, currency_code, amount_minor)"
            " SELECT $1, i, a, $2, l, 'EGP', m"
            " FROM unnest($3::smallint[], $4::uuid[], $5::text[], $6::bigint[]) AS n (i, a, l, m)",
            transfer_id,
            TENANT,
            [first + index for index in range(len(rows))],
            [row[1] for row in rows],
            [row[0] for row in rows],
            [row[2] for row in rows],
        )

    async def deposit(self, amount: int) -> str:
        return await self.record(
            [("POSTED", self.clearing, -amount), ("POSTED", self.wallet, amount)]
        )

    async def hold(self, amount: int) -> str:
        rows = [("PENDING", self.wallet, -amount), ("PENDING", self.revenue, amount)]
        return await self.record(rows, phase="PENDING")

    def released(self, amount: int) -> list[Row]:
        return [("RELEASED", self.wallet, amount), ("RELEASED", self.revenue, -amount)]

    def paid(self, amount: int) -> list[Row]:
        return [("POSTED", self.wallet, -amount), ("POSTED", self.revenue, amount)]

    async def balance(self) -> tuple[int, int]:
        row = await self.connection.fetchrow(
            "SELECT posted_minor, pending_out_minor FROM ledger.accounts WHERE account_id = $1",
            self.wallet,
        )
        assert row is not None
        return row[0], row[1]


@pytest.fixture
async def books(migrated_database: TestDatabase) -> AsyncIterator[Books]:
    connection = await asyncpg.connect(migrated_database.dsn_for("ledger"))
    try:
        made = Books(connection)
        await made.open()
        yield made
    finally:
        await connection.close()


def refused(code: str) -> Any:
    """Expect a PostgreSQL error by its code."""
    return pytest.raises(asyncpg.PostgresError, check=lambda error: error.sqlstate == code)


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
