"""Nearby drivers, fleets and alerts, seen through another server than the drivers' one."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from tests.support.identity_process import refusal_of
from tests.support.location_process import DriverMessage, LocationProcess
from tests.support.location_values import (
    LATITUDE,
    LONGITUDE,
    METER,
    OTHER_TENANT,
    a_status,
    new_id,
    now_milliseconds,
)
from tests.support.location_views import HERE, follow, free_driver, nearby, running_pair
from tests.support.stack_fixtures import TestDatabase
from wayfare.location.v1 import fleet_pb2, location_service_pb2, trip_pb2
from wayfare.type.v1 import geo_pb2, vehicle_pb2

Pair = tuple[LocationProcess, LocationProcess]
_pb = location_service_pb2


@pytest.fixture
async def pair(
    module_database: TestDatabase, valkey_url: str, short_folder: Path
) -> AsyncIterator[Pair]:
    async with running_pair(
        short_folder, dsn=module_database.dsn_for("location"), valkey_url=valkey_url
    ) as servers:
        yield servers


async def test_the_nearest_free_drivers_come_first_with_distance_and_age(pair: Pair) -> None:
    one, two = pair
    far, near, beyond = [await free_driver(one) for _ in range(3)]
    await far.at(900, age_milliseconds=5_000)
    await near.at(100)
    await beyond.at(1_100)

    found = (await nearby(two, radius_meters=1_000)).drivers

    assert [round(driver.distance_meters) for driver in found] == [100, 900]
    assert found[0].position_age.ToMilliseconds() < 2_000
    assert 5_000 <= found[1].position_age.ToMilliseconds() < 9_000
    assert near.driver_id not in str(found)


async def test_a_driver_on_a_trip_offline_or_too_old_is_not_near(pair: Pair) -> None:
    one, two = pair
    await one.track()
    riding = await one.drive()
    await riding.position(1, now_milliseconds())
    await riding.acknowledged(1)
    old, leaving = await free_driver(one), await free_driver(one)
    await old.at(10, age_milliseconds=61_000)
    await leaving.at(20)
    assert len((await nearby(two)).drivers) == 1

    request = _pb.SetPresenceRequest(vehicle_id=leaving.vehicle_id, online=False)
    await one.call("SetPresence", request, one.bearer("DRIVER", leaving.driver_id))

    assert not (await nearby(two)).drivers


async def test_a_class_narrows_the_drivers_and_pages_do_not_overlap(pair: Pair) -> None:
    one, two = pair
    for number in range(5):
        driver = await free_driver(one, vehicle_class=vehicle_pb2.VEHICLE_CLASS_XL)
        await driver.at(10 + number)
    bus = await free_driver(one, vehicle_class=vehicle_pb2.VEHICLE_CLASS_BUS)
    await bus.at(5)
    me = two.bearer("PASSENGER", new_id())
    asked = {"vehicle_class": vehicle_pb2.VEHICLE_CLASS_XL, "page_size": 3}

    first = await nearby(two, metadata=me, **asked)
    second = await nearby(two, metadata=me, page_token=first.next_page_token, **asked)

    distances = [round(one.distance_meters) for one in [*first.drivers, *second.drivers]]
    assert distances == [10, 11, 12, 13, 14]
    assert not second.next_page_token
    assert len((await nearby(two)).drivers) == 6
    request = _pb.ListNearbyDriversRequest(
        location=HERE, page_token=first.next_page_token, radius_meters=500
    )
    refusal = await two.refused("ListNearbyDrivers", request, me)
    assert refusal.reason == "REQUEST_INVALID"


async def test_tenants_do_not_see_each_others_drivers(pair: Pair) -> None:
    one, two = pair
    other = await free_driver(one, tenant_id=OTHER_TENANT)
    await other.at(10)

    assert not (await nearby(two)).drivers
    stranger = two.bearer("PASSENGER", new_id(), tenant_id=OTHER_TENANT)
    assert len((await nearby(two, metadata=stranger)).drivers) == 1


async def test_the_drivers_near_a_point_are_followed(pair: Pair) -> None:
    one, two = pair
    driver = await free_driver(one)
    await driver.at(100)
    request = _pb.FollowNearbyRequest(location=HERE)
    frames = follow(two, "FollowNearby", request, two.bearer("PASSENGER", new_id()))
    first = await frames.next()

    await asyncio.sleep(1.1)
    await driver.at(200)

    second = await frames.until(lambda frame: round(frame.drivers[0].distance_meters) == 200)
    assert second.drivers[0].driver_handle == first.drivers[0].driver_handle


async def test_a_fleet_is_a_snapshot_then_what_moved_and_who_left(pair: Pair) -> None:
    one, two = pair
    moving, resting = await free_driver(one), await free_driver(one)
    await moving.at(0)
    await resting.at(50)
    frames = follow(two, "FollowFleet", _pb.FollowFleetRequest(), two.bearer("BUSINESS"))
    snapshot = await frames.next()
    assert snapshot.snapshot
    assert snapshot.online_count == 2
    vehicles = {vehicle.vehicle_id for vehicle in snapshot.vehicles}
    assert vehicles == {moving.vehicle_id, resting.vehicle_id}

    await asyncio.sleep(1.1)
    await moving.at(10)
    moved = await frames.until(lambda frame: frame.vehicles)
    assert [vehicle.vehicle_id for vehicle in moved.vehicles] == [moving.vehicle_id]
    assert moved.vehicles[0].position.location.latitude == LATITUDE + 10 * METER

    request = _pb.SetPresenceRequest(vehicle_id=resting.vehicle_id, online=False)
    await one.call("SetPresence", request, one.bearer("DRIVER", resting.driver_id))
    left = await frames.until(lambda frame: frame.removed_vehicle_ids)
    assert list(left.removed_vehicle_ids) == [resting.vehicle_id]
    assert left.online_count == 1


async def test_a_viewport_shows_who_enters_and_who_leaves_it(pair: Pair) -> None:
    one, two = pair
    driver, named = await free_driver(one), await free_driver(one, vehicle_id="car-7")
    await driver.at(0)
    await named.at(5_000)
    viewport = geo_pb2.Viewport()
    viewport.southwest.latitude, viewport.southwest.longitude = LATITUDE - 0.001, LONGITUDE - 0.1
    viewport.northeast.latitude, viewport.northeast.longitude = LATITUDE + 0.001, LONGITUDE + 0.1
    staff = two.bearer("BUSINESS")
    frames = follow(two, "FollowFleet", _pb.FollowFleetRequest(viewport=viewport), staff)
    assert [one.vehicle_id for one in (await frames.next()).vehicles] == [driver.vehicle_id]

    ids = _pb.VehicleIds(vehicle_ids=["car-7", "not-ours"])
    some = follow(two, "FollowFleet", _pb.FollowFleetRequest(vehicles=ids), staff)
    assert [one.vehicle_id for one in (await some.next()).vehicles] == ["car-7"]

    await asyncio.sleep(1.1)
    await driver.at(60)
    await asyncio.sleep(1.1)
    await driver.at(120)
    gone = await frames.until(lambda frame: frame.removed_vehicle_ids)
    assert list(gone.removed_vehicle_ids) == [driver.vehicle_id]

    swapped = geo_pb2.Viewport(southwest=viewport.northeast, northeast=viewport.southwest)
    call = follow(two, "FollowFleet", _pb.FollowFleetRequest(viewport=swapped), staff)
    with pytest.raises(grpc.aio.AioRpcError, match="southwest"):
        await call.next()


async def test_an_emergency_reaches_the_admins_of_its_tenant_at_once(pair: Pair) -> None:
    one, two = pair
    await one.track()
    admin = two.bearer("ADMIN")
    alerts = follow(two, "FollowAlerts", _pb.FollowAlertsRequest(), admin)
    strangers = two.bearer("ADMIN", tenant_id=OTHER_TENANT)
    others = follow(two, "FollowAlerts", _pb.FollowAlertsRequest(), strangers)
    stream = await one.drive()
    captured = now_milliseconds()
    await stream.position(1, captured)
    emergency = a_status(trip_pb2.TRIP_STATUS_EMERGENCY)
    await stream.send(DriverMessage(seq=2, status=emergency))

    update = await alerts.until(lambda update: update.HasField("alert"))

    assert update.alert.kind == fleet_pb2.ALERT_KIND_EMERGENCY
    assert update.alert.trip_id == one.trip.trip_id
    assert update.alert.position.capture_time.ToMilliseconds() == captured
    again = follow(one, "FollowAlerts", _pb.FollowAlertsRequest(), admin)
    assert (await again.next()).alert.alert_id == update.alert.alert_id
    later = follow(
        two, "FollowAlerts", _pb.FollowAlertsRequest(resume_token=update.resume_token), admin
    )
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await later.next()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await others.next()


async def test_who_asks_too_often_is_refused_though_the_answer_is_sought_meanwhile(
    pair: Pair,
) -> None:
    driver = await free_driver(pair[0])
    await driver.at(100)
    asker = pair[1].bearer("PASSENGER", new_id())

    answers = await asyncio.gather(
        *(nearby(pair[1], metadata=asker) for _ in range(130)), return_exceptions=True
    )

    served = [one for one in answers if isinstance(one, _pb.ListNearbyDriversResponse)]
    refused = [refusal_of(one) for one in answers if isinstance(one, grpc.aio.AioRpcError)]
    # The contract's limit: 120 a minute.
    assert len(served) == 120
    assert all(one.drivers for one in served)
    assert [one.reason for one in refused] == ["RATE_LIMITED"] * 10
