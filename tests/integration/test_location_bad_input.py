"""What a stream answers to messages that break rules, and how streams begin and end."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.support.location_process import (
    DriverMessage,
    DriverReply,
    LocationProcess,
    running_location,
)
from tests.support.location_tokens import TokenMint
from tests.support.location_values import (
    OTHER_TENANT,
    a_position,
    a_status,
    a_trip,
    new_id,
    now_milliseconds,
)
from tests.support.stack_fixtures import TestDatabase
from wayfare.location.v1 import driver_stream_pb2, location_service_pb2, trip_pb2

NAN = float("nan")
HEARTBEAT_SECONDS = 0.2


@pytest.fixture
async def location(
    module_database: TestDatabase, valkey_url: str, short_folder: Path
) -> AsyncIterator[LocationProcess]:
    async with running_location(
        short_folder,
        dsn=module_database.dsn_for("location"),
        valkey_url=valkey_url,
        mint=TokenMint(),
        location_heartbeat_seconds=HEARTBEAT_SECONDS,
        location_hello_seconds=0.3,
    ) as process:
        await process.track()
        yield process


def hello(location: LocationProcess, **values: Any) -> DriverMessage:
    fields = {"vehicle_id": "bus-14", "trip_id": location.trip.trip_id, **values}
    return DriverMessage(hello=driver_stream_pb2.DriverHello(**fields))


def broken_position(**values: float) -> bytes:
    position = a_position()
    for name, value in values.items():
        target = position.location if name in {"latitude", "longitude"} else position
        setattr(target, name, value)
    return DriverMessage(seq=1, position=position).SerializeToString()


def no_capture_time() -> bytes:
    position = a_position()
    position.ClearField("capture_time")
    return DriverMessage(seq=1, position=position).SerializeToString()


def unknown_status() -> bytes:
    # Field 4 holds a status report, whose field 1 is 99.
    return b"\x08\x01\x22\x04\x08\x63\x12\x00"


@pytest.mark.parametrize(
    ("data", "seq", "reason"),
    [
        (broken_position(latitude=NAN), 1, "REQUEST_INVALID"),
        (broken_position(longitude=NAN), 1, "REQUEST_INVALID"),
        (broken_position(latitude=90.001), 1, "REQUEST_INVALID"),
        (broken_position(longitude=-180.001), 1, "REQUEST_INVALID"),
        (broken_position(latitude=float("inf")), 1, "REQUEST_INVALID"),
        (broken_position(speed_meters_per_second=-1), 1, "REQUEST_INVALID"),
        (broken_position(speed_meters_per_second=NAN), 1, "REQUEST_INVALID"),
        (broken_position(heading_degrees=360), 1, "REQUEST_INVALID"),
        (broken_position(accuracy_meters=NAN), 1, "REQUEST_INVALID"),
        (no_capture_time(), 1, "REQUEST_INVALID"),
        (DriverMessage(seq=1).SerializeToString(), 1, "REQUEST_INVALID"),
        (DriverMessage(seq=-1, position=a_position()).SerializeToString(), 0, "REQUEST_INVALID"),
        (
            DriverMessage(seq=1 << 60, position=a_position()).SerializeToString(),
            0,
            "REQUEST_INVALID",
        ),
        (unknown_status(), 1, "REQUEST_INVALID"),
        (b"\xff\xff garbage", 0, "MESSAGE_MALFORMED"),
        (b"\x12" + b"\xff" * 20, 0, "MESSAGE_MALFORMED"),
        (b"\x00" * (2 << 20), 0, "MESSAGE_TOO_LARGE"),
        (b"", 0, "REQUEST_INVALID"),
        (DriverMessage(seq=0, position=a_position()).SerializeToString(), 0, "SEQ_OUT_OF_ORDER"),
    ],
    ids=range(19),
)
async def test_a_broken_message_is_refused_and_the_stream_goes_on(
    location: LocationProcess, data: bytes, seq: int, reason: str
) -> None:
    drive = await location.drive()
    await drive.send(data)
    await drive.position(2, now_milliseconds())

    assert await drive.acknowledged(2) == [(seq, reason)]


async def test_unknown_fields_are_ignored(location: LocationProcess) -> None:
    follow = location.follow()
    await follow.next()
    drive = await location.drive()
    position = a_position().SerializeToString() + b"\xc2\x3e\x06secret"
    await drive.send(b"\x08\x01\x1a" + bytes([len(position)]) + position)

    update = await follow.next()

    assert update.HasField("position")
    assert b"secret" not in update.SerializeToString()


async def test_a_second_hello_is_refused_and_the_stream_goes_on(location: LocationProcess) -> None:
    drive = await location.drive()
    await drive.send(hello(location))
    await drive.position(1, now_milliseconds())

    assert await drive.acknowledged(1) == [(0, "HELLO_EXPECTED_FIRST")]


async def test_positions_that_come_too_often_are_refused(location: LocationProcess) -> None:
    drive = await location.drive()
    start = now_milliseconds() - 10_000
    for seq, offset in enumerate([0, 500, 1000], start=1):
        await drive.position(seq, start + offset)

    assert await drive.acknowledged(3) == [(2, "UPDATE_TOO_FREQUENT")]


async def test_a_status_after_ended_is_refused(location: LocationProcess) -> None:
    drive = await location.drive()
    for seq, value in enumerate([trip_pb2.TRIP_STATUS_ENDED, trip_pb2.TRIP_STATUS_PAUSED], 1):
        await drive.send(DriverMessage(seq=seq, status=a_status(value)))

    assert await drive.acknowledged(2) == [(2, "STATUS_NOT_ALLOWED")]


@pytest.mark.parametrize("who", ["position", "nobody"])
async def test_a_stream_begins_with_hello(location: LocationProcess, who: str) -> None:
    stream = location.open_drive()
    if who == "position":
        await stream.position(1, now_milliseconds())
    else:
        await stream.call.done_writing()

    refusal = await stream.refusal()

    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "HELLO_EXPECTED_FIRST",
    )


async def test_a_stream_that_says_nothing_is_ended(location: LocationProcess) -> None:
    refusal = await location.open_drive().refusal()

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "HELLO_TIMEOUT")
    assert refusal.metadata == {"timeout_seconds": "0.3"}


@pytest.mark.parametrize(
    ("values", "code", "reason"),
    [
        ({"trip_id": new_id()}, "PERMISSION_DENIED", "NOT_THE_TRIP_DRIVER"),
        ({"vehicle_id": "bus-99"}, "FAILED_PRECONDITION", "VEHICLE_NOT_OF_TRIP"),
        ({"vehicle_id": ""}, "INVALID_ARGUMENT", "REQUEST_INVALID"),
        ({"vehicle_id": "x" * 65}, "INVALID_ARGUMENT", "REQUEST_INVALID"),
        ({"trip_id": "7"}, "INVALID_ARGUMENT", "REQUEST_INVALID"),
        ({"resume_seq": -1}, "INVALID_ARGUMENT", "REQUEST_INVALID"),
    ],
)
async def test_a_hello_that_cannot_be_is_refused(
    location: LocationProcess, values: dict[str, Any], code: str, reason: str
) -> None:
    stream = location.open_drive()
    await stream.send(hello(location, **values))

    refusal = await stream.refusal()

    assert (refusal.code.name, refusal.reason) == (code, reason)


@pytest.mark.parametrize(
    ("role", "values", "reason"),
    [
        ("PASSENGER", {}, "NOT_A_FOLLOWER"),
        ("DRIVER", {}, "NOT_A_FOLLOWER"),
        ("ADMIN", {"tenant_id": OTHER_TENANT}, "NOT_A_FOLLOWER"),
        ("ADMIN", {"lasts_seconds": -1}, "TOKEN_EXPIRED"),
        ("ADMIN", {"aud": "elsewhere"}, "TOKEN_INVALID"),
        ("CAPTAIN", {}, "TOKEN_INVALID"),
    ],
)
async def test_a_stranger_cannot_follow(
    location: LocationProcess, role: str, values: dict[str, Any], reason: str
) -> None:
    refusal = await location.follow(metadata=location.bearer(role, **values)).refusal()

    assert refusal.reason == reason


async def test_a_trip_that_is_not_there_and_one_that_is_not_yours_look_the_same(
    location: LocationProcess,
) -> None:
    passenger = location.bearer("PASSENGER")
    theirs = await location.follow(metadata=passenger).refusal()
    location.trip = a_trip()
    nobodys = await location.follow(metadata=passenger).refusal()

    assert (theirs.code, theirs.reason, theirs.message) == (
        nobodys.code,
        nobodys.reason,
        nobodys.message,
    )


@pytest.mark.parametrize("who", ["driver", "conductor", "staff"])
async def test_a_trips_people_may_follow(location: LocationProcess, who: str) -> None:
    metadata = {
        "driver": location.driver(),
        "conductor": location.bearer("CONDUCTOR", next(iter(location.trip.conductor_ids))),
        "staff": location.bearer("BUSINESS"),
    }[who]

    assert (await location.follow(metadata=metadata).next()).HasField("snapshot")


async def test_a_passenger_follows_five_trips_at_once(location: LocationProcess) -> None:
    passenger = new_id()
    metadata = location.bearer("PASSENGER", passenger)
    streams = []
    for _ in range(5):
        location.trip = a_trip(follower_ids=frozenset({passenger}))
        await location.track()
        streams.append(location.follow(metadata=metadata))
        assert (await streams[-1].next()).HasField("snapshot")
    again = location.follow(metadata=metadata)
    assert (await again.next()).HasField("snapshot")
    location.trip = a_trip(follower_ids=frozenset({passenger}))
    await location.track()

    refusal = await location.follow(metadata=metadata).refusal()
    assert (refusal.code, refusal.reason, refusal.metadata) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "TOO_MANY_FOLLOWED_TRIPS",
        {"max_trips": "5"},
    )

    streams[0].call.cancel()
    async with asyncio.timeout(5):
        while True:
            stream = location.follow(metadata=metadata)
            try:
                assert (await stream.next()).HasField("snapshot")
                break
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.05)


async def test_a_silent_stream_has_heartbeats(location: LocationProcess) -> None:
    follow = location.follow()
    drive = await location.drive()
    assert (await follow.next()).HasField("snapshot")

    assert (await follow.next(heartbeats=True)).HasField("heartbeat")
    async with asyncio.timeout(5):
        assert DriverReply.FromString(await drive.call.read()).HasField("heartbeat")


async def test_a_stream_ends_with_its_token_after_a_notice(location: LocationProcess) -> None:
    follow = location.follow(metadata=location.follower(lasts_seconds=1.0))
    drive = await location.drive(metadata=location.driver(lasts_seconds=1.0))
    assert (await follow.next()).HasField("snapshot")

    assert (await follow.next()).drain.reason == "TOKEN_EXPIRED"
    assert (await drive.next()).drain.reason == "TOKEN_EXPIRED"
    assert (await follow.refusal()).reason == "TOKEN_EXPIRED"
    assert (await drive.refusal()).reason == "TOKEN_EXPIRED"


async def test_a_server_that_stops_asks_its_streams_to_leave(location: LocationProcess) -> None:
    follow, drive = location.follow(), await location.drive()
    await follow.next()
    stopping = asyncio.create_task(location.rpc.drain_and_stop())

    assert (await follow.next()).drain.reason == "SERVER_DRAINING"
    assert (await drive.next()).drain.reason == "SERVER_DRAINING"
    refusal = await location.follow().refusal()
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING")
    assert refusal.retry_seconds is not None
    follow.call.cancel()
    drive.call.cancel()
    await asyncio.wait_for(stopping, 10)


async def test_following_with_an_empty_id_is_refused_with_the_field(
    location: LocationProcess,
) -> None:
    location.trip = a_trip(trip_id="")

    refusal = await location.follow().refusal()

    assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("trip_id",))


async def test_a_call_that_is_too_large_is_refused(location: LocationProcess) -> None:
    request = location_service_pb2.FollowTripRequest(resume_token="x" * (2 << 20))

    refusal = await location.refused("GetTripTrack", request, location.bearer("ADMIN"))

    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "MESSAGE_TOO_LARGE",
    )
    assert refusal.metadata["max_bytes"] == "1048576"
