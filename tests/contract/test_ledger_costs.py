"""What payments and the work beside them read does not grow with the ledger."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from services.ledger.operations.sealing import Sealer
from services.ledger.store.chain import ALONG_INDEX, TO_SEAL, PostgresChainStore
from services.shared.clock import SystemClock
from services.shared.events.log import IN_ORDER, EventLog
from services.shared.postgres import open_database
from tests.support.ledger_rows import Books
from tests.support.location_values import TENANT
from tests.support.stack_fixtures import TestDatabase

pytestmark = pytest.mark.integration

MANY = 400
FEW = 20
_ROWS_READ = """
SELECT coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0)::int
FROM pg_stat_xact_user_tables WHERE schemaname = 'ledger' AND relname = $1
"""
_MORE_ACCOUNTS = """
INSERT INTO ledger.accounts (account_id, tenant_id, kind, owner_id, subject, currency_code,
  limit_minor, create_time, update_time)
SELECT gen_random_uuid(), $1, 'WALLET', id, id::text, 'EGP', 0, now(), now()
FROM (SELECT gen_random_uuid() AS id FROM generate_series(1, $2)) AS new
"""
_MORE_EVENTS = """
INSERT INTO ledger.events (aggregate_type, aggregate_id, aggregate_version, tenant_id, envelope)
SELECT 'test', number::text, 1, $1, '' FROM generate_series(1, $2) AS number
"""


@pytest.fixture
async def books(migrated_database: TestDatabase) -> AsyncIterator[Books]:
    connection = await asyncpg.connect(migrated_database.dsn_for("ledger"))
    try:
        made = Books(connection)
        await made.open()
        yield made
    finally:
        await connection.close()


async def rows_read(books: Books, table: str) -> int:
    """Return how many rows of a table the connection has read lately, in the open transaction."""
    count: int = await books.connection.fetchval(_ROWS_READ, table)
    return count


async def test_a_batch_reads_its_own_accounts_and_no_others(books: Books) -> None:
    # The triggers' statements are planned here, when the table is small.
    await books.deposit(500)
    await books.connection.execute(_MORE_ACCOUNTS, TENANT, MANY)

    async with books.connection.transaction():
        before = await rows_read(books, "accounts")
        await books.deposit(500)
        count = await rows_read(books, "accounts") - before

    assert count < FEW


async def test_who_reads_events_reads_no_more_than_a_page(
    books: Books, migrated_database: TestDatabase
) -> None:
    await books.connection.execute(_MORE_EVENTS, TENANT, MANY)
    await books.act(role="SWEEPER")
    database = await open_database(migrated_database.dsn_for("ledger"), pool_size=1)
    log = EventLog(database, "ledger")
    await database.close()
    events: list[Any] = []
    count = 0

    async with asyncio.timeout(10):
        # What is as new as a transaction that still runs somewhere is not read yet.
        while not events:
            async with books.connection.transaction():
                before = await rows_read(books, "events")
                await books.connection.execute(f"SELECT {IN_ORDER}")
                events = await books.connection.fetch(log.read, "0", 0, 10)
                count = await rows_read(books, "events") - before

    assert [event[2] for event in events] == [f"test/{number}" for number in range(1, 11)]
    assert count < FEW


async def test_who_looks_for_what_is_to_be_sealed_passes_over_what_is(
    books: Books, migrated_database: TestDatabase
) -> None:
    for _ in range(FEW):
        await books.deposit(1)
    database = await open_database(migrated_database.dsn_for("ledger"), pool_size=1)
    store = PostgresChainStore(database)
    sealer = Sealer(store=store, clock=SystemClock(), every_seconds=1, block_max=100)
    sealed = 0
    async with asyncio.timeout(10):
        while sealed < FEW:
            sealed += await sealer.seal_all()
    await database.close()
    await books.deposit(1)
    await books.act(role="SWEEPER")
    tenants: list[Any] = []
    count = 0

    async with asyncio.timeout(10):
        while not tenants:
            async with books.connection.transaction():
                before = await rows_read(books, "transfers")
                await books.connection.execute(ALONG_INDEX)
                tenants = await books.connection.fetch(TO_SEAL)
                count = await rows_read(books, "transfers") - before

    assert [row[0] for row in tenants] == [TENANT]
    assert count < FEW // 2
