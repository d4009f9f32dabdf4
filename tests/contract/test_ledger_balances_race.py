"""Batches that move the same wallets at once, on connections of their own: balances are exact."""

import asyncio
from contextlib import AsyncExitStack

import asyncpg
import pytest

from tests.support.ledger_rows import Books, Row
from tests.support.location_values import TENANT, new_id
from tests.support.stack_fixtures import TestDatabase

pytestmark = pytest.mark.integration

WALLETS, WRITERS, BATCHES = 40, 4, 25
_OPEN = """
INSERT INTO ledger.accounts (account_id, tenant_id, kind, owner_id, subject, currency_code,
  limit_minor, create_time, update_time)
SELECT id, $1, 'WALLET', id, id::text, 'EGP', 0, now(), now() FROM unnest($2::uuid[]) AS id
"""
_BALANCES = "SELECT account_id::text, posted_minor FROM ledger.accounts WHERE kind = 'WALLET'"
_DELTAS = "SELECT coalesce(sum(posted_minor), 0)::bigint FROM ledger.account_deltas"


async def test_batches_neither_deadlock_nor_lose_what_others_wrote(
    migrated_database: TestDatabase,
) -> None:
    async with AsyncExitStack() as stack:
        writers = []
        for _ in range(WRITERS):
            connection = await asyncpg.connect(migrated_database.dsn_for("ledger"))
            stack.push_async_callback(connection.close)
            writers.append(Books(connection))
        await writers[0].open()
        wallets = [new_id() for _ in range(WALLETS)]
        await writers[0].connection.execute(_OPEN, TENANT, wallets)

        async def write(number: int) -> None:
            books = writers[number]
            await books.act()
            # Each from another end, so that who goes in the order of the rows meets the others.
            order = wallets if number % 2 else wallets[::-1]
            gains: list[Row] = [("POSTED", wallet, number + 1) for wallet in order[:15]]
            for _ in range(BATCHES):
                paid: Row = ("POSTED", books.clearing, -15 * (number + 1))
                await books.record([paid, *gains])
                gains = [*gains[1:], ("POSTED", order[0], number + 1)]
                order = order[1:] + order[:1]

        # PostgreSQL refuses one of two that wait for each other: nobody is refused here.
        await asyncio.gather(*map(write, range(WRITERS)))

        balances = dict(await writers[0].connection.fetch(_BALANCES))
        taken = await writers[0].connection.fetchval(_DELTAS)
        entries = dict(
            await writers[0].connection.fetch(
                "SELECT account_id::text, sum(amount_minor)::bigint FROM ledger.entries"
                " WHERE account_id = ANY($1::uuid[]) GROUP BY 1",
                wallets,
            )
        )
    assert {wallet: balances[wallet] for wallet in entries} == entries
    assert sum(balances.values()) == BATCHES * 15 * sum(range(1, WRITERS + 1)) == -taken
