"""Drivers and followers on two servers that share Valkey and PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import pytest

from services.location.domain.trips import TrackedTrip
from tests.support.location_process import (
    DriverMessage,
    FollowStream,
    LocationProcess,
    running_location,
)
from tests.support.location_tokens import TokenMint
from tests.support.location_values import a_status, new_id, now_milliseconds
from tests.support.stack_fixtures import TestDatabase
from wayfare.location.v1 import driver_stream_pb2, trip_pb2

STARTED = trip_pb2.TRIP_STATUS_STARTED
PAUSED = trip_pb2.TRIP_STATUS_PAUSED
ENDED = trip_pb2.TRIP_STATUS_ENDED


@dataclass
class Pair:
    """Two servers; the trip is tracked."""

    one: LocationProcess
    two: LocationProcess
    start: int


@pytest.fixture
async def pair(
    module_database: TestDatabase, valkey_url: str, short_folder: Path
) -> AsyncIterator[Pair]:
    mint = TokenMint()
    async with AsyncExitStack() as stack:
        servers: list[LocationProcess] = []
        for _ in range(2):
            server = await stack.enter_async_context(
                running_location(
                    short_folder,
                    dsn=module_database.dsn_for("location"),
                    valkey_url=valkey_url,
                    mint=mint,
                    trip=servers[0].trip if servers else None,
                )
            )
            servers.append(server)
        await servers[0].track()
        yield Pair(servers[0], servers[1], now_milliseconds() - 60_000)


def status(seq: int, value: trip_pb2.TripStatus.ValueType) -> DriverMessage:
    return DriverMessage(seq=seq, status=a_status(value))


def boarding(seq: int, count: int) -> DriverMessage:
    report = driver_stream_pb2.BoardingReport(boarded_count=count)
    report.capture_time.GetCurrentTime()
    return DriverMessage(seq=seq, boarding=report)


async def opened(follow: FollowStream) -> str:
    """Read the snapshot and return its token."""
    update = await follow.next()
    assert update.HasField("snapshot")
    return update.resume_token


async def test_a_follower_on_one_server_sees_what_the_driver_sends_to_the_other(
    pair: Pair,
) -> None:
    follow = pair.two.follow()
    await opened(follow)
    drive = await pair.one.drive()
    await drive.send(status(1, STARTED))
    await drive.position(2, pair.start)
    await drive.send(boarding(3, 7))

    first, second, third = [await follow.next() for _ in range(3)]

    assert first.status.status == STARTED
    assert second.position.capture_time.ToMilliseconds() == pair.start
    assert (third.boarding.boarded_count, third.boarding.expected_count) == (7, 30)
    assert await drive.acknowledged(3) == []


async def test_a_new_follower_gets_all_that_is_known_first(pair: Pair) -> None:
    drive = await pair.one.drive()
    await drive.send(status(1, PAUSED))
    await drive.position(2, pair.start)
    await drive.send(boarding(3, 7))
    await drive.acknowledged(3)

    snapshot = (await pair.two.follow().next()).snapshot

    assert (snapshot.trip_id, snapshot.vehicle_id) == (pair.one.trip.trip_id, "bus-14")
    assert snapshot.status == PAUSED
    assert snapshot.position.capture_time.ToMilliseconds() == pair.start
    assert snapshot.boarding.boarded_count == 7
    assert not snapshot.gap


async def test_a_token_brings_exactly_the_missed_events_through_any_server(pair: Pair) -> None:
    follow = pair.one.follow()
    await opened(follow)
    drive = await pair.one.drive()
    await drive.send(status(1, STARTED))
    token = (await follow.next()).resume_token
    follow.call.cancel()
    await drive.send(status(2, PAUSED))
    await drive.position(3, pair.start)
    await drive.send(boarding(4, 1))
    await drive.position(5, pair.start + 3000)
    await drive.acknowledged(5)

    resumed = pair.two.follow(resume_token=token)
    missed = [await resumed.next() for _ in range(3)]
    await drive.send(boarding(6, 2))
    missed.append(await resumed.next())

    assert [update.WhichOneof("update") for update in missed] == [
        "status",
        "boarding",
        "position",
        "boarding",
    ]
    assert missed[0].status.status == PAUSED
    assert missed[2].position.capture_time.ToMilliseconds() == pair.start + 3000
    assert missed[3].boarding.boarded_count == 2


@pytest.mark.parametrize("token", ["0123456789abcdef", "not a token", "00000000ffffffff"])
async def test_a_token_that_is_not_known_brings_a_snapshot_with_a_gap(
    pair: Pair, token: str
) -> None:
    update = await pair.two.follow(resume_token=token).next()

    assert update.snapshot.gap


async def test_the_last_status_ends_the_followers_streams(pair: Pair) -> None:
    follow = pair.two.follow()
    await opened(follow)
    drive = await pair.one.drive()
    await drive.send(status(1, STARTED))
    await drive.send(status(2, ENDED))

    updates = await follow.rest()

    assert [update.status.status for update in updates] == [STARTED, ENDED]


async def test_a_trip_that_ended_cannot_be_followed_but_its_end_can_be_resumed(
    pair: Pair,
) -> None:
    follow = pair.one.follow()
    token = await opened(follow)
    follow.call.cancel()
    drive = await pair.one.drive()
    await drive.send(status(1, ENDED))
    await drive.acknowledged(1)

    refusal = await pair.two.follow().refusal()
    updates = await pair.two.follow(resume_token=token).rest()

    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "TRIP_NOT_TRACKED",
    )
    assert [update.status.status for update in updates] == [ENDED]


async def test_stopping_the_tracking_ends_the_followers_streams(pair: Pair) -> None:
    follow = pair.two.follow()
    await opened(follow)
    await pair.one.untrack()

    assert await follow.rest() == []


async def test_after_tracking_was_stopped_a_driver_s_position_is_refused(pair: Pair) -> None:
    drive = await pair.one.drive()
    await pair.one.untrack()
    await drive.position(1, pair.start)

    assert await drive.acknowledged(1) == [(1, "TRIP_NOT_TRACKED")]
    again = pair.one.open_drive()
    hello = driver_stream_pb2.DriverHello(vehicle_id="bus-14", trip_id=pair.one.trip.trip_id)
    await again.send(DriverMessage(hello=hello))
    assert (await again.refusal()).reason == "TRIP_NOT_TRACKED"


async def test_a_newer_stream_takes_over_from_the_older(pair: Pair) -> None:
    old = await pair.one.drive()
    await old.position(1, pair.start)
    await old.acknowledged(1)
    new = await pair.two.drive(resume_seq=1)
    await old.position(2, pair.start + 3000)
    await new.position(2, pair.start + 3000)

    refusal = await old.refusal()

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "SESSION_SUPERSEDED")
    assert await new.acknowledged(2) == []


async def test_a_phone_resumes_after_what_was_decided(pair: Pair) -> None:
    drive = await pair.one.drive()
    for seq in (1, 2, 3):
        await drive.position(seq, pair.start + seq * 3000)
    await drive.acknowledged(3)
    drive.call.cancel()

    stream = pair.two.open_drive()
    hello = driver_stream_pb2.DriverHello(
        vehicle_id="bus-14", trip_id=pair.one.trip.trip_id, resume_seq=1
    )
    await stream.send(DriverMessage(hello=hello))
    welcome = (await stream.next()).welcome
    assert welcome.resume_seq == 3
    # Sent again for safety, and then something new.
    await stream.position(2, pair.start + 6000)
    await stream.position(4, pair.start + 12_000)

    assert await stream.acknowledged(4) == []


async def test_goodbye_acknowledges_all_and_ends_in_good_order(pair: Pair) -> None:
    drive = await pair.one.drive()
    await drive.position(1, pair.start)
    await drive.send(DriverMessage(goodbye=driver_stream_pb2.DriverGoodbye()))

    assert await drive.acknowledged(1) == []
    async with asyncio.timeout(5):
        assert await drive.call.read() == grpc.aio.EOF
    assert await drive.call.code() == grpc.StatusCode.OK


async def test_a_driver_who_is_replaced_is_told_so(pair: Pair) -> None:
    drive = await pair.one.drive()
    await pair.one.track(_with_driver(pair.one, new_id()))
    await drive.position(1, pair.start)

    # In another bucket nothing is left of the trip: then the phone learns it from its next hello.
    assert (await drive.refusal()).reason in {"NOT_THE_TRIP_DRIVER", "DEPENDENCY_UNAVAILABLE"}
    again = pair.two.open_drive()
    hello = driver_stream_pb2.DriverHello(vehicle_id="bus-14", trip_id=pair.one.trip.trip_id)
    await again.send(DriverMessage(hello=hello))
    assert (await again.refusal()).reason == "NOT_THE_TRIP_DRIVER"


def _with_driver(server: LocationProcess, driver_id: str) -> TrackedTrip:
    return replace(server.trip, driver_id=driver_id)


async def test_a_trip_id_in_capitals_is_the_same_trip(pair: Pair) -> None:
    follow = pair.two.follow()
    await opened(follow)
    drive = await pair.one.drive(trip_id=pair.one.trip.trip_id.upper())
    await drive.position(1, pair.start)

    assert (await follow.next()).HasField("position")
