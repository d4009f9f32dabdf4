"""`wayfare replay --gtfs`: the trips of a feed as drivers on the running stack."""

import asyncio
from datetime import date
from pathlib import Path

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from services.stack.command.console import console, seconds
from services.stack.errors import StackError
from services.stack.home import Home
from services.stack.replay.access import access_to_home
from services.stack.replay.report import result_table
from services.stack.replay.timetable import (
    Simulation,
    TimetableReplay,
    TimetableRun,
    Vehicle,
    assign_vehicles,
    read_trips,
)

_REFRESH_SECONDS = 0.5
_DAY_HOURS_MAX = 48


def replay_timetable(
    feed: Path, *, day: str, begin: str, hours: float, vehicles: int, speed: float, edge: str
) -> None:
    """Drive a part of a day of a feed through the running stack."""
    try:
        service_date = date.fromisoformat(day)
        hour, minute = (int(part) for part in begin.split(":"))
        until = min(hour * 60 + minute + round(hours * 60), _DAY_HOURS_MAX * 60)
    except ValueError as error:
        raise StackError("Say which day to drive: --date 2014-06-03 --from 08:00.") from error
    simulation = Simulation(speed=speed)
    with console.status("reading the feed"):
        trips = read_trips(
            feed, service_date, begin=begin, until=f"{until // 60:02d}:{until % 60:02d}"
        )
    fleet = assign_vehicles(trips, vehicles=vehicles, simulation=simulation)
    asyncio.run(_run(fleet, simulation, trip_count=len(trips), edge=edge))


async def _run(fleet: list[Vehicle], simulation: Simulation, *, trip_count: int, edge: str) -> None:
    access = access_to_home(Home(), edge_address=edge)
    replay = TimetableReplay(access, fleet, simulation, on_start=_print_start)
    with console.status("drivers sign up and are approved"):
        await replay.prepare()
    driven = sum(len(vehicle.runs) for vehicle in fleet)
    console.print(
        f"{len(fleet)} vehicles drive {driven} of {trip_count} trips,"
        f" {simulation.speed:g} times as fast as the timetable: {seconds(replay.duration_seconds)}."
        "\nWatch one from another terminal: wayfare login --admin && wayfare follow TRIP\n"
    )
    columns = (
        TextColumn("time"),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[sent]} sent"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=replay.duration_seconds, sent=0)
        driving = asyncio.create_task(replay.drive())
        while not driving.done():
            sent = sum(vehicle.record.sent_count for vehicle in fleet)
            bar.update(task, advance=_REFRESH_SECONDS, sent=sent)
            await asyncio.wait({driving}, timeout=_REFRESH_SECONDS)
    await driving
    console.print(result_table([vehicle.record for vehicle in fleet], followed=False))


def _print_start(vehicle: Vehicle, run: TimetableRun) -> None:
    begin = run.trip.stops[0].display_name
    console.print(
        f"{vehicle.vehicle_id:<8} trip {run.trip_id}  {run.trip.route_short_name} from {begin}",
        markup=False,
    )
