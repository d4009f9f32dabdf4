"""Whose trip it is: a token alone opens no trip of somebody else, nor of another operator."""

import uuid
from dataclasses import replace

import pytest

from tests.support.e2e_edge import (
    OTHER_TENANT_ID,
    Edge,
    Refusal,
    Trip,
    bearer,
    now,
    refusal_of,
)
from tests.support.e2e_people import register
from tests.support.e2e_streams import (
    bare_driver,
    bare_follower,
    hello_for,
    position_message,
    status_message,
)
from wayfare.location.v1 import location_service_pb2, trip_pb2
from wayfare.location.v1.location_service_pb2_grpc import LocationServiceStub
from wayfare_client import make_position

pytestmark = pytest.mark.e2e

NOT_A_FOLLOWER = Refusal(
    code="PERMISSION_DENIED", reason="NOT_A_FOLLOWER", domain="location.wayfare"
)
NOT_THE_DRIVER = Refusal(
    code="PERMISSION_DENIED", reason="NOT_THE_TRIP_DRIVER", domain="location.wayfare"
)


def _failed(reason: str) -> Refusal:
    return Refusal(code="FAILED_PRECONDITION", reason=reason, domain="location.wayfare")


async def _hello(edge: Edge, token: str, trip: Trip) -> Refusal:
    async with bare_driver(edge, token) as driver:
        await driver.write(hello_for(trip))
        return await driver.end()


@pytest.mark.parametrize("role", ["PASSENGER", "CONDUCTOR", "DRIVER"])
async def test_somebody_who_is_not_of_the_trip_may_not_follow_it(edge: Edge, role: str) -> None:
    trip = await edge.track()
    async with bare_follower(edge, trip, token=edge.mint.token(role)) as follower:
        assert await follower.end() == NOT_A_FOLLOWER


@pytest.mark.parametrize("role", ["PASSENGER", "DRIVER", "CONDUCTOR", "BUSINESS", "ADMIN"])
async def test_nobody_of_another_tenant_may_follow_a_trip(edge: Edge, role: str) -> None:
    trip = await edge.track()
    # Even with the very user ids of the trip.
    user_id = trip.driver_id if role == "DRIVER" else trip.passenger_id
    token = edge.mint.token(role, sub=user_id, tenant_id=OTHER_TENANT_ID)
    async with bare_follower(edge, trip, token=token) as follower:
        assert await follower.end() == NOT_A_FOLLOWER


@pytest.mark.parametrize("role", ["BUSINESS", "ADMIN"])
async def test_staff_may_follow_every_trip_of_their_tenant(edge: Edge, role: str) -> None:
    trip = await edge.track()
    async with bare_follower(edge, trip, token=edge.mint.token(role)) as follower:
        assert (await follower.snapshot()).trip_id == trip.trip_id


async def test_a_trip_that_is_not_there_looks_like_one_that_is_not_yours(edge: Edge) -> None:
    trip = await edge.track()
    absent = replace(trip, trip_id=str(uuid.uuid4()))
    async with bare_follower(edge, absent) as follower:
        assert await follower.end() == NOT_A_FOLLOWER
    assert await _hello(edge, trip.driver_token, absent) == NOT_THE_DRIVER


async def test_another_driver_may_not_publish_for_a_trip(edge: Edge) -> None:
    trip, other = await edge.track(), await edge.track()

    assert await _hello(edge, other.driver_token, trip) == NOT_THE_DRIVER


async def test_a_driver_of_another_tenant_may_not_publish_for_a_trip(edge: Edge) -> None:
    trip = await edge.track()
    token = edge.mint.token("DRIVER", sub=trip.driver_id, tenant_id=OTHER_TENANT_ID)

    assert await _hello(edge, token, trip) == NOT_THE_DRIVER


async def test_positions_reported_for_the_trip_of_another_driver_are_refused(edge: Edge) -> None:
    trip, other = await edge.track(), await edge.track()
    request = location_service_pb2.ReportPositionsRequest(
        vehicle_id=trip.vehicle_id,
        trip_id=trip.trip_id,
        positions=[make_position(53.4, -2.9, capture_time=now())],
    )
    async with edge.channel() as channel:
        call = LocationServiceStub(channel).ReportPositions(
            request, metadata=bearer(other.driver_token)
        )
        assert await refusal_of(call) == NOT_THE_DRIVER


async def test_a_trip_is_driven_with_its_own_vehicle_only(edge: Edge) -> None:
    trip, other = await edge.track(), await edge.track()
    borrowed = replace(trip, vehicle_id=other.vehicle_id)

    assert await _hello(edge, trip.driver_token, borrowed) == _failed("VEHICLE_NOT_OF_TRIP")


async def test_a_driver_who_waits_for_approval_may_not_drive(edge: Edge) -> None:
    account = await register(edge, "DRIVER", approved=False)
    async with bare_driver(edge, account.session.access_token) as driver:
        refused = await driver.end()

    assert (refused.code, refused.reason) == ("PERMISSION_DENIED", "ACCOUNT_PENDING")


async def test_the_vehicle_of_another_tenant_is_not_found(edge: Edge) -> None:
    trip = await edge.track()
    request = location_service_pb2.GetVehiclePositionRequest(vehicle_id=trip.vehicle_id)
    async with bare_driver(edge, trip.driver_token) as driver, edge.channel() as channel:
        await driver.write(hello_for(trip))
        await driver.write(position_message(1))
        await driver.write(status_message(2, trip_pb2.TRIP_STATUS_STARTED))
        await driver.until(lambda: driver.acknowledged_seq() == 2)
        stub = LocationServiceStub(channel)
        ours = edge.mint.token("ADMIN")
        theirs = edge.mint.token("ADMIN", tenant_id=OTHER_TENANT_ID)
        found = await stub.GetVehiclePosition(request, metadata=bearer(ours))
        hidden = await refusal_of(stub.GetVehiclePosition(request, metadata=bearer(theirs)))

    assert found.trip_id == trip.trip_id
    assert (hidden.code, hidden.reason) == ("NOT_FOUND", "VEHICLE_NOT_LIVE")


async def test_a_service_cannot_take_or_stop_the_trip_of_another_tenant(edge: Edge) -> None:
    trip = await edge.track()
    taken = trip_pb2.TrackedTrip(
        trip_id=trip.trip_id,
        tenant_id=OTHER_TENANT_ID,
        driver_id=str(uuid.uuid4()),
        vehicle_id="bus",
    )
    async with edge.mesh_channel("booking") as mesh:
        stub = LocationServiceStub(mesh)
        start = stub.StartTracking(
            location_service_pb2.StartTrackingRequest(trip=taken, request_id=str(uuid.uuid4()))
        )
        assert await refusal_of(start) == _failed("TRIP_OF_ANOTHER_TENANT")
        stop = stub.StopTracking(
            location_service_pb2.StopTrackingRequest(
                trip_id=trip.trip_id, tenant_id=OTHER_TENANT_ID, request_id=str(uuid.uuid4())
            )
        )
        assert await refusal_of(stop) == NOT_A_FOLLOWER


async def test_a_stopped_trip_takes_no_driver_and_no_follower(edge: Edge) -> None:
    trip = await edge.track()
    async with bare_follower(edge, trip) as watching:
        await watching.snapshot()
        await edge.stop_tracking(trip)
        assert (await watching.end()).code == "OK"

    assert await _hello(edge, trip.driver_token, trip) == _failed("TRIP_NOT_TRACKED")
    async with bare_follower(edge, trip) as late:
        assert await late.end() == _failed("TRIP_NOT_TRACKED")
