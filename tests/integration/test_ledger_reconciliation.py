"""Reconciliations over real books: clean when they agree, and each kind of discrepancy is named."""

import asyncio

import asyncpg
import pytest

from services.ledger.audit_messages import event_of
from services.ledger.operations.reconciling import Reconciler
from services.ledger.store.reconciliation import PostgresReconciliationStore
from services.shared.clock import SystemClock
from services.shared.postgres import open_database
from tests.support.ledger_process import (
    CLEARING,
    CURRENCY,
    REVENUE,
    LedgerProcess,
    money,
    pb,
    transfer,
    wallet,
)
from tests.support.ledger_reconciling import ALL, BOOKS, TRIPS, found_in, reconcile
from tests.support.ledger_tampering import tampering
from tests.support.location_values import TENANT, new_id
from tests.support.stack_fixtures import TestDatabase
from wayfare.event.v1.envelope_pb2 import Envelope
from wayfare.ledger.v1.audit_pb2 import Reconciliation

pytestmark = pytest.mark.integration


async def make_history(ledger: LedgerProcess) -> tuple[str, list[str]]:
    """Move money in every way that there is; return a person and the transfers."""
    user = await ledger.person(100_000)
    paid = [transfer(wallet(user), REVENUE, 1_000 + number) for number in range(8)]
    assert await ledger.create(*paid) == [""] * 8
    held = [await ledger.hold(user, 500) for _ in range(3)]
    for method, pending in (("PostPending", held[0]), ("VoidPending", held[1])):
        request = getattr(pb, f"{method}Request")(
            tenant_id=TENANT, pending_transfer_id=pending, request_id=new_id()
        )
        await ledger.call(method, request)
    refund = pb.RefundTransferRequest(
        tenant_id=TENANT, transfer_id=paid[0].transfer_id, request_id=new_id()
    )
    await ledger.call("RefundTransfer", refund)
    return user, [one.transfer_id for one in paid]


async def test_books_that_agree_have_no_discrepancies(ledger: LedgerProcess) -> None:
    await make_history(ledger)

    report = await reconcile(ledger, BOOKS)

    assert not report.discrepancies
    # One of funding, 8 payments, 3 holds, a post, a void and a refund; a wallet, clearing, revenue.
    assert (report.transfer_count, report.account_count) == (15, 3)
    assert list(report.checks) == list(BOOKS)


async def test_books_agree_in_every_moment_while_money_moves(ledger: LedgerProcess) -> None:
    user = await ledger.person(100_000)

    async def pay() -> None:
        for _ in range(15):
            assert await ledger.create(transfer(wallet(user), REVENUE, 7)) == [""]

    payments = [asyncio.create_task(pay()) for _ in range(4)]
    reports = [await reconcile(ledger, BOOKS) for _ in range(5)]
    await asyncio.gather(*payments)

    assert not any(report.discrepancies for report in reports)


PLANTED = {
    "UPDATE ledger.entries SET amount_minor = amount_minor + 5 WHERE transfer_id = $1"
    " AND posting_index = 1": "debits and credits differ",
    "UPDATE ledger.entries SET currency_code = 'LKR' WHERE transfer_id = $1"
    " AND posting_index = 1": "entries have another currency than the transfer",
    "UPDATE ledger.transfers SET amount_minor = 1 WHERE transfer_id = $1": "the entries are not"
    " what the transfer says",
    "UPDATE ledger.entries SET layer = 'PENDING' WHERE transfer_id = $1": "the entries are not what"
    " the transfer says",
    "DELETE FROM ledger.transfers WHERE transfer_id = $1": "there are entries of a transfer that is"
    " not there",
    "DELETE FROM ledger.entries WHERE transfer_id = $1": "the transfer has no entries",
}


async def test_transfers_that_do_not_balance_are_named(
    ledger: LedgerProcess, migrated_database: TestDatabase
) -> None:
    _, paid = await make_history(ledger)
    expected = {}
    async with tampering(migrated_database) as connection:
        for one, (statement, description) in zip(paid[1:], PLANTED.items(), strict=False):
            await connection.execute(statement, one)
            expected[f"transfer/{one}"] = [description]

    report = await reconcile(ledger, BOOKS[:1])

    assert found_in(report) == expected
    (odd,) = (one for one in report.discrepancies if "debits" in one.description)
    assert (odd.found, odd.expected) == (money(1_006), money(1_001))


@pytest.mark.parametrize(
    ("column", "description"),
    [
        ("posted_minor", "what is posted is not the sum of the entries"),
        ("pending_out_minor", "what is pending to go out is not the sum of the entries"),
        ("pending_in_minor", "what is pending to come in is not the sum of the entries"),
    ],
)
async def test_a_balance_that_is_not_the_sum_of_its_entries_is_named(
    ledger: LedgerProcess, migrated_database: TestDatabase, column: str, description: str
) -> None:
    user, _ = await make_history(ledger)
    account_id = (await ledger.account(user)).account_id
    async with tampering(migrated_database) as connection:
        await connection.execute(
            f"UPDATE ledger.accounts SET {column} = {column} + 3 WHERE account_id = $1", account_id
        )

    report = await reconcile(ledger, BOOKS)

    found = found_in(report)
    assert found.pop(f"account/{account_id}") == [description]
    over_all = {f"currency/{CURRENCY}": ["all balances of the currency together are not zero"]}
    assert found == (over_all if column == "posted_minor" else {})


async def test_what_is_not_folded_yet_counts(
    ledger: LedgerProcess, migrated_database: TestDatabase
) -> None:
    await make_history(ledger)
    async with tampering(migrated_database) as connection:
        # As if it were not folded: taken from the row, and added to the gains.
        await connection.execute(
            "WITH a AS (UPDATE ledger.accounts SET posted_minor = posted_minor - 9"
            " WHERE kind = 'REVENUE' RETURNING account_id, tenant_id)"
            " INSERT INTO ledger.account_deltas (account_id, tenant_id, posted_minor,"
            " pending_out_minor, pending_in_minor) SELECT account_id, tenant_id, 9, 0, 0 FROM a"
        )

    assert not (await reconcile(ledger, BOOKS)).discrepancies


async def test_a_report_is_kept_and_made_once_for_a_request(ledger: LedgerProcess) -> None:
    refused = await ledger.refused(
        "GetReconciliation",
        pb.GetReconciliationRequest(reconciliation_id="latest"),
        ledger.bearer("ADMIN", new_id()),
    )
    await ledger.person(100)
    request_id = new_id()

    first, second = await asyncio.gather(
        *(reconcile(ledger, BOOKS, request_id=request_id) for _ in range(2))
    )
    await ledger.person(100)
    again = await reconcile(ledger, BOOKS, request_id=request_id)
    kept: list[Reconciliation] = [
        await ledger.call(
            "GetReconciliation",
            pb.GetReconciliationRequest(reconciliation_id=name),
            ledger.bearer("BUSINESS", new_id()),
        )
        for name in ("latest", first.reconciliation_id)
    ]
    other = await ledger.refused(
        "RunReconciliation",
        pb.RunReconciliationRequest(checks=TRIPS, request_id=request_id),
        ledger.bearer("ADMIN", new_id()),
    )
    unknown = await ledger.refused(
        "GetReconciliation",
        pb.GetReconciliationRequest(reconciliation_id="-" * 36),
        ledger.bearer("ADMIN", new_id()),
    )

    assert first == second == again == kept[0] == kept[1]
    assert first.transfer_count == 1
    assert refused.reason == unknown.reason == "RECONCILIATION_UNKNOWN"
    assert other.reason == "REQUEST_ID_REUSED"


async def test_the_clock_reconciles_once_a_day_whatever_number_of_processes(
    ledger: LedgerProcess, migrated_database: TestDatabase
) -> None:
    await ledger.person(100)
    database = await open_database(migrated_database.dsn_for("ledger"), pool_size=8)
    reconcilers = [
        Reconciler(
            store=PostgresReconciliationStore(database),
            event_of=lambda tenant_id, report: event_of(tenant_id, report, event_id=new_id()),
            clock=SystemClock(),
            hour=0,
        )
        for _ in range(3)
    ]
    made = await asyncio.gather(*(one.run_due() for one in reconcilers))
    later = await reconcilers[0].run_due()
    await database.close()
    async with tampering(migrated_database) as connection:
        events = await connection.fetch(
            "SELECT envelope FROM ledger.events WHERE aggregate_type = 'reconciliation'"
        )

    assert (sum(made), later) == (1, 0)
    (event,) = (Envelope.FromString(row[0]) for row in events)
    assert event.payload.type_url.endswith("ledger.v1.ReconciliationCompleted")
    newest: Reconciliation = await ledger.call(
        "GetReconciliation",
        pb.GetReconciliationRequest(reconciliation_id="latest"),
        ledger.bearer("ADMIN", new_id()),
    )
    assert newest.scheduled
    assert list(newest.checks) == list(ALL)


async def test_money_from_a_gateway_without_a_deposit_is_named(ledger: LedgerProcess) -> None:
    wanted = transfer(CLEARING, wallet(new_id()), 700)
    assert await ledger.create(wanted) == [""]

    report = await reconcile(ledger, ALL)

    assert found_in(report) == {
        f"transfer/{wanted.transfer_id}": ["money comes from PAYHERE without a deposit"]
    }


async def test_reports_cannot_be_changed(
    ledger: LedgerProcess, migrated_database: TestDatabase
) -> None:
    await ledger.person(100)
    await reconcile(ledger, BOOKS)
    connection = await asyncpg.connect(migrated_database.admin_dsn)
    try:
        for statement in (
            "UPDATE ledger.reconciliations SET discrepancy_count = 0",
            "DELETE FROM ledger.reconciliations",
            "TRUNCATE ledger.chain_leaves",
            "DELETE FROM ledger.chain_blocks",
            "UPDATE ledger.expected_payments SET amount_minor = 0",
        ):
            with pytest.raises(asyncpg.PostgresError, match=r"immutable|foreign key"):
                await connection.execute(statement)
    finally:
        await connection.close()


async def test_a_changed_hold_that_cannot_expire_is_named_and_holds_up_nothing(
    ledger: LedgerProcess, migrated_database: TestDatabase
) -> None:
    user, _ = await make_history(ledger)
    held, other = await ledger.hold(user, 300), await ledger.hold(user, 400)
    async with tampering(migrated_database) as connection:
        # More is held by the one than its account says, and both are over.
        await connection.execute(
            "UPDATE ledger.entries SET amount_minor = amount_minor * 1000 WHERE transfer_id = $1",
            held,
        )
        await connection.execute(
            "UPDATE ledger.transfers SET expire_time = now() WHERE transfer_id = ANY ($1::uuid[])",
            [held, other],
        )
        async with asyncio.timeout(20):
            while not await connection.fetchval(
                "SELECT 1 FROM ledger.transfers WHERE pending_id = $1", other
            ):
                await asyncio.sleep(0.02)

    found = found_in(await reconcile(ledger, BOOKS))

    assert f"transfer/{held}" in found
    assert f"transfer/{other}" not in found
    assert await ledger.person(100)
