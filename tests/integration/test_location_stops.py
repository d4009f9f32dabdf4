"""Stops, expected arrivals and geofences of a trip whose driver goes from server to server."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.location.domain.trips import TripStop
from tests.support.location_process import DriverMessage, FollowStream, LocationProcess, TripUpdate
from tests.support.location_values import (
    LATITUDE,
    LONGITUDE,
    METER,
    a_position,
    a_status,
    a_trip,
    new_id,
    now_milliseconds,
)
from tests.support.location_views import follow, running_pair
from tests.support.stack_fixtures import TestDatabase
from wayfare.location.v1 import geofence_pb2, location_service_pb2, trip_pb2, trip_update_pb2

Pair = tuple[LocationProcess, LocationProcess]
_pb = location_service_pb2
STOPS_AT = (0.0, 600.0, 1_200.0)


@pytest.fixture
async def pair(
    module_database: TestDatabase, valkey_url: str, short_folder: Path
) -> AsyncIterator[Pair]:
    stops = tuple(
        TripStop(
            stop_id=f"stop-{number}",
            display_name=f"Stop {number}",
            latitude=LATITUDE + north * METER,
            longitude=LONGITUDE,
        )
        for number, north in enumerate(STOPS_AT)
    )
    trip = replace(a_trip(vehicle_id=f"bus-{new_id()[:8]}"), stops=stops)
    async with running_pair(
        short_folder,
        dsn=module_database.dsn_for("location"),
        valkey_url=valkey_url,
        trip=trip,
    ) as servers:
        yield servers


async def drive(
    servers: Sequence[LocationProcess], places: list[float], start: int, *, pause: float = 0
) -> None:
    """Report places along the way, three at a time, the first part to the first server."""
    for number in range(0, len(places), 3):
        part = number * len(servers) // len(places)
        if part != (number - 3) * len(servers) // len(places):
            await asyncio.sleep(pause)
        server = servers[part]
        request = _pb.ReportPositionsRequest(
            vehicle_id=server.trip.vehicle_id, trip_id=server.trip.trip_id
        )
        for offset, north in enumerate(places[number : number + 3]):
            capture = start + (number + offset) * 3_000
            request.positions.append(a_position(capture, meters_north=north))
        answer = await server.call("ReportPositions", request, server.driver())
        assert not answer.rejected


async def progress_until(
    stream: FollowStream, last: tuple[int, str]
) -> tuple[list[tuple[int, str]], list[Any]]:
    """Read until a stop event comes; return all of them, and the expectations."""
    seen: list[tuple[int, str]] = []
    etas = []
    while not seen or seen[-1] != last:
        update = await stream.next()
        if update.HasField("stop_progress"):
            kind = trip_update_pb2.StopProgressKind.Name(update.stop_progress.kind)
            seen.append((update.stop_progress.stop_index, kind.rpartition("_")[2]))
        if update.HasField("eta"):
            etas.append(update)
    return seen, etas


@pytest.mark.slow
async def test_followers_hear_of_each_stop_once_and_when_the_next_ones_are_reached(
    pair: Pair,
) -> None:
    one, two = pair
    await one.track()
    stream = two.follow()
    assert (await stream.next()).HasField("snapshot")
    places = [float(meters) for meters in range(-200, 1_800, 40)]

    # Back to the first server, which knows nothing of what the second one heard.
    await drive([one, two, one], places, now_milliseconds() - 200_000, pause=5.2)

    seen, etas = await progress_until(stream, (2, "DEPARTED"))
    stops = [event for event in seen if event[1] != "APPROACHING"]
    assert stops == [(index, kind) for index in range(3) for kind in ("ARRIVED", "DEPARTED")]
    assert [index for index, kind in seen if kind == "APPROACHING"] == [0, 1, 2]
    assert etas
    first: TripUpdate = etas[0]
    following = [first.eta, *first.later_stops]
    times = [stop.expected_arrival_time.ToMilliseconds() for stop in following]
    assert times == sorted(times)
    assert all(
        stop.earliest_arrival_time.ToMilliseconds() <= stop.expected_arrival_time.ToMilliseconds()
        for stop in following
    )


async def test_the_end_of_a_trip_departs_from_its_last_stop(pair: Pair) -> None:
    one, two = pair
    await one.track()
    stream = two.follow()
    start = now_milliseconds() - 250_000
    places = [*(float(meters) for meters in range(-200, 1_200, 40)), 1_200.0, 1_200.0, 1_200.0]
    await drive([one], places, start)
    driver = await one.drive()
    await driver.send(DriverMessage(seq=1, status=a_status(trip_pb2.TRIP_STATUS_ENDED)))

    updates = await stream.rest()

    last = [update for update in updates if update.HasField("stop_progress")][-1].stop_progress
    assert (last.stop_index, last.kind) == (2, trip_update_pb2.STOP_PROGRESS_KIND_DEPARTED)


async def test_staff_hears_of_a_geofence_that_a_vehicle_enters_and_leaves(pair: Pair) -> None:
    one, two = pair
    fence = geofence_pb2.Geofence(
        display_name="Old town", kind=geofence_pb2.GEOFENCE_KIND_RESTRICTED
    )
    fence.circle.center.latitude, fence.circle.center.longitude = (
        LATITUDE + 600 * METER,
        LONGITUDE,
    )
    fence.circle.radius_meters = 150
    request = _pb.CreateGeofenceRequest(geofence=fence, request_id=new_id())
    made = await one.call("CreateGeofence", request, one.bearer("ADMIN"))
    await one.track()
    alerts = follow(two, "FollowAlerts", _pb.FollowAlertsRequest(), two.bearer("ADMIN"))

    places = [float(meters) for meters in range(200, 1_200, 40)]
    await drive(pair, places, now_milliseconds() - 200_000)

    told: list[Any] = []
    while len(told) < 2:
        update = await alerts.until(lambda update: update.HasField("geofence_transition"))
        told.append(update.geofence_transition)
    assert [one.kind for one in told] == [
        geofence_pb2.GEOFENCE_TRANSITION_KIND_ENTERED,
        geofence_pb2.GEOFENCE_TRANSITION_KIND_EXITED,
    ]
    assert {one.geofence_id for one in told} == {made.geofence_id}
    assert {one.vehicle_id for one in told} == {one.trip.vehicle_id}
    assert {transition.trip_id for transition in told} == {one.trip.trip_id}
