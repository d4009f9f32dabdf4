"""What PostgreSQL itself refuses of the chain, and who sees what auditors look at."""

import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from services.ledger.domain.chain import NO_HASH, Seal, block_hash_of
from services.shared.postgres import Database, Session, open_database
from tests.support.location_values import TENANT, new_id
from tests.support.stack_fixtures import TestDatabase

pytestmark = pytest.mark.integration

NOW = datetime(2026, 11, 26, 4, 5, 6, 789012, UTC)
ROOT = hashlib.sha256(b"root").digest()
SERVICE = Session(tenant_id=TENANT, role="SERVICE")
INSERT = """
INSERT INTO ledger.chain_blocks (tenant_id, block_number, last_transaction_id, transfer_count,
  previous_hash, merkle_root, block_hash, seal_time)
VALUES ($1, $2, $3::text::xid8, $4, $5, $6, $7, $8)
"""
TABLES = ("chain_blocks", "chain_leaves", "expected_payments", "reconciliations")


@pytest.fixture
async def database(migrated_database: TestDatabase) -> AsyncIterator[Database]:
    opened = await open_database(migrated_database.dsn_for("ledger"), pool_size=2)
    yield opened
    await opened.close()


def seal(number: int, previous: bytes, *, last: int, **values: Any) -> Seal:
    block_hash = block_hash_of(number, 3, NOW, previous=previous, root=ROOT)
    return Seal(
        **{
            "block_number": number,
            "last_transaction_id": last,
            "transfer_count": 3,
            "previous_hash": previous,
            "merkle_root": ROOT,
            "block_hash": block_hash,
            "seal_time": NOW,
            **values,
        }
    )


async def keep(database: Database, one: Seal) -> None:
    async with database.transaction(SERVICE) as connection:
        await connection.execute(
            INSERT,
            TENANT,
            one.block_number,
            str(one.last_transaction_id),
            one.transfer_count,
            one.previous_hash,
            one.merkle_root,
            one.block_hash,
            one.seal_time,
        )


async def test_blocks_that_follow_are_taken_and_others_refused(database: Database) -> None:
    first = seal(1, NO_HASH, last=100)
    await keep(database, first)

    for wrong in (
        seal(1, NO_HASH, last=200),
        seal(3, first.block_hash, last=200),
        seal(2, NO_HASH, last=200),
        seal(2, first.block_hash, last=100),
        seal(2, first.block_hash, last=200, transfer_count=4),
        seal(2, first.block_hash, last=200, seal_time=NOW.replace(microsecond=1)),
        seal(2, first.block_hash, last=200, merkle_root=NO_HASH),
    ):
        with pytest.raises(asyncpg.PostgresError) as error:
            await keep(database, wrong)
        assert error.value.sqlstate == "WL008"
    await keep(database, seal(2, first.block_hash, last=200))


async def test_people_and_other_operators_see_nothing_of_it(
    database: Database, migrated_database: TestDatabase
) -> None:
    await keep(database, seal(1, NO_HASH, last=100))
    admin = await asyncpg.connect(migrated_database.admin_dsn)
    try:
        await admin.execute(
            "INSERT INTO ledger.chain_leaves VALUES ($1, 1, $2, $3)", TENANT, bytes(16), ROOT
        )
        await admin.execute(
            "INSERT INTO ledger.expected_payments VALUES ($1, $2, $2, 'trip/1', 'EGP', 5, now())",
            TENANT,
            new_id(),
        )
        await admin.execute(
            "INSERT INTO ledger.reconciliations VALUES ($1, $2, $3, NULL, now(), now(), '{}',"
            " 0, 0, 0, '[]')",
            new_id(),
            TENANT,
            bytes(16),
        )
    finally:
        await admin.close()

    async def seen(session: Session) -> list[int]:
        async with database.transaction(session) as connection:
            return [
                await connection.fetchval(f"SELECT count(*) FROM ledger.{table}")
                for table in TABLES
            ]

    assert await seen(SERVICE) == [1, 1, 1, 1]
    assert await seen(Session(tenant_id=TENANT, user_id=new_id(), role="PERSON")) == [0, 0, 0, 0]
    assert await seen(Session(tenant_id=new_id(), role="SERVICE")) == [0, 0, 0, 0]
    assert await seen(Session()) == [0, 0, 0, 0]


@pytest.mark.parametrize("table", TABLES)
async def test_the_service_may_only_add(database: Database, table: str) -> None:
    for statement in (f"DELETE FROM ledger.{table}", f"UPDATE ledger.{table} SET tenant_id = NULL"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with database.transaction(SERVICE) as connection:
                await connection.execute(statement)
