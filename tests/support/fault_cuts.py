"""Cuts a process off from its servers at a chosen call, for simulations of faults.

Every call to PostgreSQL (BEGIN and COMMIT too), Valkey or a gateway is a place for a cut: all that
a process does between two of them is lost with it or was never needed. Nothing of the code under
test knows of this.
"""

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NoReturn, Self

import asyncpg
from redis.exceptions import ConnectionError as RedisConnectionError

Call = Callable[[], Awaitable[Any]]
Lose = Callable[[], BaseException]


if TYPE_CHECKING:
    _Connection = asyncpg.Connection[Any]
else:
    _Connection = asyncpg.Connection


class Cut(StrEnum):
    """Says what happens at a call."""

    CRASH_BEFORE = "the process dies before the call"
    CRASH_DURING = "the process dies when the call is sent"
    CRASH_AFTER = "the process dies when the call was answered"
    LOST_BEFORE = "the connection is lost before the call"
    LOST_AFTER = "the answer is lost with the connection"


class ProcessDiedError(Exception):
    """Says that the process that was asked is no more."""


class Cutter:
    """Counts the calls of one process, and cuts it at one of them."""

    def __init__(self) -> None:
        """Let everything through."""
        self.calls: list[str] = []
        self.dead = asyncio.Event()
        self.buried = asyncio.Event()
        self.valkey_away = False
        self.terminate: Callable[[], None] = lambda: None
        self._at = 0
        self._cut: Cut | None = None

    def arm(self, at: int, cut: Cut) -> None:
        """Cut at the call that is the `at`th from now on, from 1."""
        self._at, self._cut = len(self.calls) + at, cut

    def disarm(self) -> bool:
        """Let everything through; say whether there was a cut."""
        was_cut = self._cut is None and self._at > 0
        self._at, self._cut = 0, None
        return was_cut

    async def through(self, name: str, call: Call, lose: Lose) -> Any:
        """Make a call, unless it is cut. `lose` closes the connection and returns its error."""
        if self.dead.is_set():
            raise asyncio.CancelledError
        self.calls.append(name)
        cut = None
        if len(self.calls) == self._at:
            cut, self._cut = self._cut, None
        match cut:
            case Cut.CRASH_BEFORE:
                await self._die()
            case Cut.LOST_BEFORE:
                raise lose()
            case Cut.CRASH_DURING:
                sending = asyncio.ensure_future(call())
                await asyncio.sleep(0)
                sending.add_done_callback(lambda done: done.cancelled() or done.exception())
                await self._die()
        answer = await call()
        match cut:
            case Cut.CRASH_AFTER:
                await self._die()
            case Cut.LOST_AFTER:
                raise lose()
        return answer

    async def _die(self) -> NoReturn:
        """Close everything and do nothing any more until the process is buried.

        What shields itself from being cancelled would wait for ever else.
        """
        self.dead.set()
        self.terminate()
        await self.buried.wait()
        raise asyncio.CancelledError


class CutConnection(_Connection):
    """Is a connection to PostgreSQL each statement of which may be cut."""

    cutter: Cutter

    async def execute(self, query: str, *arguments: Any, **values: Any) -> str:
        parent = super().execute
        return str(await self._cut(query, lambda: parent(query, *arguments, **values)))

    async def executemany(self, command: str, args: Any, *, timeout: float | None = None) -> None:
        parent = super().executemany
        await self._cut(command, lambda: parent(command, args, timeout=timeout))

    async def fetch(self, query: str, *arguments: Any, **values: Any) -> Any:
        parent = super().fetch
        return await self._cut(query, lambda: parent(query, *arguments, **values))

    async def fetchrow(self, query: str, *arguments: Any, **values: Any) -> Any:
        parent = super().fetchrow
        return await self._cut(query, lambda: parent(query, *arguments, **values))

    async def fetchval(self, query: str, *arguments: Any, **values: Any) -> Any:
        parent = super().fetchval
        return await self._cut(query, lambda: parent(query, *arguments, **values))

    async def _cut(self, query: str, call: Call) -> Any:
        def lose() -> BaseException:
            self.terminate()
            return asyncpg.ConnectionDoesNotExistError("the connection was cut")

        return await self.cutter.through(" ".join(query.split())[:60], call, lose)


async def cut_pool(dsn: str, cutter: Cutter, *, size: int) -> "asyncpg.Pool[Any]":
    """Open a pool whose connecting and statements `cutter` may cut."""
    kind = type("CutConnection", (CutConnection,), {"cutter": cutter})

    async def connect(*arguments: Any, **values: Any) -> Any:
        opened: list[asyncpg.Connection[Any]] = []

        async def call() -> Any:
            opened.append(await asyncpg.connect(*arguments, **values))
            if cutter.dead.is_set():
                opened[0].terminate()
            return opened[0]

        try:
            return await cutter.through(
                "connect", call, lambda: ConnectionRefusedError("nobody listens")
            )
        except BaseException:
            for connection in opened:
                connection.terminate()
            raise

    return await asyncpg.create_pool(
        dsn, min_size=0, max_size=size, connection_class=kind, connect=connect, command_timeout=10
    )


class CutValkey:
    """Is a client of Valkey each call of which may be cut."""

    def __init__(self, client: Any, cutter: Cutter) -> None:
        """Pass calls on to `client`."""
        self._client = client
        self._cutter = cutter

    def pipeline(self, *, transaction: bool) -> "CutPipeline":
        """Return commands that are sent together; each of them may be the one that is cut."""
        assert not transaction
        return CutPipeline(self)

    def __getattr__(self, name: str) -> Any:
        """Return a command of the client."""
        command = getattr(self._client, name)

        def lose() -> BaseException:
            return RedisConnectionError("the connection was cut")

        async def call(*arguments: Any, **values: Any) -> Any:
            if self._cutter.valkey_away:
                raise lose()
            return await self._cutter.through(
                f"Valkey {name}", lambda: command(*arguments, **values), lose
            )

        return call


class CutPipeline:
    """Is commands of one pipeline. Valkey may have done any number of them when it is cut."""

    def __init__(self, valkey: CutValkey) -> None:
        """Send to `valkey`."""
        self._valkey = valkey
        self._commands: list[tuple[str, Any, Any]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._commands.clear()

    def __getattr__(self, name: str) -> Any:
        """Return what notes a command."""
        return lambda *arguments, **values: self._commands.append((name, arguments, values))

    async def execute(self) -> list[Any]:
        """Send the commands in their order."""
        return [
            await getattr(self._valkey, name)(*arguments, **values)
            for name, arguments, values in self._commands
        ]


class CutGateway:
    """Is a gateway, or another service, each call of which may be cut.

    A lost connection is what `error` makes.
    """

    def __init__(self, gateway: Any, cutter: Cutter, error: Lose) -> None:
        """Pass calls on to `gateway`."""
        self._gateway = gateway
        self._cutter = cutter
        self._error = error

    def __getattr__(self, name: str) -> Any:
        """Return a method of the gateway, or a value of it as it is."""
        found = getattr(self._gateway, name)
        if not asyncio.iscoroutinefunction(found):
            return found

        async def call(*arguments: Any, **values: Any) -> Any:
            return await self._cutter.through(
                f"gateway {name}", lambda: found(*arguments, **values), self._error
            )

        return call
