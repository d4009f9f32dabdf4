"""What passengers do and see in the stories of tests/e2e, whatever client they have."""

import asyncio
import uuid
from typing import Any

from tests.support.booking_seats import FREE
from tests.support.e2e_company import Company
from tests.support.e2e_edge import Edge
from tests.support.e2e_speakers import Caller, Speaker
from tests.support.ledger_process import minor
from wayfare.booking.v1 import booking_pb2, trip_pb2
from wayfare.booking.v1 import booking_service_pb2 as pb

# Two seats from A to C, two legs.
FARE = 2 * 2 * 1_000


def somebody(edge: Edge, speaker: Speaker) -> Caller:
    """Return another passenger."""
    user_id = str(uuid.uuid4())
    return Caller(speaker=speaker, token=edge.mint.token("PASSENGER", sub=user_id), user_id=user_id)


async def in_wallet(person: Caller) -> int:
    """Return what a passenger can spend."""
    balance = await person.ask("ledger", "GetBalance")
    return sum(minor(one.available) for one in balance.wallets)


def passengers(*seats: str) -> list[booking_pb2.Passenger]:
    return [booking_pb2.Passenger(seat_number=one, full_name=f"Nour {one}") for one in seats]


async def until_payment(nour: Caller, booking_id: str, state: int) -> booking_pb2.Booking:
    """Wait until the payment of a booking came to a state; return the booking."""
    async with asyncio.timeout(20):
        while True:
            found: booking_pb2.Booking = await nour.ask(
                "booking", "GetBooking", booking_id=booking_id
            )
            if found.payment.state == state:
                return found
            await asyncio.sleep(0.1)


def seats_in(updates: list[Any]) -> dict[str, int]:
    """Return the seats as a watcher knows them."""
    seats: dict[str, int] = {}
    for update in updates:
        told = update.snapshot if update.HasField("snapshot") else update.changes
        seats |= {one.seat_number: one.state for one in told.seats}
    return seats


async def free_seats(nour: Caller, trip_id: str) -> int:
    seats = await nour.ask("booking", "GetSeatMap", trip_id=trip_id)
    return sum(one.state == FREE for one in seats.seats)


def wanted(company: Company, made: trip_pb2.Trip, *seats: str) -> dict[str, Any]:
    """Return the fields of a request that holds seats from A to C."""
    return {
        "trip_id": made.trip_id,
        "from_stop_id": company.stop_id("A"),
        "to_stop_id": company.stop_id("C"),
        "seats": pb.SeatNumbers(seat_numbers=seats),
    }
