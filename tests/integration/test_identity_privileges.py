"""What PostgreSQL itself refuses to the service's role."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.support.identity_process import TENANT, IdentityProcess
from tests.support.stack_fixtures import TestDatabase

pytestmark = pytest.mark.integration

TABLES = ["tenants", "users", "sessions", "api_keys", "requests"]


@pytest.fixture
async def connection(
    module_database: TestDatabase, identity: IdentityProcess
) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """Connect as the role of the service, to a database that has rows."""
    await identity.client().sign_up()
    connection = await asyncpg.connect(module_database.dsn_for("identity"))
    yield connection
    await connection.close()


@pytest.mark.parametrize("table", TABLES)
async def test_without_a_tenant_no_row_is_seen(
    connection: "asyncpg.Connection[asyncpg.Record]", table: str
) -> None:
    assert await connection.fetchval(f"SELECT count(*) FROM identity.{table}") == 0


@pytest.mark.parametrize("table", ["requests", "sessions"])
async def test_the_sweeper_sees_nothing_that_has_not_ended(
    connection: "asyncpg.Connection[asyncpg.Record]", table: str
) -> None:
    await connection.execute("SELECT set_config('app.role', 'SWEEPER', false)")

    assert await connection.fetchval(f"SELECT count(*) FROM identity.{table}") == 0


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE identity.users SET phone = '+441514960999'",
        "UPDATE identity.users SET tenant_id = gen_random_uuid()",
        "UPDATE identity.sessions SET user_id = gen_random_uuid()",
        "UPDATE identity.api_keys SET secret_hash = ''",
        "UPDATE identity.requests SET result_id = gen_random_uuid()",
        "DELETE FROM identity.users",
        "DELETE FROM identity.tenants",
        "DELETE FROM identity.api_keys",
        "TRUNCATE identity.users",
        "ALTER TABLE identity.users DISABLE ROW LEVEL SECURITY",
        "CREATE TABLE identity.mine (id int)",
        "SET ROLE wayfare_owner",
    ],
)
async def test_the_role_may_not(
    connection: "asyncpg.Connection[asyncpg.Record]", statement: str
) -> None:
    await connection.execute("SELECT set_config('app.tenant_id', $1, false)", TENANT)

    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute(statement)


async def test_a_row_of_another_tenant_cannot_be_written(
    connection: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    await connection.execute("SELECT set_config('app.tenant_id', $1, false)", TENANT)

    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute(
            "INSERT INTO identity.tenants VALUES (gen_random_uuid(), 'Mine', now())"
        )
