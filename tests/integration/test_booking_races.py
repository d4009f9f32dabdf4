"""Two booking processes, and everything that can race for a booking: then it is counted."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from tests.support.booking_money import (
    CANCELLED,
    CASH,
    CONFIRMED,
    LEG_MINOR,
    PAID,
    WALLET,
    Shop,
    booking_request,
    running_shop,
)
from tests.support.ledger_process import minor
from tests.support.location_process import running_location
from tests.support.location_tokens import TokenMint
from tests.support.location_values import new_id
from tests.support.stack_fixtures import TestDatabase
from wayfare.booking.v1 import booking_pb2, ticket_pb2, trip_pb2
from wayfare.booking.v1 import booking_service_pb2 as pb
from wayfare.event.v1 import trip_completed_pb2
from wayfare.event.v1.envelope_pb2 import Envelope
from wayfare.location.v1.location_service_pb2 import GetTripTrackRequest

pytestmark = pytest.mark.integration
_FARE = 3 * LEG_MINOR
_PURSE = 2 * _FARE
_ENDED_PAYMENTS = (
    booking_pb2.PAYMENT_STATE_PAID,
    booking_pb2.PAYMENT_STATE_REFUNDED,
    booking_pb2.PAYMENT_STATE_VOIDED,
    booking_pb2.PAYMENT_STATE_FAILED,
)


@pytest.fixture
async def shop(
    module_database: TestDatabase, valkey_url: str, short_folder: Path
) -> AsyncIterator[Shop]:
    async with running_shop(
        short_folder, database=module_database, valkey_url=valkey_url, processes=2
    ) as one:
        yield one


async def test_one_request_at_two_processes_is_one_booking(shop: Shop) -> None:
    nour = await shop.passenger(_PURSE)
    trip = await shop.trip()
    hold = await shop.hold(trip, nour, "2A")
    request = booking_request(hold)

    answers = await asyncio.gather(
        *(shop.call("CreateBooking", request, nour, at=number % 2) for number in range(20))
    )

    assert len({one.booking_id for one in answers}) == 1
    await shop.until_payment(answers[0].booking_id, PAID)
    assert await shop.money_of(nour) == (_PURSE - _FARE, 0)
    told = await shop.booking.events("booking", answers[0].booking_id)
    assert [one.state for one in told].count(CONFIRMED) <= 2  # type: ignore[attr-defined]
    joined = [type(one).__name__ for one in await shop.booking.events("trip", trip.trip_id)]
    assert joined == ["TripScheduled", "PassengerJoined"]


async def test_who_travels_is_counted_whichever_process_confirms_and_cancels(shop: Shop) -> None:
    """What a process remembers of a trip is not older than what another one did with it."""
    trip = await shop.trip()
    people = [await shop.passenger(_PURSE) for _ in range(6)]
    booked = []
    for number, (person, seat) in enumerate(
        zip(people, ("2A", "2B", "2C", "3A", "3B", "3C"), strict=True)
    ):
        hold = await shop.hold(trip, person, seat, at=number % 2)
        booked.append(await shop.book(hold, person, at=number % 2))
    for number in (4, 1, 3):
        request = pb.CancelBookingRequest(booking_id=booked[number].booking_id, request_id=new_id())
        await shop.call("CancelBooking", request, people[number], at=(number + 1) % 2)

    told = await shop.booking.events("trip", trip.trip_id)
    counts = [one.expected_count for one in told[1:]]  # type: ignore[attr-defined]
    assert counts == [1, 2, 3, 4, 5, 6, 5, 4, 3]


@pytest.mark.parametrize("seed", range(3))
async def test_confirming_expiring_and_cancelling_at_once(shop: Shop, seed: int) -> None:
    """At rest every booking has seats for its money, or the money back."""
    chance = random.Random(seed)
    terms = trip_pb2.SalesTerms(payment_duration=Duration(seconds=30))
    trip = await shop.trip(sales_terms=terms)
    people = [await shop.passenger(_PURSE) for _ in range(12)]
    seats = [f"{row}{letter}" for row in (2, 3, 4) for letter in "ABCD"]
    holds = [
        await shop.hold(trip, person, seat, at=number % 2)
        for number, (person, seat) in enumerate(zip(people, seats, strict=True))
    ]

    async def one(number: int) -> None:
        await asyncio.sleep(chance.random() / 20)
        request = booking_request(holds[number])
        made = await asyncio.gather(
            shop.call("CreateBooking", request, people[number], at=0),
            shop.call("CreateBooking", request, people[number], at=1),
            return_exceptions=True,
        )
        if chance.random() < 0.6:
            ids = [answer.booking_id for answer in made if isinstance(answer, booking_pb2.Booking)]
            for booking_id in ids:
                await _tried_to_cancel(shop, booking_id, people[number])

    async def outages() -> None:
        for _ in range(6):
            shop.line.cut, shop.line.lose_answers = chance.random() < 0.3, chance.random() < 0.3
            await asyncio.sleep(0.05)
            if chance.random() < 0.2:
                shop.seconds_pass(31)
        shop.line.cut = shop.line.lose_answers = False

    await asyncio.gather(outages(), *(one(number) for number in range(len(people))))
    shop.seconds_pass(40)

    await _until_all_rest(shop)
    claims = await shop.claims(trip.trip_id)
    for person, hold in zip(people, holds, strict=True):
        rows = await shop.rows(
            "SELECT booking_id::text FROM booking.bookings WHERE hold_id = $1", hold.hold_id
        )
        posted, pending = await shop.money_of(person)
        assert pending == 0
        if not rows:
            assert posted == _PURSE
            continue
        booking = await shop.get(rows[0][0])
        mine = [seat for seat, owner in claims.items() if owner[1] == booking.booking_id]
        if booking.state == CONFIRMED:
            assert (len(mine), posted) == (1, _PURSE - _FARE)
        else:
            fee = minor(booking.cancellation.fee)
            assert (mine, posted) == ([], _PURSE - fee)
            assert booking.payment.state in _ENDED_PAYMENTS


async def _tried_to_cancel(shop: Shop, booking_id: str, user_id: str) -> None:
    """Cancel, unless the booking keeps nothing any more."""
    try:
        await shop.cancel(booking_id, user_id)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
            raise


async def _until_all_rest(shop: Shop) -> None:
    until = asyncio.get_running_loop().time() + 30
    while left := await shop.rows(
        "SELECT booking_id::text, state, payment_state, step, failure_reason, try_count, next_time,"
        " expire_time FROM booking.bookings WHERE next_time IS NOT NULL"
    ):
        assert asyncio.get_running_loop().time() < until, "; ".join(str(dict(row)) for row in left)
        shop.seconds_pass(2)
        await asyncio.sleep(0.05)


async def test_many_buy_the_same_seats_and_each_is_paid_once(shop: Shop) -> None:
    """Whoever holds a seat buys it; at the end revenue is seats times fare."""
    trip = await shop.trip()
    seats = ["2A", "2B", "2C", "2D"]
    people = [await shop.passenger(_FARE) for _ in range(40)]

    async def buys(number: int) -> int:
        try:
            hold = await shop.hold(trip, people[number], seats[number % 4], at=number % 2)
        except grpc.aio.AioRpcError:
            return 0
        booking = await shop.book(hold, people[number], WALLET, at=(number + 1) % 2)
        return int(booking.state == CONFIRMED)

    sold = sum(await asyncio.gather(*(buys(number) for number in range(40))))

    assert sold == 4
    await _until_all_rest(shop)
    left = [await shop.money_of(person) for person in people]
    assert sorted(left) == [(0, 0)] * 4 + [(_FARE, 0)] * 36
    assert {state for state, _ in (await shop.claims(trip.trip_id)).values()} == {"BOOKED"}


async def test_cash_is_entered_when_the_conductor_scans_the_ticket(shop: Shop) -> None:
    conductor = new_id()
    trip = await shop.trip(conductor_ids=[conductor])
    nour = await shop.passenger(0)
    booking = await shop.buy(trip, nour, "2A", method=CASH)
    (passenger,) = booking.passengers
    ticket = await shop.call("GetTicket", pb.GetTicketRequest(ticket_id=passenger.ticket_id), nour)
    scan = ticket_pb2.Scan(scan_id=new_id(), ticket=ticket.qr_text, kind=ticket_pb2.SCAN_KIND_BOARD)
    scan.scan_time.GetCurrentTime()
    request = pb.VerifyTicketRequest(trip_id=trip.trip_id, scan=scan, device_id="phone-1")

    result = await shop.call("VerifyTicket", request, conductor, "CONDUCTOR")

    assert result.accepted
    paid = await shop.until_payment(booking.booking_id, PAID)
    assert paid.passengers[0].boarding_state == booking_pb2.BOARDING_STATE_BOARDED
    cancelling = pb.CancelBookingRequest(booking_id=booking.booking_id, request_id=new_id())
    assert (
        await shop.refused("CancelBooking", cancelling, nour)
    ).reason == "BOOKING_NOT_CANCELLABLE"


async def test_when_a_trip_ends_it_is_told_for_each_who_was_carried(shop: Shop) -> None:
    trip = await shop.trip(departs=datetime.now(UTC) + timedelta(seconds=60), step=timedelta(0))
    nour, sami = await shop.passenger(_PURSE), await shop.passenger(0)
    paid = await shop.buy(trip, nour, "2A")
    cash = await shop.buy(trip, sami, "2B", method=CASH)
    gone = await shop.buy(trip, await shop.passenger(_PURSE), "2C")
    await shop.cancel(gone.booking_id, new_id(), "ADMIN")
    await shop.until_payment(paid.booking_id, PAID)

    shop.seconds_pass(61)

    completed: dict[str, trip_completed_pb2.TripCompleted] = {}
    async with asyncio.timeout(15):
        while len(completed) < 2:
            await asyncio.sleep(0.05)
            rows = await shop.rows(
                "SELECT aggregate_id, envelope FROM booking.events"
                " WHERE aggregate_type = 'booking' AND aggregate_id = ANY ($1::text[])",
                [paid.booking_id, cash.booking_id, gone.booking_id],
            )
            for booking_id, envelope in rows:
                message = trip_completed_pb2.TripCompleted()
                if Envelope.FromString(envelope).payload.Unpack(message):
                    completed[booking_id] = message
    assert set(completed) == {paid.booking_id, cash.booking_id}
    told = completed[paid.booking_id]
    assert minor(told.amount) == _FARE
    assert told.payment_reference == f"booking/{paid.booking_id}"
    assert told.passenger_user_id == nour
    # Nobody took the cash: nothing is to be paid.
    assert not completed[cash.booking_id].HasField("amount")
    shop.seconds_pass(86_401)
    # Until the ledger has heard of it, too: no later test's clock is a day ahead.
    voided = (
        "SELECT 1 FROM booking.bookings"
        " WHERE booking_id = $1 AND payment_state = 'VOIDED' AND next_time IS NULL"
    )
    async with asyncio.timeout(15):
        while not await shop.rows(voided, cash.booking_id):
            await asyncio.sleep(0.05)


async def test_who_has_a_booking_may_follow_the_trip_and_who_cancelled_may_not(
    shop: Shop, module_database: TestDatabase, valkey_url: str, short_folder: Path
) -> None:
    driver = new_id()
    trip = await shop.trip(driver_id=driver, vehicle_id="bus-7")
    nour = await shop.passenger(_PURSE)
    booking = await shop.buy(trip, nour, "2A")
    async with running_location(
        short_folder,
        dsn=module_database.dsn_for("location"),
        valkey_url=valkey_url,
        mint=TokenMint(),
    ) as location:

        async def may_follow() -> bool:
            request = GetTripTrackRequest(trip_id=trip.trip_id)
            try:
                await location.call("GetTripTrack", request, location.bearer("PASSENGER", nour))
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.PERMISSION_DENIED:
                    raise
                return False
            return True

        async with asyncio.timeout(20):
            while not await may_follow():
                await asyncio.sleep(0.05)
        cancelled = await shop.cancel(booking.booking_id, nour)
        assert cancelled.state == CANCELLED
        async with asyncio.timeout(20):
            while await may_follow():
                await asyncio.sleep(0.05)
