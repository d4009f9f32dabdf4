"""Bookings that a payment gateway pays: its message comes in time, late, twice, early, or never."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from services.stack.payment_gateways import Payment
from tests.support.booking_money import (
    CANCELLED,
    CONFIRMED,
    EXPIRED,
    GATEWAY,
    LEG_MINOR,
    PAID,
    PENDING,
    Shop,
    booking_request,
    running_shop,
)
from tests.support.ledger_deposits import SETTINGS, Teller
from tests.support.ledger_process import money
from tests.support.location_values import new_id
from tests.support.stack_fixtures import TestDatabase
from wayfare.booking.v1 import booking_pb2, trip_pb2
from wayfare.ledger.v1 import deposit_pb2

pytestmark = pytest.mark.integration
_FARE = 3 * LEG_MINOR
_PAYMENT_SECONDS = 30
_RETURNED = booking_pb2.BOOKING_STATE_PAYMENT_RETURNED


@dataclass
class GatewayShop:
    """A shop, and the gateway's messages to its ledger."""

    shop: Shop
    teller: Teller

    async def trip(self) -> trip_pb2.Trip:
        terms = trip_pb2.SalesTerms(payment_duration=Duration(seconds=_PAYMENT_SECONDS))
        return await self.shop.trip(sales_terms=terms)

    async def pending(self, trip: trip_pb2.Trip, *seats: str, **values: Any) -> Any:
        """Return a new passenger and a booking that waits for the gateway."""
        nour = new_id()
        booking = await self.shop.buy(trip, nour, *seats, method=GATEWAY, **values)
        assert booking.state == PENDING
        return nour, booking

    async def tell(
        self, booking: booking_pb2.Booking, user_id: str, payment: Payment = Payment.PAID
    ) -> None:
        """Send the gateway's message about a booking's deposit."""
        (row,) = await self.teller.rows(
            "SELECT deposit_id::text FROM ledger.deposits WHERE reference = $1",
            f"booking/{booking.booking_id}",
        )
        deposit = deposit_pb2.Deposit(
            deposit_id=row[0],
            user_id=user_id,
            gateway=deposit_pb2.GATEWAY_KASHIER,
            amount=money(_FARE),
        )
        await self.teller.tell(deposit, payment, amount=f"{_FARE / 100:.2f}")

    async def expires(self, booking: booking_pb2.Booking) -> None:
        self.shop.seconds_pass(_PAYMENT_SECONDS + 1)
        await self.shop.until_state(booking.booking_id, EXPIRED)


@pytest.fixture
async def at(
    module_database: TestDatabase, valkey_url: str, short_folder: Path
) -> AsyncIterator[GatewayShop]:
    async with running_shop(
        short_folder, database=module_database, valkey_url=valkey_url, ledger_values=SETTINGS
    ) as shop:
        yield GatewayShop(shop, Teller(shop.ledger, module_database))


async def test_the_seats_are_sold_when_the_gateways_message_arrives(at: GatewayShop) -> None:
    trip = await at.trip()
    nour, booking = await at.pending(trip, "2A")
    assert booking.payment.checkout.checkout_url
    assert booking.payment.deposit_id
    assert (await at.shop.claims(trip.trip_id))["2A"][0] == "HELD"

    await at.tell(booking, nour)

    after = await at.shop.until_payment(booking.booking_id, PAID)
    assert after.state == CONFIRMED
    assert not after.payment.HasField("checkout")
    assert await at.shop.money_of(nour) == (0, 0)
    assert (await at.shop.claims(trip.trip_id))["2A"] == ("BOOKED", booking.booking_id)


async def test_a_message_that_comes_twice_counts_once(at: GatewayShop) -> None:
    nour, booking = await at.pending(await at.trip(), "2A")

    await asyncio.gather(*(at.tell(booking, nour) for _ in range(4)))

    await at.shop.until_payment(booking.booking_id, PAID)
    await at.tell(booking, nour)
    await at.tell(booking, nour, Payment.FAILED)
    assert (await at.shop.get(booking.booking_id)).state == CONFIRMED
    assert await at.shop.money_of(nour) == (0, 0)


async def test_a_message_that_comes_before_the_ledgers_answer_is_not_lost(at: GatewayShop) -> None:
    nour = new_id()
    hold = await at.shop.hold(await at.trip(), nour, "2A")
    at.shop.line.lose_answers = True
    booking = await at.shop.book(hold, nour, GATEWAY)
    assert booking.degraded
    assert not booking.payment.HasField("checkout")

    await at.tell(booking, nour)
    at.shop.line.lose_answers = False

    after = await at.shop.until_payment(booking.booking_id, PAID)
    assert after.state == CONFIRMED


async def test_money_that_comes_late_gets_the_same_seats_if_they_are_free(at: GatewayShop) -> None:
    trip = await at.trip()
    nour, booking = await at.pending(trip, "2A")
    await at.expires(booking)
    assert await at.shop.claims(trip.trip_id) == {}

    await at.tell(booking, nour)

    after = await at.shop.until_payment(booking.booking_id, PAID)
    assert (after.state, after.reseated) == (CONFIRMED, False)
    assert await at.shop.money_of(nour) == (0, 0)
    assert (await at.shop.claims(trip.trip_id))["2A"] == ("BOOKED", booking.booking_id)


async def test_money_that_comes_late_for_seats_that_are_gone_stays_in_the_wallet(
    at: GatewayShop,
) -> None:
    trip = await at.trip()
    nour, booking = await at.pending(trip, "2A")
    await at.expires(booking)
    rival = await at.shop.buy(trip, await at.shop.passenger(), "2A")
    assert rival.state == CONFIRMED

    await at.tell(booking, nour)

    after = await at.shop.until_state(booking.booking_id, _RETURNED)
    assert after.payment.state == booking_pb2.PAYMENT_STATE_VOIDED
    async with asyncio.timeout(15):
        while await at.shop.money_of(nour) != (_FARE, 0):
            await asyncio.sleep(0.02)
    assert (await at.shop.claims(trip.trip_id))["2A"] == ("BOOKED", rival.booking_id)


async def test_money_that_comes_late_gets_other_seats_of_the_class_where_that_is_allowed(
    at: GatewayShop,
) -> None:
    trip = await at.trip()
    nour, booking = await at.pending(trip, "2A", allow_other_seats=True)
    await at.expires(booking)
    await at.shop.buy(trip, await at.shop.passenger(), "2A")

    await at.tell(booking, nour)

    after = await at.shop.until_payment(booking.booking_id, PAID)
    assert (after.state, after.reseated) == (CONFIRMED, True)
    (passenger,) = after.passengers
    assert passenger.seat_number != "2A"
    assert passenger.seat_class_code == "STANDARD"
    assert passenger.ticket_id
    claims = await at.shop.claims(trip.trip_id)
    assert claims[passenger.seat_number] == ("BOOKED", booking.booking_id)


async def test_a_declined_payment_frees_the_seats_and_late_money_is_not_lost(
    at: GatewayShop,
) -> None:
    trip = await at.trip()
    nour, booking = await at.pending(trip, "2A")

    await at.tell(booking, nour, Payment.FAILED)

    failed = await at.shop.until_state(booking.booking_id, booking_pb2.BOOKING_STATE_PAYMENT_FAILED)
    assert failed.payment.failure_reason == "GATEWAY_DECLINED"
    assert await at.shop.claims(trip.trip_id) == {}
    await at.tell(booking, nour)
    await at.shop.until_state(booking.booking_id, _RETURNED)
    assert await at.shop.money_of(nour) == (_FARE, 0)


async def test_money_for_a_cancelled_booking_stays_in_the_wallet(at: GatewayShop) -> None:
    trip = await at.trip()
    nour, booking = await at.pending(trip, "2A")
    cancelled = await at.shop.cancel(booking.booking_id, nour)
    assert cancelled.state == CANCELLED

    await at.tell(booking, nour)
    # Another booking's money, which comes after it, has been taken.
    other, later = await at.pending(trip, "2B")
    await at.tell(later, other)
    await at.shop.until_payment(later.booking_id, PAID)

    assert (await at.shop.get(booking.booking_id)).state == CANCELLED
    assert await at.shop.money_of(nour) == (_FARE, 0)
    assert "2A" not in await at.shop.claims(trip.trip_id)


async def test_nothing_is_sold_to_who_never_pays(at: GatewayShop) -> None:
    trip = await at.trip()
    _, booking = await at.pending(trip, "2A")

    await at.expires(booking)

    assert await at.shop.claims(trip.trip_id) == {}
    after = await at.shop.get(booking.booking_id)
    assert after.payment.state == booking_pb2.PAYMENT_STATE_VOIDED


async def test_a_gateway_that_the_operator_has_not_is_refused(at: GatewayShop) -> None:
    trip, nour = await at.trip(), new_id()
    for gateway in ("PAYHERE", "NOBODY"):
        hold = await at.shop.hold(trip, nour, "2A")

        refusal = await at.shop.refused(
            "CreateBooking", booking_request(hold, GATEWAY, gateway=gateway), nour
        )

        assert refusal.reason == "PAYMENT_METHOD_NOT_ALLOWED"
        assert await at.shop.claims(trip.trip_id) == {}


async def test_a_trip_that_is_sold_by_wallet_alone_is_not_sold_otherwise(at: GatewayShop) -> None:
    terms = trip_pb2.SalesTerms(payment_methods=[trip_pb2.PAYMENT_METHOD_WALLET])
    trip, nour = await at.shop.trip(sales_terms=terms), new_id()
    hold = await at.shop.hold(trip, nour, "2A")

    refusal = await at.shop.refused("CreateBooking", booking_request(hold, GATEWAY), nour)

    assert refusal.reason == "PAYMENT_METHOD_NOT_ALLOWED"
    assert (await at.shop.claims(trip.trip_id))["2A"][0] == "HELD"
