"""Seat maps, and watching them: no change is lost and none comes twice, whatever happens."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from tests.support.booking_process import BookingProcess, running_booking, timestamp
from tests.support.booking_seats import (
    BLOCKED,
    FREE,
    HELD,
    held,
    hold_request,
    release,
    watching,
)
from tests.support.identity_process import refusal_of
from tests.support.location_tokens import TokenMint
from tests.support.location_values import new_id
from tests.support.stack_fixtures import TestDatabase
from wayfare.booking.v1 import booking_service_pb2 as pb
from wayfare.booking.v1 import trip_pb2

pytestmark = pytest.mark.integration


async def test_a_seat_map_says_what_can_be_had_on_the_legs_asked_for(
    booking: BookingProcess,
) -> None:
    made = await booking.layout(rows=3, blocked=["3D"])
    trip = await booking.trip(made.seat_layout_id)
    await held(booking, trip, "2A", from_stop_id="B", to_stop_id="C")

    request = pb.GetSeatMapRequest(trip_id=trip.trip_id, from_stop_id="A", include_leg_states=True)
    whole = await booking.call("GetSeatMap", request, booking.passenger)
    request.to_stop_id = "B"
    first = await booking.call("GetSeatMap", request, booking.passenger)

    states = {one.seat_number: one.state for one in whole.seats}
    assert (states["2A"], states["3D"], states["1A"]) == (HELD, BLOCKED, FREE)
    legs = {one.seat_number: list(one.leg_states) for one in whole.seats}
    assert legs["2A"] == [FREE, HELD, FREE]
    assert whole.free_seat_count == 10
    assert first.free_seat_count == 11
    assert {one.seat_class_code: one.price.units for one in whole.prices} == {
        "FIRST": 75,
        "STANDARD": 30,
    }
    assert whole.layout == made
    assert whole.on_sale
    assert not whole.degraded
    assert whole.seat_version == 1


async def test_a_seat_map_is_at_most_a_second_old(booking: BookingProcess) -> None:
    trip = await booking.trip()
    request = pb.GetSeatMapRequest(trip_id=trip.trip_id)
    before = await booking.call("GetSeatMap", request, booking.passenger)

    await held(booking, trip, "2A")
    loop = asyncio.get_running_loop()
    committed = loop.time()
    while True:
        after = await booking.call("GetSeatMap", request, booking.passenger)
        if after.seat_version == 1:
            break
        assert loop.time() - committed < 1.5

    assert (before.seat_version, before.free_seat_count) == (0, 40)
    assert after.free_seat_count == 39


async def test_unknown_trips_and_journeys_have_no_map(booking: BookingProcess) -> None:
    trip = await booking.trip()

    unknown = await booking.refused("GetSeatMap", pb.GetSeatMapRequest(trip_id=new_id()))
    turned = await booking.refused(
        "GetSeatMap",
        pb.GetSeatMapRequest(trip_id=trip.trip_id, from_stop_id="C", to_stop_id="B"),
    )

    assert unknown.reason == "TRIP_UNKNOWN"
    assert turned.reason == "STOP_NOT_ON_TRIP"


async def test_a_watcher_sees_every_change_of_the_own_legs_in_order(
    booking: BookingProcess,
) -> None:
    trip = await booking.trip()
    async with watching(booking, trip, from_stop_id="A", to_stop_id="B") as watcher:
        await watcher.sees(lambda one: len(one.snapshots) == 1)

        hold, passenger = await held(booking, trip, "2A", "2B")
        await held(booking, trip, "5A", from_stop_id="B")
        await release(booking, hold, passenger)
        await held(booking, trip, "2A")
        await watcher.sees(lambda one: len(one.changes) == 3)

    assert [one.seat_version for one in watcher.changes] == [1, 3, 4]
    assert [one.free_seat_count for one in watcher.changes] == [38, 40, 39]
    assert watcher.states["2A"] == HELD
    assert watcher.snapshots[0].layout.seat_count == 40
    assert watcher.token == "4"


async def test_a_watcher_is_told_when_a_hold_runs_out(
    migrated_database: TestDatabase, valkey_url: str, short_folder: Path
) -> None:
    dsn = migrated_database.dsn_for("booking")
    clock = LeapingClock()
    async with running_booking(
        short_folder, dsn=dsn, valkey_url=valkey_url, mint=TokenMint(), clock=clock
    ) as booking:
        terms = trip_pb2.SalesTerms(hold_duration=Duration(seconds=30))
        trip = await booking.trip(sales_terms=terms)
        hold, passenger = await held(booking, trip, "2A")
        async with watching(booking, trip) as watcher:
            await watcher.sees(lambda one: one.states.get("2A") == HELD)
            clock.leap(timedelta(seconds=31))
            await watcher.sees(lambda one: one.states["2A"] == FREE)
        late = pb.ExtendHoldRequest(hold_id=hold.hold_id, request_id=new_id())
        refusal = await booking.refused("ExtendHold", late, passenger)
        # Nobody has to wait for the sweep.
        await held(booking, trip, "3A")
        clock.leap(timedelta(seconds=31))
        again, _ = await held(booking, trip, "3A")

    assert refusal.reason == "HOLD_EXPIRED"
    assert again.seats[0].seat_number == "3A"


class LeapingClock:
    """Is the real clock, some time ahead."""

    def __init__(self) -> None:
        self._ahead = timedelta(0)

    def leap(self, by: timedelta) -> None:
        self._ahead += by

    def now(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


async def test_a_stream_that_resumes_gets_every_change_since_and_no_snapshot(
    booking: BookingProcess,
) -> None:
    trip = await booking.trip()
    async with watching(booking, trip) as first:
        await held(booking, trip, "2A")
        await first.sees(lambda one: one.states.get("2A") == HELD)
    hold, passenger = await held(booking, trip, "3A", from_stop_id="A", to_stop_id="B")
    await held(booking, trip, "3A", from_stop_id="C", to_stop_id="D")
    await release(booking, hold, passenger)
    await held(booking, trip, "4A")

    async with watching(booking, trip, resume_token=first.token, states=first.states) as second:
        await second.sees(lambda one: one.states.get("4A") == HELD)
        await held(booking, trip, "5A")
        await second.sees(lambda one: one.states.get("5A") == HELD)
    async with watching(booking, trip) as fresh:
        await fresh.sees(lambda one: len(one.snapshots) == 1)

    assert second.snapshots == []
    # What happens to the seat on its other leg changes nothing for who goes all the way.
    assert [one.seat_version for one in second.changes] == [2, 5, 6]
    assert second.states == fresh.states


@pytest.mark.parametrize("token", ["999", "-1", "²", "other"])
async def test_a_token_that_is_not_known_begins_with_a_snapshot_that_says_so(
    booking: BookingProcess, token: str
) -> None:
    trip = await booking.trip()

    async with watching(booking, trip, resume_token=token) as watcher:
        await watcher.sees(lambda one: len(one.snapshots) == 1)

    assert watcher.snapshots[0].gap


async def test_silent_streams_beat_and_end_when_the_vehicle_leaves(
    migrated_database: TestDatabase, valkey_url: str, short_folder: Path
) -> None:
    dsn = migrated_database.dsn_for("booking")
    async with running_booking(
        short_folder,
        dsn=dsn,
        valkey_url=valkey_url,
        mint=TokenMint(),
        booking_heartbeat_seconds=0.2,
    ) as booking:
        trip = await booking.trip(departs=datetime.now(UTC) + timedelta(seconds=1.5))
        async with watching(booking, trip) as watcher:
            await watcher.sees(
                lambda one: any(update.HasField("heartbeat") for update in one.updates)
            )
            await watcher.sees(lambda one: one.over)
        stub_error = await refused_watch(booking, trip)

    assert watcher.error is None
    assert stub_error == "TRIP_DEPARTED"


async def refused_watch(booking: BookingProcess, trip: trip_pb2.Trip) -> str:
    async with watching(booking, trip) as watcher:
        await watcher.sees(lambda one: one.over)
    assert watcher.error is not None
    return refusal_of(watcher.error).reason


async def test_watchers_learn_that_the_trip_does_not_run(booking: BookingProcess) -> None:
    trip = await booking.trip()
    cancel = pb.CancelTripRequest(trip_id=trip.trip_id, cancel_reason="Snow", request_id=new_id())
    async with watching(booking, trip) as watcher:
        await watcher.sees(lambda one: len(one.snapshots) == 1)
        await booking.call("CancelTrip", cancel)
        await watcher.sees(lambda one: one.over)

    assert watcher.error is not None
    assert refusal_of(watcher.error).reason == "TRIP_CANCELLED"
    assert await refused_watch(booking, trip) == "TRIP_CANCELLED"


async def test_watchers_are_asked_to_leave_before_the_server_stops_and_resume_elsewhere(
    migrated_database: TestDatabase, valkey_url: str, short_folder: Path
) -> None:
    dsn, mint = migrated_database.dsn_for("booking"), TokenMint()
    async with running_booking(short_folder, dsn=dsn, valkey_url=valkey_url, mint=mint) as other:
        async with running_booking(
            short_folder, dsn=dsn, valkey_url=valkey_url, mint=mint
        ) as booking:
            trip = await booking.trip()
            async with watching(booking, trip) as first:
                await held(other, trip, "2A")
                await first.sees(lambda one: one.states.get("2A") == HELD)
                stopping = asyncio.create_task(booking.rpc.drain_and_stop())
                await first.sees(lambda one: one.updates[-1].HasField("drain"))
                await held(other, trip, "3A")
                token, states = first.token, first.states
            await stopping
        async with watching(other, trip, resume_token=token, states=states) as second:
            await second.sees(lambda one: one.states.get("3A") == HELD)

    drain = first.updates[-1].drain if first.updates[-1].HasField("drain") else None
    assert drain is None or drain.reason == "SERVER_DRAINING"


async def test_other_tenants_cannot_watch(booking: BookingProcess) -> None:
    trip = await booking.trip()
    stranger = booking.bearer("PASSENGER", new_id(), tenant_id=new_id())

    async with watching(booking, trip, stranger) as watcher:
        await watcher.sees(lambda one: one.over)

    assert isinstance(watcher.error, grpc.aio.AioRpcError)
    assert refusal_of(watcher.error).reason == "TRIP_UNKNOWN"


async def test_seats_before_the_sale_are_shown_as_not_on_sale(booking: BookingProcess) -> None:
    opens = timestamp(datetime.now(UTC) + timedelta(minutes=30))
    trip = await booking.trip(sales_terms=trip_pb2.SalesTerms(open_time=opens))

    seat_map = await booking.call("GetSeatMap", pb.GetSeatMapRequest(trip_id=trip.trip_id))
    refusal = await booking.refused("HoldSeats", hold_request(trip, "2A"))

    assert not seat_map.on_sale
    assert refusal.reason == "TRIP_NOT_ON_SALE"
