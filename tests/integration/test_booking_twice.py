"""The same request several times at once, at two processes: none is refused, it is done once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from google.protobuf.message import Message

from tests.support.booking_money import LEG_MINOR, Shop, booking_request, running_shop
from tests.support.booking_process import trip as described
from tests.support.booking_seats import hold_request
from tests.support.booking_tickets import scan
from tests.support.location_values import new_id
from tests.support.stack_fixtures import TestDatabase
from wayfare.booking.v1 import booking_service_pb2 as pb
from wayfare.booking.v1 import manifest_pb2, trip_pb2

pytestmark = pytest.mark.integration
FARE = 3 * LEG_MINOR
ROUNDS, CALLERS = 6, 6


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Is a call, who makes it, and the field of its answer that is always the same."""

    method: str
    request: Message
    user_id: str
    same: str
    role: str = "PASSENGER"


@pytest.fixture
async def shop(
    module_database: TestDatabase, short_folder: Path, valkey_url: str
) -> AsyncIterator[Shop]:
    async with running_shop(
        short_folder, database=module_database, valkey_url=valkey_url, processes=2
    ) as one:
        yield one


async def holds(shop: Shop, trip: trip_pb2.Trip, nour: str) -> Asked:
    request = hold_request(trip, "2A", "2B")
    return Asked(method="HoldSeats", request=request, user_id=nour, same="hold_id")


async def changes_the_hold(shop: Shop, trip: trip_pb2.Trip, nour: str) -> Asked:
    before = await shop.hold(trip, nour, "2A")
    request = hold_request(trip, "2A", "2C", replaced_hold_id=before.hold_id)
    return Asked(method="HoldSeats", request=request, user_id=nour, same="hold_id")


async def extends(shop: Shop, trip: trip_pb2.Trip, nour: str) -> Asked:
    hold = await shop.hold(trip, nour, "2A")
    request = pb.ExtendHoldRequest(hold_id=hold.hold_id, request_id=new_id())
    return Asked(method="ExtendHold", request=request, user_id=nour, same="expire_time")


async def releases(shop: Shop, trip: trip_pb2.Trip, nour: str) -> Asked:
    hold = await shop.hold(trip, nour, "2A")
    request = pb.ReleaseHoldRequest(hold_id=hold.hold_id, request_id=new_id())
    return Asked(method="ReleaseHold", request=request, user_id=nour, same="")


async def books(shop: Shop, trip: trip_pb2.Trip, nour: str) -> Asked:
    request = booking_request(await shop.hold(trip, nour, "2A"))
    return Asked(method="CreateBooking", request=request, user_id=nour, same="booking_code")


async def cancels(shop: Shop, trip: trip_pb2.Trip, nour: str) -> Asked:
    booking = await shop.buy(trip, nour, "2A")
    request = pb.CancelBookingRequest(booking_id=booking.booking_id, request_id=new_id())
    return Asked(method="CancelBooking", request=request, user_id=nour, same="state")


async def moves(shop: Shop, trip: trip_pb2.Trip, nour: str) -> Asked:
    await shop.buy(trip, nour, "2A")
    request = pb.OverrideSeatRequest(
        trip_id=trip.trip_id,
        seat_number="2A",
        action=manifest_pb2.SEAT_OVERRIDE_ACTION_MOVE,
        target_seat_number="5C",
        reason="the seat is broken",
        request_id=new_id(),
    )
    return Asked(
        method="OverrideSeat", request=request, user_id=new_id(), same="override_id", role="ADMIN"
    )


async def scans(shop: Shop, trip: trip_pb2.Trip, nour: str) -> Asked:
    booking = await shop.buy(trip, nour, "2A")
    wanted = pb.GetTicketRequest(ticket_id=booking.passengers[0].ticket_id)
    ticket = await shop.call("GetTicket", wanted, nour)
    request = pb.VerifyTicketRequest(
        trip_id=trip.trip_id, device_id="phone-1", scan=scan(ticket.qr_text)
    )
    return Asked(
        method="VerifyTicket",
        request=request,
        user_id=trip.conductor_ids[0],
        same="reason",
        role="CONDUCTOR",
    )


async def makes_a_trip(shop: Shop, trip: trip_pb2.Trip, nour: str) -> Asked:
    request = pb.CreateTripRequest(trip=described(trip.seat_layout_id), request_id=new_id())
    return Asked(
        method="CreateTrip", request=request, user_id=new_id(), same="trip_id", role="ADMIN"
    )


async def calls_the_trip_off(shop: Shop, trip: trip_pb2.Trip, nour: str) -> Asked:
    await shop.buy(trip, nour, "2A")
    request = pb.CancelTripRequest(
        trip_id=trip.trip_id, cancel_reason="Engine trouble", request_id=new_id()
    )
    return Asked(
        method="CancelTrip", request=request, user_id=new_id(), same="status", role="ADMIN"
    )


async def rotates_the_key(shop: Shop, trip: trip_pb2.Trip, nour: str) -> Asked:
    request = pb.RotateTicketKeyRequest(request_id=new_id())
    return Asked(
        method="RotateTicketKey", request=request, user_id=new_id(), same="key_id", role="ADMIN"
    )


@pytest.mark.parametrize(
    "ask",
    [
        holds,
        changes_the_hold,
        extends,
        releases,
        books,
        cancels,
        moves,
        scans,
        makes_a_trip,
        calls_the_trip_off,
        rotates_the_key,
    ],
)
async def test_whoever_asks_again_at_once_hears_what_the_first_one_heard(
    shop: Shop, ask: Callable[[Shop, trip_pb2.Trip, str], Awaitable[Asked]]
) -> None:
    for _ in range(ROUNDS):
        nour = await shop.passenger(FARE)
        trip = await shop.trip(conductor_ids=[new_id()])
        asked = await ask(shop, trip, nour)

        answers = await asyncio.gather(
            *(
                shop.call(asked.method, asked.request, asked.user_id, asked.role, at=number % 2)
                for number in range(CALLERS)
            )
        )

        heard = [str(getattr(one, asked.same)) if asked.same else str(one) for one in answers]
        assert heard == [heard[0]] * CALLERS
