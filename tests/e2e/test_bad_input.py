"""Input that nobody should send: it is refused with a reason, and nobody else notices."""

import math
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.e2e_edge import Edge, Refusal, bearer, end_of_raw_call, now
from tests.support.e2e_programs import headers_of, run_program
from tests.support.e2e_streams import (
    STREAM_DRIVER,
    bare_driver,
    bare_follower,
    hello_for,
    position_message,
    status_message,
)
from wayfare.location.v1 import driver_stream_pb2, trip_pb2
from wayfare_client import make_position

pytestmark = pytest.mark.e2e

DriverMessage = driver_stream_pb2.DriverMessage
SERVICE = "/wayfare.location.v1.LocationService"
TWO_MEBIBYTES = 2 * 1024 * 1024
INSTANCE = "location-1"
# Field 1,000 with wire type 2: part of no message of the contract.
UNKNOWN_FIELD = b"\xc2\x3e\x05hello"
GARBAGE = b"\xff\xfe\xfd not a message"


def changed(change: Callable[[Any], object]) -> Callable[[int], bytes]:
    """Return what makes a good position with the given number, spoilt by `change`."""

    def make(seq: int) -> bytes:
        position = make_position(53.4, -2.9, capture_time=now())
        change(position)
        return DriverMessage(seq=seq, position=position).SerializeToString()

    return make


def _boarding(seq: int) -> bytes:
    message = DriverMessage(seq=seq)
    message.boarding.boarded_count = 2000
    message.boarding.capture_time.FromDatetime(now())
    return message.SerializeToString()


def _set(name: str, value: float) -> Callable[[Any], object]:
    return lambda position: setattr(position, name, value)


def _place(name: str, value: float) -> Callable[[Any], object]:
    return lambda position: setattr(position.location, name, value)


# What is sent as message 1 of a good session, and the number and reason with which it is refused.
REFUSED: dict[str, tuple[Callable[[int], bytes], int, str]] = {
    "a latitude of 91": (changed(_place("latitude", 91)), 1, "REQUEST_INVALID"),
    "a longitude of -181": (changed(_place("longitude", -181)), 1, "REQUEST_INVALID"),
    "no number as latitude": (changed(_place("latitude", math.nan)), 1, "REQUEST_INVALID"),
    "an infinite longitude": (changed(_place("longitude", math.inf)), 1, "REQUEST_INVALID"),
    "no number as speed": (
        changed(_set("speed_meters_per_second", math.nan)),
        1,
        "REQUEST_INVALID",
    ),
    "a negative speed": (changed(_set("speed_meters_per_second", -1)), 1, "REQUEST_INVALID"),
    "a heading of 360": (changed(_set("heading_degrees", 360)), 1, "REQUEST_INVALID"),
    "an accuracy of 20 km": (changed(_set("accuracy_meters", 20_000)), 1, "REQUEST_INVALID"),
    "no place": (changed(lambda p: p.ClearField("location")), 1, "REQUEST_INVALID"),
    "no moment": (changed(lambda p: p.ClearField("capture_time")), 1, "REQUEST_INVALID"),
    "an unknown status": (lambda seq: status_message(seq, 9), 1, "REQUEST_INVALID"),  # type: ignore[arg-type]
    "2,000 passengers": (_boarding, 1, "REQUEST_INVALID"),
    "nothing said": (lambda seq: DriverMessage(seq=seq).SerializeToString(), 1, "REQUEST_INVALID"),
    "an empty message": (lambda _: b"", 0, "REQUEST_INVALID"),
    "a negative number": (lambda _: position_message(-1), 0, "REQUEST_INVALID"),
    "no number": (lambda _: position_message(0), 0, "SEQ_OUT_OF_ORDER"),
    "garbage": (lambda _: GARBAGE, 0, "MESSAGE_MALFORMED"),
    "half a message": (lambda seq: position_message(seq)[:-3], 0, "MESSAGE_MALFORMED"),
    "2 MiB": (lambda seq: position_message(seq) + bytes(TWO_MEBIBYTES), 0, "MESSAGE_TOO_LARGE"),
}


@pytest.mark.parametrize(("make", "seq", "reason"), REFUSED.values(), ids=REFUSED.keys())
async def test_a_bad_message_is_refused_and_the_same_stream_goes_on(
    edge: Edge, make: Callable[[int], bytes], seq: int, reason: str
) -> None:
    trip = await edge.track()
    async with (
        bare_follower(edge, trip) as follower,
        bare_driver(edge, trip.driver_token) as driver,
    ):
        await follower.snapshot()
        await driver.write(hello_for(trip))
        await driver.write(make(1))
        await driver.until(driver.rejected)
        await driver.write(position_message(2, step=5))

        await follower.until(lambda: follower.steps() == [5])
        assert driver.rejected() == {seq: reason}


async def test_a_message_with_fields_of_a_newer_contract_is_taken(edge: Edge) -> None:
    trip = await edge.track()
    async with (
        bare_follower(edge, trip) as follower,
        bare_driver(edge, trip.driver_token) as driver,
    ):
        await follower.snapshot()
        await driver.write(hello_for(trip) + UNKNOWN_FIELD)
        await driver.write(position_message(1, step=5) + UNKNOWN_FIELD)

        await follower.until(lambda: follower.steps() == [5])
        assert driver.rejected() == {}


@pytest.mark.parametrize(
    ("first", "code", "reason"),
    [
        (GARBAGE, "INVALID_ARGUMENT", "MESSAGE_MALFORMED"),
        (b"", "INVALID_ARGUMENT", "REQUEST_INVALID"),
        (bytes(TWO_MEBIBYTES), "RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE"),
        (position_message(1), "FAILED_PRECONDITION", "HELLO_EXPECTED_FIRST"),
        (
            DriverMessage(hello=driver_stream_pb2.DriverHello()).SerializeToString(),
            *("INVALID_ARGUMENT", "REQUEST_INVALID"),
        ),
        (
            DriverMessage(
                hello=driver_stream_pb2.DriverHello(vehicle_id="bus", trip_id="no-uuid")
            ).SerializeToString(),
            *("INVALID_ARGUMENT", "REQUEST_INVALID"),
        ),
    ],
    ids=["garbage", "empty", "2 MiB", "no hello", "no vehicle", "no uuid"],
)
async def test_a_stream_that_begins_badly_ends_with_a_reason(
    edge: Edge, first: bytes, code: str, reason: str
) -> None:
    async with (
        bystander(edge),
        bare_driver(edge, edge.mint.token("DRIVER"), instance=INSTANCE) as driver,
    ):
        await driver.write(first)

        assert await driver.end() == Refusal(code=code, reason=reason, domain="location.wayfare")


UNARY: dict[str, tuple[str, bytes, str, str, str]] = {
    "garbage": ("ReportPositions", GARBAGE, *("INVALID_ARGUMENT", "MESSAGE_MALFORMED", "location")),
    "no positions": ("ReportPositions", b"", *("INVALID_ARGUMENT", "REQUEST_INVALID", "location")),
    "an empty vehicle id": (
        *("GetVehiclePosition", b""),
        *("INVALID_ARGUMENT", "REQUEST_INVALID", "location"),
    ),
    "2 MiB": (
        *("ReportPositions", bytes(TWO_MEBIBYTES)),
        *("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE", "edge"),
    ),
}


@pytest.mark.parametrize(
    ("method", "body", "code", "reason", "domain"), UNARY.values(), ids=UNARY.keys()
)
async def test_a_bad_request_is_refused_with_a_reason(
    edge: Edge, method: str, body: bytes, code: str, reason: str, domain: str
) -> None:
    metadata = bearer(edge.mint.token("DRIVER"), instance=INSTANCE)
    async with bystander(edge), edge.channel() as channel:
        got = await end_of_raw_call(channel, f"{SERVICE}/{method}", body, metadata=metadata)

    assert got == Refusal(code=code, reason=reason, domain=f"{domain}.wayfare")


@pytest.mark.parametrize("body", [GARBAGE, b""], ids=["garbage", "an empty trip id"])
async def test_a_bad_wish_to_follow_is_refused_with_a_reason(edge: Edge, body: bytes) -> None:
    metadata = bearer(edge.mint.token("PASSENGER"), instance=INSTANCE)
    async with bystander(edge), edge.channel() as channel:
        got = await end_of_raw_call(
            channel, f"{SERVICE}/FollowTrip", body, metadata=metadata, streams_answers=True
        )

    reason = "MESSAGE_MALFORMED" if body else "REQUEST_INVALID"
    assert got == Refusal(code="INVALID_ARGUMENT", reason=reason, domain="location.wayfare")


# HTTP/2 data that is no gRPC frame: an unknown flag, a length that never comes, an end in the
# middle of a frame. Envoy hands them on to the process over the connection that all share.
FRAMES: dict[str, bytes] = {
    "an unknown flag": b"\x7f" + struct.pack(">I", 4) + b"abcd",
    "a length of 4 GiB": b"\x00" + struct.pack(">I", 0xFFFFFFFF) + b"abcd",
    "compressed data that is none": b"\x01" + struct.pack(">I", 4) + b"abcd",
    "an end in the middle": b"\x00" + struct.pack(">I", 400) + b"abcd",
    "8 MiB": b"\x00" + struct.pack(">I", 8 << 20) + bytes(8 << 20),
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES.keys())
async def test_a_garbage_frame_amid_a_stream_ends_that_stream_and_no_other(
    edge: Edge, frame: bytes, tmp_path: Path
) -> None:
    trip = await edge.track()
    hello = hello_for(trip)
    (tmp_path / "body").write_bytes(b"\x00" + struct.pack(">I", len(hello)) + hello + frame)
    async with bystander(edge):
        result = await run_program(
            *("curl", "--silent", "--http2-prior-knowledge", "--noproxy", "*", "--max-time", "10"),
            *("--dump-header", "-", "--output", "/dev/null", "--request", "POST"),
            *("-H", "content-type: application/grpc", "-H", "te: trailers"),
            *headers_of(trip.driver_token),
            *("-H", f"x-wayfare-instance: {INSTANCE}"),
            *("--data-binary", f"@{tmp_path / 'body'}", f"{edge.url}{STREAM_DRIVER}"),
        )

    # Where gRPC takes the broken frame for the end of the caller's messages, the status is 0.
    ended = "grpc-status:" in result.output or result.exit_code != 0
    assert ended, result


@asynccontextmanager
async def bystander(edge: Edge) -> AsyncIterator[None]:
    """Keep a good driver and follower on the process under attack; both must not notice."""
    trip = await edge.track()
    async with (
        bare_follower(edge, trip, instance=INSTANCE) as follower,
        bare_driver(edge, trip.driver_token, instance=INSTANCE) as driver,
    ):
        await follower.snapshot()
        await driver.write(hello_for(trip))
        await driver.write(status_message(1, trip_pb2.TRIP_STATUS_STARTED))
        await follower.until(lambda: len(follower.statuses()) == 1)
        yield
        await driver.write(status_message(2, trip_pb2.TRIP_STATUS_PAUSED))
        await follower.until(lambda: len(follower.statuses()) == 2)
        assert driver.rejected() == {}
