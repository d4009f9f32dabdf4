"""What PostgreSQL itself refuses of deposits and of the audit of webhooks."""

import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from tests.support.location_values import OTHER_TENANT, TENANT, new_id
from tests.support.stack_fixtures import TestDatabase

pytestmark = pytest.mark.integration

STATES = ("PENDING", "SUCCEEDED", "FAILED", "EXPIRED", "CHARGED_BACK")
ALLOWED = {
    *(("PENDING", state) for state in STATES[1:]),
    *(("FAILED", state) for state in ("SUCCEEDED", "CHARGED_BACK")),
    *(("EXPIRED", state) for state in ("SUCCEEDED", "CHARGED_BACK")),
    ("SUCCEEDED", "CHARGED_BACK"),
}
MOVES = [(old, new) for old in STATES for new in STATES if old != new]


class Rows:
    """Writes rows by hand under the service's role, as a careless service would."""

    def __init__(self, connection: "asyncpg.Connection[Any]") -> None:
        self.connection = connection

    async def act(self, *, tenant: str = TENANT, role: str = "SERVICE", user: str = "") -> None:
        for name, value in (("tenant_id", tenant), ("role", role), ("user_id", user)):
            await self.connection.execute("SELECT set_config($1, $2, false)", f"app.{name}", value)

    async def deposit(self, *, user: str = "", tenant: str = TENANT) -> str:
        deposit_id = new_id()
        await self.connection.execute(
            "INSERT INTO ledger.deposits (deposit_id, tenant_id, user_id, gateway, amount_minor,"
            " currency_code, state, step, reference, return_url, body_hash, version, expire_time,"
            " create_time, update_time, step_time) VALUES ($1, $2, $3, 'KASHIER', 100, 'EGP',"
            " 'PENDING', 'NONE', '', '', $4, 1, now(), now(), now(), now())",
            *(deposit_id, tenant, user or new_id(), bytes(16)),
        )
        return deposit_id

    async def move(self, deposit_id: str, state: str) -> None:
        await self.connection.execute(
            "UPDATE ledger.deposits SET state = $2, version = version + 1,"
            " payment_id = coalesce(payment_id, $3), transfer_id = coalesce(transfer_id, $4)"
            " WHERE deposit_id = $1",
            *(deposit_id, state, f"TX-{deposit_id}", uuid.uuid4()),
        )

    async def note(self, **values: Any) -> None:
        row = {
            "line_id": new_id(),
            "tenant_id": TENANT,
            "gateway": "KASHIER",
            "outcome": "DUPLICATE",
            "reason": "",
            "is_verified": True,
            "order_id": "",
            "payment_id": "",
            "currency_code": "",
            "body_hash": bytes(32),
            "body_bytes": 1,
            "webhook_count": 1,
            **values,
        }
        names = ", ".join(row)
        marks = ", ".join(f"${index + 1}" for index in range(len(row)))
        await self.connection.execute(
            f"INSERT INTO ledger.payment_webhooks ({names}, receive_time) VALUES ({marks}, now())",
            *row.values(),
        )

    async def count(self, table: str) -> int:
        found = await self.connection.fetchval(f"SELECT count(*) FROM ledger.{table}")
        return int(found)


@pytest.fixture
async def rows(migrated_database: TestDatabase) -> AsyncIterator[Rows]:
    connection = await asyncpg.connect(migrated_database.dsn_for("ledger"))
    try:
        made = Rows(connection)
        await made.act()
        yield made
    finally:
        await connection.close()


def refused(code: str) -> Any:
    """Expect a PostgreSQL error by its code."""
    return pytest.raises(asyncpg.PostgresError, check=lambda error: error.sqlstate == code)


@pytest.mark.parametrize(("old", "new"), MOVES)
async def test_a_state_moves_forward_alone(rows: Rows, old: str, new: str) -> None:
    deposit_id = await rows.deposit()
    if old != "PENDING":
        await rows.move(deposit_id, old)

    if (old, new) in ALLOWED:
        await rows.move(deposit_id, new)
    else:
        with refused("WL006"):
            await rows.move(deposit_id, new)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("state = 'FAILED'", "WL006"),
        ("version = version + 1", "WL006"),
        ("state = 'SUCCEEDED', version = 2", "23514"),
        ("step = 'CREDIT'", "23514"),
        ("step = 'CHARGE_BACK'", "23514"),
        ("amount_minor = 1", "42501"),
        ("user_id = deposit_id", "42501"),
        ("currency_code = 'LKR'", "42501"),
    ],
)
async def test_a_pending_deposit_keeps_its_rules(rows: Rows, change: str, code: str) -> None:
    deposit_id = await rows.deposit()

    with refused(code):
        await rows.connection.execute(
            f"UPDATE ledger.deposits SET {change} WHERE deposit_id = $1", deposit_id
        )


@pytest.mark.parametrize("column", ["payment_id", "transfer_id"])
async def test_payment_and_transfer_are_not_exchanged(rows: Rows, column: str) -> None:
    deposit_id = await rows.deposit()
    await rows.move(deposit_id, "SUCCEEDED")

    with refused("WL006"):
        await rows.connection.execute(
            f"UPDATE ledger.deposits SET {column} = gen_random_uuid()::text::"
            + ("text" if column == "payment_id" else "uuid")
        )


async def test_a_payment_is_taken_once(rows: Rows) -> None:
    first, second = await rows.deposit(), await rows.deposit()
    take = "UPDATE ledger.deposits SET step = 'CREDIT', payment_id = 'TX' WHERE deposit_id = $1"
    await rows.connection.execute(take, first)

    with refused("23505"):
        await rows.connection.execute(take, second)


async def test_deposits_are_never_removed(rows: Rows) -> None:
    await rows.deposit()

    with refused("42501"):
        await rows.connection.execute("DELETE FROM ledger.deposits")


@pytest.mark.parametrize(
    "change",
    ["UPDATE ledger.payment_webhooks SET reason = ''", "DELETE FROM ledger.payment_webhooks"],
)
async def test_the_audit_is_not_changed_by_the_service_nor_by_its_owner(
    rows: Rows, migrated_database: TestDatabase, change: str
) -> None:
    await rows.note()
    with refused("42501"):
        await rows.connection.execute(change)
    owner = await asyncpg.connect(migrated_database.owner_dsn)
    try:
        with refused("WL001"):
            await owner.execute(change)
    finally:
        await owner.close()


@pytest.mark.parametrize(
    "values",
    [
        {"outcome": "REFUSED"},
        {"outcome": "DUPLICATE", "is_verified": False},
        {"outcome": "APPLIED", "deposit_id": None},
        {"outcome": "APPLIED", "deposit_id": new_id(), "webhook_count": 2},
        {"webhook_count": 0},
        {"payment_id": "x" * 65},
        {"body_hash": b""},
    ],
)
async def test_an_audit_line_keeps_its_rules(rows: Rows, values: dict[str, Any]) -> None:
    with refused("23514"):
        await rows.note(**values)


async def test_a_person_sees_their_own_deposits_and_no_audit(rows: Rows) -> None:
    user = new_id()
    await rows.deposit(user=user)
    await rows.deposit()
    await rows.note()

    await rows.act(role="PERSON", user=user)
    assert (await rows.count("deposits"), await rows.count("payment_webhooks")) == (1, 0)
    await rows.act(tenant=OTHER_TENANT)
    assert (await rows.count("deposits"), await rows.count("payment_webhooks")) == (0, 0)
    await rows.act(tenant="", role="SWEEPER")
    assert (await rows.count("deposits"), await rows.count("payment_webhooks")) == (2, 1)


async def test_a_person_writes_nothing(rows: Rows) -> None:
    user = new_id()
    deposit_id = await rows.deposit(user=user)
    await rows.act(role="PERSON", user=user)

    with refused("42501"):
        await rows.deposit(user=user)
    with refused("42501"):
        await rows.move(deposit_id, "SUCCEEDED")
    with refused("42501"):
        await rows.note()


async def test_nobody_writes_into_another_tenant(rows: Rows) -> None:
    with refused("42501"):
        await rows.deposit(tenant=OTHER_TENANT)
    with refused("42501"):
        await rows.note(tenant_id=OTHER_TENANT)
    with refused("42501"):
        await rows.note(tenant_id=None)


async def test_the_sweeper_notes_what_nobody_owns_and_applies_nothing(rows: Rows) -> None:
    deposit_id = await rows.deposit()
    await rows.act(tenant="", role="SWEEPER")
    await rows.note(tenant_id=None, outcome="REFUSED", reason="X", is_verified=False)

    with refused("42501"):
        await rows.note(outcome="APPLIED", deposit_id=deposit_id)
    changed = await rows.connection.execute("UPDATE ledger.deposits SET step = 'NONE'")
    assert changed == "UPDATE 0"
