"""One process of one service, `python -m services.<name>`, and the environment of its settings."""

import asyncio
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from services.stack.process import ChildProcess

PROJECT_FOLDER = Path(__file__).parents[2]

_IMPORT_ROOTS = (".", "gen", "clients/python", "envoy")
_START_SECONDS = 60.0
_DRAIN_SECONDS = 35.0
_POLL_SECONDS = 0.02
# What `up` hands on from its own environment, so that settings can be tried out without editing
# anything.
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR")
_INHERITED_PREFIXES = (
    "WAYFARE_LOG_",
    "WAYFARE_IDENTITY_",
    "WAYFARE_LOCATION_",
    "WAYFARE_LEDGER_",
    "WAYFARE_BOOKING_",
    "GRPC_",
    "PYTHON",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAddresses:
    """Where one process of a service listens: gRPC for Envoy, HTTP for health and metrics."""

    listen: str
    metrics_listen: str


class ServiceProcess:
    """Runs one process of a service; it can be terminated, killed and started again."""

    kind = "service"

    def __init__(
        self,
        name: str,
        *,
        service: str,
        addresses: ServiceAddresses,
        environment: Mapping[str, str],
        log_path: Path,
    ) -> None:
        """Describe the process; `name` is its instance, for example `location-2`."""
        self.name = name
        self.service = service
        self.listen = addresses.listen
        self.metrics_address = addresses.metrics_listen
        self.process = ChildProcess(
            name,
            command=[sys.executable, "-m", f"services.{service}"],
            log_path=log_path,
            environment={
                **python_environment(),
                **environment,
                "WAYFARE_INSTANCE": name,
                "WAYFARE_LISTEN": addresses.listen,
                "WAYFARE_METRICS_LISTEN": addresses.metrics_listen,
            },
        )

    @property
    def pid(self) -> int | None:
        """Return the process id while it runs."""
        return self.process.pid

    @property
    def address(self) -> str:
        """Return where it listens for calls."""
        return self.listen

    @property
    def metrics_url(self) -> str:
        """Return the URL of its Prometheus metrics."""
        return f"http://{self.metrics_address}/metrics"

    async def start(self) -> None:
        """Start the process and wait until it says that it is ready."""
        self.process.start()
        await self.wait_ready()

    async def wait_ready(self) -> None:
        """Wait until /readyz answers 200; raise StartError when it does not in time."""
        end = time.monotonic() + _START_SECONDS
        answer = "does not answer"
        async with httpx.AsyncClient(timeout=2.0, trust_env=False) as client:
            while True:
                if not self.process.is_running():
                    raise self.process.start_error("ended while starting")
                try:
                    response = await client.get(f"http://{self.metrics_address}/readyz")
                    if response.status_code == httpx.codes.OK:
                        return
                    answer = f"says {response.status_code}: {response.text.strip()}"
                except httpx.TransportError as error:
                    answer = f"does not answer ({type(error).__name__})"
                if time.monotonic() >= end:
                    raise self.process.start_error(f"is not ready: /readyz {answer}")
                await asyncio.sleep(_POLL_SECONDS)

    async def terminate(self) -> None:
        """Ask the process to drain and end (SIGTERM), and wait until it has."""
        await self.process.stop(timeout_seconds=_DRAIN_SECONDS)

    async def stop(self) -> None:
        """Do as `terminate` does: every part of the stack has this verb."""
        await self.terminate()

    async def kill(self) -> None:
        """Kill the process at once (SIGKILL)."""
        await self.process.kill()


def python_environment() -> dict[str, str]:
    """Return the environment in which the project's own modules run, without any settings."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name in _INHERITED or name.startswith(_INHERITED_PREFIXES)
    }
    roots = os.pathsep.join(str(PROJECT_FOLDER / root) for root in _IMPORT_ROOTS)
    return {**inherited, "PYTHONPATH": roots, "PYTHONUNBUFFERED": "1"}
