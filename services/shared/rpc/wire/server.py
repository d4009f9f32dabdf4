"""Serves gRPC in the place of grpc.aio.server: finds handlers, listens, stops in good order."""

import asyncio
import contextlib
import socket
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc

from services.shared.rpc.wire.connection import Connection
from services.shared.rpc.wire.headers import Fields, Request, request_of
from services.shared.rpc.wire.limits import Limits
from services.shared.rpc.wire.peer import Site

Handler = Any
Wrap = Callable[[str, Handler], Handler]
_BACKLOG = 1_024
_STOPPING_SECONDS = 5.0


class _Details:
    """Is what a generic handler is asked with."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.invocation_metadata = ()


class WireServer:
    """Is a gRPC server on the running loop."""

    def __init__(
        self,
        *,
        wrap: Wrap = lambda _path, handler: handler,
        limits: Limits | None = None,
        read_request: Callable[[Fields], Request] = request_of,
    ) -> None:
        """Serve handlers as `wrap` returns them; it is asked once for each method.

        `read_request` makes a call of its headers.
        """
        self._wrap = wrap
        self._generic: list[grpc.GenericRpcHandler] = []
        self._registered: dict[str, Handler] = {}
        self._found: dict[str, Handler] = {}
        self._site = Site(self._find, limits or Limits(), read_request)
        self._sockets: list[socket.socket] = []
        self._paths: dict[Path, int] = {}
        self._listeners: list[asyncio.Server] = []

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Serve what `handlers` know; called by generated code."""
        self._generic += handlers

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Serve the methods of `service`; called by generated code."""
        for name, handler in handlers.items():
            self._registered[f"/{service}/{name}"] = handler

    def _find(self, path: str) -> Handler | None:
        handler = self._found.get(path)
        if handler is not None:
            return handler
        handler = self._registered.get(path)
        for generic in self._generic:
            if handler is not None:
                break
            handler = generic.service(_Details(path))  # type: ignore[arg-type]  # duck-typed
        if handler is None:
            return None
        wrapped = self._wrap(path, handler)
        # Only methods that exist are kept, so this has an end.
        self._found[path] = wrapped
        return wrapped

    def add_insecure_port(self, address: str) -> int:
        """Bind to host:port or unix:path, and return the port. Raises OSError."""
        path = Path()
        if address.startswith("unix:"):
            path = Path(address.removeprefix("unix:").removeprefix("//"))
            _remove_socket(path)
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            where: Any = str(path)
        else:
            host, _, port = address.rpartition(":")
            host = host.strip("[]")
            family, *_, where = socket.getaddrinfo(
                host or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            # By its number asyncio knows that the socket is TCP, and turns Nagle's delay off.
            listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(where)
        except OSError:
            listener.close()
            raise
        if listener.family is socket.AF_UNIX:
            self._paths[path] = path.stat().st_ino
        listener.setblocking(False)
        self._sockets.append(listener)
        name = listener.getsockname()
        return int(name[1]) if isinstance(name, tuple) else 1

    async def start(self) -> None:
        """Listen on what `add_insecure_port` bound."""
        loop = asyncio.get_running_loop()
        for listener in self._sockets:
            is_local = listener.family is socket.AF_UNIX
            create: Any = loop.create_unix_server if is_local else loop.create_server
            server = await create(
                lambda: Connection(self._site, loop), sock=listener, backlog=_BACKLOG
            )
            self._listeners.append(server)
        self._sockets.clear()

    async def stop(self, grace: float | None) -> None:
        """Take no calls, let open ones end for `grace` seconds, then end them."""
        for listener in self._listeners:
            listener.close()
        for path, number in self._paths.items():
            # Not that of a process which has taken our place.
            _remove_socket(path, number)
        site = self._site
        for connection in list(site.connections):
            connection.leave()
        loop = asyncio.get_running_loop()
        give_up = loop.time() + (grace or 0.0)
        # A poll: connections end one by one, once in a process's life.
        while site.connections and loop.time() < give_up:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for connection in list(site.connections):
            connection.cut()
        if site.tasks:
            await asyncio.wait(list(site.tasks), timeout=_STOPPING_SECONDS)


def _remove_socket(path: Path, number: int | None = None) -> None:
    with contextlib.suppress(FileNotFoundError):
        found = path.stat()
        if stat.S_ISSOCK(found.st_mode) and number in (None, found.st_ino):
            path.unlink()
