"""PostgreSQL as a child process: one data folder, one Unix socket, one password per role.

Used by `embedded.EmbeddedStack` and by the test fixtures. `ExternalPostgres` has the same face for
a server of your own (DATABASE_URL).
"""

import asyncio
import contextlib
import signal
import time
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg

from services.stack.errors import StackError
from services.stack.passwords import read_or_create_secret
from services.stack.postgres_user import (
    allow_passage,
    hand_over_file,
    hand_over_folder,
    postgres_system_user,
)
from services.stack.process import ChildProcess, run_to_end
from services.stack.programs import postgres_program

DATABASE = "wayfare"
SUPERUSER = "postgres"
OWNER = "wayfare_owner"

_SOCKET_PATH_BYTES_MAX = 107
_START_SECONDS = 30.0
_POLL_SECONDS = 0.02
# A killed server's last backends, or a server whose `wayfare up` was killed, may need a moment to
# be gone.
_TRANSIENT_START_ERRORS = ("pre-existing shared memory block", "postmaster.pid")


class PostgresInstance(Protocol):
    """A PostgreSQL server that the stack can use, embedded or your own."""

    @property
    def database(self) -> str:
        """Return the name of the database."""

    def dsn_for(self, role: str, database: str | None = None) -> str:
        """Return the DSN with which a role connects."""

    def password_for(self, role: str) -> str:
        """Return the password of a role, made at first use."""

    async def start(self) -> None:
        """Make the server ready to take connections."""

    async def stop(self) -> None:
        """Stop the server when it is ours."""


class PostgresServer:
    """Runs PostgreSQL on a data folder; it can be stopped, killed and started again."""

    def __init__(
        self,
        *,
        data_folder: Path,
        socket_folder: Path,
        secrets_folder: Path,
        log_path: Path,
        durable: bool = True,
    ) -> None:
        """Describe the server.

        With `durable` (the default) every commit is on disk before it is answered; tests of
        behaviour that no power cut can change run without.
        """
        socket_path = socket_folder / ".s.PGSQL.5432"
        if len(str(socket_path).encode()) > _SOCKET_PATH_BYTES_MAX:
            raise StackError(
                f"The socket path is longer than {_SOCKET_PATH_BYTES_MAX} bytes: {socket_path}"
            )
        self._data_folder = data_folder
        self._socket_folder = socket_folder
        self._secrets_folder = secrets_folder
        self._durable = durable
        self._user = postgres_system_user()
        self.process = ChildProcess(
            "postgres",
            command=self._command(),
            log_path=log_path,
            environment={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
            death_signal=signal.SIGINT,
            user=self._user,
        )

    @property
    def database(self) -> str:
        """Return the name of the database."""
        return DATABASE

    @property
    def address(self) -> str:
        """Return where the server listens, for people."""
        return f"unix:{self._socket_folder}"

    @property
    def running(self) -> bool:
        """Return whether the server process runs."""
        return self.process.is_running()

    def dsn_for(self, role: str, database: str | None = None) -> str:
        """Return the DSN with which a role (`postgres`, `wayfare_location`) connects."""
        credentials = f"{role}:{quote(self.password_for(role), safe='')}"
        return f"postgresql://{credentials}@/{database or self.database}?host={self._socket_folder}"

    def password_for(self, role: str) -> str:
        """Return the password of a role, made at first use."""
        return read_or_create_secret(self._secrets_folder / "postgres" / role)

    async def start(self) -> None:
        """Create the data folder if needed, start the server and wait until it answers a query."""
        if self.process.is_running():
            return
        hand_over_folder(self._data_folder, self._user)
        hand_over_folder(self._socket_folder, self._user)
        if not (self._data_folder / "PG_VERSION").exists():
            await asyncio.to_thread(self._initialise)
        end = time.monotonic() + _START_SECONDS
        self.process.start()
        while not await self._answers():
            if time.monotonic() >= end:
                raise self.process.start_error("did not answer in time")
            if not self.process.is_running():
                if not any(text in self.process.log_tail() for text in _TRANSIENT_START_ERRORS):
                    raise self.process.start_error("ended while starting")
                self.process.start()
            await asyncio.sleep(_POLL_SECONDS)

    async def stop(self) -> None:
        """Shut down cleanly: sessions are cut, data is flushed."""
        await self.process.stop(with_signal=signal.SIGINT, timeout_seconds=30.0)

    async def kill(self) -> None:
        """Kill the server as a power cut would; the next start recovers from the log."""
        await self.process.kill()

    async def restart(self) -> None:
        """Stop and start."""
        await self.stop()
        await self.start()

    def _command(self) -> list[str]:
        sync = "on" if self._durable else "off"
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._socket_folder),
            "unix_socket_permissions": "0700",
            "max_connections": "200",
            "shared_buffers": "256MB",
            # A checkpoint copies every page that changes after it into the log: fewer are cheaper.
            "max_wal_size": "4GB",
            "checkpoint_timeout": "15min",
            # Our statements are short; compiling them costs more than running them.
            "jit": "off",
            "fsync": sync,
            "synchronous_commit": sync,
            "full_page_writes": sync,
            "timezone": "UTC",
            "log_timezone": "UTC",
            "password_encryption": "scram-sha-256",
            "cluster_name": "wayfare",
        }
        command = [postgres_program("postgres"), "-D", str(self._data_folder)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        return command

    def _initialise(self) -> None:
        program = postgres_program("initdb")
        if self._user is not None:
            allow_passage(Path(program))
        # initdb runs as the other user, who must read the file: it lies in the data folder's
        # neighbour that is that user's own, for the time of the call.
        password_file = self._socket_folder / "initial-password"
        password_file.write_text(self.password_for(SUPERUSER) + "\n", encoding="ascii")
        password_file.chmod(0o600)
        if self._user is not None:
            hand_over_file(password_file, self._user)
        try:
            run_to_end(
                [
                    program,
                    f"--pgdata={self._data_folder}",
                    f"--username={SUPERUSER}",
                    f"--pwfile={password_file}",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    "--locale-provider=builtin",
                    "--builtin-locale=C.UTF-8",
                    "--locale=C",
                    "--no-instructions",
                    *([] if self._durable else ["--no-sync"]),
                ],
                user=self._user,
            )
        finally:
            password_file.unlink()

    async def _answers(self) -> bool:
        if not (self._socket_folder / ".s.PGSQL.5432").exists():
            return False
        with contextlib.suppress(OSError, asyncpg.PostgresError, TimeoutError):
            await ping_postgres(self.dsn_for(SUPERUSER, "postgres"))
            return self.process.is_running()
        return False


class ExternalPostgres:
    """A PostgreSQL server of your own, named by DATABASE_URL, whose user may create roles."""

    def __init__(self, *, admin_dsn: str, secrets_folder: Path) -> None:
        """Name the server by the DSN of a user who may create roles and owns the database."""
        self._admin = urlsplit(admin_dsn)
        self._secrets_folder = secrets_folder

    @property
    def database(self) -> str:
        """Return the name of the database, from the URL."""
        return self._admin.path.removeprefix("/") or DATABASE

    @property
    def address(self) -> str:
        """Return where the server listens, without credentials."""
        return f"{self._admin.hostname or 'unix'}:{self._admin.port or 5432}{self._admin.path}"

    def dsn_for(self, role: str, database: str | None = None) -> str:
        """Return the DSN with which a role connects; the admin's own for `postgres`."""
        path = f"/{database or self.database}"
        if role == SUPERUSER:
            return urlunsplit(self._admin._replace(path=path))
        credentials = f"{role}:{quote(self.password_for(role), safe='')}"
        host = self._admin.netloc.rpartition("@")[2]
        return urlunsplit(self._admin._replace(netloc=f"{credentials}@{host}", path=path))

    def password_for(self, role: str) -> str:
        """Return the password of a role, made at first use."""
        return read_or_create_secret(self._secrets_folder / "postgres" / role)

    async def start(self) -> None:
        """Check that the server answers."""
        try:
            await ping_postgres(self.dsn_for(SUPERUSER, "postgres"))
        except (OSError, asyncpg.PostgresError, TimeoutError) as error:
            raise StackError(
                f"PostgreSQL at {self.address} (DATABASE_URL) does not answer: {error}"
            ) from error

    async def stop(self) -> None:
        """Leave the server alone: it is not ours."""


async def ping_postgres(dsn: str) -> None:
    """Connect and run one query; raise when the server does not answer within two seconds."""
    connection = await asyncpg.connect(dsn, timeout=2.0)
    try:
        await connection.fetchval("SELECT 1", timeout=2.0)
    finally:
        await connection.close()
