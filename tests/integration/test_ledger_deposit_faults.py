"""Deposits that are cut off between any two steps: nothing is lost, made, or done twice."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from random import Random
from typing import Any, cast

import asyncpg
import pytest
from pydantic import SecretStr

from services.ledger import convert, deposit_messages
from services.ledger.deposit_ports import AuditLine, DepositStore, WebhookPost
from services.ledger.domain.accounts import AccountKey, AccountKind
from services.ledger.domain.deposits import (
    Deposit,
    DepositState,
    GatewayName,
    Step,
    WebhookOutcome,
)
from services.ledger.domain.transfers import Phase, Posting, Transfer, WantedTransfer
from services.ledger.gateways import ConfiguredGateways
from services.ledger.operations.deposits import Deposits, NewDeposit
from services.ledger.operations.posting import Poster
from services.ledger.operations.webhook_audit import WebhookAudit
from services.ledger.operations.webhooks import Webhooks
from services.ledger.ports import NewEvent
from services.ledger.store import PostgresDepositStore, PostgresLedgerStore
from services.shared.errors import DependencyUnavailableError
from services.shared.postgres import Database, open_database
from services.stack.payment_gateways import News, Payment, PaymentAccounts, payhere_post
from tests.support.location_values import TENANT, SettableClock, new_id
from tests.support.stack_fixtures import TestDatabase

pytestmark = pytest.mark.integration

ACCOUNTS = PaymentAccounts(payhere_secret="payhere-test-secret", kashier_secret="kashier-test-key")
# What happens in one life of a deposit, in the order in which it comes.
STORY = (Payment.PAID, Payment.PAID, Payment.FAILED, Payment.CHARGED_BACK, Payment.CHARGED_BACK)


class CutError(BaseException):
    """Is the end of a process: nothing catches it."""


class Cut:
    """Ends the process at the step with this number; what PostgreSQL has, it keeps."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.came = False

    def step(self) -> None:
        if self.left == 0:
            self.came = True
            raise CutError
        self.left -= 1


class CutParts:
    """Stands before a part, and cuts before and after each of its calls."""

    def __init__(self, part: Any, cut: Cut) -> None:
        self._part = part
        self._cut = cut

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._part, name)

        async def call(*arguments: Any, **values: Any) -> Any:
            self._cut.step()
            answer = await method(*arguments, **values)
            self._cut.step()
            return answer

        return call

    @asynccontextmanager
    async def held(self, tenant_id: str, deposit_id: str) -> AsyncIterator[Any]:
        self._cut.step()
        async with self._part.held(tenant_id, deposit_id) as held:
            yield _CutHeld(held, self._cut)
            # Cut before the commit: all of it is undone.
            self._cut.step()
        self._cut.step()


class _CutHeld:
    def __init__(self, held: Any, cut: Cut) -> None:
        self.deposit = held.deposit
        self._held = held
        self._cut = cut

    async def change(
        self, changed: Deposit, *, event: NewEvent | None, line: AuditLine | None
    ) -> None:
        self._cut.step()
        await self._held.change(changed, event=event, line=line)
        self._cut.step()


class Bench:
    """Holds the parts that outlive a process: the database, the poster's turn, the clock."""

    def __init__(self, database: Database, admin_dsn: str) -> None:
        self.database = database
        self.admin_dsn = admin_dsn
        self.clock = SettableClock()
        self.clock.time = datetime.now(UTC)
        self.ledger_store = PostgresLedgerStore(database, self.clock)
        self.poster = Poster(
            store=self.ledger_store,
            event_of=self._transfer_event,
            clock=self.clock,
            batch_max=100,
            waiting_max=1_000,
            committers=2,
            gather_seconds=0.0,
        )

    def process(self, cut: Cut | None = None) -> tuple[Deposits, Webhooks]:
        """Return the operations of a new process, which is cut if it is told to be."""
        store: Any = PostgresDepositStore(self.database, self.clock)
        poster: Any = self.poster
        if cut is not None:
            store, poster = CutParts(store, cut), CutParts(poster, cut)
        gateways = ConfiguredGateways(SecretStr(ACCOUNTS.setting()))
        deposits = Deposits(
            store=store,
            poster=poster,
            gateways=gateways,
            event_of=self._event,
            clock=self.clock,
            public_url="http://edge",
            usual_seconds=3_600,
            work_seconds=1.0,
        )
        audit = WebhookAudit(
            store=store,
            clock=self.clock,
            stranger_lines_per_minute=10,
            gateway_lines_per_minute=100,
            sum_seconds=10.0,
        )
        webhooks = Webhooks(
            store=store,
            deposits=deposits,
            gateways=gateways,
            audit=audit,
            event_of=self._event,
            clock=self.clock,
            ids=self,
        )
        return deposits, webhooks

    def new_id(self) -> str:
        return new_id()

    async def rows(self, query: str, *values: Any) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.admin_dsn)
        try:
            return list(await connection.fetch(query, *values))
        finally:
            await connection.close()

    def _event(self, deposit: Deposit) -> NewEvent:
        return deposit_messages.event_of(deposit, event_id=new_id())

    def _transfer_event(self, tenant_id: str, transfer: Transfer) -> NewEvent:
        return convert.event_of(tenant_id, transfer, event_id=new_id())


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


def wanted(user_id: str, request_id: str) -> NewDeposit:
    return NewDeposit(
        tenant_id=TENANT,
        user_id=user_id,
        caller=f"user:{user_id}",
        gateway=GatewayName.PAYHERE,
        amount_minor=10_000,
        currency_code="LKR",
        reference="",
        return_url="",
        expire_time=None,
        request_id=request_id,
    )


def told(deposit_id: str, payment: Payment) -> WebhookPost:
    news = News(
        order_id=deposit_id,
        payment_id=f"TX-{deposit_id[:8]}",
        payment=payment,
        amount="100.00",
        currency_code="LKR",
    )
    post = payhere_post(ACCOUNTS, news)
    return WebhookPost(body=post.body, content_type=post.headers["content-type"], headers={})


async def check_books(bench: Bench, deposit_id: str, user_id: str, wallet_minor: int) -> None:
    """Check that the money is where the state says, once, and that every change was told."""
    rows = await bench.rows(
        "SELECT a.kind, sum(e.amount_minor)::bigint AS amount, count(*) AS entries"
        " FROM ledger.entries e JOIN ledger.accounts a USING (account_id)"
        " JOIN ledger.transfers t USING (transfer_id) WHERE t.reference = $1 GROUP BY 1",
        f"deposit/{deposit_id}",
    )
    moved = {row["kind"]: row["amount"] for row in rows}
    assert moved.get("WALLET", 0) == wallet_minor, moved
    assert sum(moved.values()) == 0, moved
    key = AccountKey(AccountKind.WALLET, user_id, "LKR")
    kept = await bench.rows(
        "SELECT posted_minor FROM ledger.accounts WHERE account_id = $1", key.account_id(TENANT)
    )
    assert sum(row[0] for row in kept) == wallet_minor
    events = await bench.rows(
        "SELECT aggregate_version FROM ledger.events WHERE aggregate_type = 'deposit'"
        " AND aggregate_id = $1 ORDER BY 1",
        deposit_id,
    )
    (row,) = await bench.rows("SELECT * FROM ledger.deposits WHERE deposit_id = $1", deposit_id)
    assert [one[0] for one in events] == list(range(1, row["version"] + 1))
    applied = await bench.rows(
        "SELECT status FROM ledger.payment_webhooks WHERE deposit_id = $1 AND outcome = 'APPLIED'",
        deposit_id,
    )
    assert len({one[0] for one in applied}) == len(applied), "a notification took effect twice"


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
