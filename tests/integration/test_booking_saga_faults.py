"""A booking process may end between any two steps of hold, pay, confirm and ticket.

Every test ends a process at each of its steps in turn, lets another one go on, and looks at what
came of it: no passenger without seat and without money, none with both refund and seat.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from services.booking.domain.booking import BookingState, PaymentState
from services.booking.domain.bookings import Booking
from services.booking.domain.trips import PaymentMethod
from tests.support.booking_cuts import Parts, running_parts
from tests.support.booking_money import LEG_MINOR, running_shop
from tests.support.deposit_cuts import Cut
from tests.support.ledger_deposits import SETTINGS
from tests.support.ledger_process import CLEARING, transfer, wallet
from tests.support.location_values import new_id
from tests.support.stack_fixtures import TestDatabase
from wayfare.booking.v1 import hold_pb2, trip_pb2

pytestmark = pytest.mark.integration
_FARE = 3 * LEG_MINOR
_PURSE = 2 * _FARE
_STEPS_MOST = 60
Story = Callable[[Cut], Awaitable[None]]


@pytest.fixture
async def parts(
    module_database: TestDatabase, valkey_url: str, short_folder: Path
) -> AsyncIterator[Parts]:
    async with running_shop(
        short_folder,
        database=module_database,
        valkey_url=valkey_url,
        ledger_values=SETTINGS,
        # Only the processes of the test work on bookings.
        booking_worker_seconds=3_600.0,
        booking_sweep_seconds=3_600.0,
    ) as shop:
        channel = grpc.aio.insecure_channel(shop.ledger.settings.listen, interceptors=[shop.line])
        async with running_parts(shop, channel) as made:
            yield made
        await channel.close()


async def at_every_step(parts: Parts, story: Story) -> int:
    """Tell a story with a process that ends at its first step, its second, and so on."""
    for step in range(_STEPS_MOST):
        parts.shop.clock.ahead = timedelta(0)
        cut = Cut(step)
        await story(cut)
        if not cut.came:
            return step
    raise AssertionError("the story has no end")


async def a_trip(parts: Parts) -> trip_pb2.Trip:
    terms = trip_pb2.SalesTerms(payment_duration=Duration(seconds=30))
    return await parts.shop.trip(sales_terms=terms)


async def a_hold(parts: Parts, purse: int = _PURSE) -> tuple[str, trip_pb2.Trip, hold_pb2.Hold]:
    """Return a passenger, a trip, and a hold of two seats on it."""
    # Holds are made by the shop, whose clock goes with ours: none is too old for its tokens.
    nour, trip = await parts.shop.passenger(purse), await a_trip(parts)
    return nour, trip, await parts.shop.hold(trip, nour, "2A")


async def check(parts: Parts, hold: hold_pb2.Hold, nour: str, came: int = _PURSE) -> Booking | None:
    """Look at a booking that rests: seats for money, or the money back."""
    booking = await parts.booking(hold)
    posted, pending = await parts.shop.money_of(nour) if came else (0, 0)
    claims = await parts.shop.claims(hold.trip_id)
    if booking is None:
        assert (posted, pending) == (came, 0)
        return None
    assert pending == 0
    mine = [one for one in claims.values() if one == ("BOOKED", booking.booking_id)]
    good = await parts.shop.rows(
        "SELECT 1 FROM booking.tickets WHERE booking_id = $1 AND revoke_time IS NULL",
        booking.booking_id,
    )
    if booking.state is BookingState.CONFIRMED:
        assert booking.saga.payment_state is PaymentState.PAID
        assert posted == came - booking.saga.amount_minor
        assert len(mine) == len(good) == len(booking.seats)
    else:
        fee = 0 if booking.cancellation is None else booking.cancellation.fee_minor
        assert posted == came - fee
        assert not mine
        assert not good
    return booking


async def test_paying_from_the_wallet(parts: Parts) -> None:
    states = set()

    async def story(cut: Cut) -> None:
        nour, _, hold = await a_hold(parts)
        await parts.process(cut).book(hold, nour, PaymentMethod.WALLET)
        await parts.heal()
        booking = await check(parts, hold, nour)
        states.add(None if booking is None else booking.state)

    assert await at_every_step(parts, story) >= 6
    # Seconds pass while others go on, so some come too late: then nothing was taken.
    assert BookingState.CONFIRMED in states


async def test_finishing_what_another_process_began(parts: Parts) -> None:
    """The second process ends at each of its steps too, and a third goes on."""

    async def story(cut: Cut) -> None:
        nour, _, hold = await a_hold(parts)
        # The first process ends when the ledger has the money and it does not know.
        await parts.process(Cut(4)).book(hold, nour, PaymentMethod.WALLET)
        parts.shop.seconds_pass(5)
        await parts.process(cut).work()
        await parts.heal()
        booking = await check(parts, hold, nour)
        assert booking is not None

    assert await at_every_step(parts, story) >= 6


async def test_cancelling(parts: Parts) -> None:
    async def story(cut: Cut) -> None:
        nour, _, hold = await a_hold(parts)
        booking = await parts.process().book(hold, nour, PaymentMethod.WALLET)
        assert booking is not None
        process = parts.process(cut)
        await process.cancel(booking)
        parts.shop.seconds_pass(5)
        await process.work()
        await parts.heal()
        after = await check(parts, hold, nour)
        assert after is not None
        if after.state is BookingState.CANCELLED:
            assert after.saga.payment_state in (PaymentState.PAID, PaymentState.REFUNDED)

    assert await at_every_step(parts, story) >= 6


async def test_the_time_is_over_while_the_ledger_is_away(parts: Parts) -> None:
    async def story(cut: Cut) -> None:
        nour, trip, hold = await a_hold(parts)
        parts.shop.line.cut = True
        await parts.process(cut).book(hold, nour, PaymentMethod.WALLET)
        parts.shop.seconds_pass(31)
        await parts.sweep(trip.trip_id)
        parts.shop.line.cut = False
        await parts.process(cut).work()
        await parts.heal()
        booking = await check(parts, hold, nour)
        assert booking is None or booking.state is BookingState.EXPIRED

    assert await at_every_step(parts, story) >= 4


@pytest.mark.slow
@pytest.mark.parametrize("when", ["early", "in time", "late", "late, seats gone"])
async def test_paying_at_a_gateway(parts: Parts, when: str) -> None:
    async def story(cut: Cut) -> None:
        nour, trip = new_id(), await a_trip(parts)
        hold = await parts.shop.hold(trip, nour, "2A")
        process = parts.process(cut)
        await process.book(hold, nour, PaymentMethod.GATEWAY)
        begun = await parts.booking(hold)
        if begun is None:
            return
        if when != "early":
            parts.shop.seconds_pass(5)
            await process.work()
        if when.startswith("late"):
            parts.shop.seconds_pass(31)
            await parts.sweep(trip.trip_id)
            await process.work()
        if when.endswith("gone"):
            await parts.heal()
            rival = await parts.shop.passenger(_FARE)
            rivals = await parts.shop.hold(trip, rival, "2A")
            await parts.process().book(rivals, rival, PaymentMethod.WALLET)
        await pay(parts, nour)
        for _ in range(2):  # it comes twice
            await parts.money_comes(begun.booking_id, nour, _FARE)
            await process.work()
        await parts.heal()
        booking = await check(parts, hold, nour, came=_FARE)
        assert booking is not None
        assert booking.state in (BookingState.CONFIRMED, BookingState.PAYMENT_RETURNED)
        if when.endswith("gone"):
            assert booking.state is BookingState.PAYMENT_RETURNED
        else:
            assert booking.state is BookingState.CONFIRMED

    assert await at_every_step(parts, story) >= 8


async def pay(parts: Parts, user_id: str) -> None:
    """Bring a deposit's money into a wallet."""
    made: Any = transfer(CLEARING, wallet(user_id), _FARE)
    assert await parts.shop.ledger.create(made) == [""]


@pytest.mark.parametrize("seed", range(12))
async def test_many_bookings_with_everything_at_once(parts: Parts, seed: int) -> None:
    """Two processes that end anywhere, cancellations, sweeps, and a ledger that comes and goes."""
    chance = random.Random(seed)
    trip = await a_trip(parts)
    people = [await parts.shop.passenger(chance.choice([0, _FARE, _PURSE])) for _ in range(6)]
    purses = [(await parts.shop.money_of(one))[0] if one else 0 for one in people]
    seats = ["2A", "2B", "2C", "2D", "3A", "3B"]
    holds = [
        await parts.shop.hold(trip, person, seat)
        for person, seat in zip(people, seats, strict=True)
    ]
    for hold, person in zip(holds, people, strict=True):
        parts.shop.line.cut = chance.random() < 0.2
        parts.shop.line.lose_answers = chance.random() < 0.2
        process = parts.process(Cut(chance.randrange(20)))
        await asyncio.gather(
            process.book(hold, person, PaymentMethod.WALLET),
            parts.process(Cut(chance.randrange(20))).work(),
            return_exceptions=True,
        )
        booking = await parts.booking(hold)
        if booking is not None and chance.random() < 0.3:
            other = parts.process(Cut(chance.randrange(12)))
            await asyncio.gather(
                other.cancel(booking),
                process.work(),
                parts.process().work(),
                return_exceptions=True,
            )
        parts.shop.seconds_pass(chance.choice([0, 5, 31]))
        await parts.sweep(trip.trip_id)
    parts.shop.line.cut = parts.shop.line.lose_answers = False

    await parts.heal()

    for hold, person, purse in zip(holds, people, purses, strict=True):
        await check(parts, hold, person, came=purse)
