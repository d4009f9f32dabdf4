"""LocationService's unary methods on real stores, and who may call what."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from tests.support.location_process import (
    BOOKING,
    GOOD_API_KEY,
    LocationProcess,
    running_location,
)
from tests.support.location_tokens import TokenMint
from tests.support.location_values import OTHER_TENANT, a_position, new_id, now_milliseconds
from tests.support.stack_fixtures import TestDatabase
from wayfare.location.v1 import location_service_pb2

pb = location_service_pb2


@pytest.fixture
async def location(
    module_database: TestDatabase, valkey_url: str, short_folder: Path
) -> AsyncIterator[LocationProcess]:
    async with running_location(
        short_folder,
        dsn=module_database.dsn_for("location"),
        valkey_url=valkey_url,
        mint=TokenMint(),
    ) as process:
        await process.track()
        yield process


def report(location: LocationProcess, *captures: int, **values: Any) -> pb.ReportPositionsRequest:
    return pb.ReportPositionsRequest(
        **{
            "vehicle_id": "bus-14",
            "trip_id": location.trip.trip_id,
            "positions": [a_position(capture) for capture in captures],
            **values,
        }
    )


def minutes_ago(*minutes: float) -> list[int]:
    now = now_milliseconds()
    return [now - int(minute * 60_000) for minute in minutes]


async def test_reported_positions_become_live_in_the_order_of_capture(
    location: LocationProcess,
) -> None:
    newest, oldest, middle = minutes_ago(0, 2, 1)
    follow = location.follow()
    await follow.next()

    answer = await location.call(
        "ReportPositions", report(location, newest, oldest, middle), location.driver()
    )

    assert (answer.accepted_count, list(answer.rejected)) == (3, [])
    assert answer.min_interval.ToTimedelta().total_seconds() == 3
    # Conflated: some may be left out, none comes after a newer one, the newest comes.
    seen = [0]
    while seen[-1] != newest:
        seen.append((await follow.next()).position.capture_time.ToMilliseconds())
    assert seen == sorted(seen)


async def test_each_refused_position_is_named_with_its_reason(location: LocationProcess) -> None:
    old, good, close, future = minutes_ago(25 * 60, 2, 2 - 0.5 / 60, -10)
    request = report(location, good, old, close, future)
    request.positions.append(a_position(good + 60_000, meters_north=50_000))

    answer = await location.call("ReportPositions", request, location.driver())

    assert answer.accepted_count == 1
    assert {one.index: one.reason for one in answer.rejected} == {
        1: "POSITION_TOO_OLD",
        2: "UPDATE_TOO_FREQUENT",
        3: "POSITION_IN_FUTURE",
        4: "POSITION_IMPLAUSIBLE",
    }


async def test_a_position_that_was_reported_before_is_refused_as_too_old(
    location: LocationProcess,
) -> None:
    request = report(location, *minutes_ago(1))
    await location.call("ReportPositions", request, location.driver())

    answer = await location.call("ReportPositions", request, location.driver())

    assert [one.reason for one in answer.rejected] == ["POSITION_TOO_OLD"]


async def test_the_same_report_by_request_id_is_answered_the_same(
    location: LocationProcess,
) -> None:
    request = report(location, *minutes_ago(2, 1), request_id=new_id())
    first = await location.call("ReportPositions", request, location.driver())

    assert first.accepted_count == 2
    assert await location.call("ReportPositions", request, location.driver()) == first


@pytest.mark.parametrize("method", ["ReportPositions", "SetPresence", "StartTracking"])
async def test_a_request_id_with_another_body_is_refused(
    location: LocationProcess, method: str
) -> None:
    request_id = new_id()
    requests: dict[str, tuple[Message, Message]] = {
        "ReportPositions": (
            report(location, *minutes_ago(2), request_id=request_id),
            report(location, *minutes_ago(1), request_id=request_id),
        ),
        "SetPresence": (
            pb.SetPresenceRequest(vehicle_id="bus-14", online=True, request_id=request_id),
            pb.SetPresenceRequest(vehicle_id="bus-14", online=False, request_id=request_id),
        ),
    }
    if method == "StartTracking":
        await location.track(request_id=request_id)
        with pytest.raises(grpc.aio.AioRpcError, match="used before with another body"):
            await location.track(replace(location.trip, expected_count=1), request_id)
        return
    first, second = requests[method]
    await location.call(method, first, location.driver())

    refusal = await location.refused(method, second, location.driver())

    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.ALREADY_EXISTS,
        "REQUEST_ID_REUSED",
    )
    assert refusal.metadata == {"request_id": request_id}


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"trip_id": new_id()}, "NOT_THE_TRIP_DRIVER"),
        ({"vehicle_id": "bus-99"}, "VEHICLE_NOT_OF_TRIP"),
        ({"vehicle_id": "no spaces"}, "REQUEST_INVALID"),
        ({"trip_id": "no-uuid"}, "REQUEST_INVALID"),
        ({"positions": []}, "REQUEST_INVALID"),
        ({"request_id": "7"}, "REQUEST_INVALID"),
    ],
)
async def test_a_report_for_what_the_driver_does_not_drive_is_refused(
    location: LocationProcess, values: dict[str, Any], reason: str
) -> None:
    request = report(location, *minutes_ago(1), **values)

    assert (await location.refused("ReportPositions", request, location.driver())).reason == reason


async def test_a_colleague_cannot_report_for_the_trip(location: LocationProcess) -> None:
    refusal = await location.refused(
        "ReportPositions", report(location, *minutes_ago(1)), location.bearer("DRIVER")
    )

    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.PERMISSION_DENIED,
        "NOT_THE_TRIP_DRIVER",
    )


async def test_reporting_after_tracking_was_stopped_is_refused(location: LocationProcess) -> None:
    await location.untrack()

    refusal = await location.refused(
        "ReportPositions", report(location, *minutes_ago(1)), location.driver()
    )

    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "TRIP_NOT_TRACKED",
    )


async def test_a_vehicle_is_where_its_driver_reported_it(location: LocationProcess) -> None:
    (capture,) = minutes_ago(1)
    await location.call("ReportPositions", report(location, capture), location.driver())

    answer = await location.call(
        "GetVehiclePosition",
        pb.GetVehiclePositionRequest(vehicle_id="bus-14"),
        location.bearer("BUSINESS"),
    )

    assert (answer.vehicle_id, answer.trip_id) == ("bus-14", location.trip.trip_id)
    assert answer.position.capture_time.ToMilliseconds() == capture
    received = answer.receive_time.ToDatetime(tzinfo=UTC)
    assert abs((datetime.now(UTC) - received).total_seconds()) < 30


@pytest.mark.parametrize(
    ("vehicle_id", "values"), [("bus-99", {}), ("bus-14", {"tenant_id": OTHER_TENANT})]
)
async def test_a_vehicle_that_is_not_the_tenants_is_not_live(
    location: LocationProcess, vehicle_id: str, values: dict[str, str]
) -> None:
    await location.call("ReportPositions", report(location, *minutes_ago(1)), location.driver())

    refusal = await location.refused(
        "GetVehiclePosition",
        pb.GetVehiclePositionRequest(vehicle_id=vehicle_id),
        location.bearer("BUSINESS", **values),
    )

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "VEHICLE_NOT_LIVE")


async def test_an_api_key_sees_its_tenants_vehicles(location: LocationProcess) -> None:
    await location.call("ReportPositions", report(location, *minutes_ago(1)), location.driver())
    request = pb.GetVehiclePositionRequest(vehicle_id="bus-14")

    answer = await location.call("GetVehiclePosition", request, (("x-api-key", GOOD_API_KEY),))
    refusal = await location.refused("GetVehiclePosition", request, (("x-api-key", "wrong"),))

    assert answer.vehicle_id == "bus-14"
    assert refusal.reason == "TOKEN_INVALID"


async def test_presence_lasts_half_a_minute_and_ends_at_once(location: LocationProcess) -> None:
    online = await location.call(
        "SetPresence", pb.SetPresenceRequest(vehicle_id="bus-14", online=True), location.driver()
    )
    offline = await location.call(
        "SetPresence", pb.SetPresenceRequest(vehicle_id="bus-14", online=False), location.driver()
    )

    lasts = online.expire_time.ToDatetime(tzinfo=UTC) - datetime.now(UTC)
    assert 20 < lasts.total_seconds() <= 30
    assert not offline.online
    assert not offline.HasField("expire_time")


async def test_tracking_answers_with_the_trip(location: LocationProcess) -> None:
    answer = await location.track()
    stopped = await location.untrack()

    assert answer.trip_id == location.trip.trip_id
    assert list(answer.follower_ids) == sorted(location.trip.follower_ids)
    assert answer.HasField("start_time")
    assert stopped.HasField("stop_time")
    assert await location.untrack() == stopped


async def test_a_trip_of_another_tenant_cannot_be_taken(location: LocationProcess) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await location.track(replace(location.trip, tenant_id=OTHER_TENANT))

    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION


async def test_stopping_an_unknown_trip_is_refused(location: LocationProcess) -> None:
    request = pb.StopTrackingRequest(
        trip_id=new_id(), tenant_id=location.trip.tenant_id, request_id=new_id()
    )

    assert (await location.refused("StopTracking", request, BOOKING)).reason == "NOT_A_FOLLOWER"
