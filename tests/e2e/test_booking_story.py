"""A whole journey through Envoy, told by the Python client, as JSON and by grpcurl.

From the sign-up to the end of the trip, with the payment's webhook, the conductor and the map; and
what goes wrong on the way, each with its reason.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, timedelta
from typing import Any

import pytest
from google.type import date_pb2

from services.stack.environments import DEMO_TENANT_ID
from services.stack.payment_gateways import Payment, payment_accounts
from services.stack.replay.accounts import make_person
from tests.support.booking_process import money
from tests.support.booking_seats import BOOKED, FREE, HELD
from tests.support.booking_tickets import scan
from tests.support.e2e_company import Company, Crew, drive_to_the_end, with_session
from tests.support.e2e_edge import Edge
from tests.support.e2e_passengers import (
    FARE,
    in_wallet,
    passengers,
    seats_in,
    somebody,
    until_payment,
    wanted,
)
from tests.support.e2e_speakers import (
    Caller,
    Speaker,
)
from tests.support.gateway_double import GatewayDouble
from tests.support.ledger_process import minor
from wayfare.booking.v1 import booking_pb2, trip_pb2
from wayfare.ledger.v1 import audit_pb2, deposit_pb2
from wayfare.location.v1 import trip_pb2 as tracked_pb2
from wayfare.policy.v1 import policy_pb2
from wayfare_client.tickets import TripScanner

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

WALLET, CASH = trip_pb2.PAYMENT_METHOD_WALLET, trip_pb2.PAYMENT_METHOD_CASH
CONFIRMED = booking_pb2.BOOKING_STATE_CONFIRMED
BOARDED = booking_pb2.BOARDING_STATE_BOARDED


@pytest.fixture
async def double(edge: Edge) -> AsyncIterator[GatewayDouble]:
    async with GatewayDouble(payment_accounts(edge.stack.secrets)) as running:
        yield running


async def sign_up(speaker: Speaker) -> Caller:
    """Sign up as a passenger, with a phone."""
    person, stranger = make_person(0), Caller(speaker=speaker)
    session = await stranger.ask(
        "identity",
        "SignUp",
        tenant_id=DEMO_TENANT_ID,
        phone=person.phone,
        password=person.password,
        display_name="Nour",
        role=policy_pb2.ROLE_PASSENGER,
    )
    return with_session(stranger, session)


async def pay_in(nour: Caller, double: GatewayDouble, amount_minor: int) -> None:
    """Deposit; the gateway tells of it at the edge, signed, and twice."""
    made = await nour.ask(
        "ledger",
        "CreateDeposit",
        gateway=deposit_pb2.GATEWAY_KASHIER,
        amount=money(amount_minor),
        return_url="https://example.org/back",
    )
    deposit_id = made.deposit.deposit_id
    assert await double.check_out(made.checkout.url, dict(made.checkout.form_fields)) == 200
    forged = await double.tell(deposit_id, wrongly=True)
    told = [(await double.tell(deposit_id, Payment.PAID)).json() for _ in range(2)]
    assert forged.status_code == 403
    assert [one["outcome"] for one in told] == [
        "WEBHOOK_OUTCOME_APPLIED",
        "WEBHOOK_OUTCOME_DUPLICATE",
    ]


async def buy(nour: Caller, company: Company, made: trip_pb2.Trip) -> booking_pb2.Booking:
    """Hold two seats from A to C and pay for them from the wallet."""
    held = await nour.ask(
        "booking",
        "HoldSeats",
        **wanted(company, made, "2A", "2B"),
    )
    assert minor(held.amount) == FARE
    booking: booking_pb2.Booking = await nour.ask(
        "booking",
        "CreateBooking",
        hold_id=held.hold_id,
        passengers=passengers("2A", "2B"),
        payment_method=WALLET,
    )
    return booking


def saw(updates: list[Any], seat: str) -> list[int]:
    """Return the states of a seat in the order in which they were told."""
    told = [
        update.snapshot if update.HasField("snapshot") else update.changes for update in updates
    ]
    return [one.state for batch in told for one in batch.seats if one.seat_number == seat]


async def until_allowed_to_follow(nour: Caller, trip_id: str) -> None:
    """Wait until tracking has heard of the booking."""
    async with asyncio.timeout(20):
        while True:
            async with nour.listen("location", "FollowTrip", trip_id=trip_id) as follower:
                if await follower.opened():
                    return
                assert follower.reason == "NOT_A_FOLLOWER"
            await asyncio.sleep(0.1)


async def find(nour: Caller, company: Company, made: trip_pb2.Trip) -> None:
    """Search the trip and look at its seats."""
    day = made.stops[0].scheduled_departure_time.ToDatetime(UTC)
    found = await nour.ask(
        "booking",
        "SearchTrips",
        from_stop_id=company.stop_id("A"),
        to_stop_id=company.stop_id("C"),
        departure_date=date_pb2.Date(year=day.year, month=day.month, day=day.day),
        passenger_count=2,
    )
    (option,) = found.options
    seats = await nour.ask(
        "booking",
        "GetSeatMap",
        trip_id=option.trip_id,
        from_stop_id=option.from_stop.stop_id,
        to_stop_id=option.to_stop.stop_id,
    )
    assert option.trip_id == made.trip_id
    assert option.on_sale
    assert {one.state for one in seats.seats} == {FREE}
    assert len(seats.seats) == 40


async def board(nour: Caller, crew: Crew, made: trip_pb2.Trip, ticket_id: str) -> None:
    """Show a ticket to the conductor, whose phone verifies it without a network, then with it."""
    ticket = await nour.ask("booking", "GetTicket", ticket_id=ticket_id)
    keys = await crew.conductor.ask("booking", "ListTicketKeys")
    scanner = TripScanner(made.trip_id)
    scanner.learn_keys(keys.ticket_keys)
    offline = scanner.scan(ticket.qr_text, stop_index=0)

    def verification(kind: int = 1) -> dict[str, Any]:
        checked: Any = kind
        shown = scan(ticket.qr_text, kind=checked)
        return {"trip_id": made.trip_id, "device_id": "phone-1", "scan": shown}

    by_stranger = await nour.refused("booking", "VerifyTicket", **verification())
    online = await crew.conductor.ask("booking", "VerifyTicket", **verification())
    again = await crew.conductor.ask("booking", "VerifyTicket", **verification())
    manifest = await crew.conductor.ask("booking", "GetManifest", trip_id=made.trip_id)

    assert offline.accepted
    assert offline.content is not None
    assert offline.content.seat_number == "2A"
    assert by_stranger == "ROLE_NOT_ALLOWED"
    assert (online.accepted, online.passenger_name) == (True, "Nour 2A")
    assert again.reason == "TICKET_ALREADY_USED"
    # Who gets on and off, stop by stop, and who is on board by now.
    assert [(one.pickup_count, one.drop_off_count) for one in manifest.stop_counts] == [
        (2, 0),
        (0, 0),
        (0, 2),
        (0, 0),
    ]
    assert [(one.full_name, one.boarding_state) for one in manifest.entries] == [
        ("Nour 2A", BOARDED),
        ("Nour 2B", booking_pb2.BOARDING_STATE_UNSPECIFIED),
    ]
    counts = manifest.boarding_counts
    assert (counts.boarded_count, counts.expected_count) == (1, 2)


async def test_from_the_sign_up_to_the_end_of_the_trip(
    edge: Edge, speaker: Speaker, company: Company, double: GatewayDouble
) -> None:
    crew, nour = await company.hire(), await sign_up(speaker)
    made = await company.sell(crew)
    await find(nour, company, made)
    await pay_in(nour, double, FARE + 500)
    async with nour.listen("location", "FollowTrip", trip_id=made.trip_id) as early:
        assert await early.end() == "NOT_A_FOLLOWER"

    async with nour.listen("booking", "WatchSeats", trip_id=made.trip_id) as watcher:
        await watcher.until(bool)
        booking = await buy(nour, company, made)
        await watcher.until(lambda updates: seats_in(updates).get("2A") == BOOKED)
        assert saw(watcher.updates, "2A") == [FREE, HELD, BOOKED]
    assert booking.state == CONFIRMED
    assert await in_wallet(nour) == 500

    await until_allowed_to_follow(nour, made.trip_id)
    stranger = somebody(edge, speaker)
    async with stranger.listen("location", "FollowTrip", trip_id=made.trip_id) as other:
        assert await other.end() == "NOT_A_FOLLOWER"
    async with nour.listen("location", "FollowTrip", trip_id=made.trip_id) as follower:
        await follower.until(bool)
        await board(nour, crew, made, booking.passengers[0].ticket_id)
        await follower.until(
            lambda updates: any(one.boarding.boarded_count == 1 for one in updates)
        )
        await drive_to_the_end(edge, crew.driver, made, made.vehicle_id)
        assert await follower.end() == ""
    seen = [one.WhichOneof("update") for one in follower.updates]
    assert "position" in seen
    assert [one.status.status for one in follower.updates if one.HasField("status")] == [
        tracked_pb2.TRIP_STATUS_STARTED,
        tracked_pb2.TRIP_STATUS_ENDED,
    ]

    await company.times_pass(made, departed=timedelta(hours=4))
    reference = f"booking/{booking.booking_id}"
    assert await company.expected_of(made.trip_id) == [(nour.user_id, reference, FARE)]
    report = await company.admin.ask(
        "ledger", "RunReconciliation", checks=[audit_pb2.RECONCILIATION_CHECK_TRIPS_PAID]
    )
    # Of this trip alone: others share the operator.
    assert f"trip/{made.trip_id}" not in {one.subject for one in report.discrepancies}
    ended = await until_payment(nour, booking.booking_id, booking_pb2.PAYMENT_STATE_PAID)
    assert ended.state == CONFIRMED
    assert ended.journey.trip_status == trip_pb2.TRIP_STATUS_COMPLETED
    paid = await nour.ask("ledger", "GetTransfer", transfer_id=ended.payment.transfer_id)
    assert (paid.reference, minor(paid.amount)) == (reference, FARE)
    assert await in_wallet(nour) == 500
