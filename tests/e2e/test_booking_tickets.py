"""Tickets through Envoy: bought, shown as JSON, scanned by `wayfare scan`, seen by everybody."""

import asyncio
import os
import sys
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from services.stack.embedded import EmbeddedStack
from tests.support.booking_process import layout, trip
from tests.support.booking_tickets import scan
from tests.support.e2e_edge import Edge, bearer
from wayfare.booking.v1 import booking_pb2, trip_pb2
from wayfare.booking.v1 import booking_service_pb2 as pb
from wayfare.booking.v1.booking_service_pb2_grpc import BookingServiceStub

pytestmark = pytest.mark.e2e


def _id() -> str:
    return str(uuid.uuid4())


class Counter:
    """Makes trips and sells tickets through the edge."""

    def __init__(self, edge: Edge, stub: BookingServiceStub) -> None:
        self._edge = edge
        self._stub = stub
        self.admin = bearer(edge.mint.token("ADMIN"))

    async def trip(self, conductor_id: str) -> trip_pb2.Trip:
        made = await self._stub.CreateSeatLayout(
            pb.CreateSeatLayoutRequest(seat_layout=layout(), request_id=_id()), metadata=self.admin
        )
        wanted = trip(
            made.seat_layout_id,
            conductor_ids=[conductor_id],
            departs=datetime.now(UTC) + timedelta(hours=2),
        )
        created: trip_pb2.Trip = await self._stub.CreateTrip(
            pb.CreateTripRequest(trip=wanted, request_id=_id()), metadata=self.admin
        )
        return created

    async def buy(self, trip_id: str, user_id: str, *seats: str) -> booking_pb2.Booking:
        """Book seats that are paid on board."""
        metadata = bearer(self._edge.mint.token("PASSENGER", sub=user_id))
        hold = await self._stub.HoldSeats(
            pb.HoldSeatsRequest(
                trip_id=trip_id,
                from_stop_id="A",
                to_stop_id="C",
                seats=pb.SeatNumbers(seat_numbers=seats),
                request_id=_id(),
            ),
            metadata=metadata,
        )
        booked: booking_pb2.Booking = await self._stub.CreateBooking(
            pb.CreateBookingRequest(
                hold_id=hold.hold_id,
                passengers=[
                    booking_pb2.Passenger(seat_number=seat, full_name=f"Layla {seat}")
                    for seat in seats
                ],
                payment_method=trip_pb2.PAYMENT_METHOD_CASH,
                request_id=_id(),
            ),
            metadata=metadata,
        )
        return booked


async def _ticket(edge: Edge, ticket_id: str, user_id: str) -> dict[str, Any]:
    token = edge.mint.token("PASSENGER", sub=user_id)
    async with httpx.AsyncClient(base_url=edge.url, trust_env=False) as web:
        answer = await web.get(
            f"/v1/tickets/{ticket_id}",
            params={"include_qr_png": "true"},
            headers={"authorization": f"Bearer {token}"},
        )
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


async def _wayfare(stack: EmbeddedStack, *arguments: str, lines: str = "") -> str:
    """Run the command on the home of the stack; return what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from services.stack.command import main; main()",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "WAYFARE_HOME": str(stack.home.path)},
    )
    output, errors = await asyncio.wait_for(process.communicate(lines.encode()), 60)
    assert process.returncode == 0, errors.decode()
    return output.decode()


async def test_a_conductor_scans_without_a_network_and_reports_later(
    stack: EmbeddedStack, edge: Edge
) -> None:
    conductor_id, layla = _id(), _id()
    async with edge.channel() as channel:
        stub = BookingServiceStub(channel)
        counter = Counter(edge, stub)
        made = await counter.trip(conductor_id)
        booking = await counter.buy(made.trip_id, layla, "2A", "2B")
        tickets = [
            await _ticket(edge, passenger.ticket_id, layla) for passenger in booking.passengers
        ]
        await _wayfare(stack, "login", "--admin", "--edge", stack.edge_address)

        prepared = await _wayfare(stack, "scan", made.trip_id, "--edge", stack.edge_address)
        offline = await _wayfare(
            stack,
            "scan",
            made.trip_id,
            "--offline",
            lines=f"{tickets[0]['qrText']}\n{tickets[0]['token']}\nnonsense\nstop 2\n"
            f"{tickets[1]['qrText']}\n",
        )
        reported = await _wayfare(stack, "scan", made.trip_id, "--edge", stack.edge_address)
        conductor = bearer(edge.mint.token("CONDUCTOR", sub=conductor_id))
        online = await stub.VerifyTicket(
            pb.VerifyTicketRequest(
                trip_id=made.trip_id, device_id="phone-1", scan=scan(tickets[0]["qrText"])
            ),
            metadata=conductor,
        )
        manifest = await stub.GetManifest(
            pb.GetManifestRequest(trip_id=made.trip_id), metadata=conductor
        )

    assert "2 passengers" in prepared
    good, again, nonsense, moved, left = offline.splitlines()[:5]
    assert "✓ seat 2A" in good
    assert "TICKET_ALREADY_USED" in again
    assert "TICKET_MALFORMED" in nonsense
    assert "stop 2" in moved
    assert "TICKET_OTHER_LEG" in left
    assert "4 scans wait" in offline
    assert "4 scans reported" in reported
    assert "40.00 EGP taken in cash" in reported  # two legs of two seats
    assert "0 of 2 on board" in reported  # the bus is at stop 2, where both get off
    assert online.reason == "TICKET_ALREADY_USED"
    assert online.counted_scan.device_id == "terminal"
    assert online.passenger_name == "Layla 2A"
    assert [entry.full_name for entry in manifest.entries] == ["Layla 2A", "Layla 2B"]
    assert manifest.entries[0].boarding_state == booking_pb2.BOARDING_STATE_BOARDED
    assert tickets[0]["qrPng"].startswith("iVBOR")
