"""The GTFS-Realtime feeds of two servers that share their stores, read by the official bindings."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from google.transit import gtfs_realtime_pb2

from services.location.domain.trips import TrackedTrip, TripStop
from services.location.operations.feeds import FRESH_SECONDS
from services.stack.replay.motion import FeedTrip
from tests.support.gtfs_realtime_rules import FeedMessage, StaticFeed, complaints
from tests.support.location_process import DriverMessage, LocationProcess
from tests.support.location_values import OTHER_TENANT, TENANT, a_status, a_trip, new_id
from tests.support.location_views import running_pair
from tests.support.stack_fixtures import TestDatabase
from tests.support.timetable_drives import CAIRNS, SERVICE_DATE, cairns_trips
from tests.support.timetables import import_feed
from wayfare.location.v1 import driver_stream_pb2, location_service_pb2, position_pb2, trip_pb2
from wayfare.location.v1.location_service_pb2_grpc import LocationServiceStub

Pair = tuple[LocationProcess, LocationProcess]
FEEDS = {
    "GetVehiclePositionsFeed": location_service_pb2.GetVehiclePositionsFeedRequest,
    "GetTripUpdatesFeed": location_service_pb2.GetTripUpdatesFeedRequest,
    "GetAlertsFeed": location_service_pb2.GetAlertsFeedRequest,
}


@pytest.fixture
async def pair(
    module_database: TestDatabase, valkey_url: str, short_folder: Path
) -> AsyncIterator[Pair]:
    await import_feed(module_database.dsn_for("location"), CAIRNS, tenant_id=TENANT)
    planned = cairns_trips("08:00", "08:30")[3]
    async with running_pair(
        short_folder,
        dsn=module_database.dsn_for("location"),
        valkey_url=valkey_url,
        trip=_tracked(planned),
    ) as servers:
        yield servers


def _tracked(planned: FeedTrip) -> TrackedTrip:
    """Return a trip of the timetable as if its day were today."""
    now = time.time()
    shift = timedelta(seconds=now - planned.begin.timestamp())
    return a_trip(
        vehicle_id=f"bus-{new_id()[:8]}",
        timetable_trip_id=planned.timetable_trip_id,
        service_date=SERVICE_DATE,
        capacity_count=40,
        stops=tuple(
            TripStop(
                stop_id=stop.stop_id,
                display_name=stop.display_name,
                latitude=stop.latitude,
                longitude=stop.longitude,
                scheduled_arrival_time=stop.arrival_time + shift,
            )
            for stop in planned.stops
        ),
    )


async def feed_of(
    server: LocationProcess, method: str, tenant_id: str = TENANT, since: str = ""
) -> tuple[FeedMessage, dict[str, Any]]:
    """Return a feed and the headers of its answer."""
    stub: Any = LocationServiceStub(server.channel)
    metadata = list(server.bearer("ADMIN"))
    if since:
        metadata.append(("if-modified-since", since))
    call = getattr(stub, method)(FEEDS[method](tenant_id=tenant_id), metadata=metadata, timeout=15)
    body = await call
    assert body.content_type == "application/x-protobuf"
    return FeedMessage.FromString(body.data), dict(await call.initial_metadata())


async def _drive(server: LocationProcess, meters: float) -> Any:
    """Drive the beginning of the trip, with 10 passengers on board; the driver calls for help."""
    driver = await server.drive()
    first, second = server.trip.stops[:2]
    now = int(time.time() * 1000)
    for number in range(6):
        share = meters * number / 6
        position = position_pb2.Position(heading_degrees=10.0, speed_meters_per_second=6.0)
        position.location.latitude = first.latitude + share * (second.latitude - first.latitude)
        position.location.longitude = first.longitude + share * (second.longitude - first.longitude)
        position.capture_time.FromMilliseconds(now - 12_000 + number * 2_000)
        await driver.send(DriverMessage(seq=number + 1, position=position))
    boarding = driver_stream_pb2.BoardingReport(boarded_count=10)
    boarding.capture_time.FromMilliseconds(now)
    await driver.send(DriverMessage(seq=7, boarding=boarding))
    await driver.send(DriverMessage(seq=8, status=a_status(trip_pb2.TRIP_STATUS_EMERGENCY)))
    assert await driver.acknowledged(8) == []
    return driver


async def test_the_feeds_show_a_trip_of_the_timetable_and_break_no_rule(pair: Pair) -> None:
    one, two = pair
    static = StaticFeed.read(CAIRNS)
    await one.track()
    driver = await _drive(one, 0.5)
    feeds: dict[str, FeedMessage] = {}

    async def all_told() -> bool:
        for method in FEEDS:
            feeds[method], _ = await feed_of(two, method)
        return all(len(feed.entity) == 1 for feed in feeds.values())

    async with asyncio.timeout(20):
        while not await all_told():
            await asyncio.sleep(0.5)

    positions, updates, alerts = feeds.values()
    now = int(time.time())
    assert not complaints(static, positions, now=now)
    assert not complaints(static, updates, now=now, positions=positions)
    assert not complaints(static, alerts, now=now)
    vehicle = positions.entity[0].vehicle
    assert vehicle.vehicle.id == one.trip.vehicle_id
    assert vehicle.trip.trip_id == one.trip.timetable_trip_id
    assert vehicle.occupancy_status == gtfs_realtime_pb2.VehiclePosition.FEW_SEATS_AVAILABLE
    assert vehicle.occupancy_percentage == 25
    assert updates.entity[0].trip_update.stop_time_update[0].stop_id in {
        stop.stop_id for stop in one.trip.stops[:3]
    }
    assert alerts.entity[0].alert.informed_entity[0].trip.trip_id == one.trip.timetable_trip_id
    driver.call.cancel()


async def test_the_headers_time_never_goes_back_whichever_server_answers(pair: Pair) -> None:
    one, two = pair
    await one.track()
    driver = await _drive(one, 0.4)
    newest: FeedMessage | None = None
    end = time.monotonic() + 2.5 * FRESH_SECONDS
    stamps = set()
    while time.monotonic() < end:
        answers = await asyncio.gather(
            *(feed_of(server, "GetVehiclePositionsFeed") for server in (one, two, two, one))
        )
        for feed, _ in answers:
            if newest is not None and feed.header.timestamp == newest.header.timestamp:
                assert feed.SerializeToString() == newest.SerializeToString()
        lowest = min(feed.header.timestamp for feed, _ in answers)
        assert newest is None or lowest >= newest.header.timestamp
        newest = max((feed for feed, _ in answers), key=lambda feed: feed.header.timestamp)
        stamps.add(newest.header.timestamp)
        await asyncio.sleep(0.1)
        await driver.send(DriverMessage(seq=9 + len(stamps), position=_here(one)))
    assert len(stamps) >= 2
    driver.call.cancel()


def _here(server: LocationProcess) -> position_pb2.Position:
    stop = server.trip.stops[0]
    position = position_pb2.Position()
    position.location.latitude, position.location.longitude = stop.latitude, stop.longitude
    position.capture_time.FromMilliseconds(int(time.time() * 1000))
    return position


async def test_who_has_the_newest_feed_is_not_sent_it_again(pair: Pair) -> None:
    one, two = pair
    await one.track()
    feed, headers = await feed_of(one, "GetTripUpdatesFeed")
    stamp = int(parsedate_to_datetime(headers["last-modified"]).timestamp())
    assert stamp == feed.header.timestamp

    again, second = await feed_of(two, "GetTripUpdatesFeed", since=headers["last-modified"])
    assert second["x-wayfare-not-modified"] == "1"
    assert not again.entity
    for since in ("Thu, 01 Jan 2026 00:00:00 GMT", "yesterday", "1"):
        older, third = await feed_of(two, "GetTripUpdatesFeed", since=since)
        assert "x-wayfare-not-modified" not in third
        assert older.header.timestamp == stamp


async def test_a_tenant_sees_its_own_vehicles_only(pair: Pair) -> None:
    one, _ = pair
    await one.track()
    driver = await _drive(one, 0.3)

    for method, request in FEEDS.items():
        refusal = await one.refused(method, request(tenant_id=TENANT), _stranger(one))
        assert refusal.reason == "NOT_YOUR_TENANT"
        assert refusal.code is grpc.StatusCode.PERMISSION_DENIED
        own: Any = await one.call(method, request(tenant_id=OTHER_TENANT), _stranger(one))
        assert not FeedMessage.FromString(own.data).entity
    driver.call.cancel()


def _stranger(server: LocationProcess) -> Any:
    return server.bearer("ADMIN", tenant_id=OTHER_TENANT)
