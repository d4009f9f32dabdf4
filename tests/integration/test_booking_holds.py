"""Holds: all seats or none, by leg, and every refusal."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.duration_pb2 import Duration

from tests.support.booking_process import BookingProcess, timestamp
from tests.support.booking_seats import hold_request
from tests.support.location_values import new_id
from wayfare.booking.v1 import booking_service_pb2 as pb
from wayfare.booking.v1 import events_pb2, hold_pb2, seat_map_pb2, trip_pb2

pytestmark = pytest.mark.integration


async def test_seats_are_held_with_their_price_until_a_moment(booking: BookingProcess) -> None:
    trip = await booking.trip()

    hold = await booking.call(
        "HoldSeats", hold_request(trip, "2B", "1A", to_stop_id="C"), booking.passenger
    )

    assert hold.state == hold_pb2.HOLD_STATE_ACTIVE
    assert [seat.seat_number for seat in hold.seats] == ["1A", "2B"]
    assert [seat.price.units for seat in hold.seats] == [50, 20]
    assert hold.amount.units == 70
    assert (hold.from_stop_index, hold.to_stop_index) == (0, 2)
    assert 590 < hold.remaining.seconds <= 600
    assert hold.extension_left_count == 1
    (told,) = await booking.events("trip_seats", trip.trip_id)
    assert isinstance(told, events_pb2.SeatsChanged)
    assert told.seat_version == 1
    assert {(one.seat_number, one.leg_count, one.state) for one in told.changes} == {
        ("1A", 2, seat_map_pb2.SEAT_STATE_HELD),
        ("2B", 2, seat_map_pb2.SEAT_STATE_HELD),
    }


async def test_a_seat_is_held_by_others_on_other_legs_and_by_nobody_on_the_same(
    booking: BookingProcess,
) -> None:
    trip = await booking.trip()
    first = hold_request(trip, "3A", from_stop_id="A", to_stop_id="B")
    second = hold_request(trip, "3A", from_stop_id="B", to_stop_id="C")
    both = hold_request(trip, "3B", "3A", from_stop_id="A", to_stop_id="D")

    await booking.call("HoldSeats", first, booking.passenger)
    await booking.call("HoldSeats", second, booking.passenger)
    refusal = await booking.refused("HoldSeats", both, booking.passenger)
    await booking.call("HoldSeats", hold_request(trip, "3B", from_stop_id="A"), booking.passenger)

    assert refusal.reason == "SEAT_HELD"
    assert refusal.metadata == {"seat_numbers": "3A", "trip_id": trip.trip_id}


async def test_of_many_who_want_a_seat_at_once_one_gets_it(booking: BookingProcess) -> None:
    trip = await booking.trip()

    async def attempt() -> str:
        try:
            await booking.call("HoldSeats", hold_request(trip, "5A", "5B"), booking.passenger)
        except Exception as error:  # noqa: BLE001 - counted below
            return str(getattr(error, "details", lambda: "")())
        return "held"

    outcomes = await asyncio.gather(*[attempt() for _ in range(40)])

    assert outcomes.count("held") == 1
    assert len(set(outcomes)) == 2


async def test_the_same_request_holds_once(booking: BookingProcess) -> None:
    trip, passenger = await booking.trip(), booking.passenger
    request = hold_request(trip, "5A")

    first, again = await asyncio.gather(
        booking.call("HoldSeats", request, passenger),
        booking.call("HoldSeats", request, passenger),
    )
    release = pb.ReleaseHoldRequest(hold_id=first.hold_id, request_id=new_id())
    await booking.call("ReleaseHold", release, passenger)
    late = await booking.call("HoldSeats", request, passenger)
    request.seats.seat_numbers.append("5B")
    refusal = await booking.refused("HoldSeats", request, passenger)

    assert first.hold_id == again.hold_id == late.hold_id
    assert late.state == hold_pb2.HOLD_STATE_RELEASED
    assert refusal.reason == "REQUEST_ID_REUSED"


async def test_a_repeated_request_is_answered_though_its_seat_is_anothers_now(
    booking: BookingProcess,
) -> None:
    trip, passenger = await booking.trip(), booking.passenger
    request = hold_request(trip, "5A")
    hold = await booking.call("HoldSeats", request, passenger)
    release = pb.ReleaseHoldRequest(hold_id=hold.hold_id, request_id=new_id())
    await booking.call("ReleaseHold", release, passenger)
    await booking.call("HoldSeats", hold_request(trip, "5A"), booking.passenger)

    again = await booking.call("HoldSeats", request, passenger)

    assert (again.hold_id, again.state) == (hold.hold_id, hold_pb2.HOLD_STATE_RELEASED)


async def test_best_available_seats_are_next_to_each_other(booking: BookingProcess) -> None:
    trip = await booking.trip()
    best = pb.BestAvailable(seat_count=2)

    hold = await booking.call(
        "HoldSeats", hold_request(trip, best_available=best), booking.passenger
    )

    assert hold.together
    assert [seat.seat_number for seat in hold.seats] == ["2A", "2B"]
    assert {seat.seat_class_code for seat in hold.seats} == {"STANDARD"}


async def test_best_available_is_refused_when_there_are_too_few(booking: BookingProcess) -> None:
    made = await booking.layout(rows=2, accessible=["2A"])
    trip = await booking.trip(made.seat_layout_id)
    best = pb.BestAvailable(seat_count=2, accessible=True)

    refusal = await booking.refused(
        "HoldSeats", hold_request(trip, best_available=best), booking.passenger
    )

    assert refusal.reason == "SEATS_NOT_AVAILABLE"
    assert refusal.metadata["free_seats"] == "1"


async def test_seats_that_are_not_there_or_not_for_sale_are_refused(
    booking: BookingProcess,
) -> None:
    made = await booking.layout(blocked=["1A"])
    trip = await booking.trip(made.seat_layout_id)

    unknown = await booking.refused("HoldSeats", hold_request(trip, "1A", "99Z"))
    blocked = await booking.refused("HoldSeats", hold_request(trip, "1A", "1B"))

    assert (unknown.reason, unknown.metadata["seat_numbers"]) == ("SEAT_UNKNOWN", "99Z")
    assert (blocked.reason, blocked.metadata["seat_numbers"]) == ("SEAT_BLOCKED", "1A")


async def test_trips_that_cannot_be_booked_are_refused(booking: BookingProcess) -> None:
    now = datetime.now(UTC)
    made = await booking.layout()
    under_way = await booking.trip(made.seat_layout_id, departs=now - timedelta(minutes=5))
    later = trip_pb2.SalesTerms(open_time=timestamp(now + timedelta(hours=1)))
    not_yet = await booking.trip(made.seat_layout_id, sales_terms=later)
    soon = trip_pb2.SalesTerms(close_before_departure=Duration(seconds=3 * 3600))
    over = await booking.trip(made.seat_layout_id, sales_terms=soon)
    off = await booking.trip(made.seat_layout_id)
    await booking.call(
        "CancelTrip",
        pb.CancelTripRequest(trip_id=off.trip_id, cancel_reason="Snow", request_id=new_id()),
    )
    unknown = trip_pb2.Trip(trip_id=new_id())

    reasons = [
        (await booking.refused("HoldSeats", hold_request(trip, "3A", **values))).reason
        for trip, values in (
            (under_way, {}),
            (not_yet, {}),
            (over, {}),
            (off, {}),
            (unknown, {}),
            (not_yet, {"from_stop_id": "C", "to_stop_id": "A"}),
        )
    ]

    assert reasons == [
        "TRIP_DEPARTED",
        "TRIP_NOT_ON_SALE",
        "TRIP_NOT_ON_SALE",
        "TRIP_CANCELLED",
        "TRIP_UNKNOWN",
        "STOP_NOT_ON_TRIP",
    ]
    later_stop = hold_request(under_way, "3A", from_stop_id="B")
    assert (await booking.call("HoldSeats", later_stop)).from_stop_index == 1


async def test_nobody_holds_more_seats_or_holds_than_one_may(booking: BookingProcess) -> None:
    terms = trip_pb2.SalesTerms(held_seat_max_count=3)
    trip, passenger = await booking.trip(sales_terms=terms), booking.passenger
    await booking.call("HoldSeats", hold_request(trip, "3A", "3B"), passenger)

    seats = await booking.refused("HoldSeats", hold_request(trip, "4A", "4B"), passenger)
    admin = await booking.call("HoldSeats", hold_request(trip, "5A", "5B", "5C", "5D"))
    layout_id = trip.seat_layout_id
    trips = [await booking.trip(layout_id) for _ in range(20)]
    outcomes = await asyncio.gather(
        *[booking.call("HoldSeats", hold_request(one, "3A"), passenger) for one in trips],
        return_exceptions=True,
    )

    assert (seats.reason, seats.metadata["held_seats"]) == ("TOO_MANY_SEATS", "2")
    assert len(admin.seats) == 4
    assert sum(isinstance(one, BaseException) for one in outcomes) == 1
    refusal = await booking.refused("HoldSeats", hold_request(trip, "9A"), passenger)
    assert (refusal.reason, refusal.metadata["max_holds"]) == ("TOO_MANY_HOLDS", "20")


async def test_a_hold_is_replaced_in_one_step_or_stays(booking: BookingProcess) -> None:
    trip, passenger = await booking.trip(), booking.passenger
    old = await booking.call("HoldSeats", hold_request(trip, "3A", "3B"), passenger)
    await booking.call("HoldSeats", hold_request(trip, "4A"), booking.passenger)

    failed = await booking.refused(
        "HoldSeats", hold_request(trip, "3B", "4A", replaced_hold_id=old.hold_id), passenger
    )
    still = (await booking.call("ListHolds", pb.ListHoldsRequest(), passenger)).holds
    new = await booking.call(
        "HoldSeats", hold_request(trip, "3B", "3C", replaced_hold_id=old.hold_id), passenger
    )
    left = (await booking.call("ListHolds", pb.ListHoldsRequest(), passenger)).holds
    again = await booking.refused(
        "HoldSeats", hold_request(trip, "8A", replaced_hold_id=old.hold_id), passenger
    )

    assert failed.reason == "SEAT_HELD"
    assert [one.hold_id for one in still] == [old.hold_id]
    assert new.expire_time == old.expire_time
    assert [one.hold_id for one in left] == [new.hold_id]
    assert (again.reason, again.metadata["state"]) == ("HOLD_NOT_ACTIVE", "RELEASED")


async def test_a_hold_is_extended_once_by_whose_it_is(booking: BookingProcess) -> None:
    trip, passenger = await booking.trip(), booking.passenger
    hold = await booking.call("HoldSeats", hold_request(trip, "3A"), passenger)
    request = pb.ExtendHoldRequest(hold_id=hold.hold_id, request_id=new_id())

    other = await booking.refused("ExtendHold", request, booking.passenger)
    extended = await booking.call("ExtendHold", request, passenger)
    again = await booking.call("ExtendHold", request, passenger)
    twice = await booking.refused(
        "ExtendHold",
        pb.ExtendHoldRequest(hold_id=hold.hold_id, request_id=new_id()),
        passenger,
    )
    reused = await booking.refused(
        "ExtendHold",
        pb.ExtendHoldRequest(
            hold_id=(await booking.call("HoldSeats", hold_request(trip, "3B"), passenger)).hold_id,
            request_id=request.request_id,
        ),
        passenger,
    )

    assert other.reason == "HOLD_NOT_YOURS"
    assert extended.expire_time.ToDatetime() > hold.expire_time.ToDatetime()
    assert again.expire_time == extended.expire_time
    assert extended.extension_left_count == 0
    assert twice.reason == "HOLD_EXTENSIONS_USED"
    assert reused.reason == "REQUEST_ID_REUSED"


async def test_a_released_seat_is_free_at_once(booking: BookingProcess) -> None:
    trip, passenger = await booking.trip(), booking.passenger
    hold = await booking.call("HoldSeats", hold_request(trip, "3A"), passenger)
    request = pb.ReleaseHoldRequest(hold_id=hold.hold_id, request_id=new_id())

    other = await booking.refused("ReleaseHold", request, booking.passenger)
    released = await booking.call("ReleaseHold", request, passenger)
    await booking.call("HoldSeats", hold_request(trip, "3A"), booking.passenger)
    later = pb.ReleaseHoldRequest(hold_id=hold.hold_id, request_id=new_id())
    again = await booking.call("ReleaseHold", later, passenger)
    extend = pb.ExtendHoldRequest(hold_id=hold.hold_id, request_id=new_id())
    refusal = await booking.refused("ExtendHold", extend, passenger)

    assert other.reason == "HOLD_NOT_YOURS"
    assert released.state == again.state == hold_pb2.HOLD_STATE_RELEASED
    assert released.remaining == Duration()
    assert refusal.reason == "HOLD_NOT_ACTIVE"


async def test_holds_are_listed_by_page_and_trip(booking: BookingProcess) -> None:
    made, passenger = await booking.layout(), booking.passenger
    trips = [await booking.trip(made.seat_layout_id) for _ in range(3)]
    holds = [await booking.call("HoldSeats", hold_request(one, "3A"), passenger) for one in trips]

    first = await booking.call("ListHolds", pb.ListHoldsRequest(page_size=2), passenger)
    rest = await booking.call(
        "ListHolds",
        pb.ListHoldsRequest(page_size=2, page_token=first.next_page_token),
        passenger,
    )
    one = await booking.call("ListHolds", pb.ListHoldsRequest(trip_id=trips[1].trip_id), passenger)
    refusal = await booking.refused(
        "ListHolds", pb.ListHoldsRequest(page_token=first.next_page_token), booking.passenger
    )

    listed = [hold.hold_id for hold in (*first.holds, *rest.holds)]
    assert listed == [hold.hold_id for hold in reversed(holds)]
    assert rest.next_page_token == ""
    assert [hold.hold_id for hold in one.holds] == [holds[1].hold_id]
    assert refusal.reason == "PAGE_TOKEN_INVALID"


async def test_holds_end_when_the_trip_is_called_off(booking: BookingProcess) -> None:
    trip, passenger = await booking.trip(), booking.passenger
    hold = await booking.call("HoldSeats", hold_request(trip, "3A"), passenger)
    cancel = pb.CancelTripRequest(trip_id=trip.trip_id, cancel_reason="Snow", request_id=new_id())

    await booking.call("CancelTrip", cancel)
    async with asyncio.timeout(10):
        while (await booking.call("ListHolds", pb.ListHoldsRequest(), passenger)).holds:
            await asyncio.sleep(0.05)
    extend = pb.ExtendHoldRequest(hold_id=hold.hold_id, request_id=new_id())
    refusal = await booking.refused("ExtendHold", extend, passenger)

    assert (refusal.reason, refusal.metadata["state"]) == ("HOLD_NOT_ACTIVE", "RELEASED")
