"""Turns the trips of a GTFS feed on one day into trips that can be sold, on that day or another."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from google.protobuf.timestamp_pb2 import Timestamp
from google.type import date_pb2, latlng_pb2

from services.stack.errors import StackError
from services.stack.gtfs_job import run_gtfs_job
from services.stack.trips.fares import FareRule
from wayfare.booking.v1 import layout_pb2, trip_pb2

# What the contract allows.
STOPS_MAX = 64
_NAME_CHARACTERS_MAX = 100
_STOP_NAME_CHARACTERS_MAX = 200
_TRIPS_MAX = 100_000

Progress = Callable[[str, int], None]


class FeedRefusedError(Exception):
    """Says that the feed is broken; `findings` are what the reader found, line by line."""

    def __init__(self, findings: Mapping[str, Any]) -> None:
        """Take what the reader found."""
        super().__init__("the feed is broken")
        self.findings = findings


@dataclass(slots=True, kw_only=True)
class FeedDay:
    """Is the trips of one day of a feed, as the reader tells them."""

    time_zone: str = "UTC"
    plans: list[dict[str, Any]] = field(default_factory=list)


def read_day(
    feed: Path, service_date: date, *, begin: str, until: str, progress: Progress
) -> FeedDay:
    """Return the trips that depart first within a part of a day (HH:MM).

    Raises FeedRefusedError if the feed is broken, StackError if it has no such trip.
    """
    arguments = ["plan", str(feed.absolute()), "--date", service_date.isoformat()]
    arguments += ["--from", begin, "--until", until, "--trips", str(_TRIPS_MAX)]
    day = FeedDay()
    for key, value in run_gtfs_job(arguments):
        match key:
            case "broken":
                raise FeedRefusedError(value)
            case "progress":
                progress(value["what"], value["rows"])
            case "feed":
                day.time_zone = value["time_zone"]
            case "plan":
                day.plans.append(value)
    if not day.plans:
        raise StackError(f"{feed} has no trip on {service_date} from {begin} to {until}.")
    return day


@dataclass(frozen=True, slots=True, kw_only=True)
class Sale:
    """Says how the trips are sold: the day on which they run, in which vehicle, for how much."""

    run_date: date
    layout: layout_pb2.SeatLayout
    fare_rule: FareRule


def trips_of(day: FeedDay, service_date: date, sale: Sale) -> list[trip_pb2.Trip]:
    """Return the trips that can be sold; those with more than STOPS_MAX stops are left out."""
    zone = ZoneInfo(day.time_zone)
    shift = _day_start(sale.run_date, zone) - _day_start(service_date, zone)
    trips = []
    for plan in day.plans:
        stops = _calls(plan["stops"])
        if 2 <= len(stops) <= STOPS_MAX:
            trips.append(_trip(plan, stops, day.time_zone, shift, sale))
    return trips


def _trip(
    plan: Mapping[str, Any],
    stops: Sequence[Mapping[str, Any]],
    time_zone: str,
    shift: timedelta,
    sale: Sale,
) -> trip_pb2.Trip:
    towards = plan["headsign"] or stops[-1]["display_name"] or stops[-1]["stop_id"]
    name = f"{plan['route_short_name']} {towards}".strip()
    service_date = date.fromisoformat(plan["service_date"])
    distances = [stop["distance_meters"] for stop in stops]
    return trip_pb2.Trip(
        display_name=name[:_NAME_CHARACTERS_MAX],
        seat_layout_id=sale.layout.seat_layout_id,
        stops=[_stop(stop, shift) for stop in stops],
        fares=sale.fare_rule.fares(
            [one.seat_class_code for one in sale.layout.seat_classes],
            [after - before for before, after in pairwise(distances)],
        ),
        time_zone=time_zone,
        timetable_trip_id=plan["timetable_trip_id"],
        service_date=date_pb2.Date(
            year=service_date.year, month=service_date.month, day=service_date.day
        ),
    )


def _calls(stops: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the stops; two calls at one stop in a row become one, from arrival to departure."""
    calls: list[Mapping[str, Any]] = []
    for stop in stops:
        if calls and calls[-1]["stop_id"] == stop["stop_id"]:
            first = calls.pop()
            stop = {  # noqa: PLW2901 - the two calls as one
                **stop,
                "arrival_time": first["arrival_time"],
                "no_pickup": first["no_pickup"] and stop["no_pickup"],
                "no_drop_off": first["no_drop_off"] and stop["no_drop_off"],
            }
        calls.append(stop)
    return calls


def _stop(stop: Mapping[str, Any], shift: timedelta) -> trip_pb2.TripStop:
    return trip_pb2.TripStop(
        stop_id=stop["stop_id"],
        display_name=(stop["display_name"] or stop["stop_id"])[:_STOP_NAME_CHARACTERS_MAX],
        location=latlng_pb2.LatLng(latitude=stop["latitude"], longitude=stop["longitude"]),
        scheduled_arrival_time=_moment(stop["arrival_time"], shift),
        scheduled_departure_time=_moment(stop["departure_time"], shift),
        no_pickup=stop["no_pickup"],
        no_drop_off=stop["no_drop_off"],
    )


def _moment(text: str, shift: timedelta) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(datetime.fromisoformat(text) + shift)
    return message


def _day_start(day: date, zone: ZoneInfo) -> datetime:
    """Return noon minus 12 hours, from which the times of a service day are counted."""
    noon = datetime.combine(day, time(12), tzinfo=zone)
    return noon.astimezone(UTC) - timedelta(hours=12)
