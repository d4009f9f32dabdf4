"""Watches what a process depends on, and tells gRPC health checks, /readyz and /metrics."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import structlog
from prometheus_client import Gauge, make_wsgi_app

from services.shared.errors import DomainError

_log = structlog.get_logger()
_UP = Gauge("wayfare_dependency_up", "1 when the dependency answered last", ["dependency"])
_CHECK_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependency:
    """Names something that the process needs.

    One that is not `required` must answer once before the process serves, and may be away later:
    the process goes on in a degraded way.
    """

    name: str
    check: Callable[[], Awaitable[None]]
    required: bool = True


@dataclass(slots=True)
class HealthMonitor:
    """Checks the dependencies again and again and remembers the answers."""

    dependencies: Sequence[Dependency]
    on_change: Callable[[bool], Awaitable[None]]
    interval_seconds: float = 1.0
    answers: dict[str, bool] = field(default_factory=dict)
    draining: bool = False
    _was_ready: bool = False
    _serving: bool | None = None

    @property
    def ready(self) -> bool:
        """Say whether the process should get calls."""
        if self.draining or len(self.answers) < len(self.dependencies):
            return False
        if not self._was_ready:
            return all(self.answers.values())
        return all(self.answers[d.name] for d in self.dependencies if d.required)

    @property
    def missing(self) -> list[str]:
        """Name the dependencies that do not answer."""
        return [d.name for d in self.dependencies if not self.answers.get(d.name, False)]

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            await self.check_once()
            await asyncio.sleep(self.interval_seconds)

    async def check_once(self) -> None:
        """Ask every dependency once and tell what changed."""
        await asyncio.gather(*(self._ask(dependency) for dependency in self.dependencies))
        ready = self.ready
        self._was_ready = self._was_ready or ready
        if ready != self._serving:
            self._serving = ready
            await self.on_change(ready)

    async def _ask(self, dependency: Dependency) -> None:
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                await dependency.check()
            answered = True
        except (DomainError, TimeoutError):
            answered = False
        if self.answers.get(dependency.name) != answered:
            _log.info("dependency", name=dependency.name, up=answered)
        self.answers[dependency.name] = answered
        _UP.labels(dependency.name).set(answered)


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the parent's signature
        """Say nothing: scrapes are not worth a line."""


class HealthEndpoint:
    """Serves /metrics, /healthz and /readyz over HTTP from a thread of its own."""

    def __init__(self, address: str, monitor: HealthMonitor) -> None:
        """Listen on `address`, as in "127.0.0.1:9100"; port 0 takes a free one."""
        host, _, port = address.rpartition(":")
        self._monitor = monitor
        self._metrics = make_wsgi_app()
        self._server: WSGIServer = make_server(
            host, int(port), self._answer, handler_class=_QuietHandler
        )
        self.port = self._server.server_port
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.2},
            name="health",
            daemon=True,
        )

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering and free the port."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Any:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            return self._metrics(environ, start_response)
        status, text = "404 Not Found", "ask /metrics, /healthz or /readyz\n"
        if path == "/healthz":
            status, text = "200 OK", "ok\n"
        if path == "/readyz":
            status, text = "200 OK", "ready\n"
            if not self._monitor.ready:
                missing = ", ".join(self._monitor.missing) or "the process is stopping"
                status, text = "503 Service Unavailable", f"not ready: {missing}\n"
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [text.encode()]
