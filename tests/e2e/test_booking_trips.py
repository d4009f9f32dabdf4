"""Trips through Envoy: made by the Python client and from a feed, found by JSON and by grpcurl."""

import json
import re
import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from typer.testing import CliRunner

from services.stack.command import application
from services.stack.trips.fares import FareRule
from services.stack.trips.feed import Sale, read_day, trips_of
from services.stack.trips.layouts import find_layout
from services.stack.trips.scheduling import schedule_trips
from tests.support.booking_process import STOPS, trip
from tests.support.e2e_edge import Edge
from tests.support.e2e_programs import GRPCURL, headers_of, run_program
from tests.support.gtfs_feeds import CAIRNS
from wayfare.booking.v1 import booking_service_pb2 as pb
from wayfare.booking.v1 import trip_pb2
from wayfare_client import reasons

pytestmark = pytest.mark.e2e

BOOKING = "wayfare.booking.v1.BookingService"
TUESDAY = date(2014, 6, 3)


def in_a_week() -> date:
    return datetime.now(UTC).date() + timedelta(days=7)


async def grpcurl(edge: Edge, token: str, method: str, request: dict[str, Any]) -> dict[str, Any]:
    """Call a method as somebody at a terminal."""
    words = ("-plaintext", *headers_of(token), "-d", json.dumps(request))
    done = await run_program(GRPCURL, *words, edge.stack.edge_address, f"{BOOKING}/{method}")
    (answer,) = done.documents()
    return answer


async def test_a_trip_is_made_found_delayed_and_called_off(edge: Edge) -> None:
    # Stops of a name of their own: other tests share the stack.
    mark = uuid.uuid4().hex[:8]
    departs = datetime.now(UTC) + timedelta(days=3)
    driver = str(uuid.uuid4())
    async with edge.client(edge.mint.token("ADMIN")) as admin:
        layout = await find_layout(admin, "coach")
        wanted = trip(
            layout.seat_layout_id,
            departs=departs,
            stop_ids=[f"{stop}-{mark}" for stop in STOPS],
            driver_id=driver,
        )
        for fare, one in zip(wanted.fares, layout.seat_classes, strict=True):
            fare.seat_class_code = one.seat_class_code
        made = await admin.booking.CreateTrip(
            pb.CreateTripRequest(trip=wanted, request_id=str(uuid.uuid4()))
        )
        day = {"year": departs.year, "month": departs.month, "day": departs.day}
        search = {"fromStopId": f"B-{mark}", "toStopId": f"D-{mark}"}
        search |= {f"departureDate.{name}": str(value) for name, value in day.items()}
        passenger = edge.mint.token("PASSENGER")

        async with httpx.AsyncClient(base_url=edge.url, trust_env=False) as web:
            web.headers["authorization"] = f"Bearer {passenger}"
            (option,) = (await web.get("/v1/trips:search", params=search)).json()["options"]
            seen = (await web.get(f"/v1/trips/{made.trip_id}")).json()
        near_b = {"latitude": 30.18, "longitude": 31.2}
        asked = {"from_location": near_b, "to_stop_id": f"D-{mark}", "departure_date": day}
        near = await grpcurl(edge, passenger, "SearchTrips", asked)
        crew = edge.mint.token("DRIVER", sub=driver)
        listed = await grpcurl(edge, crew, "ListTrips", {})
        late = trip_pb2.Trip(trip_id=made.trip_id, vehicle_id="BUS-7")
        changed = await admin.booking.UpdateTrip(
            pb.UpdateTripRequest(trip=late, update_mask=FieldMask(paths=["vehicle_id"]))
        )
        off = await admin.booking.CancelTrip(
            pb.CancelTripRequest(trip_id=made.trip_id, cancel_reason="Engine trouble")
        )

    assert (option["tripId"], option["fromStopIndex"]) == (made.trip_id, 1)
    assert [one["price"]["units"] for one in option["classes"]] == ["50", "20"]
    assert seen["driverId"] == ""
    (found,) = near["options"]
    assert found["tripId"] == made.trip_id
    (own,) = listed["trips"]
    assert (own["tripId"], own["driverId"]) == (made.trip_id, driver)
    assert changed.vehicle_id == "BUS-7"
    assert off.status == trip_pb2.TRIP_STATUS_CANCELLED


async def test_a_refusal_reaches_the_client_as_its_class_with_every_fault(edge: Edge) -> None:
    async with edge.client(edge.mint.token("ADMIN")) as admin:
        layout = await find_layout(admin, "minibus")
        wrong = trip(layout.seat_layout_id, time_zone="Moon/Sea")

        with pytest.raises(reasons.TripInvalidError) as refusal:
            await admin.booking.CreateTrip(pb.CreateTripRequest(trip=wrong))

    assert [one.field for one in refusal.value.field_violations] == [
        "trip.time_zone",
        "trip.fares[0].seat_class_code",
    ]


async def test_a_part_of_a_feed_becomes_trips_once_however_often_it_is_imported(
    edge: Edge,
) -> None:
    found = read_day(CAIRNS, TUESDAY, begin="08:00", until="08:10", progress=lambda *_: None)
    told: list[int] = []
    async with edge.client(edge.mint.token("ADMIN")) as admin:
        layout = await find_layout(admin, "minibus")
        again = await find_layout(admin, "minibus")
        rule = FareRule(currency_code="AUD", per_kilometer=Decimal("0.35"))
        sale = Sale(run_date=in_a_week(), layout=layout, fare_rule=rule)
        wanted = trips_of(found, TUESDAY, sale)

        first = await schedule_trips(
            admin, wanted[:-2], progress=lambda so_far: told.append(so_far.count)
        )
        rest = await schedule_trips(admin, wanted, progress=lambda _: None)
        request: dict[str, Any] = {
            "from_location": wanted[0].stops[0].location,
            "to_location": wanted[0].stops[-1].location,
            "departure_date": {
                "year": in_a_week().year,
                "month": in_a_week().month,
                "day": in_a_week().day,
            },
            "radius_meters": 50,
        }
        search = await admin.booking.SearchTrips(pb.SearchTripsRequest(**request))

    assert again.seat_layout_id == layout.seat_layout_id
    assert len(wanted) == len(found.plans) == 6
    assert (len(first.made), first.existing_count, first.refused) == (len(wanted) - 2, 0, [])
    assert told[-1] == len(wanted) - 2
    assert (len(rest.made), rest.existing_count) == (2, len(wanted) - 2)
    ids = {one.timetable_trip_id: one.trip_id for one in (*first.made, *rest.made)}
    assert ids.keys() == {one.timetable_trip_id for one in wanted}
    assert ids[wanted[0].timetable_trip_id] in {one.trip_id for one in search.options}


def test_the_command_makes_demo_trips_once_and_lists_them(edge: Edge) -> None:
    environment = {"WAYFARE_HOME": str(edge.stack.home.path), "COLUMNS": "200"}
    runner = CliRunner(env=environment)

    first = runner.invoke(application, ["trips", "demo", "--days", "1"], catch_exceptions=False)
    again = runner.invoke(application, ["trips", "demo", "--days", "1"], catch_exceptions=False)
    listed = runner.invoke(application, ["trips", "list"], catch_exceptions=False)

    # One more or less when a departure comes or goes between the two.
    assert re.search(r"1[4-6] trips were made\.", first.output)
    assert re.search(r"[0-2] trips were made, 1[2-6] were there already", again.output)
    assert "/v1/trips:search?fromStopId=cairo-ramses&toStopId=hurghada" in first.output
    assert re.search(r"X25 Cairo – Hurghada .*from 418.50 EGP *scheduled", listed.output)
