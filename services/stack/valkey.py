"""Valkey as a child process: a Unix socket of mode 0600, an append-only file, no eviction.

Used by `embedded.EmbeddedStack` and by the test fixtures. `ExternalValkey` has the same face for a
server of your own (VALKEY_URL).
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.stack.errors import StackError
from services.stack.process import ChildProcess
from services.stack.programs import valkey_server_program

_START_SECONDS = 30.0
_POLL_SECONDS = 0.02
_LAST_SLOT = 16383


class ValkeyInstance(Protocol):
    """A Valkey server that the stack can use, embedded or your own."""

    @property
    def url(self) -> str:
        """Return the URL with which clients connect."""

    async def start(self) -> None:
        """Make the server ready to take commands."""

    async def stop(self) -> None:
        """Stop the server when it is ours."""


class ValkeyServer:
    """Runs Valkey on a data folder; it can be stopped, killed and started again."""

    def __init__(
        self,
        *,
        data_folder: Path,
        socket_path: Path,
        log_path: Path,
        memory_bytes_max: int = 1 << 30,
        port: int = 0,
        cluster: bool = False,
        name: str = "valkey",
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Describe the server.

        `port` opens a TCP port on the loopback address too (0: none). `cluster` makes it a node of
        a cluster, which needs a port below 55,536, because the bus takes the port 10,000 above; it
        owns no slot until somebody gives it some, as `own_all_slots` does. `settings` go before
        ours.
        """
        self.name = name
        self.port = port
        self.socket_path = socket_path
        self._settings = dict(settings or {})
        self._data_folder = data_folder
        self._cluster = cluster
        self._memory_bytes_max = memory_bytes_max
        self.process = ChildProcess(
            name,
            command=self._command(),
            log_path=log_path,
            environment={"PATH": "/usr/bin:/bin", "TZ": "UTC"},
            death_signal=signal.SIGTERM,
        )

    @property
    def url(self) -> str:
        """Return the URL of the Unix socket, or of the TCP port of a cluster."""
        if self._cluster:
            return f"redis://127.0.0.1:{self.port}/0"
        return f"unix://{self.socket_path}"

    @property
    def address(self) -> str:
        """Return where the server listens, for people."""
        return f"127.0.0.1:{self.port}" if self._cluster else f"unix:{self.socket_path}"

    @property
    def running(self) -> bool:
        """Return whether the server process runs."""
        return self.process.is_running()

    async def start(self) -> None:
        """Start the server and wait until it has loaded its data and answers."""
        if self.process.is_running():
            return
        self._data_folder.mkdir(parents=True, exist_ok=True)
        self.socket_path.parent.mkdir(parents=True, exist_ok=True)
        end = time.monotonic() + _START_SECONDS
        self.process.start()
        while not await self._answers():
            if not self.process.is_running():
                raise self.process.start_error("ended while starting")
            if time.monotonic() >= end:
                raise self.process.start_error("did not answer in time")
            await asyncio.sleep(_POLL_SECONDS)

    async def stop(self) -> None:
        """Shut down cleanly: the append-only file is flushed."""
        await self.process.stop(timeout_seconds=30.0)

    async def kill(self) -> None:
        """Kill the server; up to a second of writes may be lost."""
        await self.process.kill()

    async def restart(self) -> None:
        """Stop and start."""
        await self.stop()
        await self.start()

    def _command(self) -> list[str]:
        settings = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "unixsocket": str(self.socket_path),
            "unixsocketperm": "600",
            "dir": str(self._data_folder),
            "daemonize": "no",
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            # A rewrite copies each page that is written meanwhile: for half a second answers are
            # late. At 64 MB, the default, 5,000 positions a second ask for one every 20 s.
            "auto-aof-rewrite-min-size": "256mb",
            "maxmemory": str(self._memory_bytes_max),
            "maxmemory-policy": "noeviction",
            "maxclients": "4000",
        }
        if self._cluster:
            settings["cluster-enabled"] = "yes"
        settings |= self._settings
        command = [valkey_server_program()]
        for name, value in settings.items():
            command += [f"--{name}", value]
        return command

    async def _answers(self) -> bool:
        with contextlib.suppress(OSError, RedisError, TimeoutError):
            await ping_valkey(f"unix://{self.socket_path}")
            return self.process.is_running()
        return False

    async def own_all_slots(self) -> None:
        """Make the node a cluster of its own."""
        end = time.monotonic() + _START_SECONDS
        client = Redis.from_url(f"unix://{self.socket_path}", decode_responses=True)
        try:
            while "cluster_state:ok" not in str(await command_of(client, "CLUSTER", "INFO")):
                if time.monotonic() >= end:
                    raise self.process.start_error("did not form its cluster in time")
                # After a restart the slots are taken already.
                with contextlib.suppress(RedisError):
                    await command_of(client, "CLUSTER", "ADDSLOTSRANGE", 0, _LAST_SLOT)
                await asyncio.sleep(_POLL_SECONDS)
        finally:
            await client.aclose()


class ExternalValkey:
    """A Valkey server of your own, named by VALKEY_URL."""

    def __init__(self, url: str) -> None:
        """Name the server by its URL."""
        self._url = url

    @property
    def url(self) -> str:
        """Return the URL with which clients connect."""
        return self._url

    @property
    def address(self) -> str:
        """Return where the server listens, without credentials."""
        return self._url.rpartition("@")[2] or self._url

    async def start(self) -> None:
        """Check that the server answers."""
        try:
            await ping_valkey(self._url)
        except (OSError, RedisError, TimeoutError) as error:
            raise StackError(
                f"Valkey at {self.address} (VALKEY_URL) does not answer: {error}"
            ) from error

    async def stop(self) -> None:
        """Leave the server alone: it is not ours."""


async def ping_valkey(url: str) -> None:
    """Send PING; raise when the server does not answer within two seconds.

    Of several URLs, with commas between, one must answer: nodes of a cluster may be away.
    """
    first, _, others = url.partition(",")
    if others:
        try:
            await ping_valkey(first)
        except (OSError, RedisError, TimeoutError):
            await ping_valkey(others)
        return
    client = Redis.from_url(url, socket_timeout=2.0, socket_connect_timeout=2.0)
    try:
        await client.ping()
    finally:
        await client.aclose()


async def command_of(client: Redis, *words: str | int) -> object:
    """Send a command that the client has no method for."""
    answer: object = await client.execute_command(*words)  # type: ignore[no-untyped-call]
    return answer
