"""`wayfare gtfs`: import a timetable, and look at what is imported."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from services.stack.command.console import console
from services.stack.environments import DEMO_TENANT_ID
from services.stack.gtfs_job import Answer, database_environment, run_gtfs_job
from services.stack.home import Home

gtfs = typer.Typer(
    name="gtfs",
    help=(
        "Import timetables (GTFS) and look at them.\n\n"
        "A tracked trip that names its trip of the timetable gets its stops, its times and its"
        " shape from there.\n\n"
        "Example: wayfare gtfs import data/gtfs_cairns/cairns_gtfs.zip"
    ),
    no_args_is_help=True,
)

FeedArgument = Annotated[
    Path, typer.Argument(exists=True, metavar="FEED", help="A GTFS zip, or a folder of its files.")
]
TenantOption = Annotated[str, typer.Option(help="Id of the operator; the demo operator's if none.")]


@gtfs.command("import")
def import_feed(
    feed: FeedArgument,
    *,
    tenant: TenantOption = DEMO_TENANT_ID,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only read and judge; needs no stack.")
    ] = False,
) -> None:
    """Make a GTFS feed the timetable of an operator, as a whole or not at all.

    Every file that tracking needs is judged: columns, types, ranges, ids that name each other,
    times, shapes and calendars. A feed with any fault is refused, with the line of each and how to
    mend it, exit code 1, and the timetable from before stays. Warnings tell what is odd and usable.
    The same feed again changes nothing.

    Example: wayfare gtfs import data/gtfs_cairns/cairns_gtfs.zip

    Example: wayfare gtfs import new-feed.zip --dry-run
    """
    arguments = ["import", str(feed.absolute()), "--tenant", tenant]
    arguments += ["--dry-run"] if dry_run else []
    environment = {} if dry_run else database_environment(Home())
    answers = run_gtfs_job(arguments, environment)
    key, value = last_answer(answers, f"reading {feed.name}")
    if key == "broken":
        print_broken(value)
        raise typer.Exit(1)
    _print_summary(value)


@gtfs.command("show")
def show(
    *,
    tenant: TenantOption = DEMO_TENANT_ID,
    date: Annotated[
        str, typer.Option(help="Count the trips of this day, as 2026-01-31; today by default.")
    ] = "",
) -> None:
    """Show the imported timetable of an operator: its routes, and how many trips run on a day.

    Example: wayfare gtfs show --date 2014-06-03
    """
    arguments = ["show", "--tenant", tenant, *(["--date", date] if date else [])]
    answers = run_gtfs_job(arguments, database_environment(Home()))
    _, overview = last_answer(answers, "reading the timetable")
    if overview is None:
        console.print("No timetable is imported: see `wayfare gtfs import --help`.")
        return
    feed, day = overview["feed"], overview["day"]
    table = Table(box=None, pad_edge=False)
    for heading in ("route", "name", "trips", f"on {day}"):
        table.add_column(heading, justify="right" if heading not in {"route", "name"} else "left")
    for route in overview["routes"]:
        name = escape(route["short_name"] or route["route_id"])
        counts = (str(route["trips"]), str(route["trips_on_day"]))
        table.add_row(name, escape(route["long_name"]), *counts)
    console.print(table)
    on_day = sum(route["trips_on_day"] for route in overview["routes"])
    console.print(
        f"\n{escape(feed['agency_name'])}, {feed['time_zone']}, {feed['first_date']} to"
        f" {feed['last_date']}: {len(overview['routes'])} routes, {feed['stops']} stops,"
        f" {feed['trips']} trips, {on_day} on {day}. Imported {feed['import_time'][:16]} UTC."
    )


def last_answer(answers: Iterable[Answer], doing: str) -> Answer:
    """Show progress until the job has answered, and return the answer."""
    last: Answer = ("", None)
    with console.status(escape(doing)) as status:
        for key, value in answers:
            if key == "progress":
                status.update(escape(f"{doing}: {value['what']}, {value['rows']} rows"))
            else:
                last = (key, value)
    return last


def print_broken(found: Mapping[str, Any]) -> None:
    """Print the faults of a feed that was refused."""
    console.print(_finding_table(found["faults"]))
    count, shown = found["fault_count"], len(found["faults"])
    more = f"; the first {shown} are shown" if count > shown else ""
    faults = "one fault" if count == 1 else f"{count} faults"
    console.print(f"\n[bold red]✗[/] The feed is refused: {faults}{more}. Nothing was changed.")


def _print_summary(summary: Mapping[str, Any]) -> None:
    if summary["warnings"]:
        console.print(_finding_table(summary["warnings"]))
        more = summary["warning_count"] - len(summary["warnings"])
        console.print(f"… and {more} more warnings\n" if more else "")
    match summary.get("is_new"):
        case None:
            verdict = "The feed is right; nothing was imported"
        case True:
            verdict = "Imported"
        case _:
            verdict = "This feed is the timetable already"
    console.print(
        f"[green]✓[/] {verdict}: {summary['route_count']} routes, {summary['stop_count']} stops,"
        f" {summary['trip_count']} trips, {summary['stop_time_count']} stop times,"
        f" {summary['shape_count']} shapes."
    )
    console.print(
        f"  {escape(summary['agency_name'])}, {summary['time_zone']}, service from"
        f" {summary['first_date']} to {summary['last_date']}."
    )


def _finding_table(findings: Iterable[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("file", "line", "column", "value", "what is wrong", "how to mend it"):
        table.add_column(heading, justify="right" if heading == "line" else "left")
    for finding in findings:
        line = str(finding["line"] or "-")
        words = (finding[name] for name in ("column", "value", "what", "mend"))
        table.add_row(escape(finding["file"]), line, *(escape(word) for word in words))
    return table
