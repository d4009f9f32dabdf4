"""Watching seats through outages: Valkey stopped or emptied, a process killed, a slow reader."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from redis.asyncio import Redis

from services.booking import seat_messages
from services.booking.domain.trips import Journey
from services.booking.operations.seat_watcher import SeatWatcher
from services.stack.valkey import ValkeyServer
from tests.integration.test_location_faults import own_valkey
from tests.support.booking_process import BookingProcess, running_booking
from tests.support.booking_programs import booking_program
from tests.support.booking_seats import HELD, Watching, held, release, watching
from tests.support.location_tokens import TokenMint
from tests.support.stack_fixtures import TestDatabase
from wayfare.booking.v1 import booking_service_pb2 as pb
from wayfare.booking.v1 import seat_map_pb2, trip_pb2

__all__ = ["own_valkey"]
pytestmark = pytest.mark.integration


async def test_without_valkey_seats_are_held_watched_and_shown_and_nothing_is_lost(
    migrated_database: TestDatabase, own_valkey: ValkeyServer, short_folder: Path
) -> None:
    dsn = migrated_database.dsn_for("booking")
    async with running_booking(
        short_folder,
        dsn=dsn,
        valkey_url=own_valkey.url,
        mint=TokenMint(),
        booking_heartbeat_seconds=0.3,
    ) as booking:
        trip = await booking.trip()
        request = pb.GetSeatMapRequest(trip_id=trip.trip_id)
        async with watching(booking, trip) as watcher:
            await watcher.sees(lambda one: len(one.snapshots) == 1)
            await held(booking, trip, "2A")
            await watcher.sees(lambda one: one.states.get("2A") == HELD)

            await own_valkey.kill()
            await watcher.sees(lambda one: is_degraded(one) is True)
            hold, _ = await held(booking, trip, "3A")
            seat_map = await booking.call("GetSeatMap", request)
            await watcher.sees(lambda one: one.states["3A"] == HELD)

            await own_valkey.start()
            await watcher.sees(lambda one: is_degraded(one) is False)
            after, _ = await held(booking, trip, "4A")
            await watcher.sees(lambda one: one.states["4A"] == HELD)
            healed = await booking.call("GetSeatMap", request)

    assert hold.degraded
    assert not after.degraded
    assert seat_map.degraded
    assert not healed.degraded
    assert {one.seat_number: one.state for one in seat_map.seats}["3A"] == HELD
    assert len(watcher.snapshots) == 1
    assert [one.seat_version for one in watcher.changes] == [1, 2, 3]


def is_degraded(watcher: Watching) -> bool | None:
    """Return what the last heartbeat says."""
    beats = [one.heartbeat.degraded for one in watcher.updates if one.HasField("heartbeat")]
    return beats[-1] if beats else None


async def test_an_emptied_valkey_loses_no_change(booking: BookingProcess, valkey_url: str) -> None:
    trip = await booking.trip()
    async with watching(booking, trip) as watcher, Redis.from_url(valkey_url) as client:
        await watcher.sees(lambda one: len(one.snapshots) == 1)
        for number in range(2, 8):
            await held(booking, trip, f"{number}A")
            await client.flushall()
        await watcher.sees(lambda one: one.states.get("7A") == HELD)

    assert [one.seat_version for one in watcher.changes] == [1, 2, 3, 4, 5, 6]
    assert len(watcher.snapshots) == 1


async def test_who_watches_a_process_that_is_killed_goes_on_with_the_other(
    migrated_database: TestDatabase, valkey_url: str, short_folder: Path
) -> None:
    dsn, mint = migrated_database.dsn_for("booking"), TokenMint()
    async with (
        running_booking(short_folder, dsn=dsn, valkey_url=valkey_url, mint=mint) as booking,
        booking_program(short_folder, dsn=dsn, valkey_url=valkey_url, mint=mint) as program,
    ):
        doomed = BookingProcess(booking.rpc, booking.settings, program.channel, mint)
        trip = await booking.trip()
        changing = asyncio.create_task(change_on(booking, trip, ["2A", "2B", "2C", "2D"] * 10))
        async with watching(doomed, trip) as first:
            await first.sees(lambda one: len(one.changes) >= 10)
            await program.kill()
            await first.sees(lambda one: one.over)
        async with watching(booking, trip, resume_token=first.token, states=first.states) as second:
            await changing
            await second.sees(lambda one: one.token == "80")

    assert first.error is not None
    assert second.snapshots == []
    versions = [one.seat_version for one in (*first.changes, *second.changes)]
    assert versions == list(range(first.snapshots[0].seat_version + 1, 81))


async def change_on(booking: BookingProcess, trip: trip_pb2.Trip, seats: Sequence[str]) -> None:
    """Hold and release one seat after the other."""
    for seat in seats:
        hold, passenger = await held(booking, trip, seat)
        await release(booking, hold, passenger)


async def test_who_reads_too_slowly_gets_a_snapshot_instead_of_what_is_left_out() -> None:
    watcher = SeatWatcher(Journey(0, 1), most=3)
    watcher.version = 10
    for version in range(10, 14):
        watcher.put(version, str(version).encode())

    assert watcher.snapshot_due
    assert watcher.take() == []
    # The stream writes a snapshot of version 13, and goes on.
    watcher.snapshot_due, watcher.version = False, 13
    watcher.put(13, b"13")
    watcher.put(14, b"14")
    assert watcher.take() == [b"14"]


async def test_a_slow_stream_gets_its_snapshot_and_goes_on(
    migrated_database: TestDatabase, valkey_url: str, short_folder: Path
) -> None:
    dsn = migrated_database.dsn_for("booking")
    async with running_booking(
        short_folder,
        dsn=dsn,
        valkey_url=valkey_url,
        mint=TokenMint(),
        booking_watcher_changes_max=1,
        booking_relay_seconds=0.5,
    ) as booking:
        trip = await booking.trip()
        async with watching(booking, trip) as watcher:
            await watcher.sees(lambda one: len(one.snapshots) == 1)
            # All of them reach the hub together, more than may wait for a watcher.
            await change_on(booking, trip, ["2A", "2B", "2C", "2D"] * 2)
            await held(booking, trip, "3A")
            await watcher.sees(lambda one: one.states["3A"] == HELD)

    assert any(one.gap for one in watcher.snapshots)
    assert all(not one.layout.decks for one in watcher.snapshots[1:])


def test_a_drain_notice_says_when_and_why() -> None:
    update = seat_map_pb2.SeatUpdate.FromString(seat_messages.drain_update(1.5, "SERVER_DRAINING"))

    assert update.drain.reason == "SERVER_DRAINING"
    assert update.drain.reconnect_after.ToMilliseconds() == 1_500
