"""From the sale to the seat: tickets of real bookings are scanned, paid in cash, taken back."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.support.booking_money import (
    CANCELLED,
    CASH,
    CONFIRMED,
    LEG_MINOR,
    PAID,
    Shop,
    running_shop,
)
from tests.support.booking_process import money
from tests.support.booking_tickets import scan
from tests.support.identity_process import refusal_of
from tests.support.location_values import new_id
from tests.support.stack_fixtures import TestDatabase
from wayfare.booking.v1 import booking_pb2, events_pb2, manifest_pb2, ticket_pb2, trip_pb2
from wayfare.booking.v1 import booking_service_pb2 as pb
from wayfare_client.tickets import TripScanner

pytestmark = pytest.mark.integration
_FARE = 3 * LEG_MINOR


@dataclass
class Coach:
    """A trip that has seats on sale, and its conductor."""

    shop: Shop
    trip: trip_pb2.Trip
    conductor_id: str

    async def ticket(self, user_id: str, ticket_id: str) -> ticket_pb2.Ticket:
        found: ticket_pb2.Ticket = await self.shop.call(
            "GetTicket", pb.GetTicketRequest(ticket_id=ticket_id), user_id
        )
        return found

    async def verify(self, text: str, **values: Any) -> ticket_pb2.ScanResult:
        request = pb.VerifyTicketRequest(
            trip_id=self.trip.trip_id, device_id="phone-1", scan=scan(text, **values)
        )
        result: ticket_pb2.ScanResult = await self.by_conductor("VerifyTicket", request)
        return result

    async def by_conductor(self, method: str, request: Any) -> Any:
        return await self.shop.call(method, request, self.conductor_id, "CONDUCTOR")


@pytest.fixture
async def coach(
    migrated_database: TestDatabase, valkey_url: str, short_folder: Path
) -> AsyncIterator[Coach]:
    async with running_shop(
        short_folder, database=migrated_database, valkey_url=valkey_url
    ) as shop:
        conductor_id = new_id()
        yield Coach(shop, await shop.trip(conductor_ids=[conductor_id]), conductor_id)


async def test_a_sold_ticket_verifies_without_a_network_and_lets_its_passenger_on(
    coach: Coach,
) -> None:
    nour = await coach.shop.passenger()
    booking = await coach.shop.buy(coach.trip, nour, "2A")
    ticket = await coach.ticket(nour, booking.passengers[0].ticket_id)
    scanner = TripScanner(coach.trip.trip_id)
    keys = await coach.by_conductor("ListTicketKeys", pb.ListTicketKeysRequest())
    scanner.learn_keys(keys.ticket_keys)

    offline = scanner.scan(ticket.token, stop_index=0)
    online = await coach.verify(ticket.qr_text)
    shown = await coach.shop.get(booking.booking_id)
    manifest: manifest_pb2.Manifest = await coach.by_conductor(
        "GetManifest", pb.GetManifestRequest(trip_id=coach.trip.trip_id)
    )
    late = await coach.shop.refused(
        "CancelBooking",
        pb.CancelBookingRequest(booking_id=booking.booking_id, request_id=new_id()),
        nour,
    )

    assert offline.accepted
    assert offline.content is not None
    assert offline.content.seat_number == "2A"
    assert online.accepted
    assert online.passenger_name == "Nour 2A"
    assert not online.HasField("cash_due")
    assert shown.passengers[0].boarding_state == booking_pb2.BOARDING_STATE_BOARDED
    (entry,) = manifest.entries
    assert (entry.full_name, entry.document_number) == ("Nour 2A", "A1234567")
    assert entry.passenger_key == offline.content.passenger_key
    assert late.reason == "BOOKING_NOT_CANCELLABLE"


async def test_cash_that_the_conductor_takes_is_paid_in_the_ledger(coach: Coach) -> None:
    nour = await coach.shop.passenger(0)
    booking = await coach.shop.buy(coach.trip, nour, "2A", "2B", method=CASH)
    ticket = await coach.ticket(nour, booking.passengers[0].ticket_id)

    result = await coach.verify(ticket.qr_text)
    paid = await coach.shop.until_payment(booking.booking_id, PAID)

    assert ticket.cash_due == money(_FARE)
    assert result.cash_due == money(2 * _FARE)
    assert paid.state == CONFIRMED
    after = await coach.ticket(nour, booking.passengers[0].ticket_id)
    assert after.state == ticket_pb2.TICKET_STATE_USED
    assert not after.HasField("cash_due")


async def test_tickets_of_a_cancelled_booking_are_revoked_for_phones_too(coach: Coach) -> None:
    nour = await coach.shop.passenger()
    booking = await coach.shop.buy(coach.trip, nour, "2A", "2B")
    ticket_ids = sorted(one.ticket_id for one in booking.passengers)
    texts = [(await coach.ticket(nour, ticket_id)).qr_text for ticket_id in ticket_ids]
    await coach.shop.cancel(booking.booking_id, nour)
    request = pb.ListTicketRevocationsRequest(trip_id=coach.trip.trip_id)

    async with asyncio.timeout(10):
        while True:
            page = await coach.by_conductor("ListTicketRevocations", request)
            if page.ticket_revocations:
                break
    keys = await coach.by_conductor("ListTicketKeys", pb.ListTicketKeysRequest())
    scanner = TripScanner(coach.trip.trip_id)
    scanner.learn_keys(keys.ticket_keys)
    scanner.learn_revocations(page.ticket_revocations)

    assert [scanner.scan(text, stop_index=0).reason for text in texts] == ["TICKET_REVOKED"] * 2
    assert [(await coach.verify(text)).reason for text in texts] == ["TICKET_REVOKED"] * 2
    told = [
        sorted(event.ticket_ids)
        for event in await coach.shop.booking.events("booking", booking.booking_id)
        if isinstance(event, events_pb2.TicketsRevoked)
    ]
    assert told == [ticket_ids]


def _moves(coach: Coach, seat: str, target: str) -> pb.OverrideSeatRequest:
    return pb.OverrideSeatRequest(
        trip_id=coach.trip.trip_id,
        seat_number=seat,
        action=manifest_pb2.SEAT_OVERRIDE_ACTION_MOVE,
        target_seat_number=target,
        reason="the seat is broken",
        request_id=new_id(),
    )


async def test_a_passenger_who_is_moved_gets_another_ticket(coach: Coach) -> None:
    nour = await coach.shop.passenger()
    booking = await coach.shop.buy(coach.trip, nour, "2A")
    old = await coach.ticket(nour, booking.passengers[0].ticket_id)
    await coach.shop.call("OverrideSeat", _moves(coach, "2A", "5C"), new_id(), "ADMIN")
    moved = await coach.shop.get(booking.booking_id)
    new = await coach.ticket(nour, moved.passengers[0].ticket_id)

    assert (await coach.verify(old.qr_text)).reason == "TICKET_REVOKED"
    result = await coach.verify(new.qr_text)
    assert (result.accepted, result.seat_number) == (True, "5C")


async def test_who_boarded_without_a_network_stays_on_board_when_moved_before_it_is_known(
    coach: Coach,
) -> None:
    nour = await coach.shop.passenger()
    booking = await coach.shop.buy(coach.trip, nour, "2A", method=CASH)
    old = await coach.ticket(nour, booking.passengers[0].ticket_id)
    seen = scan(old.qr_text, at=datetime.now(UTC))
    await coach.shop.call("OverrideSeat", _moves(coach, "2A", "5C"), new_id(), "ADMIN")
    moved = await coach.shop.get(booking.booking_id)
    new = await coach.ticket(nour, moved.passengers[0].ticket_id)
    elsewhere = await coach.verify(new.qr_text)

    report = await coach.by_conductor(
        "ReportScans",
        pb.ReportScansRequest(
            trip_id=coach.trip.trip_id, device_id="phone-2", scans=[seen], request_id=new_id()
        ),
    )

    (result,) = report.results
    assert (elsewhere.reason, result.reason) == ("", "")
    # The scan of the new ticket came second, though it was heard of first.
    (overturned,) = report.overturned_results
    assert (overturned.scan_id, overturned.reason) == (elsewhere.scan_id, "TICKET_ALREADY_USED")
    used = await coach.ticket(nour, new.ticket_id)
    assert used.use_time == seen.scan_time
    assert report.boarding_counts.boarded_count == 1
    await coach.shop.until_payment(booking.booking_id, PAID)


async def test_of_a_scan_and_a_cancellation_at_once_one_wins(coach: Coach) -> None:
    """Nobody rides with the money back, and nobody is turned away who paid."""
    people = [await coach.shop.passenger() for _ in range(8)]
    bookings = [
        await coach.shop.buy(coach.trip, nour, f"{row}A") for row, nour in enumerate(people, 2)
    ]
    tickets = [
        await coach.ticket(nour, booking.passengers[0].ticket_id)
        for nour, booking in zip(people, bookings, strict=True)
    ]

    async def cancel(number: int) -> str:
        request = pb.CancelBookingRequest(
            booking_id=bookings[number].booking_id, request_id=new_id()
        )
        try:
            await coach.shop.call("CancelBooking", request, people[number])
        except grpc.aio.AioRpcError as error:
            return refusal_of(error).reason
        return ""

    scanned, refused = await asyncio.gather(
        asyncio.gather(*(coach.verify(ticket.qr_text) for ticket in tickets)),
        asyncio.gather(*(cancel(number) for number in range(8))),
    )

    for booking, result, reason in zip(bookings, scanned, refused, strict=True):
        state = (await coach.shop.get(booking.booking_id)).state
        assert (state, result.reason, reason) in {
            (CONFIRMED, "", "BOOKING_NOT_CANCELLABLE"),
            (CANCELLED, "TICKET_REVOKED", ""),
        }
