"""The whole stack as one object: `async with EmbeddedStack() as stack:`.

Used by `wayfare up`, by `wayfare demo`, by the tests and by the benchmarks. Everything it starts is
healthy when it is entered, and gone when it is left.
"""

import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from services.stack.certificates import write_certificates
from services.stack.environments import admin_password, service_environment
from services.stack.envoy_process import EnvoyFiles, EnvoyProcess
from services.stack.home import Home, PartState, StackState, part_state, process_of
from services.stack.migrations import prepare_database, role_of
from services.stack.passwords import write_private_file
from services.stack.ports import EDGE_PORT, LOOPBACK, MESH_PORT, choose_port, metrics_port
from services.stack.postgres import SUPERUSER, ExternalPostgres, PostgresServer
from services.stack.process import ChildProcess
from services.stack.progress import Progress, ProgressKind, Report, ignore
from services.stack.service_process import ServiceAddresses, ServiceProcess
from services.stack.signing_keys import ensure_signing_key, write_jwks
from services.stack.valkey import ExternalValkey, ValkeyServer
from services.stack.valkey_cluster import FIRST_PORT, ValkeyCluster, choose_cluster_ports
from wayfare_envoy.topology import Endpoint

# Services that have a certificate for the mesh, whether they run yet or not: tools act as booking.
MESH_SERVICES = ("identity", "location", "booking", "matching", "pricing", "ledger")


class _Startable(Protocol):
    async def start(self) -> None: ...

    async def stop(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StackOptions:
    """How a stack differs from the usual one.

    `friendly_ports` tries 8080 and its neighbours first; without it every port is any free one.
    `edge_host` is the address that the edge listens on. `durable` keeps fsync on. `settings` are
    environment variables for the processes of a service, by its name. `envoy_threads` is the number
    of Envoy's workers, by default one per core. `cors_origins` are the web apps that browsers may
    call from: by default those that a developer serves on this machine. `valkey_cluster` runs six
    nodes of Valkey instead of one server; with `valkey_url` it says that those are of a cluster.
    """

    identity_processes: int = 1
    location_processes: int = 2
    ledger_processes: int = 1
    booking_processes: int = 1
    friendly_ports: bool = False
    edge_host: str = LOOPBACK
    edge_port: int | None = None
    durable: bool = True
    log_level: str = "INFO"
    envoy_threads: int | None = None
    cors_origins: Sequence[str] = ("http://localhost:3000", "http://localhost:5173")
    database_url: str | None = None
    valkey_url: str | None = None
    valkey_cluster: bool = False
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


class EmbeddedStack:
    """Runs PostgreSQL, Valkey, the services and Envoy on one home."""

    postgres: PostgresServer | ExternalPostgres
    valkey: ValkeyServer | ExternalValkey | ValkeyCluster
    envoy: EnvoyProcess
    services: dict[str, ServiceProcess]

    def __init__(
        self,
        *,
        home: Path | Home | None = None,
        options: StackOptions | None = None,
        report: Report = ignore,
        location_processes: int | None = None,
    ) -> None:
        """Describe a stack; without a home it has one of its own that is deleted at the end.

        `location_processes` is short for that field of the options.
        """
        self._given_home = home
        self._options = options or StackOptions()
        self._location_processes = location_processes or self._options.location_processes
        self._report = report
        self._exit_stack = AsyncExitStack()
        self._chosen_ports: set[int] = set()
        self.services = {}

    async def __aenter__(self) -> Self:
        """Start everything, and return when all of it is healthy."""
        try:
            await self._start()
        except BaseException as error:
            await self._exit_stack.aclose()
            cause = _first_cause(error)
            if cause is error:
                raise
            raise cause from error
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop everything in reverse order."""
        await self._exit_stack.aclose()

    @property
    def edge_address(self) -> str:
        """Return host:port of the edge, which takes gRPC, gRPC-Web and JSON."""
        return self.envoy.edge_address

    @property
    def mesh_address(self) -> str:
        """Return host:port of the mesh, which takes gRPC with a client certificate."""
        return self.envoy.mesh_address

    @property
    def certificates(self) -> Path:
        """Return the folder of ca.pem, <service>.pem and <service>.key."""
        return self.home.certificates

    @property
    def secrets(self) -> Path:
        """Return the folder of secrets."""
        return self.home.secrets

    @property
    def admin_password(self) -> str:
        """Return the password of the demo tenant's administrator (+441514960001)."""
        return admin_password(self.home)

    def database_dsn(self, service: str) -> str:
        """Return the DSN of a service's role."""
        return self.postgres.dsn_for(role_of(service))

    def processes(self) -> dict[str, ChildProcess]:
        """Return every child process by the name of its part, in the order of their start."""
        parts = {"postgres": self.postgres, **self._valkey_parts(), **self.services}
        own = {name: process_of(part) for name, part in parts.items()}
        own["envoy"] = self.envoy.process
        return {name: process for name, process in own.items() if process is not None}

    async def restart_part(self, name: str) -> None:
        """Start a part again if it has ended, and wait until it is healthy."""
        await self._parts()[name].start()
        self.write_state()

    async def mend(self) -> None:
        """Start every part again that has ended, and wait until all are healthy."""
        for part in self._parts().values():
            await part.start()
        self.write_state()

    def _parts(self) -> dict[str, _Startable]:
        valkey = self._valkey_parts()
        return {"postgres": self.postgres, **valkey, **self.services, "envoy": self.envoy}

    def _valkey_parts(self) -> "Mapping[str, ValkeyServer | ExternalValkey]":
        if isinstance(self.valkey, ValkeyCluster):
            return {node.name: node for node in self.valkey.nodes}
        return {"valkey": self.valkey}

    def write_state(self) -> None:
        """Record addresses and process ids for other commands."""
        self.home.write_state(
            StackState(
                supervisor_pid=os.getpid(),
                start_time=self._start_time.isoformat(timespec="seconds"),
                edge_address=self.edge_address,
                mesh_address=self.mesh_address,
                run_folder=str(self._run_folder),
                parts=self._part_states(),
            )
        )

    async def _start(self) -> None:
        self._start_time = datetime.now(UTC)
        self.home = self._open_home()
        self._exit_stack.enter_context(self.home.lock())
        await self.home.wait_for_leftovers()
        self._run_folder = self._exit_stack.enter_context(self.home.run_folder())
        self._exit_stack.callback(self.home.clear_state)
        self._make_secrets()
        self.postgres = self._make_postgres()
        self.valkey = self._make_valkey()
        async with asyncio.TaskGroup() as together:
            together.create_task(self._start_database())
            together.create_task(self._begin("valkey", self.valkey))
        self._make_services()
        self._exit_stack.push_async_callback(self._end_services)
        async with asyncio.TaskGroup() as together:
            for service in self.services.values():
                work = self._timed(service.name, service.start(), detail=service.address)
                together.create_task(work)
        self.envoy = self._make_envoy()
        await self._begin("envoy", self.envoy)
        self.write_state()

    async def _start_database(self) -> None:
        await self._begin("postgres", self.postgres)
        await self._timed("migrations", prepare_database(self.postgres))

    async def _begin(self, name: str, server: _Startable) -> None:
        # Registered before the start: a start that fails half-way is cleaned up too.
        self._exit_stack.push_async_callback(self._end, name, server)
        await self._timed(name, server.start(), detail=str(getattr(server, "address", "")))

    async def _timed(self, part: str, work: Awaitable[object], *, detail: str = "") -> None:
        self._report(Progress(kind=ProgressKind.STARTING, part=part))
        begin = time.monotonic()
        await work
        seconds = time.monotonic() - begin
        self._report(Progress(kind=ProgressKind.READY, part=part, detail=detail, seconds=seconds))

    async def _end_services(self) -> None:
        async with asyncio.TaskGroup() as together:
            for service in self.services.values():
                together.create_task(self._end(service.name, service))

    async def _end(self, name: str, server: _Startable) -> None:
        self._report(Progress(kind=ProgressKind.STOPPING, part=name))
        begin = time.monotonic()
        await server.stop()
        seconds = time.monotonic() - begin
        self._report(Progress(kind=ProgressKind.STOPPED, part=name, seconds=seconds))

    def _open_home(self) -> Home:
        if isinstance(self._given_home, Home):
            return self._given_home
        if self._given_home is not None:
            return Home(self._given_home)
        folder = self._exit_stack.enter_context(tempfile.TemporaryDirectory(prefix="wayfare-"))
        return Home(Path(folder))

    def _make_secrets(self) -> None:
        ensure_signing_key(self.home.signing_keys, now=self._start_time)
        write_jwks(self.home.signing_keys, self.home.jwks_file)
        write_certificates(self.home.certificates, MESH_SERVICES)

    def _make_postgres(self) -> PostgresServer | ExternalPostgres:
        own = self._options.database_url
        if own:
            return ExternalPostgres(admin_dsn=own, secrets_folder=self.home.secrets)
        return PostgresServer(
            data_folder=self.home.postgres_data,
            socket_folder=self._run_folder / "postgres",
            secrets_folder=self.home.secrets,
            log_path=self.home.logs / "postgres.log",
            durable=self._options.durable,
        )

    def _make_valkey(self) -> ValkeyServer | ExternalValkey | ValkeyCluster:
        own = self._options.valkey_url
        if own:
            return ExternalValkey(own)
        if self._options.valkey_cluster:
            preferred = FIRST_PORT if self._options.friendly_ports else None
            return ValkeyCluster(
                data_folder=self.home.valkey_data.with_name("valkey-cluster"),
                socket_folder=self._run_folder,
                log_folder=self.home.logs,
                ports=choose_cluster_ports(preferred, self._chosen_ports),
            )
        return ValkeyServer(
            data_folder=self.home.valkey_data,
            socket_path=self._run_folder / "valkey.sock",
            log_path=self.home.logs / "valkey.log",
        )

    @property
    def _valkey_url(self) -> str:
        return self.valkey.urls if isinstance(self.valkey, ValkeyCluster) else self.valkey.url

    def _make_services(self) -> None:
        edge = self._port("edge", self._options.edge_port or EDGE_PORT, self._options.edge_host)
        self._edge_address = f"{self._options.edge_host}:{edge}"
        self._mesh_address = f"{LOOPBACK}:{self._port('mesh', MESH_PORT)}"
        counts = {
            "identity": self._options.identity_processes,
            "location": self._location_processes,
            "ledger": self._options.ledger_processes,
            "booking": self._options.booking_processes,
        }
        for service, count in counts.items():
            for number in range(1, count + 1):
                self._make_service(service, f"{service}-{number}")

    def _make_service(self, service: str, name: str) -> None:
        port = self._port(f"{name}'s metrics", metrics_port(len(self.services)))
        self.services[name] = ServiceProcess(
            name,
            service=service,
            addresses=ServiceAddresses(
                listen=f"unix:{self._run_folder / name}.sock",
                metrics_listen=f"{LOOPBACK}:{port}",
            ),
            environment={
                **service_environment(
                    service,
                    database_dsn=self.database_dsn(service),
                    valkey_url=self._valkey_url,
                    valkey_cluster=self._options.valkey_cluster,
                    mesh_address=self._mesh_address,
                    edge_address=self._edge_address,
                    home=self.home,
                ),
                "WAYFARE_LOG_LEVEL": self._options.log_level,
                **self._options.settings.get(service, {}),
            },
            log_path=self.home.logs / f"{name}.log",
        )

    def _make_envoy(self) -> EnvoyProcess:
        endpoints: dict[str, list[Endpoint]] = {}
        for process in self.services.values():
            endpoint = Endpoint(instance=process.name, address=process.listen)
            endpoints.setdefault(process.service, []).append(endpoint)
        return EnvoyProcess(
            edge_address=self._edge_address,
            mesh_address=self._mesh_address,
            endpoints=endpoints,
            files=EnvoyFiles(
                config=self.home.envoy_config,
                admin_socket=self._run_folder / "envoy-admin.sock",
                log=self.home.logs / "envoy.log",
                access_log=self.home.logs / "access.log",
                certificates=self.home.certificates,
                jwks=self.home.jwks_file,
            ),
            cors_origins=self._options.cors_origins,
            concurrency=self._options.envoy_threads,
        )

    def _part_states(self) -> list[PartState]:
        dsn_file = self.home.secrets / "postgres-admin-dsn"
        write_private_file(dsn_file, self.postgres.dsn_for(SUPERUSER).encode())
        return [
            part_state("postgres", self.postgres, check=str(dsn_file)),
            *(part_state("valkey", node, check=node.url) for node in self._valkey_parts().values()),
            *(
                part_state("service", part, check=f"http://{part.metrics_address}/readyz")
                for part in self.services.values()
            ),
            part_state("envoy", self.envoy, check=str(self.envoy.admin_socket)),
        ]

    def _port(self, what: str, friendly: int, host: str = LOOPBACK) -> int:
        preferred = friendly if self._options.friendly_ports else None
        choice = choose_port(preferred, chosen=self._chosen_ports, host=host)
        if choice.taken is not None:
            note = f"port {choice.taken} is taken: {what} listens on {choice.port}"
            self._report(Progress(kind=ProgressKind.NOTE, part="ports", detail=note))
        return choice.port


def _first_cause(error: BaseException) -> BaseException:
    # Parts start together; the first one that failed is the reason, the others were cancelled.
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
