"""What PostgreSQL itself refuses of withdrawals and fraud flags, under the service's own role."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from services.ledger.domain.withdrawals import MOVES, State
from tests.support.ledger_rows import Books, refused
from tests.support.location_values import TENANT, new_id
from tests.support.stack_fixtures import TestDatabase

pytestmark = pytest.mark.integration

OTHER_TENANT = "0198c000-0000-7000-8000-000000000002"
DECIDED = "decided_by = '0198c000-0000-7000-8000-00000000000a'"


class WithdrawalBooks(Books):
    """Writes withdrawals by hand too."""

    async def begin(self, amount: int = 200, *, hold: str = "", user: str = "") -> str:
        """Insert a withdrawal that nothing is known of yet; return its id."""
        withdrawal_id = new_id()
        await self.connection.execute(
            "INSERT INTO ledger.withdrawals (withdrawal_id, tenant_id, user_id, currency_code,"
            " amount_minor, payout_destination, transfer_id, body_hash, state, next_time,"
            " create_time, update_time) VALUES ($1, $2, $3, 'EGP', $4, 'bank', $5, $6, 'HOLDING',"
            " now(), now(), now())",
            *(withdrawal_id, TENANT, user or self.user, amount, hold or new_id(), bytes(16)),
        )
        return withdrawal_id

    async def set(self, withdrawal_id: str, changes: str) -> None:
        await self.connection.execute(
            f"UPDATE ledger.withdrawals SET {changes} WHERE withdrawal_id = $1", withdrawal_id
        )

    async def to(self, withdrawal_id: str, state: str, changes: str = "") -> None:
        """Move one state on, as the service does."""
        more = f", {changes}" if changes else ""
        await self.set(withdrawal_id, f"state = '{state}', version = version + 1{more}")

    async def requested(self) -> tuple[str, str]:
        """Return a requested withdrawal of 200 and its hold."""
        await self.deposit(500)
        hold = await self.hold(200)
        withdrawal_id = await self.begin(hold=hold)
        await self.to(withdrawal_id, "REQUESTED")
        return withdrawal_id, hold

    async def approved(self) -> tuple[str, str]:
        withdrawal_id, hold = await self.requested()
        await self.to(withdrawal_id, "APPROVED", DECIDED)
        return withdrawal_id, hold


@pytest.fixture
async def books(migrated_database: TestDatabase) -> AsyncIterator[WithdrawalBooks]:
    connection = await asyncpg.connect(migrated_database.dsn_for("ledger"))
    try:
        made = WithdrawalBooks(connection)
        await made.open()
        yield made
    finally:
        await connection.close()


async def test_a_withdrawal_goes_the_way_of_the_table(books: WithdrawalBooks) -> None:
    withdrawal_id, hold = await books.approved()
    await books.record(
        [*books.paid(200), *books.released(200)], phase="POST", pending_id=hold, amount=200
    )

    await books.to(withdrawal_id, "PAID", "outcome = 'PAID'")


async def test_nothing_is_requested_that_holds_nothing(books: WithdrawalBooks) -> None:
    withdrawal_id = await books.begin()

    with refused("WL006"):
        await books.to(withdrawal_id, "REQUESTED")


async def test_a_hold_of_another_amount_is_none(books: WithdrawalBooks) -> None:
    await books.deposit(500)
    withdrawal_id = await books.begin(201, hold=await books.hold(200))

    with refused("WL006"):
        await books.to(withdrawal_id, "REQUESTED")


async def test_nothing_is_paid_whose_hold_is_not_posted(books: WithdrawalBooks) -> None:
    withdrawal_id, hold = await books.approved()

    with refused("WL006"):
        await books.to(withdrawal_id, "PAID", "outcome = 'PAID'")
    await books.record(books.released(200), phase="VOID", pending_id=hold)
    with refused("WL006"):
        await books.to(withdrawal_id, "PAID", "outcome = 'PAID'")


async def test_nothing_is_given_up_whose_amount_is_not_free(books: WithdrawalBooks) -> None:
    rejected, _ = await books.requested()
    failed, hold = await books.approved()

    with refused("WL006"):
        await books.to(rejected, "REJECTED", f"outcome = 'REJECTED', {DECIDED}")
    await books.record(
        [*books.paid(200), *books.released(200)], phase="POST", pending_id=hold, amount=200
    )
    with refused("WL006"):
        await books.to(failed, "FAILED", "outcome = 'FAILED'")


async def test_an_outcome_stands(books: WithdrawalBooks) -> None:
    withdrawal_id, _ = await books.approved()
    await books.set(withdrawal_id, "outcome = 'PAID'")

    with refused("WL006"):
        await books.set(withdrawal_id, "outcome = 'FAILED'")
    with refused("WL006"):
        await books.set(withdrawal_id, "outcome = NULL")


@pytest.mark.parametrize(
    "state",
    [one for one in State if one not in MOVES[State.APPROVED] and one is not State.APPROVED],
)
async def test_a_move_that_the_table_lacks_is_refused(books: WithdrawalBooks, state: State) -> None:
    withdrawal_id, _ = await books.approved()

    with pytest.raises(asyncpg.PostgresError) as caught:
        await books.to(withdrawal_id, state, f"outcome = {_outcome(state)}")

    assert caught.value.sqlstate in {"WL006", "23514"}


def _outcome(state: State) -> str:
    return f"'{state}'" if state is State.REJECTED else "NULL"


async def test_nobody_decides_their_own(books: WithdrawalBooks) -> None:
    withdrawal_id, _ = await books.requested()

    with refused("23514"):
        await books.to(withdrawal_id, "APPROVED", f"decided_by = '{books.user}'")


async def test_one_request_decides_one_withdrawal(books: WithdrawalBooks) -> None:
    (first, _), (second, _) = await books.requested(), await books.requested()
    decided = f"{DECIDED}, decide_request_id = '{new_id()}'"
    await books.to(first, "APPROVED", decided)

    with refused("23505"):
        await books.to(second, "APPROVED", decided)


@pytest.mark.parametrize("column", ["amount_minor = 1", "payout_destination = 'mine'"])
async def test_what_was_asked_for_does_not_change(books: WithdrawalBooks, column: str) -> None:
    withdrawal_id, _ = await books.requested()

    with refused("42501"):
        await books.set(withdrawal_id, column)


async def test_a_withdrawal_is_kept(books: WithdrawalBooks) -> None:
    withdrawal_id, _ = await books.requested()
    held_only = await books.begin(hold=await books.hold(100))
    nothing = await books.begin()
    delete = "DELETE FROM ledger.withdrawals WHERE withdrawal_id = $1"

    with refused("WL006"):
        await books.connection.execute(delete, withdrawal_id)
    with refused("WL006"):
        await books.connection.execute(delete, held_only)
    assert await books.connection.execute(delete, nothing) == "DELETE 1"


async def test_a_person_sees_their_own_and_writes_nothing(books: WithdrawalBooks) -> None:
    mine, _ = await books.requested()
    await books.begin(user=new_id())
    seen = "SELECT withdrawal_id::text FROM ledger.withdrawals"

    await books.act(role="PERSON", user=books.user)
    own = await books.connection.fetch(seen)
    changed = await books.connection.execute("UPDATE ledger.withdrawals SET reason = 'mine'")
    with refused("42501"):
        await books.begin()
    await books.act(role="PERSON", user=new_id())
    others = await books.connection.fetch(seen)
    await books.act(tenant=OTHER_TENANT)
    foreign = await books.connection.fetch(seen)

    assert [row[0] for row in own] == [mine]
    assert changed == "UPDATE 0"
    assert (others, foreign) == ([], [])


async def test_flags_are_for_staff_and_are_never_changed(
    books: WithdrawalBooks, migrated_database: TestDatabase
) -> None:
    await books.act(role="SWEEPER")
    flag = (
        "INSERT INTO ledger.fraud_flags VALUES"
        " ($1, $2, 'UNUSUAL_AMOUNT', '2026-11-26', $3, 'much', now())"
    )
    await books.connection.execute(flag, TENANT, books.user, new_id())
    with refused("23505"):
        await books.connection.execute(flag, TENANT, books.user, new_id())

    async def seen(**values: Any) -> Any:
        await books.act(**values)
        return await books.connection.fetchval("SELECT count(*) FROM ledger.fraud_flags")

    assert await seen(role="BUSINESS") == 1
    assert await seen(role="PERSON", user=books.user) == 0
    assert await seen(tenant=OTHER_TENANT) == 0
    with refused("42501"):
        await books.connection.execute(flag, TENANT, books.user, new_id())
    assert await seen(role="SERVICE") == 1
    profiles = await books.connection.fetchval("SELECT count(*) FROM ledger.fraud_profiles")
    assert profiles == 0
    owner = await asyncpg.connect(migrated_database.owner_dsn)
    try:
        with refused("WL001"):
            await owner.execute("DELETE FROM ledger.fraud_flags")
        with refused("WL001"):
            await owner.execute("TRUNCATE ledger.withdrawals")
    finally:
        await owner.close()


async def test_a_sweeper_tells_of_flags_and_of_nothing_else(books: WithdrawalBooks) -> None:
    tell = (
        "INSERT INTO ledger.events (aggregate_type, aggregate_id, aggregate_version, tenant_id,"
        " envelope) VALUES ($1, 'x', 1, $2, '')"
    )
    await books.act(role="SWEEPER")

    await books.connection.execute(tell, "fraud", TENANT)
    with refused("42501"):
        await books.connection.execute(tell, "transfer", TENANT)
