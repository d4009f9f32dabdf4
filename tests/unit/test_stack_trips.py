"""Trips that the `wayfare trips` commands make: prices, layouts, days, and what a feed becomes."""

import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from rich.console import Console
from typer.testing import CliRunner

from services.booking.domain.layouts import layout_faults
from services.booking.domain.trip_rules import trip_faults
from services.booking.layout_messages import layout_of
from services.booking.trip_messages import trip_draft
from services.shared.money import money_from_proto
from services.shared.rpc.validation import check_message
from services.stack.command import application
from services.stack.errors import StackError
from services.stack.trips.demo import demo_trips
from services.stack.trips.fares import FareRule, read_fare_rule
from services.stack.trips.feed import FeedDay, FeedRefusedError, Sale, read_day, trips_of
from services.stack.trips.layouts import PLANS, plan_layout
from services.stack.trips.listing import print_listing
from services.stack.trips.scheduling import key_of
from tests.support.gtfs_feeds import GOOD_FEED, changed, write_zip
from wayfare.booking.v1 import layout_pb2, trip_pb2

pytestmark = pytest.mark.unit

LAYOUT_ID = "0198c000-0000-7000-8000-00000000000a"
RULE = FareRule(currency_code="EGP", per_kilometer=Decimal("0.9"))
NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)


def coach() -> layout_pb2.SeatLayout:
    layout = plan_layout(PLANS["coach"])
    layout.seat_layout_id = LAYOUT_ID
    return layout


def check_trip(trip: trip_pb2.Trip) -> None:
    """Hold a trip to the contract and to the rules of BookingService."""
    check_message(trip)
    draft = trip_draft(trip)
    codes = [one.seat_class_code for one in coach().seat_classes]
    assert [*draft.faults, *trip_faults(draft.trip, codes)] == []


@pytest.mark.parametrize(("name", "seats"), [("coach", 47), ("minibus", 16)])
def test_the_layouts_to_begin_with_are_right(name: str, seats: int) -> None:
    message = plan_layout(PLANS[name])

    check_message(message)
    layout = layout_of(message)
    assert layout_faults(layout) == []
    assert layout.seat_count == seats
    assert str(seats) in layout.display_name


def test_a_seat_knows_its_window_and_its_aisle() -> None:
    seats = {seat.seat_number: seat for seat in plan_layout(PLANS["coach"]).decks[0].seats}

    assert [(seats[number].window, seats[number].aisle) for number in ("3A", "3B", "3C", "3D")] == [
        (True, False),
        (False, True),
        (False, True),
        (True, False),
    ]
    # The middle of the last row has a neighbour on either side.
    assert (seats["12E"].window, seats["12E"].aisle) == (False, False)


def test_a_journey_of_many_short_legs_is_rounded_once() -> None:
    # 12.34 m at 0.90 a kilometer is 1.1 piastres; 90 of them are 99.95.
    prices = RULE.leg_prices("STANDARD", [12.34] * 90)

    assert sum(prices) == 100
    assert set(prices) == {1, 2}


@pytest.mark.parametrize(("currency", "expected"), [("EGP", 1_350), ("KWD", 13_500), ("JPY", 14)])
def test_prices_have_the_decimals_of_their_currency(currency: str, expected: int) -> None:
    rule = read_fare_rule(currency, "0.90", ["COMFORT=1.5"])

    assert rule.leg_prices("COMFORT", [10_000.0]) == [expected]


@pytest.mark.parametrize(
    "arguments",
    [
        ("egp", "1", []),
        ("EGP", "free", []),
        ("EGP", "-1", []),
        ("EGP", "NaN", []),
        ("EGP", "1", ["COMFORT"]),
        ("EGP", "1", ["COMFORT=x"]),
    ],
)
def test_options_that_are_no_price_are_refused(arguments: Any) -> None:
    with pytest.raises(StackError):
        read_fare_rule(*arguments)


def test_demo_trips_are_right_and_the_same_ones_however_often() -> None:
    trips = demo_trips(coach(), RULE, now=NOON, days=2)
    later = demo_trips(coach(), RULE, now=NOON + timedelta(hours=1), days=2)

    # Of 16 departures each way the one at noon is too soon.
    assert len(trips) == 30
    for trip in trips:
        check_trip(trip)
        assert trip.stops[0].scheduled_departure_time.ToDatetime(UTC) > NOON
    assert len({key_of(trip) for trip in trips}) == 30
    assert {key_of(trip) for trip in trips} & {key_of(trip) for trip in later}
    prices = trips[0].fares[1].leg_prices
    assert sum(money_from_proto(price).amount_minor for price in prices) == 465 * 90


def day_of(tmp_path: Path, feed: dict[str, list[str]], day: date) -> FeedDay:
    path = write_zip(tmp_path / "feed.zip", feed)
    return read_day(path, day, begin="00:00", until="48:00", progress=lambda _what, _rows: None)


def sale(run_date: date) -> Sale:
    return Sale(run_date=run_date, layout=coach(), fare_rule=RULE)


def test_trips_of_a_feed_run_on_another_day_at_the_same_time_of_its_zone(tmp_path: Path) -> None:
    summer, winter = date(2026, 6, 5), date(2026, 12, 4)
    day = day_of(tmp_path, GOOD_FEED, summer)

    first, night = trips_of(day, summer, sale(winter))

    for trip in (first, night):
        check_trip(trip)
    zone = ZoneInfo("Europe/London")
    leaves = [
        trip.stops[0].scheduled_departure_time.ToDatetime(UTC).astimezone(zone)
        for trip in (first, night)
    ]
    assert [f"{moment:%Y-%m-%d %H:%M}" for moment in leaves] == [
        "2026-12-04 08:00",
        "2026-12-05 00:50",
    ]
    assert (first.timetable_trip_id, first.service_date.month) == ("T1", 6)
    assert first.display_name == "14 Croxteth"
    assert first.time_zone == "Europe/London"
    assert [stop.stop_id for stop in first.stops] == ["S1", "S2", "S3"]


def test_two_calls_at_one_stop_in_a_row_become_one(tmp_path: Path) -> None:
    day = date(2026, 6, 5)
    row = "T1,8:07:00,8:08:00,S2,3,1.5"
    times = [*GOOD_FEED["stop_times.txt"][:3], row, *GOOD_FEED["stop_times.txt"][3:]]

    first, _ = trips_of(
        day_of(tmp_path, {**GOOD_FEED, "stop_times.txt": times}, day), day, sale(day)
    )

    check_trip(first)
    stay = first.stops[1]
    seconds = stay.scheduled_departure_time.seconds - stay.scheduled_arrival_time.seconds
    assert [stop.stop_id for stop in first.stops] == ["S1", "S2", "S3"]
    assert seconds == 180


def test_a_trip_of_more_stops_than_the_contract_allows_is_left_out() -> None:
    def call(number: int) -> dict[str, Any]:
        moment = (NOON + timedelta(minutes=number)).isoformat()
        return {
            "stop_id": f"S{number}",
            "display_name": "",
            "latitude": 0.0,
            "longitude": 0.0,
            "arrival_time": moment,
            "departure_time": moment,
            "distance_meters": 100.0 * number,
            "no_pickup": False,
            "no_drop_off": False,
        }

    plans = [
        {
            "timetable_trip_id": f"T{count}",
            "service_date": "2026-11-26",
            "route_short_name": "",
            "headsign": "",
            "stops": [call(number) for number in range(count)],
        }
        for count in (64, 65)
    ]

    (kept,) = trips_of(FeedDay(plans=plans), NOON.date(), sale(NOON.date()))

    check_trip(kept)
    assert kept.timetable_trip_id == "T64"
    # Without a sign it goes to its last stop, which has no name but its id.
    assert kept.display_name == "S63"


def test_a_broken_feed_is_refused_with_the_line_of_its_fault(tmp_path: Path) -> None:
    broken = changed("trips.txt", 2, "R9,WEEK,T1,X,0,W1")

    with pytest.raises(FeedRefusedError) as refusal:
        day_of(tmp_path, broken, date(2026, 6, 5))

    (fault,) = refusal.value.findings["faults"]
    assert (fault["file"], fault["line"]) == ("trips.txt", 2)


def test_a_day_without_trips_is_told(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="has no trip on 2026-06-06"):
        day_of(tmp_path, GOOD_FEED, date(2026, 6, 6))


@pytest.mark.parametrize("command", ["demo", "import", "list"])
def test_the_help_of_every_command_shows_an_example(command: str) -> None:
    answer = CliRunner().invoke(application, ["trips", command, "--help"])

    assert answer.exit_code == 0
    assert f"wayfare trips {command}" in answer.output.partition("Example: ")[2]


def test_the_command_prints_the_line_of_a_fault_and_needs_no_stack_for_it(tmp_path: Path) -> None:
    broken = write_zip(tmp_path / "bad.zip", changed("trips.txt", 2, "R9,WEEK,T1,X,0,W1"))
    options = ["--date", "2026-06-05", "--currency", "GBP", "--per-kilometer", "0.2"]

    runner = CliRunner(env={"WAYFARE_HOME": str(tmp_path), "COLUMNS": "200"})
    answer = runner.invoke(application, ["trips", "import", str(broken), *options])

    assert answer.exit_code == 1
    assert "trips.txt" in answer.output
    assert "The feed is refused: one fault" in answer.output


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["demo"], "wayfare up"),
        (["list"], "wayfare up"),
        (["list", "--date", "tomorrow"], "2027-06-01"),
    ],
)
def test_a_command_that_misses_something_says_what_to_do(
    tmp_path: Path, arguments: list[str], advice: str
) -> None:
    runner = CliRunner(env={"WAYFARE_HOME": str(tmp_path)})
    answer = runner.invoke(application, ["trips", *arguments])

    assert isinstance(answer.exception, StackError)
    assert advice in str(answer.exception)


def listing_of(trips: list[trip_pb2.Trip], *, width: int, terminal: bool = True) -> list[str]:
    output = StringIO()
    console = Console(file=output, width=width, force_terminal=terminal, color_system=None)
    print_listing(console, trips)
    return output.getvalue().splitlines()


def listed_trips() -> list[trip_pb2.Trip]:
    trips = demo_trips(coach(), RULE, now=NOON, days=1)[:3]
    for number, trip in enumerate(trips):
        trip.trip_id = f"0198c000-0000-7000-8000-00000000000{number}"
    # What an operator writes is no markup.
    trips[0].display_name = "X25 [red] Cairo – Hurghada"
    return trips


@pytest.mark.parametrize("width", [24, 40, 80, 119, 160, 400])
def test_a_list_of_trips_is_whole_at_any_width(width: int) -> None:
    trips = listed_trips()

    lines = listing_of(trips, width=width)

    words = " ".join(" ".join(lines).split())
    for trip in trips:
        assert any(trip.trip_id in line for line in lines)
        for text in (trip.display_name, trip.stops[0].display_name, trip.stops[-1].display_name):
            assert text in words
    assert words.count("from 418.50 EGP") == len(trips)
    assert "…" not in words
    assert all(len(line.rstrip()) <= max(width, len("  " + trips[0].trip_id)) for line in lines)


@pytest.mark.parametrize(("width", "terminal"), [(200, True), (80, False)])
def test_a_wide_terminal_and_a_program_get_a_line_for_each_trip(
    width: int, *, terminal: bool
) -> None:
    trips = listed_trips()

    heading, *lines = listing_of(trips, width=width, terminal=terminal)

    assert heading.split() == ["leaves", "trip", "from", "to", "price", "status", "id"]
    assert [line.split()[-1] for line in lines] == [trip.trip_id for trip in trips]
    assert re.match(r"2026-11-26 1\d:\d\d  X25 \[red\] Cairo", lines[0])
