"""`wayfare replay`: recorded traces, or the trips of a timetable, as drivers on the stack."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from services.stack.command.console import console, seconds
from services.stack.command.replay_timetable import replay_timetable
from services.stack.errors import StackError
from services.stack.home import Home
from services.stack.replay.access import access_to_home
from services.stack.replay.fleet import FleetReplay, Pace
from services.stack.replay.report import result_table
from services.stack.replay.traces import Trace, read_traces

_REFRESH_SECONDS = 0.5


def replay(
    files: Annotated[
        list[Path] | None, typer.Argument(exists=True, dir_okay=False, help="CSV, plain or .gz.")
    ] = None,
    *,
    speed: Annotated[
        float, typer.Option(min=1, max=10_000, help="How many times as fast as recorded.")
    ] = 60.0,
    real_time: Annotated[
        bool, typer.Option("--real-time", help="As fast as recorded: short for --speed 1.")
    ] = False,
    traces: Annotated[int, typer.Option(min=0, help="Only so many traces; 0: all.")] = 0,
    gtfs: Annotated[
        Path | None, typer.Option(exists=True, help="Drive the trips of this GTFS feed instead.")
    ] = None,
    date: Annotated[str, typer.Option(help="With --gtfs: the service day, 2014-06-03.")] = "",
    begin: Annotated[
        str, typer.Option("--from", help="With --gtfs: first departure, HH:MM.")
    ] = "08:00",
    hours: Annotated[
        float, typer.Option(min=0.01, max=48, help="With --gtfs: departures of so many hours.")
    ] = 1.0,
    vehicles: Annotated[
        int, typer.Option(min=1, max=2000, help="With --gtfs: vehicles on the road at most.")
    ] = 10,
    edge: Annotated[str, typer.Option(help="host:port of another edge of the stack.")] = "",
) -> None:
    """Drive recorded traces through the running stack: a new driver and trip for each.

    A file has one row per position with the columns time, lat and lon, and may have trace_id,
    vehicle_id and heading. Capture times keep their recorded intervals and end now, so that a
    faster replay is as plausible as the recording; with --real-time each position is captured when
    it is sent.

    With --gtfs the vehicles drive a day of a timetable, shifted to now, with small delays: import
    the feed first, so that tracking knows its shapes.

    Example: wayfare replay data/gps_liverpool_bus14/traces.csv.gz --traces 3 --speed 20

    Example: wayfare replay --gtfs data/gtfs_cairns/cairns_gtfs.zip --date 2014-06-03 --vehicles 5
    """
    if gtfs is not None:
        replay_timetable(
            gtfs,
            day=date,
            begin=begin,
            hours=hours,
            vehicles=vehicles,
            speed=1.0 if real_time else speed,
            edge=edge,
        )
        return
    if not files:
        raise StackError("Name a file of traces, or a feed: --gtfs FEED --date 2014-06-03.")
    recorded = [trace for path in files for trace in read_traces(path)]
    chosen = recorded[:traces] if traces else recorded
    asyncio.run(_run(chosen, Pace(speed=1.0 if real_time else speed), edge))


async def _run(traces: list[Trace], pace: Pace, edge: str) -> None:
    longest = max(trace.duration.total_seconds() for trace in traces)
    if longest > 24 * 3600 and pace.speed > 1:
        raise StackError("A trace is longer than a day, which servers refuse: use --real-time.")
    fleet = FleetReplay(access_to_home(Home(), edge_address=edge), traces)
    with console.status("drivers sign up and are approved"):
        await fleet.prepare(with_followers=False)
    for run in fleet.runs[:20]:
        vehicle = run.trace.vehicle_id
        console.print(f"{run.trace.trace_id:<14} vehicle {vehicle:<10} trip {run.trip_id}")
    if len(fleet.runs) > 20:
        console.print(f"… and {len(fleet.runs) - 20} more")
    console.print(
        f"\nThe longest takes {seconds(longest / pace.speed)}. Watch one from another terminal:"
        f"\n  wayfare login --admin && wayfare follow {fleet.runs[0].trip_id}\n"
    )
    await _drive_visibly(fleet, pace)
    console.print(result_table([run.record for run in fleet.runs], followed=False))


async def _drive_visibly(fleet: FleetReplay, pace: Pace) -> None:
    total = sum(len(run.trace.points) for run in fleet.runs)
    columns = (TextColumn("sent"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total)
        driving = asyncio.create_task(fleet.drive(pace))
        while not driving.done():
            bar.update(task, completed=sum(run.record.sent_count for run in fleet.runs))
            await asyncio.wait({driving}, timeout=_REFRESH_SECONDS)
    await driving
