"""Bookings are paid through the real ledger: seats or the money back, never neither or both."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.booking_money import (
    CANCELLED,
    CASH,
    CONFIRMED,
    LEG_MINOR,
    PAID,
    Shop,
    booking_request,
    running_shop,
)
from tests.support.ledger_process import minor
from tests.support.location_values import new_id
from tests.support.stack_fixtures import TestDatabase
from wayfare.booking.v1 import booking_pb2
from wayfare.booking.v1 import booking_service_pb2 as pb

pytestmark = pytest.mark.integration
_FARE = 3 * LEG_MINOR


@pytest.fixture
async def shop(
    module_database: TestDatabase, valkey_url: str, short_folder: Path
) -> AsyncIterator[Shop]:
    async with running_shop(short_folder, database=module_database, valkey_url=valkey_url) as one:
        yield one


async def test_a_wallet_pays_and_the_booking_has_its_tickets(shop: Shop) -> None:
    nour = await shop.passenger(10_000)
    trip = await shop.trip()

    booking = await shop.buy(trip, nour, "2A", "2B")

    assert booking.state == CONFIRMED
    assert minor(booking.amount) == 2 * _FARE
    assert [one.seat_number for one in booking.passengers] == ["2A", "2B"]
    assert all(one.ticket_id for one in booking.passengers)
    paid = await shop.until_payment(booking.booking_id, PAID)
    assert paid.payment.transfer_id
    assert await shop.money_of(nour) == (10_000 - 2 * _FARE, 0)
    claims = await shop.claims(trip.trip_id)
    assert claims == dict.fromkeys(("2A", "2B"), ("BOOKED", booking.booking_id))


async def test_names_are_shown_to_their_owner_and_documents_are_masked(shop: Shop) -> None:
    nour = await shop.passenger()
    booking = await shop.buy(await shop.trip(), nour, "2A")

    request = pb.GetBookingRequest(booking_id=booking.booking_id)
    (shown,) = (await shop.call("GetBooking", request, nour)).passengers

    assert (shown.full_name, shown.document_number) == ("Nour 2A", "*****567")
    kept = await shop.rows(
        "SELECT sealed FROM booking.passengers WHERE booking_id = $1", booking.booking_id
    )
    assert all(b"Nour" not in row[0] for row in kept)
    assert (await shop.refused("GetBooking", request, new_id())).reason == "BOOKING_NOT_YOURS"


async def test_a_wallet_without_money_books_nothing_and_frees_the_seats(shop: Shop) -> None:
    poor = await shop.passenger(LEG_MINOR)
    trip = await shop.trip()
    hold = await shop.hold(trip, poor, "2A")
    request = booking_request(hold)

    refusal = await shop.refused("CreateBooking", request, poor)

    assert refusal.reason == "PAYMENT_FAILED"
    assert refusal.metadata["ledger_reason"] == "FUNDS_INSUFFICIENT"
    assert await shop.claims(trip.trip_id) == {}
    assert await shop.money_of(poor) == (LEG_MINOR, 0)
    again = await shop.refused("CreateBooking", request, poor)
    assert (again.reason, again.metadata) == (refusal.reason, refusal.metadata)


async def test_the_same_request_twenty_times_at_once_is_one_booking(shop: Shop) -> None:
    nour = await shop.passenger(10_000)
    hold = await shop.hold(await shop.trip(), nour, "2A")
    request = booking_request(hold)

    answers = await asyncio.gather(*(shop.call("CreateBooking", request, nour) for _ in range(20)))

    assert len({one.booking_id for one in answers}) == 1
    await shop.until_payment(answers[0].booking_id, PAID)
    assert await shop.money_of(nour) == (10_000 - _FARE, 0)


async def test_a_request_id_with_another_body_is_refused(shop: Shop) -> None:
    nour = await shop.passenger()
    trip = await shop.trip()
    first = booking_request(await shop.hold(trip, nour, "2A"))
    await shop.call("CreateBooking", first, nour)
    second = booking_request(await shop.hold(trip, nour, "2B"), request_id=first.request_id)

    assert (await shop.refused("CreateBooking", second, nour)).reason == "REQUEST_ID_REUSED"


async def test_a_hold_becomes_one_booking(shop: Shop) -> None:
    nour = await shop.passenger()
    hold = await shop.hold(await shop.trip(), nour, "2A")
    booking = await shop.book(hold, nour)

    refusal = await shop.refused("CreateBooking", booking_request(hold), nour)

    assert refusal.reason == "HOLD_NOT_ACTIVE"
    assert refusal.metadata["booking_id"] == booking.booking_id


async def test_anothers_hold_cannot_be_booked(shop: Shop) -> None:
    hold = await shop.hold(await shop.trip(), new_id(), "2A")

    assert (
        await shop.refused("CreateBooking", booking_request(hold), new_id())
    ).reason == "HOLD_NOT_YOURS"


async def test_there_is_one_passenger_for_each_seat(shop: Shop) -> None:
    nour = await shop.passenger()
    hold = await shop.hold(await shop.trip(), nour, "2A", "2B")
    request = booking_request(hold)
    del request.passengers[1:]

    refusal = await shop.refused("CreateBooking", request, nour)

    assert refusal.reason == "PASSENGERS_MISMATCH"
    assert refusal.metadata["seat_numbers"] == "2A,2B"


async def test_cash_is_due_on_board_and_nothing_moves_before(shop: Shop) -> None:
    nour = await shop.passenger(0)

    booking = await shop.buy(await shop.trip(), nour, "2A", method=CASH)

    assert booking.state == CONFIRMED
    assert booking.payment.state == booking_pb2.PAYMENT_STATE_DUE_ON_BOARD
    assert minor(booking.cancellation_offer.refund) == 0


async def test_a_free_seat_needs_no_ledger(shop: Shop) -> None:
    from tests.support.booking_process import money
    from wayfare.booking.v1 import trip_pb2

    fares = [
        trip_pb2.ClassFare(seat_class_code=code, leg_prices=[money(0)] * 3)
        for code in ("FIRST", "STANDARD")
    ]
    trip = await shop.trip(fares=fares)
    shop.line.cut = True

    booking = await shop.buy(trip, await shop.passenger(0), "2A")

    assert booking.state == CONFIRMED
    assert booking.payment.state == PAID


async def test_a_cancelled_booking_pays_the_fee_and_gets_the_rest_back(shop: Shop) -> None:
    nour = await shop.passenger(10_000)
    trip = await shop.trip()
    booking = await shop.buy(trip, nour, "2A")
    await shop.until_payment(booking.booking_id, PAID)

    # Two hours before departure half of the price is kept.
    cancelled = await shop.cancel(booking.booking_id, nour)

    assert cancelled.state == CANCELLED
    assert minor(cancelled.cancellation.fee) == _FARE // 2
    assert await shop.claims(trip.trip_id) == {}
    after = await shop.until_payment(booking.booking_id, booking_pb2.PAYMENT_STATE_REFUNDED)
    assert minor(after.payment.refunded_amount) == _FARE // 2
    assert await shop.money_of(nour) == (10_000 - _FARE // 2, 0)
    # Cancelling again answers the same.
    again = await shop.cancel(booking.booking_id, nour)
    assert again.cancellation == cancelled.cancellation


async def test_the_operator_cancels_without_a_fee(shop: Shop) -> None:
    nour = await shop.passenger(10_000)
    booking = await shop.buy(await shop.trip(), nour, "2A")

    cancelled = await shop.cancel(booking.booking_id, new_id(), "ADMIN", reason="bus is full")

    assert cancelled.cancellation.cause == booking_pb2.CANCELLATION_CAUSE_OPERATOR
    await shop.until_payment(booking.booking_id, booking_pb2.PAYMENT_STATE_REFUNDED)
    assert await shop.money_of(nour) == (10_000, 0)


async def test_a_fee_above_what_the_screen_said_is_refused(shop: Shop) -> None:
    nour = await shop.passenger(10_000)
    booking = await shop.buy(await shop.trip(), nour, "2A")
    request = pb.CancelBookingRequest(booking_id=booking.booking_id, request_id=new_id())
    request.max_fee.currency_code = "EGP"

    refusal = await shop.refused("CancelBooking", request, nour)

    assert refusal.reason == "CANCELLATION_FEE_CHANGED"
    assert refusal.metadata["fee_minor"] == str(_FARE // 2)


async def test_anothers_booking_cannot_be_cancelled_or_listed(shop: Shop) -> None:
    nour = await shop.passenger()
    booking = await shop.buy(await shop.trip(), nour, "2A")

    request = pb.CancelBookingRequest(booking_id=booking.booking_id, request_id=new_id())
    assert (await shop.refused("CancelBooking", request, new_id())).reason == "BOOKING_NOT_YOURS"
    listing = pb.ListBookingsRequest(user_id=nour)
    assert (await shop.refused("ListBookings", listing, new_id())).reason == "ROLE_NOT_ALLOWED"


async def test_bookings_are_listed_newest_first_page_by_page(shop: Shop) -> None:
    nour = await shop.passenger(50_000)
    trip = await shop.trip()
    made = [(await shop.buy(trip, nour, seat)).booking_id for seat in ("2A", "2B", "2C")]

    listed, token = [], ""
    for _ in range(3):
        request = pb.ListBookingsRequest(page_size=1, page_token=token)
        page = await shop.call("ListBookings", request, nour)
        listed += [one.booking_id for one in page.bookings]
        token = page.next_page_token

    assert listed == made[::-1]
    assert token == ""
    found = await shop.call(
        "ListBookings",
        pb.ListBookingsRequest(trip_id=trip.trip_id, state=CONFIRMED, page_size=2),
        new_id(),
        "BUSINESS",
    )
    assert len(found.bookings) == 2
    bad = pb.ListBookingsRequest(page_token=found.next_page_token)
    assert (await shop.refused("ListBookings", bad, nour)).reason == "PAGE_TOKEN_INVALID"


async def test_while_the_ledger_is_away_a_booking_waits_and_then_goes_on(shop: Shop) -> None:
    nour = await shop.passenger(10_000)
    trip = await shop.trip()
    hold = await shop.hold(trip, nour, "2A")
    shop.line.cut = True

    booking = await shop.book(hold, nour)

    assert booking.degraded
    assert booking.state == booking_pb2.BOOKING_STATE_PENDING_PAYMENT
    assert (await shop.claims(trip.trip_id))["2A"][0] == "HELD"
    shop.line.cut = False
    after = await shop.until_payment(booking.booking_id, PAID)
    assert after.state == CONFIRMED
    assert await shop.money_of(nour) == (10_000 - _FARE, 0)


async def test_a_lost_answer_of_the_ledger_takes_the_money_once(shop: Shop) -> None:
    nour = await shop.passenger(10_000)
    hold = await shop.hold(await shop.trip(), nour, "2A")
    shop.line.lose_answers = True

    booking = await shop.book(hold, nour)

    assert booking.state == booking_pb2.BOOKING_STATE_PENDING_PAYMENT
    assert await shop.money_of(nour) == (10_000, _FARE)
    shop.line.lose_answers = False
    await shop.until_payment(booking.booking_id, PAID)
    assert await shop.money_of(nour) == (10_000 - _FARE, 0)


async def test_a_cancelled_trip_gives_everybody_their_money_back(shop: Shop) -> None:
    trip = await shop.trip()
    people = [await shop.passenger(10_000) for _ in range(4)]
    bookings = [
        await shop.buy(trip, person, seat)
        for person, seat in zip(people, ("2A", "2B", "3A", "3B"), strict=True)
    ]
    cash = await shop.buy(trip, await shop.passenger(0), "4A", method=CASH)

    request = pb.CancelTripRequest(trip_id=trip.trip_id, cancel_reason="snow", request_id=new_id())
    await shop.call("CancelTrip", request, new_id(), "ADMIN")

    for person, booking in zip(people, bookings, strict=True):
        after = await shop.until_payment(booking.booking_id, booking_pb2.PAYMENT_STATE_REFUNDED)
        assert after.cancellation.cause == booking_pb2.CANCELLATION_CAUSE_TRIP
        assert await shop.money_of(person) == (10_000, 0)
    voided = await shop.until_state(cash.booking_id, CANCELLED)
    assert voided.payment.state == booking_pb2.PAYMENT_STATE_VOIDED
    assert await shop.claims(trip.trip_id) == {}


async def test_joining_and_leaving_a_trip_is_told_once_each(shop: Shop) -> None:
    nour = await shop.passenger(50_000)
    trip = await shop.trip()
    first = await shop.buy(trip, nour, "2A")
    second = await shop.buy(trip, nour, "2B", "2C")
    await shop.cancel(first.booking_id, nour)
    await shop.cancel(second.booking_id, nour)

    told = await shop.booking.events("trip", trip.trip_id)

    names = [type(one).__name__ for one in told]
    assert names == ["TripScheduled", "PassengerJoined", "PassengerLeft"]
    assert [one.expected_count for one in told[1:]] == [1, 0]  # type: ignore[attr-defined]
