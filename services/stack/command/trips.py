"""`wayfare trips`: make trips that passengers can book, and look at them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

import typer
from google.protobuf.timestamp_pb2 import Timestamp
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from services.stack.command.console import console
from services.stack.command.gtfs import FeedArgument, print_broken
from services.stack.command.session import EdgeOption, edge_of
from services.stack.environments import DEMO_ADMIN_PHONE, DEMO_TENANT_ID, admin_password
from services.stack.errors import StackError
from services.stack.home import Home
from services.stack.session_file import SessionFile
from services.stack.trips.demo import FROM_STOP, TO_STOP, demo_trips
from services.stack.trips.fares import FareRule, read_fare_rule
from services.stack.trips.feed import STOPS_MAX, FeedRefusedError, Sale, read_day, trips_of
from services.stack.trips.layouts import find_layout
from services.stack.trips.listing import print_listing
from services.stack.trips.scheduling import Scheduled, schedule_trips
from wayfare.booking.v1 import booking_service_pb2 as pb
from wayfare.booking.v1 import trip_pb2
from wayfare_client import WayfareClient

trips = typer.Typer(
    name="trips",
    help=(
        "Make trips that passengers can book, and look at them.\n\n"
        "As whoever `wayfare login` logged in, or else as the demo operator's administrator.\n\n"
        "Example: wayfare trips demo"
    ),
    no_args_is_help=True,
)

_SHOWN_MAX = 20
_REFUSED_SHOWN_MAX = 10

LayoutOption = Annotated[
    str, typer.Option(help="coach (47 seats), minibus (16), or the id of a seat layout.")
]
ClassFactorOption = Annotated[
    list[str] | None,
    typer.Option("--class-factor", help="How many times the price a class costs: COMFORT=1.5."),
]


@trips.command("demo")
def demo_command(
    *,
    days: Annotated[int, typer.Option(min=1, max=14, help="For how many days from now.")] = 2,
    edge: EdgeOption = "",
) -> None:
    """Make trips to try booking on: coaches between Cairo and Hurghada, every three hours.

    Running it again adds what is missing and changes nothing else.

    Example: wayfare trips demo
    """
    asyncio.run(_demo(days, edge))


async def _demo(days: int, edge: str) -> None:
    rule = read_fare_rule("EGP", "0.90", ["COMFORT=1.5"])
    async with _client(edge) as client:
        layout = await find_layout(client, "coach")
        wanted = demo_trips(layout, rule, now=datetime.now(UTC), days=days)
        _print_outcome(await _schedule_visibly(client, wanted))
        first = wanted[0].stops[0].scheduled_departure_time.ToDatetime(UTC)
    day = first.astimezone(ZoneInfo(wanted[0].time_zone)).date()
    search = "&".join(
        (
            f"fromStopId={FROM_STOP}",
            f"toStopId={TO_STOP}",
            *(f"departureDate.{part}={getattr(day, part)}" for part in ("year", "month", "day")),
        )
    )
    console.print(
        "\nFind them with `wayfare trips list`, or as a passenger does:\n"
        "  wayfare login --admin\n"
        f'  curl -s -H "authorization: Bearer $(wayfare token)"'
        f' "http://{edge_of(Home(), edge)}/v1/trips:search?{search}"',
        soft_wrap=True,
        markup=False,
    )


@trips.command("import")
def import_command(
    feed: FeedArgument,
    *,
    day: Annotated[str, typer.Option("--date", help="The service day, as 2014-06-03.")],
    currency: Annotated[str, typer.Option(help="Currency of the prices, as AUD.")],
    per_kilometer: Annotated[str, typer.Option(help="Price of a kilometer, as 0.35.")],
    class_factor: ClassFactorOption = None,
    layout: LayoutOption = "coach",
    run_on: Annotated[
        str, typer.Option(help="Let the trips run on another day, for timetables of the past.")
    ] = "",
    begin: Annotated[
        str, typer.Option("--from", help="Trips that depart from HH:MM on.")
    ] = "00:00",
    until: Annotated[str, typer.Option(help="Trips that depart before HH:MM.")] = "48:00",
    edge: EdgeOption = "",
) -> None:
    """Make the trips of one day of a GTFS feed bookable.

    The feed is judged as `wayfare gtfs import` does; one with any fault is refused, with the line
    of each, and nothing is made. Trips that are there already stay as they are, so that the same
    import can be repeated. Import the timetable as well, and tracking knows the way of each trip.

    Example: wayfare trips import data/gtfs_cairns/cairns_gtfs.zip --date 2014-06-03
    --run-on 2027-06-01 --currency AUD --per-kilometer 0.35
    """
    service_date, run_date = _date(day), _date(run_on or day)
    rule = read_fare_rule(currency, per_kilometer, class_factor or [])
    if not asyncio.run(
        _import(feed, service_date, run_date, rule, layout, begin=begin, until=until, edge=edge)
    ):
        raise typer.Exit(1)


async def _import(
    feed: Path,
    service_date: date,
    run_date: date,
    rule: FareRule,
    layout_name: str,
    *,
    begin: str,
    until: str,
    edge: str,
) -> bool:
    try:
        with console.status(f"reading {escape(feed.name)}") as status:
            found = read_day(
                feed,
                service_date,
                begin=begin,
                until=until,
                progress=lambda what, rows: status.update(f"reading {escape(what)}, {rows} rows"),
            )
    except FeedRefusedError as error:
        print_broken(error.findings)
        return False
    async with _client(edge) as client:
        layout = await find_layout(client, layout_name)
        sale = Sale(run_date=run_date, layout=layout, fare_rule=rule)
        wanted = trips_of(found, service_date, sale)
        outcome = await _schedule_visibly(client, wanted)
    _print_outcome(outcome)
    too_long = len(found.plans) - len(wanted)
    if too_long:
        console.print(f"  {too_long} were left out: a trip has at most {STOPS_MAX} stops.")
    return not outcome.refused


@trips.command("list")
def list_command(
    *,
    day: Annotated[str, typer.Option("--date", help="Trips that leave on a day (UTC).")] = "",
    edge: EdgeOption = "",
) -> None:
    """Show trips by departure: those of a day, or the next ones.

    Example: wayfare trips list --date 2027-06-01
    """
    asyncio.run(_list(_date(day) if day else None, edge))


async def _list(day: date | None, edge: str) -> None:
    start = datetime.combine(day, time(), tzinfo=UTC) if day else datetime.now(UTC)
    request = pb.ListTripsRequest(start_time=_timestamp(start), page_size=_SHOWN_MAX)
    if day:
        request.end_time.CopyFrom(_timestamp(start + timedelta(days=1)))
    async with _client(edge) as client:
        page = await client.booking.ListTrips(request)
    if not page.trips:
        console.print("There are no trips: see `wayfare trips demo` and `wayfare trips import`.")
        return
    print_listing(console, page.trips)
    if page.next_page_token:
        console.print(f"… and more; the first {_SHOWN_MAX} are shown.")


async def _schedule_visibly(client: WayfareClient, wanted: list[trip_pb2.Trip]) -> Scheduled:
    columns = (TextColumn("trips"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=len(wanted))
        return await schedule_trips(
            client, wanted, progress=lambda so_far: bar.update(task, completed=so_far.count)
        )


def _print_outcome(outcome: Scheduled) -> None:
    parts = [f"{len(outcome.made)} trips were made"]
    if outcome.existing_count:
        parts.append(f"{outcome.existing_count} were there already")
    if outcome.left_count:
        parts.append(f"{outcome.left_count} have left already")
    sign = "[red]✗[/]" if outcome.refused else "[green]✓[/]"
    console.print(f"{sign} {', '.join(parts)}.")
    for name, why in outcome.refused[:_REFUSED_SHOWN_MAX]:
        console.print(f"  {escape(name)} was refused: {escape(why)}", soft_wrap=True)
    more = len(outcome.refused) - _REFUSED_SHOWN_MAX
    if more > 0:
        console.print(f"  … and {more} more were refused.")


@asynccontextmanager
async def _client(edge: str) -> AsyncIterator[WayfareClient]:
    """Call as whoever is logged in at this terminal, or else as the demo operator's ADMIN."""
    home = Home()
    address = edge_of(home, edge)
    session = SessionFile(home).load()
    if session is not None:
        store = SessionFile(home)
        tenant_id = session.user.tenant_id
        async with WayfareClient(address, tenant_id=tenant_id, store=store) as client:
            yield client
        return
    async with WayfareClient(address, tenant_id=DEMO_TENANT_ID) as client:
        await client.log_in(DEMO_ADMIN_PHONE, admin_password(home))
        yield client


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise StackError(f"{text} is no day: write it as 2027-06-01.") from None


def _timestamp(moment: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(moment)
    return message
