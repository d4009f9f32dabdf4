"""The GTFS-Realtime feeds of a whole simulated day of Cairns, held to the validator's rules."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

import pytest
from google.transit import gtfs_realtime_pb2

from services.location import convert, feed_messages, watch_messages
from services.location.domain.positions import Fix
from services.location.domain.timetable import PlannedStop, ShapePoint, TripPlan
from services.location.operations.feeds import FeedContent, FeedKind, FeedVehicle
from services.location.operations.observers import TripObserver
from services.location.ports.live import ETA, TripState
from services.location.ports.views import FleetRow
from tests.support.gtfs_realtime_rules import FeedMessage, StaticFeed, complaints, newest_before
from tests.support.location_values import a_trip, new_id
from tests.support.timetable_drives import CAIRNS, SERVICE_DATE, Drive, cairns_trips, drive
from wayfare.location.v1 import driver_stream_pb2, position_pb2

STEP_SECONDS = 300
FIX_SECONDS = 15.0
CAPACITY = 40


@dataclass(frozen=True)
class Driven:
    """A trip as feeds saw it: what was known after each of its fixes."""

    vehicle_id: str
    trip_id: str
    plan: TripPlan
    fixes: list[Fix]
    moments: list[int]
    expected: list[bytes]


def plan_of(one: Drive, static: StaticFeed) -> TripPlan:
    trip = one.trip
    sequences = sorted(static.stops[trip.timetable_trip_id])
    direction = static.directions[trip.timetable_trip_id]
    return TripPlan(
        timetable_trip_id=trip.timetable_trip_id,
        service_date=SERVICE_DATE,
        route_id=static.routes[trip.timetable_trip_id],
        route_short_name=trip.route_short_name,
        short_name="",
        headsign="",
        direction_id=int(direction) if direction else None,
        start_date=f"{SERVICE_DATE:%Y%m%d}",
        start_time=static.start_times[trip.timetable_trip_id],
        stops=tuple(
            PlannedStop(
                stop_id=stop.stop_id,
                stop_sequence=sequence,
                display_name=stop.display_name,
                latitude=stop.latitude,
                longitude=stop.longitude,
                arrival_time=stop.arrival_time,
                departure_time=stop.departure_time,
                distance_meters=stop.distance_meters,
            )
            for stop, sequence in zip(trip.stops, sequences, strict=True)
        ),
        shape=tuple(ShapePoint(*point) for point in trip.shape),
    )


def driven(one: Drive, number: int, static: StaticFeed) -> Driven:
    observer = TripObserver(
        one.route,
        encode_event=watch_messages.stop_progress,
        encode_expectations=watch_messages.expectations,
    )
    expected, known = [], b""
    for fix in one.fixes:
        for kind, payload in observer.observe(fix, fix.capture_milliseconds):
            known = payload if kind == ETA else known
        expected.append(known)
    return Driven(
        vehicle_id=f"bus-{number}",
        trip_id=new_id(),
        plan=plan_of(one, static),
        fixes=list(one.fixes),
        moments=[fix.capture_milliseconds // 1000 for fix in one.fixes],
        expected=expected,
    )


def shown(one: Driven, moment: int) -> FeedVehicle | None:
    """Return what the feeds know of a trip at a moment; None when it is not on the road."""
    index = newest_before(one.moments, moment)
    if index < 0 or moment > one.moments[-1]:
        return None
    fix = one.fixes[index]
    position = position_pb2.Position(heading_degrees=90.0, speed_meters_per_second=8.0)
    position.location.latitude, position.location.longitude = fix.latitude, fix.longitude
    position.capture_time.FromMilliseconds(fix.capture_milliseconds)
    boarding = driver_stream_pb2.BoardingReport(boarded_count=index % (CAPACITY + 1))
    trip = a_trip(trip_id=one.trip_id, vehicle_id=one.vehicle_id, capacity_count=CAPACITY)
    return FeedVehicle(
        row=FleetRow(
            driver_id=trip.driver_id,
            heard_milliseconds=fix.capture_milliseconds,
            vehicle_id=one.vehicle_id,
            vehicle_class=1,
            trip_id=one.trip_id,
            status="STARTED",
            payload=convert.position_payload(position),
        ),
        trip=trip,
        plan=one.plan,
        state=TripState(
            epoch="1",
            version=1,
            status="STARTED",
            boarding_payload=convert.boarding_payload(boarding, 0),
            tracked=True,
            position_payload=b"",
            events=(),
            eta_payload=one.expected[index],
        ),
    )


@cache
def day_of(static: StaticFeed) -> list[Driven]:
    return [
        driven(drive(trip, number, interval_seconds=FIX_SECONDS), number, static)
        for number, trip in enumerate(cairns_trips("04:00", "23:59"))
    ]


@cache
def cairns() -> StaticFeed:
    return StaticFeed.read(CAIRNS)


def feeds_of_a_day(static: StaticFeed) -> Iterator[tuple[int, FeedMessage, FeedMessage]]:
    """Yield the moment, the vehicle positions and the trip updates, from morning to night."""
    day = day_of(static)
    begin = min(one.moments[0] for one in day)
    end = max(one.moments[-1] for one in day)
    for moment in range(begin, end, STEP_SECONDS):
        vehicles = [seen for one in day if (seen := shown(one, moment)) is not None]
        made = [
            FeedMessage.FromString(
                feed_messages.encode(
                    FeedContent(kind=kind, stamp=moment, vehicles=vehicles), moment
                )
            )
            for kind in (FeedKind.VEHICLE_POSITIONS, FeedKind.TRIP_UPDATES)
        ]
        yield moment, made[0], made[1]


@pytest.mark.slow
def test_the_feeds_of_a_day_break_no_rule_of_the_validator() -> None:
    static = cairns()
    before: tuple[FeedMessage | None, FeedMessage | None] = (None, None)
    seen_trips: set[str] = set()
    occupancies: set[int] = set()
    arrivals = hours = 0
    for moment, positions, updates in feeds_of_a_day(static):
        found = complaints(static, positions, now=moment, before=before[0])
        found += complaints(static, updates, now=moment, before=before[1], positions=positions)
        assert not found, (datetime.fromtimestamp(moment, UTC), found[:5])
        before = (positions, updates)
        seen_trips.update(entity.vehicle.trip.trip_id for entity in positions.entity)
        occupancies.update(entity.vehicle.occupancy_status for entity in positions.entity)
        arrivals += sum(len(entity.trip_update.stop_time_update) for entity in updates.entity)
        hours += STEP_SECONDS

    assert len(seen_trips) > 600
    assert arrivals > 20_000
    assert hours > 18 * 3600
    shown_as = gtfs_realtime_pb2.VehiclePosition
    assert {shown_as.EMPTY, shown_as.FEW_SEATS_AVAILABLE, shown_as.FULL} <= occupancies


def test_the_rules_see_what_is_wrong() -> None:
    static = cairns()
    _, positions, updates = next(
        feeds for feeds in feeds_of_a_day(static) if len(feeds[2].entity) > 3
    )
    now = positions.header.timestamp
    first = positions.entity[0].vehicle
    first.position.latitude += 0.05
    first.timestamp = now + 5
    positions.entity[1].vehicle.trip.route_id = "none"
    updates.entity[2].trip_update.vehicle.id = "bus-none"
    updates.entity[1].trip_update.stop_time_update.reverse()

    found = complaints(static, positions, now=now)
    found += complaints(static, updates, now=now - 100, positions=positions)

    rules = {complaint.split()[0] for complaint in found}
    assert {"E029", "E012", "E035", "E047", "E002", "E022", "E050"} <= rules
