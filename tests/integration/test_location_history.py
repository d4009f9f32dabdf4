"""What LocationService keeps in PostgreSQL, seen through its calls."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from services.stack.valkey import ValkeyServer
from tests.support.location_process import LocationProcess
from tests.support.location_values import OTHER_TENANT, a_position, a_trip, new_id, now_milliseconds
from tests.support.location_views import free_driver, nearby, running_pair
from tests.support.stack_fixtures import TestDatabase
from wayfare.location.v1 import geofence_pb2, location_service_pb2

Pair = tuple[LocationProcess, LocationProcess]
_pb = location_service_pb2


@pytest.fixture
async def pair(
    module_database: TestDatabase, valkey_url: str, short_folder: Path
) -> AsyncIterator[Pair]:
    async with running_pair(
        short_folder,
        dsn=module_database.dsn_for("location"),
        valkey_url=valkey_url,
        # The database is shared by the tests of this file.
        trip=a_trip(vehicle_id=f"bus-{new_id()[:8]}"),
    ) as servers:
        yield servers


async def eventually(ask: Any, condition: Any) -> Any:
    """Ask until the answer fulfils the condition; positions reach history within seconds."""
    async with asyncio.timeout(15):
        while not condition(answer := await ask()):
            await asyncio.sleep(0.2)
        return answer


def report_of(server: LocationProcess, *captures: int) -> Any:
    request = _pb.ReportPositionsRequest(
        vehicle_id=server.trip.vehicle_id, trip_id=server.trip.trip_id
    )
    for number, capture in enumerate(captures):
        request.positions.append(a_position(capture, meters_north=number * 50.0))
    return request


async def test_history_has_every_position_also_those_that_came_too_late(pair: Pair) -> None:
    one, two = pair
    await one.track()
    start = now_milliseconds() - 3_600_000
    captures = [start + number * 5_000 for number in range(10)]
    await one.call("ReportPositions", report_of(one, *captures[5:]), one.driver())
    late = await one.call("ReportPositions", report_of(one, *captures[:5]), one.driver())
    assert late.accepted_count == 0

    staff = two.bearer("BUSINESS")
    request = _pb.ListPositionHistoryRequest(vehicle_id=one.trip.vehicle_id, page_size=4)
    request.start_time.FromMilliseconds(start)

    async def ask() -> Any:
        return await two.call("ListPositionHistory", request, staff)

    await eventually(
        lambda: two.call(
            "ListPositionHistory",
            _pb.ListPositionHistoryRequest(vehicle_id=one.trip.vehicle_id),
            staff,
        ),
        lambda answer: len(answer.positions) == 10,
    )
    seen = []
    while True:
        page = await ask()
        seen += [entry.position.capture_time.ToMilliseconds() for entry in page.positions]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert seen == captures[::-1]
    assert page.positions[0].trip_id == one.trip.trip_id

    strangers = two.bearer("BUSINESS", tenant_id=OTHER_TENANT)
    hidden = _pb.ListPositionHistoryRequest(vehicle_id=one.trip.vehicle_id)
    assert not (await two.call("ListPositionHistory", hidden, strangers)).positions
    wrong = _pb.ListPositionHistoryRequest(vehicle_id="bus-1", page_token=request.page_token)
    refusal = await two.refused("ListPositionHistory", wrong, staff)
    assert refusal.reason == "REQUEST_INVALID"


async def test_the_way_of_a_trip_grows_and_is_for_those_who_may_follow(pair: Pair) -> None:
    one, two = pair
    await one.track()
    start = now_milliseconds() - 600_000
    captures = [start + number * 5_000 for number in range(5)]
    await one.call("ReportPositions", report_of(one, *captures), one.driver())
    request = _pb.GetTripTrackRequest(trip_id=one.trip.trip_id)

    track = await eventually(
        lambda: two.call("GetTripTrack", request, one.follower()),
        lambda track: len(track.positions) == 5,
    )

    assert track.length_meters == pytest.approx(200, rel=0.01)
    assert not track.complete
    refusal = await two.refused("GetTripTrack", request, two.bearer("PASSENGER", new_id()))
    assert refusal.reason == "NOT_A_FOLLOWER"
    pricing = (("x-forwarded-client-cert", "By=x;URI=spiffe://wayfare/pricing"),)
    request.tenant_id = one.trip.tenant_id
    assert len((await two.call("GetTripTrack", request, pricing)).positions) == 5
    request.tenant_id = OTHER_TENANT
    assert (await two.refused("GetTripTrack", request, pricing)).reason == "NOT_A_FOLLOWER"
    refusal = await two.refused("GetTripTrack", request, one.follower())
    assert refusal.reason == "NOT_YOUR_TENANT"


async def test_a_stop_of_the_server_writes_what_waits(
    module_database: TestDatabase, valkey_url: str, short_folder: Path
) -> None:
    dsn = module_database.dsn_for("location")
    async with running_pair(short_folder, dsn=dsn, valkey_url=valkey_url) as (one, _):
        await one.track()
        captures = [now_milliseconds() - 60_000 + number * 4_000 for number in range(3)]
        await one.call("ReportPositions", report_of(one, *captures), one.driver())
        trip_id = one.trip.trip_id

    connection = await asyncpg.connect(module_database.admin_dsn)
    try:
        count = await connection.fetchval(
            "SELECT count(*) FROM location.position_history WHERE trip_id = $1", trip_id
        )
        latest = await connection.fetchval(
            "SELECT count(*) FROM location.driver_positions WHERE trip_id = $1", trip_id
        )
    finally:
        await connection.close()
    assert (count, latest) == (3, 1)


async def test_partitions_are_made_ahead_and_dropped_when_they_are_old(
    pair: Pair, module_database: TestDatabase
) -> None:
    connection = await asyncpg.connect(module_database.dsn_for("location"))
    try:
        today = datetime.now(UTC).date()
        old = today - timedelta(days=120)
        made = await connection.fetchval("SELECT location.make_history_partitions($1, 3)", old)
        assert made == 3
        kept = today - timedelta(days=90)
        assert await connection.fetchval("SELECT location.drop_history_partitions($1)", kept) == 3
        with pytest.raises(asyncpg.RaiseError, match="7 days"):
            await connection.fetchval("SELECT location.drop_history_partitions($1)", today)
        # Nobody sees rows without a tenant, whatever there is.
        assert await connection.fetchval("SELECT count(*) FROM location.position_history") == 0
    finally:
        await connection.close()


async def test_without_valkey_the_last_known_is_answered_and_said_to_be_so(
    module_database: TestDatabase, short_folder: Path
) -> None:
    valkey = ValkeyServer(
        data_folder=short_folder / "own" / "data",
        socket_path=short_folder / "own" / "valkey.sock",
        log_path=short_folder / "own" / "valkey.log",
    )
    await valkey.start()
    try:
        dsn = module_database.dsn_for("location")
        async with running_pair(short_folder, dsn=dsn, valkey_url=valkey.url) as (one, two):
            driver = await free_driver(one)
            await driver.at(100)
            await asyncio.sleep(7.5)
            await valkey.stop()

            found = await nearby(two)
            request = _pb.GetVehiclePositionRequest(vehicle_id=driver.vehicle_id)
            where = await two.call("GetVehiclePosition", request, two.bearer("BUSINESS"))

            assert found.degraded
            assert [round(hit.distance_meters) for hit in found.drivers] == [100]
            assert where.degraded

            # Live state cannot take that somebody goes; the database can, and shows them no more.
            gone = _pb.SetPresenceRequest(vehicle_id=driver.vehicle_id, online=False)
            refusal = await one.refused("SetPresence", gone, one.bearer("DRIVER", driver.driver_id))
            assert refusal.reason == "DEPENDENCY_UNAVAILABLE"
            found = await nearby(two)
            assert found.degraded
            assert not found.drivers
            await valkey.start()
    finally:
        await valkey.stop()


def airport(**values: Any) -> geofence_pb2.Geofence:
    fence = geofence_pb2.Geofence(
        display_name="Airport", kind=geofence_pb2.GEOFENCE_KIND_AIRPORT, **values
    )
    fence.circle.center.latitude, fence.circle.center.longitude = 53.33, -2.85
    fence.circle.radius_meters = 1_500
    return fence


async def test_geofences_are_made_listed_and_deleted_by_their_tenant(pair: Pair) -> None:
    one, two = pair
    staff = one.bearer("BUSINESS")
    request = _pb.CreateGeofenceRequest(geofence=airport(), request_id=new_id())
    made = await one.call("CreateGeofence", request, staff)
    assert await two.call("CreateGeofence", request, staff) == made
    request.geofence.display_name = "Another"
    assert (await two.refused("CreateGeofence", request, staff)).reason == "REQUEST_ID_REUSED"
    second = _pb.CreateGeofenceRequest(geofence=airport(), request_id=new_id())
    second.geofence.display_name = "Bay"
    await one.call("CreateGeofence", second, staff)

    first_page = await two.call("ListGeofences", _pb.ListGeofencesRequest(page_size=1), staff)
    assert [fence.display_name for fence in first_page.geofences] == ["Airport"]
    assert first_page.geofences[0] == made
    following = _pb.ListGeofencesRequest(page_size=1, page_token=first_page.next_page_token)
    rest = await two.call("ListGeofences", following, staff)
    assert [fence.display_name for fence in rest.geofences] == ["Bay"]
    strangers = two.bearer("BUSINESS", tenant_id=OTHER_TENANT)
    assert not (await two.call("ListGeofences", _pb.ListGeofencesRequest(), strangers)).geofences

    gone = _pb.DeleteGeofenceRequest(geofence_id=made.geofence_id)
    await two.call("DeleteGeofence", gone, strangers)
    assert len((await one.call("ListGeofences", _pb.ListGeofencesRequest(), staff)).geofences) == 2
    await two.call("DeleteGeofence", gone, staff)
    await two.call("DeleteGeofence", gone, staff)
    left = await one.call("ListGeofences", _pb.ListGeofencesRequest(), staff)
    assert [fence.display_name for fence in left.geofences] == ["Bay"]


async def test_a_polygon_in_the_form_of_an_eight_is_refused(pair: Pair) -> None:
    one, _ = pair
    fence = airport()
    for latitude, longitude in ((53.0, -2.0), (53.1, -1.9), (53.1, -2.0), (53.0, -1.9)):
        fence.polygon.corners.add(latitude=latitude, longitude=longitude)
    request = _pb.CreateGeofenceRequest(geofence=fence, request_id=new_id())

    refusal = await one.refused("CreateGeofence", request, one.bearer("BUSINESS"))

    assert refusal.reason == "GEOFENCE_SHAPE_INVALID"
    assert refusal.metadata["corner_index"].isdigit()
