"""`wayfare demo`: real buses through the whole stack, each followed on another process."""

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from services.stack.command.console import console, seconds
from services.stack.command.up import ProgressPrinter
from services.stack.embedded import EmbeddedStack
from services.stack.errors import NotRunningError, StackError
from services.stack.home import Home
from services.stack.replay.access import StackAccess, access_to_home, access_to_stack
from services.stack.replay.fleet import FleetReplay, Pace, Run
from services.stack.replay.report import result_table
from services.stack.replay.schedule import speed_for
from services.stack.replay.traces import Trace, read_traces
from services.stack.service_process import PROJECT_FOLDER

_TRACES = PROJECT_FOLDER / "data" / "gps_liverpool_bus14" / "traces.csv.gz"
# Followers who read more slowly than positions come get only the newest. Closer together than this,
# a machine that is busy for a moment would make a slow follower of everyone.
_GAP_SECONDS_MIN = 0.12
_REFRESH_SECONDS = 0.2


def demo(
    replay_seconds: Annotated[
        float, typer.Option(min=5, max=600, help="How long the longest run takes here.")
    ] = 20.0,
    location_processes: Annotated[
        int,
        typer.Option(min=2, max=32, help="LocationService processes of a new stack."),
    ] = 2,
) -> None:
    """Replay 16 recorded bus runs through Envoy, a follower each on another process, and count.

    Uses the running stack, or starts one of its own and removes it. The followers take turns at
    gRPC, gRPC-Web and JSON. The exit code is 1 when an accepted position did not reach its
    follower.

    Example: wayfare demo --replay-seconds 40
    """
    if not asyncio.run(_run(replay_seconds, location_processes)):
        raise typer.Exit(1)


async def _run(replay_seconds: float, location_processes: int) -> bool:
    begin = time.monotonic()
    traces = read_traces(_TRACES)
    async with AsyncExitStack() as closing:
        access = await _access(closing, location_processes)
        fleet = FleetReplay(access, traces)
        with console.status("drivers and passengers sign up, the operator approves the drivers"):
            await fleet.prepare(with_followers=True)
        console.print(
            f"[green]✓[/] {len(fleet.runs)} drivers and as many passengers are signed up,"
            f" the trips are tracked"
        )
        pace = _pace(traces, replay_seconds)
        console.print(
            f"  {sum(len(trace.points) for trace in traces)} recorded positions,"
            f" {pace.speed:.0f} times as fast as the buses drove\n"
        )
        await _drive_visibly(fleet, pace)
        return _print_result(fleet.runs, took_seconds=time.monotonic() - begin)


async def _access(closing: AsyncExitStack, location_processes: int) -> StackAccess:
    try:
        access = access_to_home(Home())
    except NotRunningError:
        printer = closing.enter_context(ProgressPrinter(tells_stops=False))
        stack = await closing.enter_async_context(
            EmbeddedStack(location_processes=location_processes, report=printer)
        )
        printer.settle()
        return access_to_stack(stack)
    if len(access.location_instances) < 2:
        raise StackError("The demo needs two processes of LocationService; one runs.")
    console.print(f"The demo uses the running stack at {access.edge_address}.")
    return access


def _pace(traces: list[Trace], replay_seconds: float) -> Pace:
    speed = speed_for(traces, seconds=replay_seconds, gap_seconds_min=_GAP_SECONDS_MIN)
    return Pace(speed=speed, gap_seconds_min=_GAP_SECONDS_MIN)


async def _drive_visibly(fleet: FleetReplay, pace: Pace) -> None:
    total = sum(len(run.trace.points) for run in fleet.runs)
    columns = (TextColumn("delivered"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total)
        driving = asyncio.create_task(fleet.drive(pace))
        while not driving.done():
            bar.update(task, completed=sum(run.record.delivered_count for run in fleet.runs))
            await asyncio.wait({driving}, timeout=_REFRESH_SECONDS)
    await driving


def _print_result(runs: list[Run], *, took_seconds: float) -> bool:
    records = [run.record for run in runs]
    console.print(result_table(records, followed=True))
    console.print("location: the process that the driver calls → the one that the follower calls")
    for record in records:
        if record.follower_error:
            console.print(f"[red]✗[/] the follower of {record.name}: {record.follower_error}")
    lost = sum(record.lost_count + record.undecided_count for record in records)
    verdict = "[bold green]Nothing was lost.[/]" if not lost else f"[bold red]{lost} were lost.[/]"
    console.print(f"\n{verdict} The demo took {seconds(took_seconds)}.")
    return lost == 0
