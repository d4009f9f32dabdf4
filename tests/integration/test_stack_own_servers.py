"""A stack can use a PostgreSQL server of one's own; its roles and schema are made there."""

import tempfile
from pathlib import Path

import asyncpg
import pytest

from services.stack.home import Home
from services.stack.migrations import migrate_home, role_of, services_with_migrations
from services.stack.postgres import OWNER, SUPERUSER, ExternalPostgres, PostgresServer

pytestmark = pytest.mark.integration


@pytest.fixture
def own_home(short_folder: Path) -> Home:
    home = Home(Path(tempfile.mkdtemp(dir=short_folder)) / "home")
    home.create()
    return home


async def test_a_stopped_home_is_migrated_once_and_stopped_again(own_home: Home) -> None:
    first = await migrate_home(own_home)
    second = await migrate_home(own_home)

    assert {line.partition(":")[0] for line in first} == set(services_with_migrations())
    assert second == []
    assert not own_home.is_locked()


async def test_a_named_database_gets_the_roles_and_the_schema(own_home: Home) -> None:
    folder = own_home.path.parent
    server = PostgresServer(
        data_folder=folder / "data",
        socket_folder=folder / "run",
        secrets_folder=folder / "secrets",
        log_path=folder / "postgres.log",
        durable=False,
    )
    await server.start()
    try:
        url = server.dsn_for(SUPERUSER, "operations")

        applied = await migrate_home(own_home, database_url=url)

        own = ExternalPostgres(admin_dsn=url, secrets_folder=own_home.secrets)
        assert own.database == "operations"
        assert applied
        for role in (OWNER, *(role_of(service) for service in services_with_migrations())):
            connection = await asyncpg.connect(own.dsn_for(role))
            row = await connection.fetchrow(
                "SELECT rolsuper, rolbypassrls, rolcreaterole FROM pg_roles"
                " WHERE rolname = current_user"
            )
            await connection.close()
            assert row is not None
            assert not any(row.values())
    finally:
        await server.stop()


def test_the_address_of_an_own_server_is_shown_without_credentials(tmp_path: Path) -> None:
    own = ExternalPostgres(
        admin_dsn="postgresql://admin:secret@db.example:5433/wayfare", secrets_folder=tmp_path
    )

    assert own.address == "db.example:5433/wayfare"
    assert own.dsn_for("wayfare_location").startswith("postgresql://wayfare_location:")
    assert own.dsn_for("wayfare_location").endswith("@db.example:5433/wayfare")
