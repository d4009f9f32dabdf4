"""One process of the ledger in a simulation: what app.py puts together, over servers that fail."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from pydantic import SecretStr

from services.ledger import convert, deposit_messages, withdrawal_messages
from services.ledger.domain.withdrawals import Withdrawal
from services.ledger.gateways import ConfiguredGateways
from services.ledger.operations.deposits import Deposits
from services.ledger.operations.payouts import Payouts
from services.ledger.operations.posting import Poster
from services.ledger.operations.transfers import Transfers
from services.ledger.operations.upkeep import Upkeep
from services.ledger.operations.webhook_audit import WebhookAudit
from services.ledger.operations.webhooks import Webhooks
from services.ledger.operations.withdrawals import Withdrawals
from services.ledger.store import PostgresDepositStore, PostgresLedgerStore
from services.ledger.store.withdrawals import PostgresWithdrawalStore
from services.ledger.withdrawal_ports import (
    PayoutAnswer,
    PayoutProvider,
    PayoutUncertainError,
)
from services.shared.events.consumer import EventConsumer
from services.shared.events.log import EventLog
from services.shared.events.relay import EventRelay
from services.shared.postgres import Database
from services.shared.valkey import Valkey
from services.stack.payment_gateways import PaymentAccounts
from tests.support.fault_cuts import CutGateway, Cutter, ProcessDiedError
from tests.support.ledger_books import MovingClock
from tests.support.location_values import new_id
from tests.support.payout_bridge import BookProvider, PayoutBook
from wayfare.event.v1.envelope_pb2 import Envelope

ACCOUNTS = PaymentAccounts(payhere_secret="payhere-test-secret", kashier_secret="kashier-test-key")
# The provider answers when the claim of the worker that asked has long been another's.
OUTLIVES_CLAIM = "outlives_claim"
_SECONDS = 30.0
_LEASE = timedelta(seconds=90)
# So many that every webhook leaves a line of its own.
_LINES_A_MINUTE = 100_000


class LedgerParts:
    """Is one process of the ledger."""

    def __init__(
        self,
        database: Database,
        valkey: Valkey,
        clock: MovingClock,
        *,
        cutter: Cutter,
        payouts: PayoutBook,
    ) -> None:
        """Put the parts together; `payouts` is what the provider knows, whoever asks."""
        self.clock = clock
        self.store = PostgresLedgerStore(database, clock)
        self.poster = Poster(
            store=self.store,
            event_of=lambda tenant, one: convert.event_of(tenant, one, event_id=new_id()),
            clock=clock,
            batch_max=50,
            waiting_max=1_000,
            committers=2,
            gather_seconds=0,
        )
        self.transfers = Transfers(
            store=self.store, poster=self.poster, driver_debt_max_minor=50_000
        )
        self.upkeep = Upkeep(
            store=self.store, poster=self.poster, clock=clock, expire_seconds=1, fold_seconds=1
        )
        self._take_deposits(database)
        self._pay_out(database, cutter, payouts)
        self.relay = EventRelay(
            log=EventLog(database, "ledger"),
            valkey=valkey,
            service="ledger",
            idle_seconds=1,
            entries_kept=10_000,
            clock=_RelayClock(clock),
        )
        self.consumer = EventConsumer(
            consumer="simulation",
            source="ledger",
            database=database,
            schema="ledger",
            valkey=valkey,
            handle=_write_down,
        )

    def _take_deposits(self, database: Database) -> None:
        store = PostgresDepositStore(database, self.clock)
        gateways = ConfiguredGateways(SecretStr(ACCOUNTS.setting()))
        self.deposits = Deposits(
            store=store,
            poster=self.poster,
            gateways=gateways,
            event_of=lambda one: deposit_messages.event_of(one, event_id=new_id()),
            clock=self.clock,
            public_url="http://edge",
            usual_seconds=3_600,
            work_seconds=1,
        )
        self.audit = WebhookAudit(
            store=store,
            clock=self.clock,
            stranger_lines_per_minute=_LINES_A_MINUTE,
            gateway_lines_per_minute=_LINES_A_MINUTE,
            sum_seconds=1,
        )
        self.webhooks = Webhooks(
            store=store,
            deposits=self.deposits,
            gateways=gateways,
            audit=self.audit,
            event_of=lambda one: deposit_messages.event_of(one, event_id=new_id()),
            clock=self.clock,
            ids=_Ids(),
        )

    def _pay_out(self, database: Database, cutter: Cutter, payouts: PayoutBook) -> None:
        store = PostgresWithdrawalStore(
            database, lambda one: withdrawal_messages.event_of(one, event_id=new_id())
        )
        self.withdrawals = Withdrawals(
            store=store,
            ledger=self.store,
            poster=self.poster,
            clock=self.clock,
            minimum_minor=1,
        )
        provider = CutGateway(
            _LateProvider(payouts, self._claim_over),
            cutter,
            lambda: PayoutUncertainError("unreachable"),
        )
        self.payouts = Payouts(
            withdrawals=self.withdrawals,
            store=store,
            provider=cast("PayoutProvider", provider),
            clock=self.clock,
            idle_seconds=1,
            first_retry_seconds=2,
            lease_seconds=_LEASE.total_seconds(),
        )

    async def _claim_over(self) -> None:
        self.clock.moment += 2 * _LEASE
        await self.payouts.work()

    @property
    def workers(self) -> Sequence[Callable[[], Awaitable[Any]]]:
        """Return what every process does by itself, one round of each."""
        return (self.upkeep.expire, self.store.fold, self.relay.publish)

    @property
    def finishers(self) -> Sequence[Callable[[], Awaitable[Any]]]:
        """Return what it does besides for deposits and withdrawals that are not done."""
        return (self.deposits.finish_left, self.deposits.expire, self.payouts.work)


class _LateProvider(BookProvider):
    """Answers one destination when another worker has taken the payout over."""

    def __init__(self, book: PayoutBook, meanwhile: Callable[[], Awaitable[None]]) -> None:
        super().__init__(book)
        self._meanwhile = meanwhile

    async def create(self, withdrawal: Withdrawal) -> PayoutAnswer:
        answer = await super().create(withdrawal)
        is_first = self.book.creates[withdrawal.withdrawal_id] == 1
        if withdrawal.payout_destination == OUTLIVES_CLAIM and is_first:
            await self._meanwhile()
        return answer


class _RelayClock:
    """Lets no time pass between events and the relay, whatever the simulation's clock jumps over.

    In hours that pass here at once a relay would have looked a thousand times, and published again
    what Valkey lost while it was not old.
    """

    def __init__(self, clock: MovingClock) -> None:
        self._clock = clock

    def now(self) -> datetime:
        return MovingClock().moment

    def monotonic(self) -> float:
        return self._clock.monotonic()


class _Ids:
    def new_id(self) -> str:
        return new_id()


@dataclass
class Process:
    """Is a running process, with what ends it."""

    parts: LedgerParts
    cutter: Cutter
    close: Callable[[], Awaitable[None]]

    async def run(self, work: Awaitable[Any]) -> None:
        """Do the work unless the process dies. Raises ProcessDiedError, or what the work raises."""
        task = asyncio.ensure_future(work)
        dying = asyncio.ensure_future(self.cutter.dead.wait())
        try:
            done, _ = await asyncio.wait(
                {task, dying}, timeout=_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            assert done, f"nothing goes on after {self.cutter.calls[-1:]}"
            if self.cutter.dead.is_set():
                raise ProcessDiedError
            await task
        finally:
            for one in (task, dying):
                one.cancel()
            await asyncio.gather(task, dying, return_exceptions=True)


async def _write_down(connection: Any, events: Sequence[Envelope]) -> None:
    await connection.executemany(
        "INSERT INTO simulation.effects (event_id, aggregate, version) VALUES ($1, $2, $3)",
        [(event.event_id, event.aggregate_id, event.aggregate_version) for event in events],
    )
