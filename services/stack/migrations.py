"""Roles and migrations: who may connect to PostgreSQL, and the schema of each service.

Called by `embedded.EmbeddedStack`, by `wayfare migrate` and by the test fixtures, before any
service starts.
"""

import asyncio
from contextlib import ExitStack
from pathlib import Path

import asyncpg

from services.stack.home import Home
from services.stack.postgres import (
    OWNER,
    SUPERUSER,
    ExternalPostgres,
    PostgresInstance,
    PostgresServer,
)
from services.stack.process import run_to_end
from services.stack.programs import dbmate_program

_SERVICES_FOLDER = Path(__file__).parents[1]


def services_with_migrations() -> list[str]:
    """Return the names of the services that have a schema, sorted."""
    folders = _SERVICES_FOLDER.glob("*/migrations")
    return sorted(folder.parent.name for folder in folders if any(folder.glob("*.sql")))


def role_of(service: str) -> str:
    """Return the database role of a service."""
    return f"wayfare_{service}"


async def prepare_database(postgres: PostgresInstance, *, database: str | None = None) -> None:
    """Create the owner, one role per service, the database, and run every pending migration."""
    await create_roles(postgres)
    await create_database(postgres, database or postgres.database)
    await migrate(postgres, database=database)


async def migrate_home(home: Home, *, database_url: str = "") -> list[str]:
    """Migrate the named database, that of the running stack, or the stopped one of a home.

    Returns one line per migration applied.
    """
    with ExitStack() as cleaning:
        postgres = _postgres_of(home, cleaning, database_url=database_url)
        await postgres.start()
        try:
            await create_roles(postgres)
            await create_database(postgres, postgres.database)
            return await migrate(postgres)
        finally:
            await postgres.stop()


def _postgres_of(
    home: Home, cleaning: ExitStack, *, database_url: str
) -> PostgresServer | ExternalPostgres:
    own = database_url
    if not own and home.is_locked():
        home.read_state()
        own = (home.secrets / "postgres-admin-dsn").read_text(encoding="utf-8")
    if own:
        return ExternalPostgres(admin_dsn=own, secrets_folder=home.secrets)
    cleaning.enter_context(home.lock())
    return PostgresServer(
        data_folder=home.postgres_data,
        socket_folder=cleaning.enter_context(home.run_folder()) / "postgres",
        secrets_folder=home.secrets,
        log_path=home.logs / "postgres.log",
    )


async def create_roles(postgres: PostgresInstance) -> None:
    """Create the roles, none of which is a superuser or may bypass row-level security."""
    connection = await asyncpg.connect(postgres.dsn_for(SUPERUSER, "postgres"))
    try:
        for role in (OWNER, *(role_of(service) for service in services_with_migrations())):
            exists = await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role)
            verb = "ALTER" if exists else "CREATE"
            # DDL takes no parameters; the role is a name of ours and the password is base64url.
            await connection.execute(
                f"{verb} ROLE {role} LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEROLE"
                f" PASSWORD '{postgres.password_for(role)}'"
            )
    finally:
        await connection.close()


async def create_database(postgres: PostgresInstance, database: str) -> None:
    """Create the database, owned by the role that runs migrations, unless it exists."""
    connection = await asyncpg.connect(postgres.dsn_for(SUPERUSER, "postgres"))
    try:
        known = await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", database)
        if not known:
            await connection.execute(f'CREATE DATABASE "{database}" OWNER {OWNER}')
            await connection.execute(f'REVOKE ALL ON DATABASE "{database}" FROM PUBLIC')
        await connection.execute(database_grants(database))
    finally:
        await connection.close()


def database_grants(database: str) -> str:
    """Return the SQL that lets services use a database.

    LocationService writes history by COPY, which needs a temporary table: COPY is refused where
    row-level security applies.
    """
    services = ", ".join(role_of(service) for service in services_with_migrations())
    return (
        f'GRANT CONNECT ON DATABASE "{database}" TO {services};'
        f'GRANT TEMPORARY ON DATABASE "{database}" TO {role_of("location")}'
    )


async def migrate(postgres: PostgresInstance, *, database: str | None = None) -> list[str]:
    """Run every pending migration as the owner; return one line per migration applied."""
    applied: list[str] = []
    url = postgres.dsn_for(OWNER, database)
    for service in services_with_migrations():
        output = await asyncio.to_thread(
            run_to_end,
            [
                dbmate_program(),
                f"--migrations-dir={_SERVICES_FOLDER / service / 'migrations'}",
                f"--migrations-table=public.{service}_migrations",
                "--no-dump-schema",
                "--migration-lock",
                "migrate",
            ],
            environment={"DATABASE_URL": url, "PGSSLMODE": "disable", "PATH": "/usr/bin:/bin"},
        )
        applied += [
            f"{service}: {line.removeprefix('Applied: ')}"
            for line in output.splitlines()
            if line.startswith("Applied: ")
        ]
    return applied
