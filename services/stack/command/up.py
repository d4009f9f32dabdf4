"""`wayfare up`: run the stack until Ctrl-C."""

import asyncio
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated, Self

import typer
from rich.status import Status

from services.stack.command.console import console, seconds
from services.stack.embedded import EmbeddedStack, StackOptions
from services.stack.environments import DEMO_ADMIN_PHONE, DEMO_TENANT_ID
from services.stack.envoy_process import WEB_FOLDER
from services.stack.home import Home
from services.stack.progress import Progress, ProgressKind
from services.stack.service_process import PROJECT_FOLDER
from services.stack.supervisor import Supervisor

_NAME_WIDTH = 12
_PROGRAMS = f"{Path(sys.executable).parent}:{PROJECT_FOLDER / '.tools' / 'bin'}"
_GET_ME = "wayfare.identity.v1.IdentityService/GetMe"
_TRACES = "data/gps_liverpool_bus14/traces.csv.gz"


def up(
    location_processes: Annotated[
        int, typer.Option(min=1, max=32, help="How many processes of LocationService to run.")
    ] = 2,
    edge_host: Annotated[
        str, typer.Option(help="Address that the edge listens on; 0.0.0.0 opens it to the network.")
    ] = "127.0.0.1",
    edge_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of the edge, if it is free.")
    ] = 8080,
    database_url: Annotated[
        str | None, typer.Option(envvar="DATABASE_URL", help="A PostgreSQL server of your own.")
    ] = None,
    valkey_url: Annotated[
        str | None, typer.Option(envvar="VALKEY_URL", help="A Valkey server of your own.")
    ] = None,
    cluster: Annotated[
        bool,
        typer.Option(
            "--cluster",
            help="Run Valkey as a cluster of 3 masters and 3 replicas; with VALKEY_URL, say that it"
            " names nodes of a cluster, with commas between.",
        ),
    ] = False,
    log_level: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = "INFO",
) -> None:
    """Start PostgreSQL, Valkey, the services and Envoy, and keep them running until Ctrl-C.

    A part that dies is started again. Data survives in the home folder; `wayfare reset` clears it.
    The user in DATABASE_URL must be allowed to create roles.

    Example: wayfare up --location-processes 4
    """
    options = StackOptions(
        location_processes=location_processes,
        edge_host=edge_host,
        edge_port=edge_port,
        friendly_ports=True,
        log_level=log_level,
        database_url=database_url,
        valkey_url=valkey_url,
        valkey_cluster=cluster,
    )
    asyncio.run(_run(options))


async def _run(options: StackOptions) -> None:
    home = Home()
    work = asyncio.create_task(_run_until_cancelled(home, options))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, _stop, work)
    try:
        await work
    except asyncio.CancelledError:
        console.print(f"Stopped. Everything is kept in {home.path}.")


def _stop(work: asyncio.Task[None]) -> None:
    if work.cancelling():
        # Asked again while stopping: the kernel takes the children down with this process.
        os._exit(130)
    console.print("\nStopping; press Ctrl-C again to kill.")
    work.cancel()


async def _run_until_cancelled(home: Home, options: StackOptions) -> None:
    console.print(f"[bold]Wayfare[/] starts on {home.path}")
    with ProgressPrinter() as printer:
        async with EmbeddedStack(home=home, options=options, report=printer) as stack:
            printer.settle()
            _print_how_to_call(stack)
            await Supervisor(stack, report=printer).run()


class ProgressPrinter:
    """Prints one line per part; while something starts, what it is waits beside a spinner."""

    def __init__(self, *, tells_stops: bool = True) -> None:
        """Begin with nothing under way; `tells_stops` says whether parts that stop get a line."""
        self._tells_stops = tells_stops
        self._under_way: list[str] = []
        self._status: Status = console.status("")

    def __enter__(self) -> Self:
        """Show the spinner."""
        self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the spinner away."""
        self._status.stop()

    def settle(self) -> None:
        """Take the spinner away: from now on only events are printed."""
        self._status.stop()

    def __call__(self, progress: Progress) -> None:
        """Print what happened."""
        name = f"{progress.part:<{_NAME_WIDTH}}"
        match progress.kind:
            case ProgressKind.STARTING:
                self._under_way.append(progress.part)
            case ProgressKind.READY:
                self._forget(progress.part)
                took = f"{seconds(progress.seconds):>7}"
                console.print(f"[green]✓[/] {name} {took}  [dim]{progress.detail}[/]")
            case ProgressKind.NOTE:
                console.print(f"[yellow]![/] {name} {progress.detail}")
            case ProgressKind.DIED | ProgressKind.GAVE_UP:
                console.print(f"[red]✗[/] {name} {progress.detail}")
            case ProgressKind.STOPPED:
                if self._tells_stops:
                    took = seconds(progress.seconds)
                    console.print(f"[dim]·[/] {name} stopped [dim]{took}[/]")
            case ProgressKind.STOPPING:
                pass
        self._status.update(", ".join(self._under_way))

    def _forget(self, part: str) -> None:
        if part in self._under_way:
            self._under_way.remove(part)


def _map_line(edge: str) -> str:
    if not (WEB_FOLDER / "index.html").is_file():
        return "[bold]map[/]      not built; `make web` builds it"
    address = f"http://{edge}/app/?tenant={DEMO_TENANT_ID}"
    return f"[bold]map[/]      {address}  (phone {DEMO_ADMIN_PHONE}, password in the file below)"


def _print_how_to_call(stack: EmbeddedStack) -> None:
    edge, password_file = stack.edge_address, stack.secrets / "admin-password"
    log_in = (
        f'{{"tenant_id":"{DEMO_TENANT_ID}","phone":"{DEMO_ADMIN_PHONE}",'
        f'"password":"\'"$(cat {shlex.quote(str(password_file))})"\'"}}'
    )
    metrics = "  ".join(part.metrics_url for part in stack.services.values())
    console.print(
        f"""
[bold green]Wayfare runs.[/] Ctrl-C stops it; `wayfare status` and `wayfare logs` look at it.

[bold]edge[/]     {edge}  (gRPC, gRPC-Web, JSON)
{_map_line(edge)}
[bold]mesh[/]     {stack.mesh_address}  (gRPC between services, mutual TLS)
[bold]metrics[/]  {metrics}

[bold]shell[/]    export PATH={_PROGRAMS}:$PATH
[bold]grpcurl[/]  server reflection is on; `make test-tools` builds grpcurl where go is
  grpcurl -plaintext {edge} list
  grpcurl -plaintext {edge} describe wayfare.location.v1.LocationService
  wayfare login --admin
  grpcurl -plaintext -H "authorization: Bearer $(wayfare token)" {edge} {_GET_ME}
[bold]curl[/]     JSON
  curl -s http://{edge}/v1/sessions:logIn -d '{log_in}'
  curl -s http://{edge}/v1/me -H "authorization: Bearer $(wayfare token)"
[bold]python[/]   python -m asyncio
  from wayfare_client import WayfareClient
  client = WayfareClient("{edge}", tenant_id="{DEMO_TENANT_ID}")
  await client.log_in("{DEMO_ADMIN_PHONE}", open("{password_file}").read().strip())
[bold]book[/]     wayfare trips demo makes trips to book on; wayfare trips list shows them
[bold]watch[/]    wayfare demo; or: wayfare replay {_TRACES} --traces 2
""",
        soft_wrap=True,
    )
