"""An ADMIN changes seats that are sold or being paid: ticket, money and followers go with them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.booking_money import (
    CANCELLED,
    CASH,
    CONFIRMED,
    GATEWAY,
    LEG_MINOR,
    PAID,
    PENDING,
    Shop,
    booking_request,
    running_shop,
)
from tests.support.booking_process import money
from tests.support.booking_seats import BOOKED, FREE, watching
from tests.support.booking_tickets import CHECK, scan
from tests.support.ledger_deposits import SETTINGS
from tests.support.ledger_process import minor
from tests.support.location_values import new_id
from tests.support.stack_fixtures import TestDatabase
from wayfare.booking.v1 import booking_pb2, events_pb2, hold_pb2, manifest_pb2, ticket_pb2, trip_pb2
from wayfare.booking.v1 import booking_service_pb2 as pb

pytestmark = pytest.mark.integration
RELEASE = manifest_pb2.SEAT_OVERRIDE_ACTION_RELEASE
MOVE = manifest_pb2.SEAT_OVERRIDE_ACTION_MOVE
REFUNDED = booking_pb2.PAYMENT_STATE_REFUNDED
BOARDED = booking_pb2.BOARDING_STATE_BOARDED
_FARE = 3 * LEG_MINOR
# Longer than the saga is left to whoever moved it.
_PATIENCE_SECONDS = 5


@pytest.fixture
async def shop(
    module_database: TestDatabase, valkey_url: str, short_folder: Path
) -> AsyncIterator[Shop]:
    async with running_shop(
        short_folder, database=module_database, valkey_url=valkey_url, ledger_values=SETTINGS
    ) as one:
        yield one


def override(
    trip: trip_pb2.Trip, seat: str, target: str = "", **values: str
) -> pb.OverrideSeatRequest:
    """Return the request that releases a seat, or moves its passenger to another."""
    return pb.OverrideSeatRequest(
        trip_id=trip.trip_id,
        seat_number=seat,
        action=MOVE if target else RELEASE,
        target_seat_number=target,
        reason="The belt is broken",
        request_id=new_id(),
        **values,
    )


async def by_admin(shop: Shop, request: pb.OverrideSeatRequest) -> manifest_pb2.SeatOverride:
    made: manifest_pb2.SeatOverride = await shop.call("OverrideSeat", request, new_id(), "ADMIN")
    return made


async def ticket_of(shop: Shop, user_id: str, ticket_id: str) -> ticket_pb2.Ticket:
    found: ticket_pb2.Ticket = await shop.call(
        "GetTicket", pb.GetTicketRequest(ticket_id=ticket_id), user_id
    )
    return found


async def verify(
    shop: Shop, trip: trip_pb2.Trip, ticket: ticket_pb2.Ticket, **values: Any
) -> ticket_pb2.ScanResult:
    """Scan as the trip's conductor."""
    request = pb.VerifyTicketRequest(
        trip_id=trip.trip_id, device_id="phone-1", scan=scan(ticket.qr_text, **values)
    )
    result: ticket_pb2.ScanResult = await shop.call(
        "VerifyTicket", request, trip.conductor_ids[0], "CONDUCTOR"
    )
    return result


async def crewed(shop: Shop) -> trip_pb2.Trip:
    return await shop.trip(conductor_ids=[new_id()])


async def test_a_moved_passenger_keeps_the_price_and_gets_a_ticket_for_the_new_seat(
    shop: Shop,
) -> None:
    nour, trip = await shop.passenger(10_000), await crewed(shop)
    before = await shop.buy(trip, nour, "2A", "2B")
    await shop.until_payment(before.booking_id, PAID)
    old = await ticket_of(shop, nour, before.passengers[0].ticket_id)

    async with watching(shop.booking, trip) as watcher:
        # 1A is FIRST: dearer, and yet the price stays.
        made = await by_admin(shop, override(trip, "2A", "1A"))
        await watcher.sees(lambda one: one.states.get("2A") == FREE and one.states["1A"] == BOOKED)
    after = await shop.get(before.booking_id)
    new = await ticket_of(shop, nour, after.passengers[0].ticket_id)
    revoked = await ticket_of(shop, nour, old.ticket_id)

    assert list(made.booking_ids) == [before.booking_id]
    assert list(made.hold_ids) == []
    assert [one.seat_number for one in after.passengers] == ["1A", "2B"]
    assert after.passengers[1].ticket_id == before.passengers[1].ticket_id
    assert (after.state, after.amount, after.passengers[0].price) == (
        CONFIRMED,
        before.amount,
        before.passengers[0].price,
    )
    assert (revoked.state, new.state) == (
        ticket_pb2.TICKET_STATE_REVOKED,
        ticket_pb2.TICKET_STATE_VALID,
    )
    assert await shop.claims(trip.trip_id) == dict.fromkeys(
        ("1A", "2B"), ("BOOKED", before.booking_id)
    )
    assert await shop.money_of(nour) == (10_000 - 2 * _FARE, 0)
    assert (await verify(shop, trip, old)).reason == "TICKET_REVOKED"
    scanned = await verify(shop, trip, new)
    assert (scanned.accepted, scanned.seat_number, scanned.passenger_name) == (
        True,
        "1A",
        "Nour 2A",
    )
    told = await shop.booking.events("booking", before.booking_id)
    (lost,) = [one for one in told if isinstance(one, events_pb2.TicketsRevoked)]
    assert list(lost.ticket_ids) == [old.ticket_id]


async def test_a_passenger_on_board_stays_on_board_in_another_seat(shop: Shop) -> None:
    nour, trip = await shop.passenger(), await crewed(shop)
    booking = await shop.buy(trip, nour, "2A")
    old = await ticket_of(shop, nour, booking.passengers[0].ticket_id)
    assert (await verify(shop, trip, old)).accepted

    await by_admin(shop, override(trip, "2A", "5C"))

    manifest: manifest_pb2.Manifest = await shop.call(
        "GetManifest",
        pb.GetManifestRequest(trip_id=trip.trip_id),
        trip.conductor_ids[0],
        "CONDUCTOR",
    )
    (entry,) = manifest.entries
    assert (entry.seat_number, entry.boarding_state) == ("5C", BOARDED)
    assert manifest.boarding_counts.boarded_count == 1
    new = await ticket_of(shop, nour, entry.ticket_id)
    assert (await verify(shop, trip, new)).reason == "TICKET_ALREADY_USED"
    assert (await verify(shop, trip, new, kind=CHECK)).accepted


async def test_cash_that_is_due_is_due_in_the_other_seat_too(shop: Shop) -> None:
    nour, trip = await shop.passenger(0), await crewed(shop)
    booking = await shop.buy(trip, nour, "2A", method=CASH)
    await by_admin(shop, override(trip, "2A", "5C"))
    moved = await shop.get(booking.booking_id)

    result = await verify(shop, trip, await ticket_of(shop, nour, moved.passengers[0].ticket_id))

    assert result.cash_due == money(_FARE)
    await shop.until_payment(booking.booking_id, PAID)


async def test_nobody_is_moved_onto_another(shop: Shop) -> None:
    trip = await shop.trip(layout_id=(await shop.booking.layout(blocked=["9D"])).seat_layout_id)
    nour, omar = await shop.passenger(), await shop.passenger()
    booking = await shop.buy(trip, nour, "2A")
    await shop.buy(trip, omar, "2B")
    await shop.hold(trip, new_id(), "2C", from_stop="C")

    refused = [
        (await shop.refused("OverrideSeat", override(trip, "2A", to), new_id(), "ADMIN")).reason
        for to in ("2A", "2B", "2C", "9D", "99Z")
    ]

    assert refused == ["SEAT_BOOKED", "SEAT_BOOKED", "SEAT_HELD", "SEAT_BLOCKED", "SEAT_UNKNOWN"]
    after = await shop.get(booking.booking_id)
    assert after.passengers[0].ticket_id == booking.passengers[0].ticket_id
    assert (await shop.claims(trip.trip_id))["2A"] == ("BOOKED", booking.booking_id)


async def test_the_same_move_twice_at_once_is_one_and_its_answer_the_same(shop: Shop) -> None:
    nour, trip, admin = await shop.passenger(), await shop.trip(), new_id()
    booking = await shop.buy(trip, nour, "2A")
    request = override(trip, "2A", "5C")

    answers = await asyncio.gather(
        *(shop.call("OverrideSeat", request, admin, "ADMIN") for _ in range(5))
    )

    assert len({one.override_id for one in answers}) == 1
    assert all(one == answers[0] for one in answers)
    assert await shop.claims(trip.trip_id) == {"5C": ("BOOKED", booking.booking_id)}
    good = await shop.rows(
        "SELECT seat_number FROM booking.tickets WHERE booking_id = $1 AND revoke_time IS NULL",
        booking.booking_id,
    )
    assert [row[0] for row in good] == ["5C"]


async def test_a_released_seat_cancels_its_booking_whole_and_all_the_money_comes_back(
    shop: Shop,
) -> None:
    nour, trip = await shop.passenger(10_000), await crewed(shop)
    booking = await shop.buy(trip, nour, "2A", "2B")
    await shop.until_payment(booking.booking_id, PAID)
    ticket = await ticket_of(shop, nour, booking.passengers[1].ticket_id)

    # A leg of it is enough.
    made = await by_admin(shop, override(trip, "2A", from_stop_id="B", to_stop_id="C"))
    shop.seconds_pass(_PATIENCE_SECONDS)
    after = await shop.until_payment(booking.booking_id, REFUNDED)

    assert list(made.booking_ids) == [booking.booking_id]
    assert after.state == CANCELLED
    assert after.cancellation.cause == booking_pb2.CANCELLATION_CAUSE_OPERATOR
    assert after.cancellation.reason == "The belt is broken"
    assert minor(after.cancellation.fee) == 0
    assert minor(after.payment.refunded_amount) == 2 * _FARE
    assert await shop.money_of(nour) == (10_000, 0)
    assert await shop.claims(trip.trip_id) == {}
    assert (await verify(shop, trip, ticket)).reason == "TICKET_REVOKED"
    told = await shop.booking.events("trip", trip.trip_id)
    moves = [one for one in told if hasattr(one, "expected_count")]
    assert [(type(one).__name__, one.expected_count) for one in moves] == [
        ("PassengerJoined", 2),
        ("PassengerLeft", 0),
    ]


async def test_all_who_share_a_released_seat_get_their_money_back(shop: Shop) -> None:
    trip = await shop.trip()
    people = [await shop.passenger(), await shop.passenger(), await shop.passenger()]
    stretches = [("A", "B"), ("B", "C"), ("C", "D")]
    bookings = [
        await shop.book(await shop.hold(trip, person, "2A", from_stop=start, to_stop=end), person)
        for person, (start, end) in zip(people, stretches, strict=True)
    ]
    for one in bookings:
        await shop.until_payment(one.booking_id, PAID)

    made = await by_admin(shop, override(trip, "2A", to_stop_id="C"))
    shop.seconds_pass(_PATIENCE_SECONDS)
    for one in bookings[:2]:
        await shop.until_payment(one.booking_id, REFUNDED)

    assert set(made.booking_ids) == {one.booking_id for one in bookings[:2]}
    assert [(await shop.money_of(person))[0] for person in people] == [10_000, 10_000, 9_000]
    assert await shop.claims(trip.trip_id) == {"2A": ("BOOKED", bookings[2].booking_id)}


async def test_a_seat_that_is_being_paid_is_released_with_its_booking(shop: Shop) -> None:
    trip, nour = await shop.trip(), new_id()
    hold = await shop.hold(trip, nour, "2A", "2B")
    booking = await shop.book(hold, nour, GATEWAY)
    assert booking.state == PENDING

    made = await by_admin(shop, override(trip, "2A"))

    assert (list(made.hold_ids), list(made.booking_ids)) == ([hold.hold_id], [booking.booking_id])
    after = await shop.get(booking.booking_id)
    assert (after.state, after.payment.state) == (CANCELLED, booking_pb2.PAYMENT_STATE_VOIDED)
    assert await shop.claims(trip.trip_id) == {}
    again = await shop.refused("CreateBooking", booking_request(hold), nour)
    state = hold_pb2.HoldState.Name(hold_pb2.HOLD_STATE_RELEASED).removeprefix("HOLD_STATE_")
    assert (again.reason, again.metadata["state"]) == ("HOLD_NOT_ACTIVE", state)
