"""Valkey stopped, PostgreSQL stopped, a follower that does not read: nothing accepted is lost."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import grpc
import pytest

from services.stack.migrations import prepare_database, role_of
from services.stack.postgres import PostgresServer
from services.stack.valkey import ValkeyServer
from tests.support.location_process import (
    DriverMessage,
    DriverStream,
    LocationProcess,
    running_location,
)
from tests.support.location_tokens import TokenMint
from tests.support.location_values import a_status, a_trip, new_id, now_milliseconds
from tests.support.stack_fixtures import TestDatabase, run_to_completion
from wayfare.location.v1 import driver_stream_pb2, location_service_pb2, trip_pb2

HEARTBEAT_SECONDS = 0.3


@pytest.fixture
def own_valkey(short_folder: Path) -> Iterator[ValkeyServer]:
    home = Path(tempfile.mkdtemp(dir=short_folder))
    server = ValkeyServer(
        data_folder=home / "data", socket_path=home / "valkey.sock", log_path=home / "valkey.log"
    )
    run_to_completion(server.start())
    yield server
    run_to_completion(server.stop())


@pytest.fixture
def own_postgres(short_folder: Path) -> Iterator[PostgresServer]:
    home = Path(tempfile.mkdtemp(dir=short_folder))
    server = PostgresServer(
        data_folder=home / "data",
        socket_folder=home / "run",
        secrets_folder=home / "secrets",
        log_path=home / "postgres.log",
        durable=False,
    )
    run_to_completion(server.start())
    run_to_completion(prepare_database(server, database="wayfare"))
    yield server
    run_to_completion(server.stop())


@pytest.fixture
async def location(
    module_database: TestDatabase, own_valkey: ValkeyServer, short_folder: Path
) -> AsyncIterator[LocationProcess]:
    async with running_location(
        short_folder,
        dsn=module_database.dsn_for("location"),
        valkey_url=own_valkey.url,
        mint=TokenMint(),
        location_heartbeat_seconds=HEARTBEAT_SECONDS,
        location_session_pending_max=20,
    ) as process:
        await process.track()
        yield process


@dataclass
class Sent:
    """What a driver was told."""

    refused: list[tuple[int, str]] = field(default_factory=list)
    degraded: list[bool] = field(default_factory=list)

    async def until_acknowledged(self, drive: DriverStream, seq: int) -> None:
        while True:
            reply = await drive.next()
            if reply.HasField("throttle"):
                self.degraded.append(reply.throttle.degraded)
            if reply.HasField("ack"):
                self.refused += [(one.seq, one.reason) for one in reply.ack.rejected]
                if reply.ack.seq >= seq:
                    return


async def test_while_valkey_is_away_positions_wait_and_none_is_lost(
    location: LocationProcess, own_valkey: ValkeyServer
) -> None:
    start = now_milliseconds() - 3_600_000
    follow = location.follow()
    await follow.next()
    drive, sent = await location.drive(), Sent()
    await drive.position(1, start)
    await sent.until_acknowledged(drive, 1)
    await follow.next()

    await own_valkey.stop()
    for seq in range(2, 12):
        await drive.position(seq, start + seq * 4000)
    await drive.send(DriverMessage(seq=12, status=a_status(trip_pb2.TRIP_STATUS_PAUSED)))
    throttle = (await drive.next()).throttle
    assert (throttle.degraded, throttle.reason) == (True, "DEPENDENCY_UNAVAILABLE")
    while not (beat := await follow.next(heartbeats=True)).heartbeat.degraded:
        assert beat.HasField("heartbeat")
    await own_valkey.start()
    await sent.until_acknowledged(drive, 12)

    assert sent.refused == []
    updates = [await follow.next()]
    while not updates[-1].HasField("status"):
        updates.append(await follow.next())
    # Conflated, but the newest position comes before the status that was sent after it.
    assert updates[-2].position.capture_time.ToMilliseconds() == start + 44_000


async def test_drivers_are_told_when_all_is_well_again(
    location: LocationProcess, own_valkey: ValkeyServer
) -> None:
    drive = await location.drive()
    await own_valkey.stop()
    await drive.position(1, now_milliseconds())
    told = [(await drive.next()).throttle]
    await own_valkey.start()
    while told[-1].degraded:
        reply = await drive.next()
        if reply.HasField("throttle"):
            told.append(reply.throttle)

    assert told[-1].reason == ""


async def test_while_valkey_is_away_the_database_says_who_may_follow(
    location: LocationProcess, own_valkey: ValkeyServer
) -> None:
    await own_valkey.stop()

    allowed = await location.follow().refusal()
    stranger = await location.follow(metadata=location.bearer("PASSENGER")).refusal()

    # Live state itself is away: whoever may follow comes again, whoever may not is told so.
    assert (allowed.code, allowed.reason) == (
        grpc.StatusCode.UNAVAILABLE,
        "DEPENDENCY_UNAVAILABLE",
    )
    assert allowed.retry_seconds is not None
    assert stranger.reason == "NOT_A_FOLLOWER"


async def test_while_valkey_is_away_a_trip_is_begun_and_driven_afterwards(
    location: LocationProcess, own_valkey: ValkeyServer
) -> None:
    await own_valkey.stop()
    location.trip = a_trip()
    await location.track()
    await own_valkey.start()

    drive = await location.drive()
    await drive.position(1, now_milliseconds())

    assert await drive.acknowledged(1) == []


async def test_a_killed_valkey_loses_no_final_position(
    location: LocationProcess, own_valkey: ValkeyServer
) -> None:
    start = now_milliseconds() - 3_600_000
    drive = await location.drive()
    await own_valkey.kill()
    for seq in range(1, 6):
        await drive.position(seq, start + seq * 4000)
    await own_valkey.start()
    await Sent().until_acknowledged(drive, 5)

    snapshot = (await location.follow().next()).snapshot
    assert snapshot.position.capture_time.ToMilliseconds() == start + 20_000


async def test_while_postgresql_is_away_live_positions_go_on(
    own_postgres: PostgresServer, valkey_url: str, short_folder: Path
) -> None:
    async with AsyncExitStack() as stack:
        location = await stack.enter_async_context(
            running_location(
                short_folder,
                dsn=own_postgres.dsn_for(role_of("location"), "wayfare"),
                valkey_url=valkey_url,
                mint=TokenMint(),
            )
        )
        await location.track()
        await own_postgres.stop()

        follow = location.follow()
        assert (await follow.next()).HasField("snapshot")
        drive = await location.drive()
        capture = now_milliseconds()
        await drive.position(1, capture)
        assert await drive.acknowledged(1) == []
        assert (await follow.next()).position.capture_time.ToMilliseconds() == capture

        request = location_service_pb2.StopTrackingRequest(
            trip_id=location.trip.trip_id, tenant_id=location.trip.tenant_id, request_id=new_id()
        )
        certificate = (("x-forwarded-client-cert", "URI=spiffe://wayfare/booking"),)
        refusal = await location.refused("StopTracking", request, certificate)
        assert (refusal.reason, refusal.metadata) == (
            "DEPENDENCY_UNAVAILABLE",
            {"dependency": "postgresql"},
        )


async def test_a_follower_that_does_not_read_is_ended_and_resumes(
    location: LocationProcess,
) -> None:
    # A window of the usual size, which does not grow.
    options = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_535)]
    channel = grpc.aio.insecure_channel(location.settings.listen, options=options)
    follow = replace(location, channel=channel).follow()
    token = (await follow.next()).resume_token
    drive, count = await location.drive(), 6_000

    async def send() -> None:
        for seq in range(1, count + 1):
            report = driver_stream_pb2.BoardingReport(boarded_count=seq % 1000)
            report.capture_time.FromMilliseconds(1_772_366_400_000)
            await drive.send(DriverMessage(seq=seq, boarding=report))

    sending = asyncio.create_task(send())
    assert await drive.acknowledged(count) == []
    await sending

    counts = []
    while not (update := await follow.next()).HasField("drain"):
        counts.append(update.boarding.boarded_count)
        token = update.resume_token
    refusal = await follow.refusal()
    resumed = await location.follow(resume_token=token).next()

    assert counts == [seq % 1000 for seq in range(1, len(counts) + 1)]
    assert len(counts) < count
    assert update.drain.reason == "FOLLOWER_TOO_SLOW"
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "FOLLOWER_TOO_SLOW")
    # It missed more than the events that are kept: it is told of the gap, and all that is known.
    assert resumed.snapshot.gap
    assert resumed.snapshot.boarding.boarded_count == count % 1000
    await channel.close()
