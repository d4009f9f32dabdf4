"""What an ADMIN changes by hand: against the rules of the sale, never against a seat's."""

import asyncpg
import pytest

from tests.support.booking_process import BookingProcess
from tests.support.booking_seats import BLOCKED, FREE, held, hold_request, watching
from tests.support.location_values import TENANT, new_id
from wayfare.booking.v1 import booking_service_pb2 as pb
from wayfare.booking.v1 import events_pb2, hold_pb2, manifest_pb2, trip_pb2

pytestmark = pytest.mark.integration

BLOCK = manifest_pb2.SEAT_OVERRIDE_ACTION_BLOCK
UNBLOCK = manifest_pb2.SEAT_OVERRIDE_ACTION_UNBLOCK
RELEASE = manifest_pb2.SEAT_OVERRIDE_ACTION_RELEASE
MOVE = manifest_pb2.SEAT_OVERRIDE_ACTION_MOVE


def override(
    trip: trip_pb2.Trip, seat: str, action: int, from_stop: str = "", to_stop: str = ""
) -> pb.OverrideSeatRequest:
    return pb.OverrideSeatRequest(
        trip_id=trip.trip_id,
        seat_number=seat,
        action=manifest_pb2.SeatOverrideAction.ValueType(action),
        from_stop_id=from_stop,
        to_stop_id=to_stop,
        target_seat_number="9A" if action == MOVE else "",
        reason="The belt is broken",
        request_id=new_id(),
    )


async def test_a_blocked_seat_is_not_sold_on_the_legs_until_it_is_unblocked(
    booking: BookingProcess,
) -> None:
    trip = await booking.trip()
    async with watching(booking, trip) as watcher:
        made = await booking.call("OverrideSeat", override(trip, "3A", BLOCK, "B"))
        await watcher.sees(lambda one: one.states.get("3A") == BLOCKED)
        refusal = await booking.refused("HoldSeats", hold_request(trip, "3A"))
        await held(booking, trip, "3A", from_stop_id="A", to_stop_id="B")
        await booking.call("OverrideSeat", override(trip, "3A", UNBLOCK, "C"))
        await held(booking, trip, "3A", from_stop_id="C", to_stop_id="D")
        between = await booking.refused(
            "HoldSeats", hold_request(trip, "3A", from_stop_id="B", to_stop_id="C")
        )

    assert (made.from_stop_index, made.to_stop_index) == (1, 3)
    assert refusal.reason == between.reason == "SEAT_BLOCKED"
    (told,) = await booking.events("seat_override", made.override_id)
    assert isinstance(told, events_pb2.SeatOverridden)
    assert told.seat_override == made


async def test_a_released_seat_is_free_and_its_hold_has_ended(booking: BookingProcess) -> None:
    trip = await booking.trip()
    hold, passenger = await held(booking, trip, "3A", "3B", to_stop_id="C")
    async with watching(booking, trip) as watcher:
        made = await booking.call("OverrideSeat", override(trip, "3A", RELEASE, "A", "B"))
        await watcher.sees(lambda one: one.states.get("3B") == FREE)
    extend = pb.ExtendHoldRequest(hold_id=hold.hold_id, request_id=new_id())
    refusal = await booking.refused("ExtendHold", extend, passenger)

    assert list(made.hold_ids) == [hold.hold_id]
    assert (refusal.reason, refusal.metadata["state"]) == (
        "HOLD_NOT_ACTIVE",
        hold_pb2.HoldState.Name(hold_pb2.HOLD_STATE_RELEASED).removeprefix("HOLD_STATE_"),
    )


async def test_what_cannot_be_done_is_refused_with_its_reason(booking: BookingProcess) -> None:
    made = await booking.layout(blocked=["1A"])
    trip = await booking.trip(made.seat_layout_id)
    await held(booking, trip, "3A", from_stop_id="A", to_stop_id="B")

    reasons = [
        (await booking.refused("OverrideSeat", request)).reason
        for request in (
            override(trip, "3A", BLOCK),
            override(trip, "99Z", BLOCK),
            override(trip, "1A", BLOCK),
            override(trip, "1A", UNBLOCK),
            override(trip, "3A", RELEASE, "B"),
            override(trip, "3A", MOVE),
            override(trip, "3A", BLOCK, "C", "A"),
            override(trip_pb2.Trip(trip_id=new_id()), "3A", BLOCK),
        )
    ]

    assert reasons == [
        "SEAT_HELD",
        "SEAT_UNKNOWN",
        "SEAT_BLOCKED",
        "SEAT_OVERRIDE_NOT_POSSIBLE",
        "SEAT_OVERRIDE_NOT_POSSIBLE",
        "SEAT_OVERRIDE_NOT_POSSIBLE",
        "STOP_NOT_ON_TRIP",
        "TRIP_UNKNOWN",
    ]


async def test_the_same_request_changes_once_and_is_kept_for_good(
    booking: BookingProcess,
) -> None:
    trip, admin = await booking.trip(), booking.admin
    request = override(trip, "3A", BLOCK)
    first = await booking.call("OverrideSeat", request, admin)
    again = await booking.call("OverrideSeat", request, admin)
    second = await booking.call("OverrideSeat", override(trip, "3B", BLOCK), admin)
    request.reason = "Another reason"
    reused = await booking.refused("OverrideSeat", request, admin)

    page = await booking.call(
        "ListSeatOverrides", pb.ListSeatOverridesRequest(trip_id=trip.trip_id, page_size=1), admin
    )
    rest = await booking.call(
        "ListSeatOverrides",
        pb.ListSeatOverridesRequest(trip_id=trip.trip_id, page_token=page.next_page_token),
        admin,
    )
    passenger = await booking.refused(
        "ListSeatOverrides", pb.ListSeatOverridesRequest(), booking.passenger
    )
    other_list = await booking.refused(
        "ListSeatOverrides", pb.ListSeatOverridesRequest(page_token=page.next_page_token), admin
    )

    assert first == again
    assert reused.reason == "REQUEST_ID_REUSED"
    assert [*page.seat_overrides, *rest.seat_overrides] == [second, first]
    assert passenger.reason == "ROLE_NOT_ALLOWED"
    assert other_list.reason == "PAGE_TOKEN_INVALID"
    connection = await asyncpg.connect(booking.settings.database_url.get_secret_value())
    try:
        await connection.execute("SELECT set_config('app.tenant_id', $1, false)", TENANT)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("DELETE FROM booking.seat_overrides")
    finally:
        await connection.close()
