"""Deposits that are cut off between any two steps: nothing is lost, made, or done twice."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from random import Random
from typing import cast

import pytest

from services.ledger.deposit_ports import AuditLine, DepositStore
from services.ledger.domain.accounts import AccountKey, AccountKind
from services.ledger.domain.deposits import (
    DepositState,
    GatewayName,
    Step,
    WebhookOutcome,
)
from services.ledger.domain.transfers import Phase, Posting, WantedTransfer
from services.ledger.operations.webhook_audit import WebhookAudit
from services.ledger.store import PostgresDepositStore
from services.shared.errors import DependencyUnavailableError
from services.shared.postgres import open_database
from services.stack.payment_gateways import Payment
from tests.support.deposit_cuts import (
    STORY,
    Bench,
    Cut,
    CutError,
    check_books,
    told,
    wanted,
)
from tests.support.location_values import TENANT, new_id
from tests.support.stack_fixtures import TestDatabase

pytestmark = pytest.mark.integration


@pytest.fixture
async def bench(migrated_database: TestDatabase) -> AsyncIterator[Bench]:
    database = await open_database(migrated_database.dsn_for("ledger"), pool_size=6)
    made = Bench(database, migrated_database.admin_dsn)
    posting = asyncio.create_task(made.poster.run())
    try:
        yield made
    finally:
        posting.cancel()
        await asyncio.gather(posting, return_exceptions=True)
        await database.close()


async def test_a_life_that_is_cut_anywhere_ends_as_if_it_had_not_been(bench: Bench) -> None:
    at = 0
    while True:
        cut = Cut(at)
        user_id, request_id = new_id(), new_id()
        with_cut = bench.process(cut)
        left = list(STORY)
        deposit_id = ""
        try:
            deposit, _ = await with_cut[0].create(wanted(user_id, request_id))
            deposit_id = deposit.deposit_id
            while left:
                await with_cut[1].receive(GatewayName.PAYHERE, told(deposit_id, left[0]))
                left.pop(0)
        except CutError:
            pass
        # The next process: people ask again, and the gateway posts what was not answered.
        deposits, webhooks = bench.process()
        deposit, _ = await deposits.create(wanted(user_id, request_id))
        assert not deposit_id or deposit.deposit_id == deposit_id
        bench.clock.pass_time(5)
        await deposits.finish_left()
        for payment in left:
            await webhooks.receive(GatewayName.PAYHERE, told(deposit.deposit_id, payment))
        await check_books(bench, deposit.deposit_id, user_id, 0)
        (row,) = await bench.rows(
            "SELECT state, step FROM ledger.deposits WHERE deposit_id = $1", deposit.deposit_id
        )
        assert tuple(row) == (DepositState.CHARGED_BACK, Step.NONE), at
        if not cut.came:
            break
        at += 1
    assert at > 30


async def test_a_payment_that_was_recorded_is_credited_without_another_webhook(
    bench: Bench,
) -> None:
    at, cut_points = 0, 0
    while True:
        cut = Cut(at)
        user_id = new_id()
        deposit, _ = await bench.process()[0].create(wanted(user_id, new_id()))
        post = told(deposit.deposit_id, Payment.PAID)
        with suppress(CutError):
            await bench.process(cut)[1].receive(GatewayName.PAYHERE, post)
        recorded = await bench.rows(
            "SELECT 1 FROM ledger.payment_webhooks WHERE deposit_id = $1 AND outcome = 'APPLIED'",
            deposit.deposit_id,
        )
        bench.clock.pass_time(5)
        # Two workers at once.
        await asyncio.gather(*(bench.process()[0].finish_left() for _ in range(2)))
        await check_books(bench, deposit.deposit_id, user_id, 10_000 if recorded else 0)
        if not cut.came:
            break
        cut_points += bool(recorded)
        at += 1
    assert cut_points > 5


@pytest.mark.parametrize("seed", range(12))
async def test_any_order_with_any_cuts_ends_with_the_books_in_order(
    bench: Bench, seed: int
) -> None:
    random = Random(seed)
    user_id, request_id = new_id(), new_id()
    deposit, _ = await bench.process()[0].create(wanted(user_id, request_id))
    story = random.sample((*STORY, Payment.PENDING, Payment.PAID), random.randint(2, 7))
    # What was not answered comes again, later than what follows it.
    waiting = list(story)
    while waiting:
        payment = waiting.pop(0)
        cut = Cut(random.randint(0, 24))
        try:
            await bench.process(cut)[1].receive(
                GatewayName.PAYHERE, told(deposit.deposit_id, payment)
            )
        except CutError:
            waiting.insert(random.randint(0, len(waiting)), payment)
        if random.random() < 0.3:
            bench.clock.pass_time(3)
            with suppress(CutError):
                await bench.process(Cut(random.randint(0, 12)))[0].finish_left()
    bench.clock.pass_time(3)
    await bench.process()[0].finish_left()

    in_wallet = Payment.PAID in story and Payment.CHARGED_BACK not in story
    await check_books(bench, deposit.deposit_id, user_id, 10_000 if in_wallet else 0)
    found = await PostgresDepositStore(bench.database, bench.clock).find_order(deposit.deposit_id)
    assert found is not None
    assert found.step is Step.NONE
    assert (found.state is DepositState.CHARGED_BACK) == (Payment.CHARGED_BACK in story)
    assert (found.state is DepositState.SUCCEEDED) == in_wallet


async def test_one_deposit_that_cannot_be_finished_does_not_hold_up_the_others(
    bench: Bench,
) -> None:
    user_id = new_id()
    ids = []
    for _ in range(2):
        deposit, _ = await bench.process()[0].create(wanted(user_id, new_id()))
        ids.append(deposit.deposit_id)
        await bench.rows(
            "UPDATE ledger.deposits SET step = 'CREDIT', payment_id = $2, step_time = $3"
            " WHERE deposit_id = $1",
            deposit.deposit_id,
            f"TX-{deposit.deposit_id}",
            bench.clock.now(),
        )
    bench.clock.pass_time(5)
    # A transfer that is none of ours has the id of the first one's.
    broken, _ = ids
    kept = PostgresDepositStore(bench.database, bench.clock)
    found = await kept.find_order(broken)
    assert found is not None
    keys = [
        AccountKey(AccountKind.REVENUE, "", "LKR"),
        AccountKey(AccountKind.CASH_FLOAT, "", "LKR"),
    ]
    postings = [
        Posting(key.account_id(TENANT), key, amount)
        for key, amount in zip(keys, (-1, 1), strict=True)
    ]
    other = WantedTransfer(
        transfer_id=found.credit_transfer_id(),
        phase=Phase.POSTED,
        kind="TEST",
        currency_code="LKR",
        postings=postings,
        body_hash=bytes(16),
    )
    await bench.poster.post(TENANT, [other])

    await bench.process()[0].finish_left()

    states = await bench.rows("SELECT deposit_id::text, state FROM ledger.deposits")
    assert dict(tuple(row) for row in states) == {ids[0]: "PENDING", ids[1]: "SUCCEEDED"}


async def test_accounts_that_many_open_at_once_are_opened_once(bench: Bench) -> None:
    for _ in range(10):
        made = [AccountKey(AccountKind.WALLET, new_id(), "LKR") for _ in range(100)]
        keys = {key.account_id(TENANT): key for key in made}
        await asyncio.gather(
            *(bench.ledger_store.open_accounts(TENANT, keys, limits={}) for _ in range(6))
        )

    (row,) = await bench.rows("SELECT count(*) FROM ledger.accounts")
    assert row[0] == 1_000


async def test_the_audit_s_sums_wait_while_postgresql_is_away(bench: Bench) -> None:
    store = PostgresDepositStore(bench.database, bench.clock)

    class Away:
        gone = True

        async def note(self, lines: list[AuditLine]) -> None:
            if self.gone:
                raise DependencyUnavailableError("postgresql")
            await store.note(lines)

    away = Away()
    audit = WebhookAudit(
        store=cast("DepositStore", away),
        clock=bench.clock,
        stranger_lines_per_minute=1,
        gateway_lines_per_minute=1,
        sum_seconds=10.0,
    )
    away.gone = False
    for number in range(20):
        await audit.note(_line(number))
    away.gone = True
    await audit.write_sums()
    await audit.note(_line(20))
    away.gone = False
    await audit.write_sums()

    rows = await bench.rows(
        "SELECT webhook_count, body_bytes FROM ledger.payment_webhooks ORDER BY webhook_count"
    )
    assert [row[0] for row in rows] == [1, 1, 1, 1, 1, 1, 15]
    assert sum(row[1] for row in rows) == sum(range(21))


def _line(number: int) -> AuditLine:
    return AuditLine(
        line_id=new_id(),
        tenant_id="",
        gateway=GatewayName.KASHIER,
        outcome=WebhookOutcome.REFUSED,
        reason="SIGNATURE_INVALID",
        is_verified=False,
        deposit_id="",
        order_id="",
        payment_id="",
        status=None,
        amount_minor=None,
        currency_code="",
        body_hash=json.dumps(number).encode().ljust(32),
        body_bytes=number,
        webhook_count=1,
        receive_time=datetime.now(UTC),
    )
