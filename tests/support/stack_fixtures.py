"""Real servers for tests: PostgreSQL, Valkey and the whole stack, started only when asked for.

tests/conftest.py loads this file as a plugin. Every fixture starts what it needs and waits until it
is healthy.
"""

import asyncio
import re
import shutil
import tempfile
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import httpx
import pytest
from redis import Redis

from services.stack.embedded import EmbeddedStack
from services.stack.migrations import database_grants, prepare_database, role_of
from services.stack.postgres import OWNER, SUPERUSER, PostgresServer
from services.stack.valkey import ValkeyServer

Answer = TypeVar("Answer")

_TEMPLATE = "wayfare_migrated"
_MEMORY = Path("/dev/shm")
_MEMORY_BYTES_LEAST = 3 * 2**30
# A service may be ready without Valkey; the next test wants it with everything.
_MISSES_SOMETHING = re.compile(r"^wayfare_dependency_up\{.*\} 0\.0$", re.MULTILINE)


class TestDatabase:
    """A database of one test's own, with every migration applied."""

    __test__ = False

    def __init__(self, server: PostgresServer, name: str) -> None:
        """Name a database on a server."""
        self._server = server
        self.name = name

    def dsn_for(self, service: str) -> str:
        """Return the DSN of a service's role: row-level security applies."""
        return self._server.dsn_for(role_of(service), self.name)

    @property
    def owner_dsn(self) -> str:
        """Return the DSN of the tables' owner; forced row-level security applies."""
        return self._server.dsn_for(OWNER, self.name)

    @property
    def admin_dsn(self) -> str:
        """Return the DSN of the superuser, who sees every row."""
        return self._server.dsn_for(SUPERUSER, self.name)


def run_to_completion(work: Coroutine[Any, Any, Answer]) -> Answer:
    """Run a coroutine in a loop of its own, beside the loops of the tests."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """Make a folder for the whole run whose path is short enough for Unix sockets."""
    with tempfile.TemporaryDirectory(prefix="wayfare-test-") as name:
        yield Path(name)


@pytest.fixture(scope="session")
def memory_folder(short_folder: Path) -> Iterator[Path]:
    """Make a folder in memory for the whole run, on the disk where there is not enough of it."""
    if not _MEMORY.is_dir() or shutil.disk_usage(_MEMORY).free < _MEMORY_BYTES_LEAST:
        yield short_folder
        return
    with tempfile.TemporaryDirectory(prefix="wayfare-test-", dir=_MEMORY) as name:
        yield Path(name)


@pytest.fixture(scope="session")
def postgres_server(memory_folder: Path) -> Iterator[PostgresServer]:
    """Start PostgreSQL with the roles and a migrated database that tests copy.

    A copy is five hundred files, made and deleted for almost every test: in memory that takes a
    third of the time.
    """
    home = memory_folder / "postgres"
    server = PostgresServer(
        data_folder=home / "data",
        socket_folder=home / "run",
        secrets_folder=home / "secrets",
        log_path=home / "postgres.log",
        durable=False,
    )
    run_to_completion(server.start())
    try:
        run_to_completion(prepare_database(server, database=_TEMPLATE))
        yield server
    finally:
        run_to_completion(server.stop())


@pytest.fixture
def migrated_database(
    postgres_server: PostgresServer, request: pytest.FixtureRequest
) -> Iterator[TestDatabase]:
    """Copy the migrated database for one test, and drop the copy afterwards."""
    yield from _copied_database(postgres_server, f"test_{id(request.node):x}")


@pytest.fixture(scope="module")
def module_database(
    postgres_server: PostgresServer, request: pytest.FixtureRequest
) -> Iterator[TestDatabase]:
    """Copy the migrated database for the tests of one module, which share it."""
    yield from _copied_database(postgres_server, f"module_{id(request.node):x}")


@pytest.fixture(scope="session")
def valkey_server(short_folder: Path) -> Iterator[ValkeyServer]:
    """Start Valkey for the whole run."""
    home = short_folder / "valkey"
    server = ValkeyServer(
        data_folder=home / "data", socket_path=home / "valkey.sock", log_path=home / "valkey.log"
    )
    run_to_completion(server.start())
    try:
        yield server
    finally:
        run_to_completion(server.stop())


@pytest.fixture
def valkey_url(valkey_server: ValkeyServer) -> str:
    """Empty Valkey for one test and return its URL; loaded functions stay."""
    with Redis.from_url(valkey_server.url) as client:
        client.flushall()
    return valkey_server.url


@pytest.fixture(scope="session")
def stack(short_folder: Path) -> Iterator[EmbeddedStack]:
    """Start the whole stack for the run; tests share it and leave it as they found it."""
    yield from _running_stack(short_folder / "stack")


@pytest.fixture(scope="module")
def module_stack(short_folder: Path) -> Iterator[EmbeddedStack]:
    """Start a whole stack for the tests of one module that break it; ask for `private_stack`."""
    yield from _running_stack(Path(tempfile.mkdtemp(dir=short_folder)))


@pytest.fixture
def private_stack(module_stack: EmbeddedStack) -> Iterator[EmbeddedStack]:
    """Give one test a stack of which it may kill and stop parts.

    Only tests of the same module that do so too have had it before. Each finds it whole: every part
    runs, is ready, and Envoy sends calls to it.
    """
    yield module_stack
    run_to_completion(_mended(module_stack))


def _running_stack(home: Path) -> Iterator[EmbeddedStack]:
    stack = EmbeddedStack(home=home)
    run_to_completion(stack.__aenter__())
    try:
        yield stack
    finally:
        run_to_completion(stack.__aexit__(None, None, None))


async def _mended(stack: EmbeddedStack) -> None:
    await stack.mend()
    async with httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(30):
        for process in stack.services.values():
            while _MISSES_SOMETHING.search((await client.get(process.metrics_url)).text):
                await asyncio.sleep(0.05)


def _copied_database(server: PostgresServer, name: str) -> Iterator[TestDatabase]:
    run_to_completion(
        _execute(
            server,
            # As files: page by page through the log, as a server does that has standbys, is slower.
            f'CREATE DATABASE "{name}" TEMPLATE "{_TEMPLATE}" OWNER {OWNER} STRATEGY FILE_COPY',
            # It has none of the template's own grants; as it is made, every role may do anything.
            f'REVOKE ALL ON DATABASE "{name}" FROM PUBLIC',
            database_grants(name),
        )
    )
    try:
        yield TestDatabase(server, name)
    finally:
        run_to_completion(_execute(server, f'DROP DATABASE "{name}" WITH (FORCE)'))


async def _execute(server: PostgresServer, *statements: str) -> None:
    connection = await asyncpg.connect(server.dsn_for(SUPERUSER, "postgres"))
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()
