"""Withdrawals as a state machine over the real database, cut between any two steps.

A cut is a process that dies: nothing after it happens. Whatever was cut, workers end it, and
nothing is paid twice, lost or made.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, TypeVar

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from services.ledger import convert, withdrawal_messages
from services.ledger.domain.accounts import AccountKey, AccountKind
from services.ledger.domain.transfers import Phase, Posting, WantedTransfer
from services.ledger.domain.withdrawals import MOVES, Decision, State
from services.ledger.operations.payouts import Payouts
from services.ledger.operations.posting import Poster
from services.ledger.operations.withdrawals import WithdrawalRequest, Withdrawals
from services.ledger.store import PostgresLedgerStore
from services.ledger.store.withdrawals import PostgresWithdrawalStore
from services.shared.errors import DomainError
from services.shared.postgres import open_database
from services.shared.tasks import cancel_all
from tests.support.location_values import new_id
from tests.support.payout_bridge import Behaviour, BookProvider, PayoutBook
from tests.support.stack_fixtures import TestDatabase

Answer = TypeVar("Answer")
pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(300)]

USERS = 2
LEASE = timedelta(seconds=90)
cuts = st.one_of(st.none(), st.integers(0, 14))
behaviours = st.sampled_from(
    [one for one in Behaviour if one is not Behaviour.TELLS_ANOTHER_AMOUNT]
)

_ROWS = """
SELECT withdrawal_id::text, user_id::text, amount_minor, state, outcome, version,
  (SELECT count(*) FROM ledger.events WHERE aggregate_type = 'withdrawal'
    AND aggregate_id = w.withdrawal_id::text) AS event_count,
  (SELECT phase FROM ledger.transfers WHERE pending_id = w.transfer_id) AS phase,
  EXISTS (SELECT 1 FROM ledger.transfers WHERE transfer_id = w.transfer_id) AS is_held
FROM ledger.withdrawals w WHERE tenant_id = $1
"""
_WALLETS = """
SELECT owner_id::text, posted_minor, pending_out_minor FROM ledger.accounts
WHERE tenant_id = $1 AND kind = 'WALLET'
"""


class Cut(BaseException):
    """Is the end of a process."""


class Knife:
    """Cuts before or after a call of what it stands in front of, so many steps on."""

    def __init__(self) -> None:
        self.left: int | None = None

    def step(self) -> None:
        if self.left is None:
            return
        if self.left <= 0:
            raise Cut
        self.left -= 1

    def before(self, target: Any, names: set[str]) -> Any:
        """Return the target with cuts around its methods of these names."""
        return _Cutting(target, names, self)


class _Cutting:
    def __init__(self, target: Any, names: set[str], knife: Knife) -> None:
        self._target, self._names, self._knife = target, names, knife

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._target, name)
        if name not in self._names:
            return method

        async def cutting(*arguments: Any, **values: Any) -> Any:
            self._knife.step()
            answer = await method(*arguments, **values)
            self._knife.step()
            return answer

        return cutting


class MovingClock:
    """Tells the time that the test sets."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 11, 24, tzinfo=UTC)

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return self.moment.timestamp()


class WithdrawalMachine(RuleBasedStateMachine):
    """Asks for withdrawals of one tenant, decides them, lets workers work, and cuts."""

    dsn: ClassVar[str]
    admin_dsn: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.tenant = new_id()
        self.users = [new_id() for _ in range(USERS)]
        self.deposited = dict.fromkeys(self.users, 0)
        self.requests: list[WithdrawalRequest] = []
        self.seen: dict[str, State] = {}
        self.clock, self.knife, self.book = MovingClock(), Knife(), PayoutBook()
        self.run(self.open())

    def run(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        return self.loop.run_until_complete(work)

    async def open(self) -> None:
        self.database = await open_database(self.dsn, pool_size=4)
        self.admin = await asyncpg.connect(self.admin_dsn)
        ledger = PostgresLedgerStore(self.database, self.clock)
        self.poster = Poster(
            store=ledger,
            event_of=lambda tenant, one: convert.event_of(tenant, one, event_id=new_id()),
            clock=self.clock,
            batch_max=50,
            waiting_max=1_000,
            committers=1,
            gather_seconds=0,
        )
        store = self.knife.before(
            PostgresWithdrawalStore(
                self.database, lambda one: withdrawal_messages.event_of(one, event_id=new_id())
            ),
            {"begin", "change", "claim", "find", "hold_is_open", "is_held"},
        )
        self.withdrawals = Withdrawals(
            store=store,
            ledger=ledger,
            poster=self.knife.before(self.poster, {"post"}),
            clock=self.clock,
            minimum_minor=100,
        )
        self.workers = [
            Payouts(
                withdrawals=self.withdrawals,
                store=store,
                provider=self.knife.before(BookProvider(self.book), {"create", "find"}),
                clock=self.clock,
                idle_seconds=1,
                first_retry_seconds=1,
                lease_seconds=LEASE.total_seconds(),
            )
            for _ in range(2)
        ]
        self.posting = self.loop.create_task(self.poster.run())
        await asyncio.sleep(0.01)

    def teardown(self) -> None:
        async def close() -> None:
            await cancel_all([self.posting])
            await self.admin.close()
            await self.database.close()

        try:
            self.end_well()
        finally:
            self.run(close())
            self.loop.close()

    def cutting(self, after: int | None, work: Callable[[], Coroutine[Any, Any, object]]) -> bool:
        """Do something, cut so many steps on; say whether it was done."""

        async def until_cut() -> bool:
            lasting = asyncio.all_tasks()
            self.knife.left = after
            try:
                await work()
            except Cut:
                return False
            except DomainError:
                return True
            finally:
                # What ran beside it dies at its own next step.
                others = asyncio.all_tasks() - lasting
                await asyncio.gather(*others, return_exceptions=True)
                self.knife.left = None
            return True

        return self.run(until_cut())

    @rule(user=st.integers(0, USERS - 1), amount=st.integers(100, 900))
    def deposit(self, user: int, amount: int) -> None:
        source = AccountKey(AccountKind.GATEWAY_CLEARING, "PAYHERE", "EGP")
        target = AccountKey(AccountKind.WALLET, self.users[user], "EGP")
        transfer_id = new_id()
        wanted = WantedTransfer(
            transfer_id=transfer_id,
            phase=Phase.POSTED,
            kind="DEPOSIT",
            currency_code="EGP",
            postings=[
                Posting(source.account_id(self.tenant), source, -amount),
                Posting(target.account_id(self.tenant), target, amount),
            ],
            body_hash=bytes(16),
        )
        (outcome,) = self.run(self.poster.post(self.tenant, [wanted]))
        assert outcome.error is None
        self.deposited[self.users[user]] += amount

    @rule(user=st.integers(0, USERS - 1), amount=st.integers(100, 600), how=behaviours, after=cuts)
    def request(self, user: int, amount: int, how: Behaviour, after: int | None) -> None:
        wanted = WithdrawalRequest(
            tenant_id=self.tenant,
            user_id=self.users[user],
            currency_code="EGP",
            amount_minor=amount,
            payout_destination=how,
            request_id=new_id(),
        )
        self.requests.append(wanted)
        self.cutting(after, lambda: self.withdrawals.request(wanted))

    @rule(data=st.data(), after=cuts)
    def request_again(self, data: st.DataObject, after: int | None) -> None:
        if self.requests:
            wanted = data.draw(st.sampled_from(self.requests))
            self.cutting(after, lambda: self.withdrawals.request(wanted))

    @rule(data=st.data(), approves=st.booleans(), twice=st.booleans(), after=cuts)
    def decide(self, data: st.DataObject, approves: bool, twice: bool, after: int | None) -> None:
        if not self.requests:
            return
        decision = Decision(
            state=State.APPROVED if approves else State.REJECTED,
            withdrawal_id=data.draw(st.sampled_from(self.requests)).withdrawal_id,
            admin_id=new_id(),
            role="ADMIN",
            request_id=new_id(),
            reason="" if approves else "no papers",
        )
        for _ in range(1 + twice):
            self.cutting(after, lambda: self.withdrawals.decide(self.tenant, decision))

    @rule(after=cuts)
    def work(self, after: int | None) -> None:
        async def both() -> None:
            await asyncio.gather(*(worker.work() for worker in self.workers))

        self.cutting(after, both)

    @rule(seconds=st.sampled_from([1, 10, 100]))
    def time_passes(self, seconds: int) -> None:
        self.clock.moment += timedelta(seconds=seconds)

    @invariant()
    def nothing_is_paid_twice_lost_or_made(self) -> None:
        rows, wallets = self.run(self.look())
        out = dict.fromkeys(self.users, 0)
        held = dict.fromkeys(self.users, 0)
        for row in rows:
            state, paid = State(row["state"]), self.book.money_moves[row["withdrawal_id"]]
            before = self.seen.get(row["withdrawal_id"], State.HOLDING)
            assert state is before or self.leads(before, state)
            self.seen[row["withdrawal_id"]] = state
            assert paid <= 1
            # Whoever was paid is never told anything else, and nobody is paid before approval.
            assert not paid or state in (State.APPROVED, State.PAID)
            assert state is not State.PAID or paid == 1
            assert row["event_count"] == row["version"]
            out[row["user_id"]] += row["amount_minor"] if row["phase"] == "POST" else 0
            if row["is_held"] and row["phase"] is None:
                held[row["user_id"]] += row["amount_minor"]
        for user in self.users:
            posted, pending = wallets.get(user, (0, 0))
            assert (posted, pending) == (self.deposited[user] - out[user], held[user])

    def leads(self, before: State, after: State) -> bool:
        """Say whether one state leads to another, in one move or several."""
        return any(one is after or self.leads(one, after) for one in MOVES[before])

    async def look(self) -> tuple[list[Any], dict[str, tuple[int, int]]]:
        rows = await self.admin.fetch(_ROWS, self.tenant)
        wallets = await self.admin.fetch(_WALLETS, self.tenant)
        return rows, {row[0]: (row[1], row[2]) for row in wallets}

    def end_well(self) -> None:
        """Let workers work uncut until nothing is left; then everything that began has ended."""
        for _ in range(12):
            self.clock.moment += timedelta(minutes=6)
            with suppress(DomainError):
                self.run(self.workers[0].work())
        self.nothing_is_paid_twice_lost_or_made()
        rows, _ = self.run(self.look())
        for row in rows:
            state = State(row["state"])
            assert state is not State.APPROVED
            assert row["outcome"] is None or row["outcome"] == state
            # What holds nothing was refused; it is forgotten in a day.
            assert (state is State.HOLDING) == (not row["is_held"])
            assert (row["phase"] is None) == (state in (State.HOLDING, State.REQUESTED))


def test_withdrawals_end_well_whatever_is_cut(module_database: TestDatabase) -> None:
    WithdrawalMachine.dsn = module_database.dsn_for("ledger")
    WithdrawalMachine.admin_dsn = module_database.admin_dsn
    run_state_machine_as_test(
        WithdrawalMachine,
        settings=settings(
            max_examples=25,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
