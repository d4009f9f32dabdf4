"""Two booking processes and one hold: what one did with it, the other one knows."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration

from tests.support.booking_money import AheadClock, booking_request
from tests.support.booking_process import BookingProcess, Metadata, running_booking
from tests.support.booking_seats import hold_request
from tests.support.location_tokens import TokenMint
from tests.support.location_values import new_id
from tests.support.stack_fixtures import TestDatabase
from wayfare.booking.v1 import booking_pb2, hold_pb2, trip_pb2
from wayfare.booking.v1 import booking_service_pb2 as pb

pytestmark = pytest.mark.integration
_TERMS = trip_pb2.SalesTerms(
    hold_duration=Duration(seconds=60), payment_duration=Duration(seconds=300)
)


@pytest.fixture
def clock() -> AheadClock:
    return AheadClock()


@pytest.fixture
async def processes(
    migrated_database: TestDatabase, valkey_url: str, short_folder: Path, clock: AheadClock
) -> AsyncIterator[list[BookingProcess]]:
    mint = TokenMint()
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                running_booking(
                    short_folder,
                    dsn=migrated_database.dsn_for("booking"),
                    valkey_url=valkey_url,
                    mint=mint,
                    clock=clock,
                )
            )
            for _ in range(2)
        ]


async def held_and_known(
    first: BookingProcess, second: BookingProcess
) -> tuple[trip_pb2.Trip, hold_pb2.Hold, Metadata]:
    """Hold seat 3A at the first process; the second one remembers the trip with that hold."""
    trip, passenger = await first.trip(sales_terms=_TERMS), first.passenger
    hold = await first.call("HoldSeats", hold_request(trip, "3A"), passenger)
    await second.call("HoldSeats", hold_request(trip, "3B"), second.passenger)
    return trip, hold, passenger


async def test_a_hold_that_another_process_extended_keeps_its_seats(
    processes: list[BookingProcess], clock: AheadClock
) -> None:
    first, second = processes
    trip, hold, passenger = await held_and_known(first, second)

    clock.ahead = timedelta(seconds=50)
    request = pb.ExtendHoldRequest(hold_id=hold.hold_id, request_id=new_id())
    await first.call("ExtendHold", request, passenger)
    clock.ahead = timedelta(seconds=70)
    refusal = await second.refused("HoldSeats", hold_request(trip, "3A"), second.passenger)
    request = pb.ExtendHoldRequest(hold_id=hold.hold_id, request_id=new_id())
    again = await second.refused("ExtendHold", request, passenger)
    shown = await second.call("ListHolds", pb.ListHoldsRequest(), passenger)

    assert refusal.reason == "SEAT_HELD"
    assert again.reason == "HOLD_EXTENSIONS_USED"
    assert [one.state for one in shown.holds] == [hold_pb2.HOLD_STATE_ACTIVE]


async def test_a_hold_that_is_being_paid_at_another_process_keeps_its_seats(
    processes: list[BookingProcess], clock: AheadClock
) -> None:
    """The ledger is away, so the payment takes longer than the hold would have lasted."""
    first, second = processes
    trip, hold, passenger = await held_and_known(first, second)

    booking = await first.call("CreateBooking", booking_request(hold), passenger)
    clock.ahead = timedelta(seconds=70)
    refusal = await second.refused("HoldSeats", hold_request(trip, "3A"), second.passenger)
    request = pb.ReleaseHoldRequest(hold_id=hold.hold_id, request_id=new_id())
    release = await second.refused("ReleaseHold", request, passenger)
    shown = await second.call("ListHolds", pb.ListHoldsRequest(), passenger)

    assert booking.state == booking_pb2.BOOKING_STATE_PENDING_PAYMENT
    assert (refusal.reason, release.reason) == ("SEAT_HELD", "HOLD_NOT_ACTIVE")
    assert [one.state for one in shown.holds] == [hold_pb2.HOLD_STATE_PAYING]
