"""A ledger whose processes die and lose their connections, and clients that come again.

A `Flow` is what a client does, and what it must come to: once, however often it was cut. Add one by
`tests/support/ledger_flows.py`; add what a process needs for it to `LedgerParts`.
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

from services.ledger import convert
from services.ledger.domain.accounts import AccountKey
from services.ledger.operations.posting import Poster
from services.ledger.operations.transfers import Transfers
from services.ledger.operations.upkeep import Upkeep
from services.ledger.store import PostgresLedgerStore
from services.shared.errors import DependencyUnavailableError
from services.shared.events.consumer import EventConsumer
from services.shared.events.log import EventLog
from services.shared.events.relay import EventRelay
from services.shared.events.streams import PARTITIONS
from services.shared.postgres import Database
from services.shared.tasks import cancel_all
from services.shared.valkey import VALKEY_AWAY, Valkey, open_valkey
from tests.support.fault_cuts import Cut, Cutter, CutValkey, ProcessDiedError, cut_pool
from tests.support.ledger_books import MovingClock, assert_books_agree, balances, pending
from tests.support.location_values import new_id
from tests.support.stack_fixtures import TestDatabase
from wayfare.event.v1.envelope_pb2 import Envelope

HOLD = timedelta(minutes=10)
_TRIES = 12
_SECONDS = 30.0
# What a client may come again after; anything else is a fault of the ledger.
COME_AGAIN = (DependencyUnavailableError, ProcessDiedError, *VALKEY_AWAY, ResponseError)
_EFFECTS = """
CREATE SCHEMA simulation;
CREATE TABLE simulation.effects (
  effect_id bigint GENERATED ALWAYS AS IDENTITY, event_id uuid, aggregate text, version bigint);
GRANT USAGE ON SCHEMA simulation TO wayfare_ledger;
GRANT INSERT ON simulation.effects TO wayfare_ledger;
"""


class LedgerParts:
    """Is one process of the ledger: what app.py puts together, over servers that may be cut."""

    def __init__(self, database: Database, valkey: Valkey, clock: MovingClock) -> None:
        """Put the parts together."""
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
        self.relay = EventRelay(
            log=EventLog(database, "ledger"),
            valkey=valkey,
            service="ledger",
            idle_seconds=1,
            entries_kept=10_000,
            clock=clock,
        )
        self.consumer = EventConsumer(
            consumer="simulation",
            source="ledger",
            database=database,
            schema="ledger",
            valkey=valkey,
            handle=_write_down,
        )

    @property
    def workers(self) -> Sequence[Callable[[], Awaitable[Any]]]:
        """Return what every process does by itself, one round of each."""
        return (self.upkeep.expire, self.store.fold, self.relay.publish)


async def _write_down(connection: Any, events: Sequence[Envelope]) -> None:
    await connection.executemany(
        "INSERT INTO simulation.effects (event_id, aggregate, version) VALUES ($1, $2, $3)",
        [(event.event_id, event.aggregate_id, event.aggregate_version) for event in events],
    )


@dataclass(frozen=True, kw_only=True)
class Flow:
    """Is what a client does with fixed ids until it has an answer, and what it comes to.

    `moves` is what it posts to accounts, in minor units, once; afterwards nothing may be pending.
    `transfer_count` is how many transfers it makes, those of workers included.
    """

    name: str
    talk: Callable[[LedgerParts], Awaitable[Any]]
    moves: Mapping[AccountKey, int]
    transfer_count: int
    passing: timedelta = timedelta(0)


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


@dataclass
class Simulation:
    """Is the ledger of one tenant, clients of it, and what its books must say."""

    dsn: str
    valkey: Valkey
    admin: "asyncpg.Connection[Any]"
    random: random.Random
    clock: MovingClock = field(default_factory=MovingClock)
    expected: Counter[str] = field(default_factory=Counter)
    transfer_count: int = 0
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
        parts = LedgerParts(Database(pool), valkey, self.clock)
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
            self._foresee(flow)
            await self.check()
            return happened == len(cuts)
        assert gives_up, "the client never got an answer"
        await self._recover(flow)
        return True

    async def _once(self, parts: LedgerParts, flow: Flow) -> None:
        await flow.talk(parts)
        self.clock.moment += flow.passing
        for work in parts.workers:
            await work()

    def _foresee(self, flow: Flow) -> None:
        for key, amount in flow.moves.items():
            self.expected[key.account_id(self.tenant_id)] += amount
        self.transfer_count += flow.transfer_count

    async def _recover(self, flow: Flow) -> None:
        """Let workers finish what a client left, and accept all of it or nothing."""
        process = self.process or await self.start()
        process.cutter.valkey_away = False
        self.clock.moment += 2 * HOLD
        for work in process.parts.workers:
            await work()
        if await balances(self.admin, self.tenant_id) != self._wanted():
            self._foresee(flow)
        self.transfer_count = await self._transfers()
        await self.check()

    def _wanted(self) -> dict[str, int]:
        return {key: amount for key, amount in self.expected.items() if amount}

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
        assert sum(len(row[1]) for row in rows) == self.transfer_count


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
        simulation = Simulation(database.dsn_for("ledger"), valkey, admin, random.Random(seed))
        stack.push_async_callback(simulation.stop)
        yield simulation
