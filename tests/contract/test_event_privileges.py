"""What a consuming service's role may do with its event tables, and what it may not."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from tests.support.location_values import TENANT, new_id
from tests.support.stack_fixtures import TestDatabase

pytestmark = pytest.mark.integration

SCHEMAS = ["booking", "ledger", "location"]
_KEEP = {
    "event_positions": "(consumer, source, partition) VALUES ('c', 's', 0)",
    "event_inbox": f"(consumer, event_id) VALUES ('c', '{new_id()}')",
    "event_failures": (
        "(consumer, event_id, aggregate, envelope, attempt_count, error, next_time)"
        f" VALUES ('c', '{new_id()}', 'a/1', '', 1, '', now())"
    ),
}


@pytest.fixture(params=SCHEMAS)
async def consuming(
    migrated_database: TestDatabase, request: pytest.FixtureRequest
) -> AsyncIterator[tuple[str, "asyncpg.Connection[Any]"]]:
    connection = await asyncpg.connect(migrated_database.dsn_for(request.param))
    try:
        await act(connection, "SWEEPER")
        for table, row in _KEEP.items():
            await connection.execute(f"INSERT INTO {request.param}.{table} {row}")
        yield request.param, connection
    finally:
        await connection.close()


async def act(connection: "asyncpg.Connection[Any]", role: str, tenant: str = "") -> None:
    await connection.execute(
        "SELECT set_config('app.role', $1, false), set_config('app.tenant_id', $2, false)",
        role,
        tenant,
    )


@pytest.mark.parametrize("role", ["SERVICE", "ADMIN", "PERSON", ""])
async def test_only_the_consumers_own_work_sees_events(
    consuming: tuple[str, "asyncpg.Connection[Any]"], role: str
) -> None:
    schema, connection = consuming
    await act(connection, role, TENANT)

    for table, row in _KEEP.items():
        assert await connection.fetchval(f"SELECT count(*) FROM {schema}.{table}") == 0
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(f"INSERT INTO {schema}.{table} {row}")


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM {}.dead_letter_audit",
        "DELETE FROM {}.dead_letter_audit",
        "INSERT INTO {}.dead_letter_audit (action) VALUES ('RETRY')",
        "UPDATE {}.event_inbox SET create_time = now()",
        "DELETE FROM {}.event_positions",
        "TRUNCATE {}.event_failures",
    ],
)
async def test_the_role_may_not(
    consuming: tuple[str, "asyncpg.Connection[Any]"], statement: str
) -> None:
    schema, connection = consuming

    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute(statement.format(schema))


async def test_the_audit_of_dead_letters_is_not_changed_by_the_owner_either(
    consuming: tuple[str, "asyncpg.Connection[Any]"], migrated_database: TestDatabase
) -> None:
    schema, _ = consuming
    owner = await asyncpg.connect(migrated_database.owner_dsn)
    try:
        for statement in ("UPDATE {} SET reason = ''", "DELETE FROM {}", "TRUNCATE {}"):
            with pytest.raises(asyncpg.PostgresError, match="immutable"):
                await owner.execute(statement.format(f"{schema}.dead_letter_audit"))
    finally:
        await owner.close()
