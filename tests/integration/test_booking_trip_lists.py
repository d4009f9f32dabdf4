"""Lists of trips, for staff and for the crew."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from tests.support.booking_process import (
    BookingProcess,
    timestamp,
)
from tests.support.location_values import new_id
from wayfare.booking.v1 import booking_service_pb2 as pb
from wayfare.booking.v1 import trip_pb2

pytestmark = pytest.mark.integration


def update(trip_id: str, paths: list[str], **values: Any) -> pb.UpdateTripRequest:
    changed = trip_pb2.Trip(trip_id=trip_id, **values)
    return pb.UpdateTripRequest(
        trip=changed, update_mask=FieldMask(paths=paths), request_id=new_id()
    )


def cancel(trip_id: str) -> pb.CancelTripRequest:
    return pb.CancelTripRequest(
        trip_id=trip_id, cancel_reason="Engine trouble", request_id=new_id()
    )


async def test_staff_list_trips_by_departure_and_crew_their_own(booking: BookingProcess) -> None:
    layout_id = (await booking.layout()).seat_layout_id
    conductor, driver = new_id(), new_id()
    now = datetime.now(UTC)
    made = [
        await booking.trip(
            layout_id,
            departs=now + timedelta(hours=hours),
            conductor_ids=[conductor] if hours % 2 else [],
            driver_id=driver if hours == 2 else "",
        )
        for hours in (5, 1, 3, 2, 4)
    ]
    await booking.call("CancelTrip", cancel(made[2].trip_id))
    by_departure = [made[index].trip_id for index in (1, 3, 2, 4, 0)]
    admin = booking.admin

    async def listed(metadata: Any, **values: Any) -> list[str]:
        seen: list[str] = []
        request = pb.ListTripsRequest(page_size=2, **values)
        for _ in range(4):
            page = await booking.call("ListTrips", request, metadata)
            assert len(page.trips) <= 2
            seen += [one.trip_id for one in page.trips]
            request.page_token = page.next_page_token
            if not request.page_token:
                return seen
        raise AssertionError("the list does not end")

    assert await listed(admin) == by_departure
    assert await listed(admin, crew_id=driver) == [made[3].trip_id]
    assert await listed(admin, status=trip_pb2.TRIP_STATUS_CANCELLED) == [made[2].trip_id]
    assert await listed(admin, start_time=timestamp(now + timedelta(hours=2.5))) == by_departure[2:]
    assert await listed(admin, end_time=timestamp(now + timedelta(hours=2.5))) == by_departure[:2]
    own = [made[index].trip_id for index in (1, 2, 0)]
    assert await listed(booking.bearer("CONDUCTOR", conductor)) == own
    assert await listed(booking.bearer("CONDUCTOR", conductor), crew_id=driver) == own
    assert await listed(booking.bearer("DRIVER", new_id())) == []


async def test_crew_that_was_exchanged_lists_the_trip_no_longer(booking: BookingProcess) -> None:
    before, after = new_id(), new_id()
    made = await booking.trip(driver_id=before)

    await booking.call("UpdateTrip", update(made.trip_id, ["driver_id"], driver_id=after))

    lists = [
        await booking.call("ListTrips", pb.ListTripsRequest(), booking.bearer("DRIVER", user))
        for user in (before, after)
    ]
    assert [[one.trip_id for one in page.trips] for page in lists] == [[], [made.trip_id]]


async def test_a_list_of_more_than_a_month_or_of_another_is_refused(
    booking: BookingProcess,
) -> None:
    now = datetime.now(UTC)
    layout_id = (await booking.layout()).seat_layout_id
    for _ in range(2):
        await booking.trip(layout_id)
    page = await booking.call("ListTrips", pb.ListTripsRequest(page_size=1))

    wide = pb.ListTripsRequest(
        start_time=timestamp(now), end_time=timestamp(now + timedelta(days=32))
    )
    other = pb.ListTripsRequest(page_token=page.next_page_token, crew_id=new_id())

    assert (await booking.refused("ListTrips", wide)).reason == "SEARCH_TOO_WIDE"
    assert (await booking.refused("ListTrips", other)).reason == "PAGE_TOKEN_INVALID"
