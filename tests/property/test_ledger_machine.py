"""The ledger as a state machine over the real database: whatever is asked, the books agree."""

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar, TypeVar

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from services.ledger import convert
from services.ledger.domain.accounts import AccountKey, AccountKind
from services.ledger.domain.transfers import Phase, Posting, WantedTransfer
from services.ledger.errors import AccountUnknownError, LimitAboveBalanceError
from services.ledger.operations.posting import Poster
from services.ledger.operations.upkeep import Upkeep
from services.ledger.store import PostgresLedgerStore
from services.shared.postgres import open_database
from services.shared.tasks import cancel_all
from tests.support.ledger_books import MovingClock, assert_books_agree
from tests.support.location_values import new_id
from tests.support.stack_fixtures import TestDatabase

Answer = TypeVar("Answer")
pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(300)]

USERS = 3
amounts = st.integers(1, 400)
users = st.integers(0, USERS - 1)


@dataclass
class Hold:
    """Is a pending transfer as the model knows it."""

    transfer_id: str
    user: int
    amount: int
    expire_time: datetime
    open: bool = True


@dataclass
class Payment:
    """Is a payment that may be refunded."""

    transfer_id: str
    user: int
    amount: int
    refunded: int = 0


@dataclass
class Wallet:
    """Is what the model says of a wallet."""

    posted: int = 0
    pending: int = 0
    limit: int = 0
    holds: list[Hold] = field(default_factory=list)

    @property
    def available(self) -> int:
        return self.posted - self.pending - self.limit


class LedgerMachine(RuleBasedStateMachine):
    """Asks for random transfers of one tenant of its own and foresees what becomes of them."""

    dsn: ClassVar[str]
    admin_dsn: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.tenant = new_id()
        self.user_ids = [new_id() for _ in range(USERS)]
        self.wallets = [Wallet() for _ in range(USERS)]
        self.holds: list[Hold] = []
        self.payments: list[Payment] = []
        self.done: list[WantedTransfer] = []
        self.clock = MovingClock()
        self.run(self.open())

    def run(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        return self.loop.run_until_complete(work)

    async def open(self) -> None:
        self.database = await open_database(self.dsn, pool_size=3)
        self.admin = await asyncpg.connect(self.admin_dsn)
        self.store = PostgresLedgerStore(self.database, self.clock)
        self.poster = Poster(
            store=self.store,
            event_of=lambda tenant, one: convert.event_of(tenant, one, event_id=new_id()),
            clock=self.clock,
            batch_max=50,
            waiting_max=1_000,
            committers=2,
            gather_seconds=0,
        )
        self.upkeep = Upkeep(
            store=self.store, poster=self.poster, clock=self.clock, expire_seconds=1, fold_seconds=1
        )
        self.posting = self.loop.create_task(self.poster.run())

    def teardown(self) -> None:
        async def close() -> None:
            await cancel_all([self.posting])
            await self.admin.close()
            await self.database.close()

        self.run(close())
        self.loop.close()

    def key(self, user: int) -> AccountKey:
        return AccountKey(AccountKind.WALLET, self.user_ids[user], "EGP")

    def wanted(self, source: AccountKey, target: AccountKey, amount: int) -> WantedTransfer:
        postings = [
            Posting(source.account_id(self.tenant), source, -amount),
            Posting(target.account_id(self.tenant), target, amount),
        ]
        return self.bare(postings=postings, currency_code="EGP")

    def bare(self, **values: Any) -> WantedTransfer:
        transfer_id = new_id()
        return WantedTransfer(
            **{
                "transfer_id": transfer_id,
                "phase": Phase.POSTED,
                "kind": "TEST",
                "currency_code": "",
                "postings": (),
                "body_hash": bytes.fromhex(transfer_id.replace("-", "")),
                **values,
            }
        )

    def post(self, *wanted: WantedTransfer) -> Sequence[str]:
        outcomes = self.run(self.poster.post(self.tenant, wanted))
        self.done += [
            one for one, outcome in zip(wanted, outcomes, strict=True) if outcome.transfer
        ]
        return [outcome.error.reason if outcome.error else "" for outcome in outcomes]

    @rule(user=users, amount=amounts)
    def deposit(self, user: int, amount: int) -> None:
        clearing = AccountKey(AccountKind.GATEWAY_CLEARING, "PAYHERE", "EGP")
        assert self.post(self.wanted(clearing, self.key(user), amount)) == [""]
        self.wallets[user].posted += amount

    @rule(user=users, amount=amounts)
    def pay(self, user: int, amount: int) -> None:
        wanted = self.wanted(self.key(user), REVENUE, amount)
        enough = self.wallets[user].available >= amount
        assert self.post(wanted) == ["" if enough else "FUNDS_INSUFFICIENT"]
        if enough:
            self.wallets[user].posted -= amount
            self.payments.append(Payment(wanted.transfer_id, user, amount))

    @rule(user=users, each=amounts, count=st.integers(2, 6))
    def hold_many_at_once(self, user: int, each: int, count: int) -> None:
        wanted = [self.wanted(self.key(user), REVENUE, each) for _ in range(count)]
        for one in wanted:
            one.phase, one.timeout = Phase.PENDING, timedelta(minutes=10)

        async def all_at_once() -> list[str]:
            calls = (self.poster.post(self.tenant, [one]) for one in wanted)
            return [
                one.error.reason if one.error else "" for (one,) in await asyncio.gather(*calls)
            ]

        reasons = self.run(all_at_once())
        fits = min(count, max(0, self.wallets[user].available // each))
        assert reasons.count("") == fits
        for one, reason in zip(wanted, reasons, strict=True):
            if not reason:
                end = self.clock.moment + timedelta(minutes=10)
                self.holds.append(Hold(one.transfer_id, user, each, end))
                self.wallets[user].pending += each

    @rule(data=st.data(), part=st.integers(1, 100), voids=st.booleans())
    def resolve(self, data: st.DataObject, part: int, voids: bool) -> None:
        if not self.holds:
            return
        hold = data.draw(st.sampled_from(self.holds))
        amount = max(1, hold.amount * part // 100)
        postings = [] if voids else self.wanted(self.key(hold.user), REVENUE, amount).postings
        wanted = self.bare(
            phase=Phase.VOID if voids else Phase.POST,
            kind="",
            pending_id=hold.transfer_id,
            postings=postings,
        )
        (reason,) = self.post(wanted)
        in_time = hold.expire_time > self.clock.moment
        assert (reason == "") == (hold.open and (voids or in_time))
        if not reason:
            hold.open = False
            self.wallets[hold.user].pending -= hold.amount
            self.wallets[hold.user].posted -= 0 if voids else amount

    @rule(data=st.data(), amount=amounts)
    def refund(self, data: st.DataObject, amount: int) -> None:
        if not self.payments:
            return
        paid = data.draw(st.sampled_from(self.payments))
        wanted = self.bare(refund_of=paid.transfer_id, refund_minor=amount)
        fits = paid.refunded + amount <= paid.amount
        assert self.post(wanted) == ["" if fits else "REFUND_EXCEEDS_PAYMENT"]
        if fits:
            paid.refunded += amount
            self.wallets[paid.user].posted += amount

    @rule(first=users, second=users, amount=amounts)
    def chain(self, first: int, second: int, amount: int) -> None:
        one = self.wanted(self.key(first), REVENUE, amount)
        two = self.wanted(self.key(second), REVENUE, amount)
        one.linked = True
        need = {first: amount}
        need[second] = need.get(second, 0) + amount
        enough = all(self.wallets[user].available >= sum_ for user, sum_ in need.items())
        assert (self.post(one, two) == ["", ""]) == enough
        if enough:
            for user, spent in need.items():
                self.wallets[user].posted -= spent

    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        if self.done:
            before = len(self.done)
            assert self.post(data.draw(st.sampled_from(self.done))) == [""]
            assert len(self.done) == before

    @rule(minutes=st.integers(1, 15))
    def time_passes(self, minutes: int) -> None:
        self.clock.moment += timedelta(minutes=minutes)
        self.run(self.upkeep.expire())
        for hold in self.holds:
            if hold.open and hold.expire_time <= self.clock.moment:
                hold.open = False
                self.wallets[hold.user].pending -= hold.amount

    @rule(user=users, limit=st.integers(-300, 0))
    def change_limit(self, user: int, limit: int) -> None:
        account_id = self.key(user).account_id(self.tenant)
        wallet = self.wallets[user]
        with suppress(AccountUnknownError, LimitAboveBalanceError):
            self.run(
                self.store.update_account(
                    self.tenant, account_id, currency_code="EGP", limit_minor=limit, blocked=None
                )
            )
            wallet.limit = limit

    @rule()
    def fold(self) -> None:
        self.run(self.store.fold())

    @invariant()
    def the_books_agree(self) -> None:
        async def look() -> None:
            await assert_books_agree(self.admin, self.tenant)
            rows = await self.admin.fetch(
                "SELECT subject, posted_minor, pending_out_minor FROM ledger.accounts"
                " WHERE tenant_id = $1 AND kind = 'WALLET'",
                self.tenant,
            )
            kept = {row[0]: (row[1], row[2]) for row in rows}
            for user_id, wallet in zip(self.user_ids, self.wallets, strict=True):
                assert kept.get(user_id, (0, 0)) == (wallet.posted, wallet.pending)

        self.run(look())


REVENUE = AccountKey(AccountKind.REVENUE, "", "EGP")


def test_the_books_agree_whatever_is_asked(module_database: TestDatabase) -> None:
    LedgerMachine.dsn = module_database.dsn_for("ledger")
    LedgerMachine.admin_dsn = module_database.admin_dsn
    run_state_machine_as_test(
        LedgerMachine,
        settings=settings(
            max_examples=25,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
