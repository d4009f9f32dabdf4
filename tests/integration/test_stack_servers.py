"""PostgreSQL and Valkey as the stack runs them: killed they recover, and die with their parent."""

import asyncio
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import psutil
import pytest
from redis.asyncio import Redis

from services.stack.errors import StartError
from services.stack.postgres import SUPERUSER, PostgresServer
from services.stack.process import ChildProcess
from services.stack.valkey import ValkeyServer
from tests.support.stack_fixtures import TestDatabase
from tests.support.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture
async def own_postgres(short_folder: Path) -> AsyncIterator[PostgresServer]:
    folder = Path(tempfile.mkdtemp(dir=short_folder))
    server = PostgresServer(
        data_folder=folder / "data",
        socket_folder=folder / "run",
        secrets_folder=folder / "secrets",
        log_path=folder / "postgres.log",
    )
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def own_valkey(short_folder: Path) -> AsyncIterator[ValkeyServer]:
    folder = Path(tempfile.mkdtemp(dir=short_folder))
    server = ValkeyServer(
        data_folder=folder / "data", socket_path=folder / "valkey.sock", log_path=folder / "log"
    )
    await server.start()
    yield server
    await server.stop()


async def _query(dsn: str, statement: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def test_postgres_keeps_committed_rows_when_it_is_killed(
    own_postgres: PostgresServer,
) -> None:
    dsn = own_postgres.dsn_for(SUPERUSER, "postgres")
    await _query(dsn, "CREATE TABLE kept (value int)")
    await _query(dsn, "INSERT INTO kept VALUES (42)")

    await own_postgres.kill()
    await own_postgres.start()

    assert await _query(dsn, "SELECT value FROM kept") == 42


async def test_postgres_writes_commits_to_disk(own_postgres: PostgresServer) -> None:
    assert await _query(own_postgres.dsn_for(SUPERUSER, "postgres"), "SHOW fsync") == "on"


async def test_a_wrong_password_is_refused_by_postgres(own_postgres: PostgresServer) -> None:
    dsn = own_postgres.dsn_for(SUPERUSER, "postgres")
    password = own_postgres.password_for(SUPERUSER)

    with pytest.raises(asyncpg.InvalidPasswordError):
        await _query(dsn.replace(password, "guess"), "SELECT 1")


async def test_a_stopped_postgres_refuses_connections_until_it_is_started(
    own_postgres: PostgresServer,
) -> None:
    dsn = own_postgres.dsn_for(SUPERUSER, "postgres")

    await own_postgres.stop()

    with pytest.raises(OSError, match=r"No such file|refused"):
        await _query(dsn, "SELECT 1")
    await own_postgres.start()
    assert await _query(dsn, "SELECT 1") == 1


async def test_valkey_keeps_its_keys_over_a_restart(own_valkey: ValkeyServer) -> None:
    async with Redis.from_url(own_valkey.url) as client:
        await client.set("kept", "42")

    await own_valkey.restart()

    async with Redis.from_url(own_valkey.url) as client:
        assert await client.get("kept") == b"42"


async def test_valkey_refuses_to_evict(own_valkey: ValkeyServer) -> None:
    async with Redis.from_url(own_valkey.url, decode_responses=True) as client:
        assert await client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_the_valkey_socket_is_private(valkey_server: ValkeyServer) -> None:
    socket = Path(valkey_server.url.removeprefix("unix://"))

    assert socket.stat().st_mode & 0o777 == 0o600


async def test_a_server_that_cannot_start_says_why(short_folder: Path) -> None:
    not_a_folder = short_folder / "not-a-folder"
    not_a_folder.write_text("")
    server = ValkeyServer(
        data_folder=short_folder / "fine",
        socket_path=short_folder / "nowhere.sock",
        log_path=short_folder / "refused.log",
        port=1 << 20,
    )

    with pytest.raises(StartError, match="ended while starting"):
        await server.start()


async def test_a_child_dies_when_its_parent_is_killed(short_folder: Path) -> None:
    script = f"""
        import asyncio, sys
        from pathlib import Path
        from services.stack.process import ChildProcess
        child = ChildProcess("sleep", command=["/bin/sleep", "300"],
                             log_path=Path({str(short_folder)!r}) / "sleep.log")
        child.start()
        print(child.pid, flush=True)
        child._process.wait()
    """
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(script), stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    child = psutil.Process(int(await parent.stdout.readline()))

    parent.kill()
    await parent.wait()

    await until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


async def test_a_process_that_ignores_sigterm_is_killed_after_the_timeout(
    short_folder: Path,
) -> None:
    program = (
        "import signal as s, time; s.signal(15, s.SIG_IGN); print(1, flush=True); time.sleep(99)"
    )
    log = short_folder / "stubborn.log"
    child = ChildProcess("stubborn", command=[sys.executable, "-c", program], log_path=log)
    child.start()
    await until(lambda: log.exists() and log.read_text())

    await child.stop(timeout_seconds=0.1)

    assert child.exit_code == -signal.SIGKILL


async def test_each_test_has_a_database_of_its_own(migrated_database: TestDatabase) -> None:
    assert await _query(migrated_database.owner_dsn, "SELECT current_user::text") == "wayfare_owner"
    assert await _query(migrated_database.admin_dsn, "SELECT current_database()::text") == (
        migrated_database.name
    )


async def test_valkey_is_empty_for_each_test(valkey_url: str) -> None:
    async with Redis.from_url(valkey_url) as client:
        assert await client.dbsize() == 0
        await client.set("left", "over")
