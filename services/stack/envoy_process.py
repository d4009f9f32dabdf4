"""Envoy as a child process, with a configuration rendered from the contract's policies."""

import asyncio
import json
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from services.stack.process import ChildProcess
from services.stack.programs import envoy_program
from services.stack.service_process import PROJECT_FOLDER
from wayfare_envoy.render import render_bootstrap
from wayfare_envoy.topology import Endpoint, Limits, Topology

DESCRIPTOR_SET = PROJECT_FOLDER / "gen" / "descriptors.binpb"
# Built by `make web`; without it the edge serves calls only.
WEB_FOLDER = PROJECT_FOLDER / "clients" / "web" / "dist"

_START_SECONDS = 30.0
# Every caller of an embedded stack comes from loopback, load generators and storms among them.
_LIMITS = Limits(requests_per_address_burst=100_000, requests_per_address_per_second=10_000)
_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvoyFiles:
    """The files and sockets of one Envoy."""

    config: Path
    admin_socket: Path
    log: Path
    access_log: Path
    certificates: Path
    jwks: Path


class EnvoyProcess:
    """Runs Envoy in front of the services; it can be stopped, killed and started again."""

    kind = "envoy"
    name = "envoy"

    def __init__(
        self,
        *,
        edge_address: str,
        mesh_address: str,
        endpoints: Mapping[str, Sequence[Endpoint]],
        files: EnvoyFiles,
        cors_origins: Sequence[str] = (),
        concurrency: int | None = None,
    ) -> None:
        """Describe Envoy: where it listens and which processes stand behind it.

        `concurrency` is the number of worker threads; None is one per core.
        """
        self.edge_address = edge_address
        self.mesh_address = mesh_address
        self._endpoints = {service: list(processes) for service, processes in endpoints.items()}
        self._files = files
        self._cors_origins = tuple(cors_origins)
        self.process = ChildProcess(
            "envoy",
            command=[
                *(envoy_program(), "--config-path", str(files.config)),
                *("--log-level", "warning", "--disable-hot-restart"),
                *(("--concurrency", str(concurrency)) if concurrency else ()),
            ],
            log_path=files.log,
            environment={"PATH": "/usr/bin:/bin", "TZ": "UTC"},
            death_signal=signal.SIGKILL,
        )

    @property
    def pid(self) -> int | None:
        """Return the process id while it runs."""
        return self.process.pid

    @property
    def address(self) -> str:
        """Return where its edge listens."""
        return self.edge_address

    @property
    def admin_socket(self) -> Path:
        """Return the socket of Envoy's admin page."""
        return self._files.admin_socket

    async def start(self) -> None:
        """Render the configuration, start Envoy, and wait until it finds every process healthy."""
        topology = Topology(
            edge_address=self.edge_address,
            mesh_address=self.mesh_address,
            admin_address=f"unix:{self._files.admin_socket}",
            services=self._endpoints,
            certificate_dir=self._files.certificates,
            jwks_file=self._files.jwks,
            descriptor_set=DESCRIPTOR_SET,
            cors_origins=self._cors_origins,
            access_log=self._files.access_log,
            allow_instance_choice=True,
            web_folder=WEB_FOLDER if (WEB_FOLDER / "index.html").is_file() else None,
            limits=_LIMITS,
        )
        config = json.dumps(render_bootstrap(topology), indent=2)
        await asyncio.to_thread(self._files.config.write_text, config, encoding="utf-8")
        self.process.start()
        await self.wait_healthy()

    async def wait_healthy(self) -> None:
        """Wait until Envoy listens and its own gRPC health checks say SERVING for every process."""
        end = time.monotonic() + _START_SECONDS
        expected = {process.instance for of in self._endpoints.values() for process in of}
        while True:
            if not self.process.is_running():
                raise self.process.start_error("ended while starting")
            healthy = await healthy_instances(self._files.admin_socket, self._endpoints)
            if expected <= healthy:
                return
            if time.monotonic() >= end:
                missing = ", ".join(sorted(expected - healthy))
                raise self.process.start_error(f"does not find these healthy: {missing}")
            await asyncio.sleep(_POLL_SECONDS)

    async def stop(self) -> None:
        """Stop Envoy; open connections are closed."""
        await self.process.stop(timeout_seconds=10.0)

    async def kill(self) -> None:
        """Kill Envoy at once (SIGKILL)."""
        await self.process.kill()


async def healthy_instances(
    admin_socket: Path, endpoints: Mapping[str, Sequence[Endpoint]]
) -> set[str]:
    """Return the processes that Envoy's health checks find SERVING; empty while it is away."""
    by_address = {
        process.address.removeprefix("unix:"): process.instance
        for processes in endpoints.values()
        for process in processes
    }
    hosts = await _hosts(admin_socket)
    return {
        by_address[_address_of(host)]
        for host in hosts
        if _address_of(host) in by_address and _is_healthy(host)
    }


async def is_live(admin_socket: Path) -> bool:
    """Return whether Envoy has its configuration and listens."""
    try:
        return (await _ask(admin_socket, "/ready")).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


async def _hosts(admin_socket: Path) -> list[dict[str, Any]]:
    try:
        if not await is_live(admin_socket):
            return []
        document = (await _ask(admin_socket, "/clusters?format=json")).json()
    except httpx.TransportError:
        return []
    clusters = document.get("cluster_statuses", [])
    return [host for cluster in clusters for host in cluster.get("host_statuses", [])]


async def _ask(admin_socket: Path, path: str) -> httpx.Response:
    transport = httpx.AsyncHTTPTransport(uds=str(admin_socket))
    async with httpx.AsyncClient(transport=transport, timeout=2.0, trust_env=False) as client:
        return await client.get(f"http://envoy{path}")


def _address_of(host: Mapping[str, Any]) -> str:
    address = host["address"]
    if "pipe" in address:
        return str(address["pipe"]["path"])
    socket = address["socket_address"]
    return f"{socket['address']}:{socket['port_value']}"


def _is_healthy(host: Mapping[str, Any]) -> bool:
    # A host is listed as healthy before its first check unless it failed it: Envoy starts every
    # host as failed.
    health = host.get("health_status", {})
    return health.get("eds_health_status") == "HEALTHY" and not any(
        health.get(name) for name in ("failed_active_health_check", "failed_outlier_check")
    )
