"""Trips: made, changed, called off, and what is refused."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.type import date_pb2

from tests.support.booking_process import (
    BookingProcess,
    money,
    running_booking,
    stop,
    timestamp,
    trip,
)
from tests.support.location_tokens import TokenMint
from tests.support.location_values import new_id
from tests.support.stack_fixtures import TestDatabase
from wayfare.booking.v1 import booking_service_pb2 as pb
from wayfare.booking.v1 import events_pb2, trip_pb2

pytestmark = pytest.mark.integration

OTHER_TENANT = "0198c000-0000-7000-8000-000000000002"


def update(trip_id: str, paths: list[str], **values: Any) -> pb.UpdateTripRequest:
    changed = trip_pb2.Trip(trip_id=trip_id, **values)
    return pb.UpdateTripRequest(
        trip=changed, update_mask=FieldMask(paths=paths), request_id=new_id()
    )


def cancel(trip_id: str) -> pb.CancelTripRequest:
    return pb.CancelTripRequest(
        trip_id=trip_id, cancel_reason="Engine trouble", request_id=new_id()
    )


async def test_a_trip_is_kept_as_it_was_made(booking: BookingProcess) -> None:
    terms = trip_pb2.SalesTerms(
        open_time=timestamp(datetime(2026, 1, 2, tzinfo=UTC)),
        close_before_departure=Duration(seconds=600),
        hold_duration=Duration(seconds=60),
        payment_duration=Duration(seconds=90),
        held_seat_max_count=3,
        payment_methods=[trip_pb2.PAYMENT_METHOD_WALLET],
        cancellation_fees=[
            trip_pb2.CancellationFee(before_departure=Duration(seconds=86_400)),
            trip_pb2.CancellationFee(before_departure=Duration(), fee_basis_points=5_000),
        ],
    )
    wanted: dict[str, Any] = {
        "driver_id": new_id(),
        "conductor_ids": [new_id(), new_id()],
        "vehicle_id": "BUS-1",
        "time_zone": "Africa/Cairo",
        "timetable_trip_id": "T1",
        "service_date": date_pb2.Date(year=2026, month=11, day=26),
        "sales_terms": terms,
    }
    made = await booking.trip(**wanted)

    got = await booking.call("GetTrip", pb.GetTripRequest(trip_id=made.trip_id.upper()))
    seen = await booking.call("GetTrip", pb.GetTripRequest(trip_id=made.trip_id), booking.passenger)

    assert got == made
    assert {name: getattr(made, name) for name in wanted} == wanted
    assert made.status == trip_pb2.TRIP_STATUS_SCHEDULED
    assert (seen.driver_id, list(seen.conductor_ids)) == ("", [])
    (told,) = await booking.events("trip", made.trip_id)
    assert isinstance(told, events_pb2.TripScheduled)
    assert told.trip == made
    assert told.capacity_count == 40


async def test_a_trip_without_terms_has_the_usual_ones(booking: BookingProcess) -> None:
    made = await booking.trip()

    assert made.sales_terms.hold_duration.seconds == 600
    assert made.sales_terms.payment_duration.seconds == 300
    assert made.sales_terms.held_seat_max_count == 6
    assert made.time_zone == "UTC"


async def test_the_same_request_makes_one_trip_whatever_races(booking: BookingProcess) -> None:
    admin = booking.admin
    layout_id = (await booking.layout()).seat_layout_id
    request = pb.CreateTripRequest(trip=trip(layout_id), request_id=new_id())

    made = await asyncio.gather(*(booking.call("CreateTrip", request, admin) for _ in range(20)))
    others = await booking.call("CreateTrip", request, booking.admin)
    request.trip.display_name = "Other"
    refusal = await booking.refused("CreateTrip", request, admin)

    assert len({one.trip_id for one in made}) == 1
    assert others.trip_id != made[0].trip_id
    assert refusal.reason == "REQUEST_ID_REUSED"


async def test_a_trip_whose_parts_do_not_fit_is_refused_with_every_fault(
    booking: BookingProcess,
) -> None:
    now = datetime.now(UTC)
    wrong = trip((await booking.layout()).seat_layout_id, time_zone="Moon/Sea")
    wrong.stops[2].CopyFrom(stop(2, "C", now))
    wrong.fares[0].seat_class_code = "GOLD"
    wrong.fares[1].leg_prices.add().CopyFrom(money(1_000, "USD"))
    wrong.fares[1].leg_prices[0].nanos = 1
    wrong.sales_terms.open_time.CopyFrom(timestamp(now + timedelta(days=9)))
    for seconds in (60, 3_600):
        wrong.sales_terms.cancellation_fees.add().before_departure.seconds = seconds

    refusal = await booking.refused(
        "CreateTrip", pb.CreateTripRequest(trip=wrong, request_id=new_id())
    )

    assert refusal.reason == "TRIP_INVALID"
    assert list(refusal.fields) == [
        "trip.fares[1].leg_prices[0]",
        "trip.fares[1].leg_prices[3]",
        "trip.stops[2]",
        "trip.time_zone",
        "trip.fares[0].seat_class_code",
        "trip.fares",
        "trip.sales_terms.open_time",
        "trip.sales_terms.cancellation_fees[1].before_departure",
    ]


async def test_a_trip_needs_a_layout_of_its_tenant(booking: BookingProcess) -> None:
    layout_id = (await booking.layout()).seat_layout_id
    request = pb.CreateTripRequest(trip=trip(layout_id), request_id=new_id())
    other = booking.bearer("ADMIN", new_id(), tenant_id=OTHER_TENANT)

    unknown = await booking.refused("CreateTrip", request, other)
    hidden = await booking.refused(
        "GetSeatLayout", pb.GetSeatLayoutRequest(seat_layout_id=layout_id), other
    )

    assert (unknown.reason, hidden.reason) == ("SEAT_LAYOUT_UNKNOWN", "SEAT_LAYOUT_UNKNOWN")


async def test_a_trip_that_has_left_is_not_made(booking: BookingProcess) -> None:
    layout_id = (await booking.layout()).seat_layout_id
    departs = datetime.now(UTC) - timedelta(hours=1, minutes=1)
    request = pb.CreateTripRequest(trip=trip(layout_id, departs=departs), request_id=new_id())

    assert (await booking.refused("CreateTrip", request)).reason == "TRIP_DEPARTED"
    on_its_way = await booking.trip(layout_id, departs=departs + timedelta(minutes=30))
    assert on_its_way.status == trip_pb2.TRIP_STATUS_DEPARTED


async def test_times_outside_of_the_calendar_are_refused(booking: BookingProcess) -> None:
    wrong = trip((await booking.layout()).seat_layout_id)
    wrong.stops[0].scheduled_departure_time.seconds = 10**15

    refusal = await booking.refused(
        "CreateTrip", pb.CreateTripRequest(trip=wrong, request_id=new_id())
    )

    assert refusal.reason == "REQUEST_INVALID"


async def test_a_trip_changes_and_tells_what_changed(booking: BookingProcess) -> None:
    made = await booking.trip(vehicle_id="BUS-1")
    driver = new_id()
    delayed = [
        stop(index, one.stop_id, datetime.now(UTC) + timedelta(hours=3 + index), platform="Bay 7")
        for index, one in enumerate(made.stops)
    ]
    paths = ["driver_id", "vehicle_id", "stops", "sales_terms.held_seat_max_count"]

    changed = await booking.call(
        "UpdateTrip",
        update(
            made.trip_id,
            paths,
            driver_id=driver,
            vehicle_id="BUS-1",
            stops=delayed,
            display_name="not named by the mask",
            sales_terms=trip_pb2.SalesTerms(held_seat_max_count=2),
        ),
    )

    assert (changed.driver_id, changed.display_name) == (driver, made.display_name)
    assert changed.stops[0].platform == "Bay 7"
    assert changed.sales_terms.held_seat_max_count == 2
    assert changed.sales_terms.hold_duration == made.sales_terms.hold_duration
    assert changed == await booking.call("GetTrip", pb.GetTripRequest(trip_id=made.trip_id))
    _, told = await booking.events("trip", made.trip_id)
    assert isinstance(told, events_pb2.TripUpdated)
    assert told.trip == changed
    assert list(told.changed_paths) == ["driver_id", "stops", "sales_terms.held_seat_max_count"]


async def test_what_the_mask_names_and_is_absent_is_cleared(booking: BookingProcess) -> None:
    made = await booking.trip(driver_id=new_id(), conductor_ids=[new_id()], vehicle_id="BUS-1")

    changed = await booking.call(
        "UpdateTrip", update(made.trip_id, ["driver_id", "conductor_ids", "vehicle_id"])
    )

    assert (changed.driver_id, list(changed.conductor_ids), changed.vehicle_id) == ("", [], "")


async def test_a_change_of_nothing_tells_nothing(booking: BookingProcess) -> None:
    made = await booking.trip(vehicle_id="BUS-1")

    same = await booking.call(
        "UpdateTrip", update(made.trip_id, ["vehicle_id"], vehicle_id="BUS-1")
    )

    assert same == made
    assert len(await booking.events("trip", made.trip_id)) == 1


async def test_changes_of_a_trip_follow_each_other_whatever_races(booking: BookingProcess) -> None:
    made = await booking.trip()
    requests = [
        update(made.trip_id, ["vehicle_id"], vehicle_id=f"BUS-{number}") for number in range(20)
    ]
    # `admin` is somebody else each time, whose request of the same id would be another one.
    admin = booking.admin

    await asyncio.gather(
        *(booking.call("UpdateTrip", one, admin) for one in (*requests, *requests[:5]))
    )

    # Every change is told once, the versions have no gaps (see BookingProcess.events).
    told: list[Any] = (await booking.events("trip", made.trip_id))[1:]
    assert sorted(one.trip.vehicle_id for one in told) == sorted(f"BUS-{n}" for n in range(20))
    last = await booking.call("GetTrip", pb.GetTripRequest(trip_id=made.trip_id))
    assert told[-1].trip == last


@pytest.mark.parametrize(
    ("paths", "values", "reason"),
    [
        pytest.param(["stops"], {"stops": []}, "REQUEST_INVALID", id="no stops"),
        pytest.param(["fares"], {"fares": []}, "REQUEST_INVALID", id="no fares"),
        pytest.param(["display_name"], {}, "REQUEST_INVALID", id="no name"),
        pytest.param(["driver_id"], {"driver_id": "me"}, "REQUEST_INVALID", id="no uuid"),
        pytest.param(["seat_version"], {}, "REQUEST_INVALID", id="not changeable"),
        pytest.param(
            ["fares"],
            {"fares": [trip_pb2.ClassFare(seat_class_code="FIRST", leg_prices=[money(1)])]},
            "TRIP_INVALID",
            id="a class without a fare",
        ),
        pytest.param(
            ["stops"],
            {"stops": [stop(0, "A", datetime.now(UTC)), stop(1, "B", datetime.now(UTC))]},
            "TRIP_STOPS_FIXED",
            id="fewer stops",
        ),
    ],
)
async def test_a_change_that_breaks_the_trip_is_refused(
    booking: BookingProcess, paths: list[str], values: dict[str, Any], reason: str
) -> None:
    made = await booking.trip()

    refusal = await booking.refused("UpdateTrip", update(made.trip_id, paths, **values))

    assert refusal.reason == reason
    assert made == await booking.call("GetTrip", pb.GetTripRequest(trip_id=made.trip_id))


async def test_a_trip_is_called_off_once(booking: BookingProcess) -> None:
    made = await booking.trip()

    off = await booking.call("CancelTrip", cancel(made.trip_id))
    again = await booking.call("CancelTrip", cancel(made.trip_id))
    refusal = await booking.refused("UpdateTrip", update(made.trip_id, ["vehicle_id"]))

    assert off.status == trip_pb2.TRIP_STATUS_CANCELLED
    assert off.cancel_reason == "Engine trouble"
    assert again == off
    assert refusal.reason == "TRIP_CANCELLED"
    _, told = await booking.events("trip", made.trip_id)
    assert isinstance(told, events_pb2.TripCancelled)
    assert (told.trip_id, told.cancel_reason) == (made.trip_id, "Engine trouble")


async def test_a_trip_that_is_over_is_neither_changed_nor_called_off(
    booking: BookingProcess, migrated_database: TestDatabase, valkey_url: str, short_folder: Path
) -> None:
    made = await booking.trip()

    class Tomorrow:
        def now(self) -> datetime:
            return datetime.now(UTC) + timedelta(days=1)

        def monotonic(self) -> float:
            return asyncio.get_running_loop().time()

    async with running_booking(
        short_folder,
        dsn=migrated_database.dsn_for("booking"),
        valkey_url=valkey_url,
        mint=TokenMint(),
        clock=Tomorrow(),
    ) as later:
        admin = later.bearer("ADMIN", new_id(), lasts_seconds=200_000)
        got = await later.call("GetTrip", pb.GetTripRequest(trip_id=made.trip_id), admin)
        changed = await later.refused("UpdateTrip", update(made.trip_id, ["vehicle_id"]), admin)
        cancelled = await later.refused("CancelTrip", cancel(made.trip_id), admin)

    assert got.status == trip_pb2.TRIP_STATUS_COMPLETED
    assert (changed.reason, cancelled.reason) == ("TRIP_DEPARTED", "TRIP_DEPARTED")


async def test_another_tenants_trip_is_unknown(booking: BookingProcess) -> None:
    trip_id = (await booking.trip()).trip_id
    other = booking.bearer("ADMIN", new_id(), tenant_id=OTHER_TENANT)

    reasons = [
        (await booking.refused(method, request, other)).reason
        for method, request in (
            ("GetTrip", pb.GetTripRequest(trip_id=trip_id)),
            ("UpdateTrip", update(trip_id, ["vehicle_id"])),
            ("CancelTrip", cancel(trip_id)),
        )
    ]

    assert reasons == ["TRIP_UNKNOWN"] * 3


async def test_passengers_make_no_trips(booking: BookingProcess) -> None:
    layout_id = (await booking.layout()).seat_layout_id
    request = pb.CreateTripRequest(trip=trip(layout_id), request_id=new_id())

    refusal = await booking.refused("CreateTrip", request, booking.passenger)

    assert refusal.reason == "ROLE_NOT_ALLOWED"
