"""A service that writes events and a consumer of them, in a schema of their own."""

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

from services.shared.events.consumer import EventConsumer, Retries
from services.shared.events.log import EventLog
from services.shared.events.relay import EventRelay
from services.shared.events.tables import consumer_tables, event_tables, published_streams
from services.shared.postgres import Database, open_database
from services.shared.tasks import cancel_all
from services.shared.valkey import Valkey, open_valkey
from tests.support.location_values import TENANT
from wayfare.event.v1.envelope_pb2 import Envelope

_TABLES = (event_tables, published_streams, consumer_tables)
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
    handle_count: int = 0

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

    def consumer(
        self,
        fails: Callable[[Envelope], bool] = lambda _: False,
        *,
        pause_seconds: float = 0.0,
        wants: Callable[[Envelope], bool] | None = None,
    ) -> EventConsumer:
        """Return a consumer that writes down what it takes, fails for some, and takes its time."""

        async def handle(connection: Any, events: Sequence[Envelope]) -> None:
            self.handle_count += 1
            await connection.executemany(
                "INSERT INTO sample.effects (aggregate, version) VALUES ($1, $2)",
                [(event.aggregate_id, event.aggregate_version) for event in events],
            )
            await asyncio.sleep(pause_seconds)
            if any(fails(event) for event in events):
                raise ValueError("a poisoned event")

        return EventConsumer(
            consumer="effects",
            source="sample",
            database=self.database,
            schema="sample",
            valkey=self.valkey,
            handle=handle,
            wants=wants,
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
    made.occur_time.GetCurrentTime()
    return made.SerializeToString()


@asynccontextmanager
async def running(*works: Any) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(work.run()) for work in works]
    try:
        yield
        assert not any(task.done() for task in tasks)
    finally:
        await cancel_all(tasks)


@asynccontextmanager
async def open_sample(
    dsn: str, valkey_url: str, *, create: bool = True, cluster: bool = False
) -> AsyncIterator[Sample]:
    """Open the sample service on a database, as its superuser."""
    async with AsyncExitStack() as stack:
        admin = await asyncpg.connect(dsn)
        stack.push_async_callback(admin.close)
        if create:
            await admin.execute("CREATE SCHEMA sample")
            await admin.execute("".join((*(make("sample") for make in _TABLES), _EFFECTS)))
        database = await open_database(dsn, pool_size=20)
        stack.push_async_callback(database.close)
        valkey = open_valkey(valkey_url, cluster=cluster, timeout_seconds=5)
        stack.push_async_callback(valkey.aclose)
        yield Sample(database, admin, valkey, dsn)


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


async def consume(dsn: str, valkey_url: str) -> None:
    """Consume until killed."""
    async with open_sample(dsn, valkey_url, create=False) as sample:
        await sample.consumer(pause_seconds=0.02).run()


if __name__ == "__main__":
    asyncio.run(consume(*sys.argv[1:]))
