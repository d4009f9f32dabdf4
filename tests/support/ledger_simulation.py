"""A ledger whose processes die and lose their connections, and clients that come again.

A `Flow` is what a client does, and what it must come to: once, however often it was cut. Add one by
`tests/support/ledger_flows.py` or a file beside it; add what a process needs for it to
`LedgerParts`.
"""

import asyncio
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import asyncpg
from redis.exceptions import ResponseError

from services.ledger import audit_messages
from services.ledger.domain.accounts import AccountKey, AccountKind
from services.ledger.domain.reconciliation import Check, ExpectedPayment
from services.ledger.domain.withdrawals import Decision, State
from services.ledger.operations.reconciling import Reconciler
from services.ledger.store.reconciliation import PostgresReconciliationStore, expect_payments
from services.shared.errors import DependencyUnavailableError
from services.shared.events.streams import PARTITIONS
from services.shared.postgres import Database, Session, open_database
from services.shared.tasks import cancel_all
from services.shared.valkey import VALKEY_AWAY, Valkey, open_valkey
from tests.support.fault_cuts import Cut, Cutter, CutValkey, ProcessDiedError, cut_pool
from tests.support.ledger_books import (
    MovingClock,
    assert_books_agree,
    balances,
    pending,
    unfinished,
)
from tests.support.ledger_parts import LedgerParts, Process
from tests.support.location_values import new_id
from tests.support.payout_bridge import PayoutBook
from tests.support.stack_fixtures import TestDatabase

HOLD = timedelta(minutes=10)
_TRIES = 12
# How often workers come by until nothing is left, and after what time each.
_ROUNDS = 12
_ROUND = timedelta(minutes=6)
# What a client may come again after; anything else is a fault of the ledger.
COME_AGAIN = (DependencyUnavailableError, ProcessDiedError, *VALKEY_AWAY, ResponseError)
_EFFECTS = """
CREATE SCHEMA simulation;
CREATE TABLE simulation.effects (
  effect_id bigint GENERATED ALWAYS AS IDENTITY, event_id uuid, aggregate text, version bigint);
GRANT USAGE ON SCHEMA simulation TO wayfare_ledger;
GRANT INSERT ON simulation.effects TO wayfare_ledger;
"""
_WEBHOOKS = """
SELECT (SELECT count(*) FROM (
    SELECT 1 FROM ledger.payment_webhooks WHERE tenant_id = $1 AND outcome = 'APPLIED'
    GROUP BY deposit_id, status HAVING count(*) > 1) AS twice),
  (SELECT count(*) FROM ledger.payment_webhooks WHERE reason = 'SIGNATURE_INVALID')
"""
_WAITING = """
SELECT (SELECT count(*) FROM ledger.deposits WHERE tenant_id = $1 AND state = 'PENDING')
  + (SELECT count(*) FROM ledger.withdrawals
    WHERE tenant_id = $1 AND state NOT IN ('PAID', 'REJECTED', 'FAILED'))
"""


@dataclass(frozen=True, kw_only=True)
class Flow:
    """Is what a client does with fixed ids until it has an answer, and what it comes to.

    `moves` is what it posts to accounts, in minor units, once; afterwards nothing may be pending.
    `transfer_count` is how many transfers it makes, those of workers included. `others` are what it
    may come to besides, if something is raced; `abandoned` what else it may have moved if the
    client never comes again. `trip` is what a completed trip says it is to be paid.
    """

    name: str
    talk: Callable[[LedgerParts], Awaitable[Any]]
    moves: Mapping[AccountKey, int]
    transfer_count: int
    passing: timedelta = timedelta(0)
    others: Sequence[tuple[Mapping[AccountKey, int], int]] = ()
    abandoned: Sequence[Mapping[AccountKey, int]] = ()
    trip: ExpectedPayment | None = None


@dataclass
class Simulation:
    """Is the ledger of one tenant, clients of it, and what its books must say."""

    dsn: str
    valkey: Valkey
    admin: "asyncpg.Connection[Any]"
    # Of the service's own role, and never cut.
    database: Database
    random: random.Random
    clock: MovingClock = field(default_factory=MovingClock)
    expected: Counter[str] = field(default_factory=Counter)
    transfer_count: int = 0
    payouts: PayoutBook = field(default_factory=PayoutBook)
    forged_count: int = 0
    tenant_id: str = ""
    process: Process | None = None
    story: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Name the tenant."""
        self.tenant_id = self.new_id()

    def new_id(self) -> str:
        """Return an id that follows from the seed."""
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def balance(self, key: AccountKey) -> int:
        """Return what the books must say of an account."""
        return self.expected[key.account_id(self.tenant_id)]

    async def start(self) -> Process:
        """Start a process."""
        cutter = Cutter()
        pool = await cut_pool(self.dsn, cutter, size=4)
        valkey = CutValkey(self.valkey, cutter)
        parts = LedgerParts(Database(pool), valkey, self.clock, cutter=cutter, payouts=self.payouts)
        posting = asyncio.create_task(parts.poster.run())
        cutter.terminate = pool.terminate

        async def close() -> None:
            pool.terminate()
            cutter.buried.set()
            await cancel_all([posting])

        self.process = Process(parts, cutter, close)
        return self.process

    async def stop(self) -> None:
        """End the process, as kill -9 does."""
        if self.process is not None:
            await self.process.close()
            self.process = None

    async def do(
        self,
        flow: Flow,
        cuts: Sequence[tuple[int, Cut]] = (),
        *,
        gives_up: bool = False,
        valkey_away: bool = False,
    ) -> bool:
        """Do a flow while it is cut; check the books; return whether every cut happened.

        Each try after the first is cut by the next of `cuts`, at that call of the try. With
        `gives_up` the client never comes again after a cut: then all was done, or nothing. With
        `valkey_away` Valkey does not answer during the first try.
        """
        left = list(cuts)
        happened = 0
        self.story.append(
            f"{flow.name} {[(at, cut.name) for at, cut in cuts]} {gives_up=} {valkey_away=}"
        )
        for number in range(_TRIES):
            process = self.process or await self.start()
            process.cutter.valkey_away = valkey_away and number == 0
            if left:
                process.cutter.arm(*left.pop(0))
            try:
                await process.run(self._once(process.parts, flow))
            except COME_AGAIN as error:
                self.story.append(f"  {type(error).__name__} at {process.cutter.calls[-1:]}")
                happened += process.cutter.disarm()
                if process.cutter.dead.is_set():
                    await self.stop()
                if gives_up:
                    break
                continue
            happened += process.cutter.disarm()
            await self._foresee(flow)
            await self.check()
            return happened == len(cuts)
        assert gives_up, "the client never got an answer"
        await self._recover(flow)
        return True

    async def _once(self, parts: LedgerParts, flow: Flow) -> None:
        await flow.talk(parts)
        self.clock.moment += flow.passing
        await self._let_work(parts)

    async def _let_work(self, parts: LedgerParts) -> None:
        """Let workers come by until nothing is left for them."""
        for _ in range(_ROUNDS):
            # Where they find nothing they do nothing: that need not be cut.
            is_left = await unfinished(self.admin, self.tenant_id)
            for work in (*(parts.finishers if is_left else ()), *parts.workers):
                await work()
            if not await unfinished(self.admin, self.tenant_id):
                return
            self.clock.moment += _ROUND

    async def _foresee(self, flow: Flow) -> None:
        """Expect what the flow comes to: of several outcomes, the one that is there."""
        found = await balances(self.admin, self.tenant_id), await self._transfers()
        for moves, count in flow.others:
            if found == (self._wanted(moves), self.transfer_count + count):
                break
        else:
            moves, count = flow.moves, flow.transfer_count
        self._expect(moves)
        self.transfer_count += count
        if flow.trip is not None:
            session = Session(role="SWEEPER")
            async with self.database.transaction(session) as connection:
                await expect_payments(connection, [flow.trip])

    def _expect(self, moves: Mapping[AccountKey, int]) -> None:
        for key, amount in moves.items():
            self.expected[key.account_id(self.tenant_id)] += amount

    async def _recover(self, flow: Flow) -> None:
        """Let workers finish what a client left, and accept all of it or nothing."""
        process = self.process or await self.start()
        process.cutter.valkey_away = False
        self.clock.moment += 2 * HOLD
        await self._let_work(process.parts)
        await self._reject_requested(process.parts)
        found = await balances(self.admin, self.tenant_id)
        outcomes = (flow.moves, *(one for one, _ in flow.others), *flow.abandoned)
        if found != self._wanted():
            self._expect(next((one for one in outcomes if self._wanted(one) == found), flow.moves))
        self.transfer_count = await self._transfers()
        await self.check()

    async def _reject_requested(self, parts: LedgerParts) -> None:
        """Reject what nobody came back for, as an ADMIN does some day."""
        rows = await self.admin.fetch(
            "SELECT withdrawal_id::text FROM ledger.withdrawals"
            " WHERE tenant_id = $1 AND state = 'REQUESTED'",
            self.tenant_id,
        )
        for row in rows:
            decision = Decision(
                state=State.REJECTED,
                withdrawal_id=row[0],
                admin_id=self.new_id(),
                role="ADMIN",
                request_id=self.new_id(),
                reason="nobody came back",
            )
            await parts.withdrawals.decide(self.tenant_id, decision)

    def _wanted(self, moves: Mapping[AccountKey, int] | None = None) -> dict[str, int]:
        wanted = self.expected.copy()
        for key, amount in (moves or {}).items():
            wanted[key.account_id(self.tenant_id)] += amount
        return {key: amount for key, amount in wanted.items() if amount}

    async def _transfers(self) -> int:
        return int(
            await self.admin.fetchval(
                "SELECT count(*) FROM ledger.transfers WHERE tenant_id = $1", self.tenant_id
            )
        )

    async def check(self) -> None:
        """Check that the books agree with themselves, and with what was foreseen."""
        await assert_books_agree(self.admin, self.tenant_id)
        assert await pending(self.admin, self.tenant_id) == 0
        assert await balances(self.admin, self.tenant_id) == self._wanted()
        assert self.expected.total() == 0
        assert await self._transfers() == self.transfer_count
        assert not await unfinished(self.admin, self.tenant_id)
        await self._check_webhooks()
        self._check_payouts()
        found = await PostgresReconciliationStore(self.database).examine(
            self.tenant_id, list(Check), now=self.clock.now(), gateway_lines=(), most=10
        )
        assert not found.discrepancies, found.discrepancies

    async def _check_webhooks(self) -> None:
        """Check that none took effect twice, and that of each forged one a line is kept."""
        applied, refused = await self.admin.fetchrow(_WEBHOOKS, self.tenant_id) or (0, 0)
        assert applied == 0
        assert refused >= self.forged_count

    def _check_payouts(self) -> None:
        """Check that what the provider paid was paid once, and is gone from the wallets."""
        book = self.payouts
        assert set(book.money_moves.values()) <= {1}, book.money_moves
        paid = Counter[str]()
        for withdrawal_id in book.money_moves:
            payout = book.payouts[withdrawal_id]
            paid[payout.currency_code] += payout.amount_minor
        for code, amount in paid.items():
            key = AccountKey(AccountKind.WITHDRAWALS, "", code)
            assert self.balance(key) == amount

    async def close_day(self) -> None:
        """Let days pass, then reconcile by the clock: the books are clean, and nothing waits."""
        process = self.process or await self.start()
        for _ in range(2):
            self.clock.moment += timedelta(hours=25)
            for work in (*process.parts.finishers, *process.parts.workers):
                await work()
        await self.check()
        assert await self.admin.fetchval(_WAITING, self.tenant_id) == 0
        reconciler = Reconciler(
            store=PostgresReconciliationStore(self.database),
            event_of=lambda tenant, report: audit_messages.event_of(
                tenant, report, event_id=new_id()
            ),
            clock=self.clock,
            hour=0,
        )
        await reconciler.run_due()
        report = await reconciler.report(self.tenant_id, "latest")
        assert report.transfer_count == self.transfer_count
        assert (list(report.checks), report.discrepancies) == (list(Check), [])

    async def consume(self, partitions: Sequence[int] = range(PARTITIONS)) -> None:
        """Let the consumer take what was published; raises when it is cut."""
        process = self.process or await self.start()

        async def read() -> None:
            for partition in partitions:
                await process.parts.consumer.read(partition)

        await process.run(read())

    async def consume_cut(self, partition: int, at: int, cut: Cut) -> bool:
        """Let the consumer take what was published and be cut; say whether it was."""
        process = self.process or await self.start()
        process.cutter.arm(at, cut)
        self.story.append(f"consume {[(at, cut.name)]}")
        with suppress(*COME_AGAIN):
            await self.consume([partition])
        if process.cutter.dead.is_set():
            await self.stop()
        return process.cutter.disarm()

    async def check_events(self) -> None:
        """Close the day; check that every event took effect once, in its aggregate's order."""
        await self.close_day()
        await self.check_effects()

    async def check_effects(self) -> None:
        """Check that every event took effect once, in the order of its aggregate."""
        process = self.process or await self.start()
        while await process.parts.relay.publish():
            pass
        await self.consume()
        rows = await self.admin.fetch(
            "SELECT aggregate, array_agg(version ORDER BY effect_id) FROM simulation.effects"
            " WHERE aggregate IN (SELECT aggregate_id FROM ledger.events WHERE tenant_id = $1)"
            " GROUP BY aggregate",
            self.tenant_id,
        )
        for _, versions in rows:
            assert versions == list(range(1, len(versions) + 1)), versions
        event_count = await self.admin.fetchval(
            "SELECT count(*) FROM ledger.events WHERE tenant_id = $1", self.tenant_id
        )
        assert sum(len(row[1]) for row in rows) == event_count


@asynccontextmanager
async def open_simulation(
    database: TestDatabase, valkey_url: str, seed: int
) -> AsyncIterator[Simulation]:
    """Open a simulation on a database of its own."""
    async with AsyncExitStack() as stack:
        admin = await asyncpg.connect(database.admin_dsn)
        stack.push_async_callback(admin.close)
        await admin.execute(_EFFECTS)
        valkey = open_valkey(valkey_url, cluster=False, timeout_seconds=5)
        stack.push_async_callback(valkey.aclose)
        dsn = database.dsn_for("ledger")
        uncut = await open_database(dsn, pool_size=2)
        stack.push_async_callback(uncut.close)
        simulation = Simulation(dsn, valkey, admin, uncut, random.Random(seed))
        stack.push_async_callback(simulation.stop)
        yield simulation
