"""Events from the transaction of a change to the effect at a consumer, over real servers."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from services.shared.events.consumer import EventConsumer, Retries
from services.shared.events.log import EventLog
from services.shared.events.relay import EventRelay
from services.shared.events.tables import consumer_tables, event_tables
from services.shared.postgres import Database, open_database
from services.shared.tasks import cancel_all
from services.shared.valkey import Valkey, open_valkey
from tests.support.location_values import TENANT
from tests.support.stack_fixtures import TestDatabase
from wayfare.event.v1.envelope_pb2 import Envelope

pytestmark = pytest.mark.integration

_EFFECTS = """
CREATE TABLE sample.effects (
  effect_id bigint GENERATED ALWAYS AS IDENTITY, aggregate text, version bigint);
"""
_QUICK = Retries(attempts=3, first_seconds=0.05, longest_seconds=0.2)


@dataclass
class Sample:
    """A service that writes events, and a consumer of them in the same schema."""

    database: Database
    admin: "asyncpg.Connection[Any]"
    valkey: Valkey
    dsn: str

    async def write(self, aggregate: str, versions: Sequence[int], *, hold: float = 0.0) -> None:
        """Write events in one transaction that stays open for a while."""
        connection = await asyncpg.connect(self.dsn)
        try:
            async with connection.transaction():
                await connection.executemany(
                    "INSERT INTO sample.events (aggregate_type, aggregate_id, aggregate_version,"
                    " tenant_id, envelope) VALUES ('thing', $1, $2, $3, $4)",
                    [(aggregate, one, TENANT, envelope(aggregate, one)) for one in versions],
                )
                await asyncio.sleep(hold)
        finally:
            await connection.close()

    def relay(self) -> EventRelay:
        return EventRelay(
            log=EventLog(self.database, "sample"),
            valkey=self.valkey,
            service="sample",
            idle_seconds=0.01,
            entries_kept=10_000,
        )

    def consumer(self, fails: Callable[[Envelope], bool] = lambda _: False) -> EventConsumer:
        """Return a consumer that writes down what it takes, and fails for some."""

        async def handle(connection: Any, events: Sequence[Envelope]) -> None:
            await connection.executemany(
                "INSERT INTO sample.effects (aggregate, version) VALUES ($1, $2)",
                [(event.aggregate_id, event.aggregate_version) for event in events],
            )
            if any(fails(event) for event in events):
                raise ValueError("a poisoned event")

        return EventConsumer(
            consumer="effects",
            source="sample",
            database=self.database,
            schema="sample",
            valkey=self.valkey,
            handle=handle,
            retries=_QUICK,
        )

    async def effects(self) -> dict[str, list[int]]:
        """Return the versions that took effect of each aggregate, in order."""
        rows = await self.admin.fetch(
            "SELECT aggregate, version FROM sample.effects ORDER BY effect_id"
        )
        found: dict[str, list[int]] = {}
        for aggregate, version in rows:
            found.setdefault(aggregate, []).append(version)
        return found

    async def until_effects(self, expected: dict[str, list[int]]) -> None:
        """Wait until exactly this took effect."""
        async with asyncio.timeout(20):
            while await self.effects() != expected:
                await asyncio.sleep(0.02)

    async def until_effects_of(self, names: Sequence[str], versions: int) -> None:
        """Wait until so many versions of each took effect, once each and in order."""
        await self.until_effects({name: list(range(1, versions + 1)) for name in names})


def envelope(aggregate: str, version: int) -> bytes:
    made = Envelope(
        event_id=str(uuid.uuid5(uuid.NAMESPACE_URL, f"{aggregate}/{version}")),
        tenant_id=TENANT,
        aggregate_type="thing",
        aggregate_id=aggregate,
        aggregate_version=version,
    )
    return made.SerializeToString()


@asynccontextmanager
async def running(*works: Any) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(work.run()) for work in works]
    try:
        yield
        assert not any(task.done() for task in tasks)
    finally:
        await cancel_all(tasks)


@pytest.fixture
async def sample(migrated_database: TestDatabase, valkey_url: str) -> AsyncIterator[Sample]:
    async with AsyncExitStack() as stack:
        admin = await asyncpg.connect(migrated_database.admin_dsn)
        stack.push_async_callback(admin.close)
        await admin.execute("CREATE SCHEMA sample")
        await admin.execute(event_tables("sample") + consumer_tables("sample") + _EFFECTS)
        database = await open_database(migrated_database.admin_dsn, pool_size=20)
        stack.push_async_callback(database.close)
        valkey = open_valkey(valkey_url, cluster=False, timeout_seconds=5)
        stack.push_async_callback(valkey.aclose)
        yield Sample(database, admin, valkey, migrated_database.admin_dsn)


async def test_events_take_effect_in_the_order_of_their_aggregate(sample: Sample) -> None:
    async with running(sample.relay(), sample.consumer()):
        await sample.write("a", [1, 2])
        await sample.write("b", [1])
        await sample.write("a", [3])

        await sample.until_effects({"a": [1, 2, 3], "b": [1]})


async def test_an_event_whose_transaction_commits_late_is_not_passed_over(sample: Sample) -> None:
    async with running(sample.relay(), sample.consumer()):
        late = asyncio.create_task(sample.write("late", [1], hold=0.5))
        await asyncio.sleep(0.1)
        await sample.write("quick", [1])
        await late

        await sample.until_effects({"late": [1], "quick": [1]})


async def test_two_relays_and_two_consumers_give_each_event_effect_once(sample: Sample) -> None:
    works = (sample.relay(), sample.relay(), sample.consumer(), sample.consumer())
    async with running(*works):
        names = [f"thing-{number}" for number in range(40)]
        for version in range(1, 6):
            await asyncio.gather(*(sample.write(name, [version]) for name in names))

        await sample.until_effects_of(names, 5)


async def test_a_poisoned_event_ends_in_the_dead_letters_while_others_go_on(
    sample: Sample,
) -> None:
    def fails(event: Envelope) -> bool:
        return event.aggregate_id == "bad" and event.aggregate_version == 2

    async with running(sample.relay(), sample.consumer(fails)):
        await sample.write("bad", [1, 2, 3])
        await sample.write("good", [1, 2])
        await sample.until_effects({"bad": [1], "good": [1, 2]})
        # What waited behind it goes on after its last try.
        await until_dead(sample, 1)
        await sample.until_effects({"bad": [1, 3], "good": [1, 2]})


async def test_a_passing_fault_is_tried_again_until_it_is_gone(sample: Sample) -> None:
    tries: list[int] = []

    def fails(event: Envelope) -> bool:
        tries.append(event.aggregate_version)
        return tries.count(1) < 3

    async with running(sample.relay(), sample.consumer(fails)):
        await sample.write("a", [1])
        await sample.until_effects({"a": [1]})
        await sample.write("a", [2])
        await sample.until_effects({"a": [1, 2]})


async def test_what_was_published_comes_again_when_valkey_was_emptied(sample: Sample) -> None:
    async with running(sample.relay()):
        await sample.write("a", [1, 2])
        await published(sample, 2)
    await sample.valkey.flushall()

    async with running(sample.relay(), sample.consumer()):
        await sample.write("a", [3])

        await sample.until_effects({"a": [1, 2, 3]})


async def test_what_comes_twice_takes_effect_once(sample: Sample) -> None:
    async with running(sample.relay(), sample.consumer()):
        await sample.write("a", [1, 2])
        await sample.until_effects({"a": [1, 2]})
        await sample.valkey.flushall()
        await sample.write("a", [3])

        await sample.until_effects({"a": [1, 2, 3]})


async def test_a_consumer_that_is_cut_in_the_middle_goes_on_where_it_was(sample: Sample) -> None:
    names = [f"thing-{number}" for number in range(200)]
    async with running(sample.relay()):
        await asyncio.gather(*(sample.write(name, [1, 2, 3]) for name in names[:50]))
        async with running(sample.consumer()):
            await until_some(sample)
        await asyncio.gather(*(sample.write(name, [1, 2, 3]) for name in names[50:100]))
        async with running(sample.consumer()):
            await sample.until_effects_of(names[:100], 3)


async def until_dead(sample: Sample, count: int) -> None:
    async with asyncio.timeout(20):
        while count != await sample.admin.fetchval(
            "SELECT count(*) FROM sample.event_failures WHERE dead_time IS NOT NULL"
        ):
            await asyncio.sleep(0.02)


async def until_some(sample: Sample) -> None:
    async with asyncio.timeout(20):
        while not await sample.effects():
            await asyncio.sleep(0.005)


async def published(sample: Sample, count: int) -> None:
    async with asyncio.timeout(20):
        while count != await sample.admin.fetchval(
            "SELECT coalesce(max(event_number), 0) FROM sample.event_cursor"
        ):
            await asyncio.sleep(0.02)
