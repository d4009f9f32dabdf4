"""Seat layouts and trips: made, changed, called off, found, and what is refused."""

import pytest

from tests.support.booking_process import BookingProcess, layout, trip
from tests.support.location_values import new_id
from wayfare.booking.v1 import booking_service_pb2 as pb
from wayfare.booking.v1 import events_pb2, trip_pb2

pytestmark = pytest.mark.integration


async def test_a_layout_is_kept_as_it_was_made(booking: BookingProcess) -> None:
    made = await booking.layout(blocked=["10D"], accessible=["1A"])

    got = await booking.call(
        "GetSeatLayout",
        pb.GetSeatLayoutRequest(seat_layout_id=made.seat_layout_id),
        booking.passenger,
    )

    assert got == made
    assert made.decks == layout(blocked=["10D"], accessible=["1A"]).decks
    assert made.seat_count == 39


async def test_a_trip_is_kept_as_it_was_made(booking: BookingProcess) -> None:
    made = await booking.trip(driver_id=new_id(), conductor_ids=[new_id()], vehicle_id="BUS-1")

    got = await booking.call("GetTrip", pb.GetTripRequest(trip_id=made.trip_id))
    seen = await booking.call("GetTrip", pb.GetTripRequest(trip_id=made.trip_id), booking.passenger)

    assert got == made
    assert made.status == trip_pb2.TRIP_STATUS_SCHEDULED
    assert (seen.driver_id, list(seen.conductor_ids)) == ("", [])
    (told,) = await booking.events("trip", made.trip_id)
    assert isinstance(told, events_pb2.TripScheduled)
    assert told.trip == made
    assert told.capacity_count == 40


async def test_the_same_request_makes_one_trip(booking: BookingProcess) -> None:
    admin = booking.admin
    layout_id = (await booking.layout()).seat_layout_id
    request = pb.CreateTripRequest(trip=trip(layout_id), request_id=new_id())

    first = await booking.call("CreateTrip", request, admin)
    again = await booking.call("CreateTrip", request, admin)
    request.trip.display_name = "Other"
    refusal = await booking.refused("CreateTrip", request, admin)

    assert first == again
    assert refusal.reason == "REQUEST_ID_REUSED"
