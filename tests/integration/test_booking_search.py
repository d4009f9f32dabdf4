"""Searches: which journeys lead from one place to another on a day, and how many seats are free."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from google.type import date_pb2, latlng_pb2

from tests.support.booking_process import BookingProcess, running_booking, stop, timestamp
from tests.support.location_tokens import TokenMint
from tests.support.location_values import TENANT, new_id
from tests.support.stack_fixtures import TestDatabase
from wayfare.booking.v1 import booking_service_pb2 as pb
from wayfare.booking.v1 import trip_pb2

pytestmark = pytest.mark.integration

DAY = (datetime.now(UTC) + timedelta(days=3)).replace(hour=8, minute=0, second=0, microsecond=0)


def day_of(day: date) -> date_pb2.Date:
    return date_pb2.Date(year=day.year, month=day.month, day=day.day)


def asked(**values: Any) -> pb.SearchTripsRequest:
    """Ask from A to C on DAY, where nothing else is said."""
    ends = {"from_location", "from_stop_id"}, {"to_location", "to_stop_id"}
    usual = {"from_stop_id": "A", "to_stop_id": "C", "departure_date": day_of(DAY)}
    for names in ends:
        if names & values.keys():
            usual = {name: value for name, value in usual.items() if name not in names}
    return pb.SearchTripsRequest(**{**usual, **values})


async def found(booking: BookingProcess, **values: Any) -> list[trip_pb2.TripOption]:
    answer = await booking.call("SearchTrips", asked(**values), booking.passenger)
    return list(answer.options)


async def ids(booking: BookingProcess, **values: Any) -> list[str]:
    return [one.trip_id for one in await found(booking, **values)]


class Claims:
    """Writes claims of seats by hand, as the batches of holds do."""

    def __init__(self, booking: BookingProcess, trip_id: str) -> None:
        self._dsn = booking.settings.database_url.get_secret_value()
        self._trip_id = trip_id

    async def book(self, *seats: str, legs: range) -> None:
        await self._claim(seats, legs, state="BOOKED", owner_id=new_id())

    async def hold(self, *seats: str, legs: range, ends: datetime) -> None:
        hold_id = new_id()
        await self._run(
            "INSERT INTO booking.holds (hold_id, tenant_id, trip_id, user_id, state, from_stop_id,"
            " to_stop_id, from_stop_index, to_stop_index, seats, currency_code, expire_time,"
            " extension_count, is_together, body_hash, create_time)"
            " VALUES ($1, $2, $3, $1, 'ACTIVE', 'A', 'D', 0, 3, $4, 'EGP', $5, 0, true, $6, now())",
            *(hold_id, TENANT, self._trip_id),
            " ".join(f"{seat}/STANDARD/0" for seat in seats),
            ends,
            bytes(32),
        )
        await self._claim(seats, legs, state="HELD", owner_id=hold_id)

    async def _claim(
        self, seats: tuple[str, ...], legs: range, *, state: str, owner_id: str
    ) -> None:
        await self._run(
            "INSERT INTO booking.seat_claims"
            " (trip_id, seat_number, leg_index, tenant_id, state, owner_id)"
            " SELECT $1, seat, leg, $2, $3, $4"
            " FROM unnest($5::text[]) AS seat, unnest($6::smallint[]) AS leg",
            *(self._trip_id, TENANT, state, owner_id, list(seats), list(legs)),
        )

    async def _run(self, statement: str, *arguments: Any) -> None:
        connection = await asyncpg.connect(self._dsn)
        try:
            for name, value in (("tenant_id", TENANT), ("role", "SERVICE")):
                await connection.execute("SELECT set_config($1, $2, false)", f"app.{name}", value)
            await connection.execute(statement, *arguments)
        finally:
            await connection.close()


async def test_journeys_of_a_day_come_by_departure_then_arrival(booking: BookingProcess) -> None:
    layout_id = (await booking.layout()).seat_layout_id
    hours = {"late": 5, "early": 1, "slow": 3, "fast": 3}
    made = {
        name: await booking.trip(
            layout_id,
            display_name=name,
            departs=DAY + timedelta(hours=hour),
            step=timedelta(minutes=40 if name == "slow" else 30),
        )
        for name, hour in hours.items()
    }
    await booking.trip(layout_id, departs=DAY + timedelta(days=1))
    await booking.trip(layout_id, departs=DAY, stop_ids=["C", "B", "A"])
    off = await booking.trip(layout_id, departs=DAY)
    await booking.call(
        "CancelTrip",
        pb.CancelTripRequest(trip_id=off.trip_id, cancel_reason="No bus", request_id=new_id()),
    )

    options = await found(booking)

    assert [one.display_name for one in options] == ["early", "fast", "slow", "late"]
    first = options[0]
    assert first.from_stop == made["early"].stops[0]
    assert (first.from_stop_index, first.to_stop_index) == (0, 2)
    assert first.travel_duration.ToTimedelta() == timedelta(hours=1)
    assert [
        (one.seat_class_code, one.display_name, one.price.units, one.free_seat_count)
        for one in first.classes
    ] == [("FIRST", "First", 50, 4), ("STANDARD", "Standard", 20, 36)]
    assert first.on_sale
    assert first.sale_change_time == first.from_stop.scheduled_departure_time
    assert list(first.payment_methods) == [1, 2, 3]


async def test_the_day_is_that_of_the_passengers_stop_in_the_trips_zone(
    booking: BookingProcess,
) -> None:
    layout_id = (await booking.layout()).seat_layout_id
    # Leaves A at 23:40 in Nairobi and B after midnight; in UTC all of it is one day.
    departs = DAY.replace(hour=20, minute=40)
    made = await booking.trip(layout_id, departs=departs, time_zone="Africa/Nairobi")
    today, tomorrow = day_of(DAY), day_of(DAY + timedelta(days=1))

    assert await ids(booking, departure_date=today) == [made.trip_id]
    assert await ids(booking, departure_date=tomorrow) == []
    assert await ids(booking, from_stop_id="B", departure_date=today) == []
    assert await ids(booking, from_stop_id="B", departure_date=tomorrow) == [made.trip_id]


async def test_what_has_left_the_stop_is_not_found_and_later_stops_are(
    booking: BookingProcess,
) -> None:
    now = datetime.now(UTC)
    made = await booking.trip(departs=now - timedelta(minutes=10))
    next_stop = now + timedelta(minutes=20)

    assert await ids(booking, departure_date=day_of(now - timedelta(minutes=10))) == []
    assert await ids(booking, from_stop_id="B", departure_date=day_of(next_stop)) == [made.trip_id]
    assert (
        await ids(
            booking,
            from_stop_id="B",
            departure_date=day_of(next_stop),
            depart_after_time=timestamp(now + timedelta(minutes=25)),
        )
        == []
    )


async def test_nobody_gets_on_or_off_where_it_is_not_allowed(booking: BookingProcess) -> None:
    stops = [
        stop(index, stop_id, DAY + timedelta(minutes=index), no_pickup=index == 1)
        for index, stop_id in enumerate("ABCD")
    ]
    stops[2].no_drop_off = True
    made = await booking.trip(stops=stops)

    assert await ids(booking) == []
    assert await ids(booking, from_stop_id="B") == []
    assert await ids(booking, to_stop_id="B") == [made.trip_id]
    assert await ids(booking, to_stop_id="D") == [made.trip_id]


async def test_of_a_stop_that_comes_twice_the_first_counts(booking: BookingProcess) -> None:
    await booking.trip(departs=DAY, stop_ids=["A", "C", "A", "B", "A", "C"])

    (there,) = await found(booking)
    (back,) = await found(booking, from_stop_id="C", to_stop_id="A")
    (late,) = await found(booking, from_stop_id="B", to_stop_id="C")

    assert (there.from_stop_index, there.to_stop_index) == (0, 1)
    assert (back.from_stop_index, back.to_stop_index) == (1, 2)
    assert (late.from_stop_index, late.to_stop_index) == (3, 5)


async def test_places_find_the_nearest_stops_of_each_trip(booking: BookingProcess) -> None:
    # Stops are 20 km from each other along a meridian.
    made = await booking.trip(departs=DAY)
    near_b = latlng_pb2.LatLng(latitude=30.18 + 0.01, longitude=31.2)
    near_d = latlng_pb2.LatLng(latitude=30.54, longitude=31.2 + 0.01)

    (option,) = await found(booking, from_location=near_b, to_location=near_d)
    (wide,) = await found(booking, from_location=near_b, to_location=near_d, radius_meters=50_000)

    assert option == wide
    assert option.trip_id == made.trip_id
    assert (option.from_stop_index, option.to_stop_index) == (1, 3)
    # A hundredth of a degree: 1,112 m along a meridian, 958 m along the parallel of 30.54.
    assert option.from_distance_meters == pytest.approx(1_112, abs=1)
    assert option.to_distance_meters == pytest.approx(957.7, abs=1)
    assert await found(booking, from_location=near_b, to_location=near_d, radius_meters=1_000) == []
    assert await found(booking, from_location=near_d, to_location=near_b) == []
    (mixed,) = await found(booking, from_stop_id="A", to_location=near_d)
    assert (mixed.from_stop_index, mixed.from_distance_meters) == (0, 0)


async def test_seats_are_counted_on_the_legs_of_the_journey(booking: BookingProcess) -> None:
    made = await booking.trip((await booking.layout(accessible=["2A"])).seat_layout_id, departs=DAY)
    claims = Claims(booking, made.trip_id)
    now = datetime.now(UTC)
    await claims.book("1A", "2A", legs=range(1))
    await claims.book("2B", legs=range(1, 3))
    await claims.hold("2C", legs=range(3), ends=now + timedelta(minutes=5))
    await claims.hold("2D", legs=range(3), ends=now - timedelta(seconds=1))

    async def free(start: str, end: str) -> list[int]:
        (option,) = await found(booking, from_stop_id=start, to_stop_id=end)
        counts = [(one.free_seat_count, one.free_accessible_seat_count) for one in option.classes]
        return [count for pair in counts for count in pair]

    assert await free("A", "B") == [3, 0, 34, 0]
    assert await free("B", "C") == [4, 0, 34, 1]
    assert await free("C", "D") == [4, 0, 34, 1]
    assert await free("A", "D") == [3, 0, 33, 0]


async def test_only_available_leaves_out_what_is_full_or_not_on_sale(
    booking: BookingProcess,
) -> None:
    layout_id = (await booking.layout(rows=2)).seat_layout_id
    full, three_left, empty = [
        await booking.trip(layout_id, departs=DAY + timedelta(hours=hour)) for hour in (0, 1, 2)
    ]
    sale = trip_pb2.SalesTerms(open_time=timestamp(DAY - timedelta(hours=1)))
    later = await booking.trip(layout_id, departs=DAY + timedelta(hours=3), sales_terms=sale)
    seats = ["1A", "1B", "1C", "1D", "2A", "2B", "2C", "2D"]
    await Claims(booking, full.trip_id).book(*seats, legs=range(1, 2))
    await Claims(booking, three_left.trip_id).book(*seats[:5], legs=range(3))

    options = await found(booking)
    assert [one.trip_id for one in options] == [
        one.trip_id for one in (full, three_left, empty, later)
    ]
    assert [one.on_sale for one in options] == [True, True, True, False]
    assert options[3].sale_change_time == sale.open_time
    available = [three_left.trip_id, empty.trip_id]
    assert await ids(booking, only_available=True) == available
    assert await ids(booking, only_available=True, passenger_count=3) == available
    assert await ids(booking, only_available=True, passenger_count=4) == [empty.trip_id]
    assert await ids(booking, only_available=True, seat_class_code="FIRST") == [empty.trip_id]
    assert await ids(booking, only_available=True, accessible=True) == []
    assert await ids(booking, seat_class_code="GOLD") == []
    # Nobody is in the way before the leg that is sold.
    assert full.trip_id in await ids(booking, only_available=True, to_stop_id="B")


@pytest.mark.parametrize("only_available", [False, True])
async def test_pages_hold_every_journey_once(booking: BookingProcess, only_available: bool) -> None:
    layout_id = (await booking.layout(rows=1)).seat_layout_id
    # Several leave at once: the token tells them apart.
    made = [
        await booking.trip(layout_id, departs=DAY + timedelta(minutes=number // 3))
        for number in range(8)
    ]
    for one in made[::2]:
        await Claims(booking, one.trip_id).book("1A", "1B", "1C", "1D", legs=range(3))
    expected = {one.trip_id for one in (made[1::2] if only_available else made)}

    seen: list[str] = []
    request = asked(page_size=3, only_available=only_available)
    for _ in range(4):
        page = await booking.call("SearchTrips", request, booking.passenger)
        seen += [one.trip_id for one in page.options]
        request.page_token = page.next_page_token
        if not request.page_token:
            break

    assert len(seen) == len(set(seen))
    assert set(seen) == expected
    assert request.page_token == ""


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        pytest.param({"page_token": "AAAA"}, "PAGE_TOKEN_INVALID", id="not a token"),
        pytest.param(
            {"departure_date": date_pb2.Date(year=2027, month=2, day=30)},
            "REQUEST_INVALID",
            id="no such day",
        ),
        pytest.param({"radius_meters": float("nan")}, "REQUEST_INVALID", id="no radius"),
        pytest.param(
            {"from_location": latlng_pb2.LatLng(latitude=91)}, "REQUEST_INVALID", id="no place"
        ),
    ],
)
async def test_a_search_that_cannot_be_is_refused(
    booking: BookingProcess, values: dict[str, Any], reason: str
) -> None:
    refusal = await booking.refused("SearchTrips", asked(**values), booking.passenger)

    assert refusal.reason == reason


async def test_a_token_of_another_search_is_refused(booking: BookingProcess) -> None:
    layout_id = (await booking.layout()).seat_layout_id
    for _ in range(2):
        await booking.trip(layout_id, departs=DAY)
    page = await booking.call("SearchTrips", asked(page_size=1), booking.passenger)

    request = asked(page_size=1, to_stop_id="D", page_token=page.next_page_token)

    refusal = await booking.refused("SearchTrips", request, booking.passenger)
    assert refusal.reason == "PAGE_TOKEN_INVALID"


async def test_another_tenants_journeys_are_not_found(booking: BookingProcess) -> None:
    await booking.trip(departs=DAY)
    other = booking.bearer("PASSENGER", new_id(), tenant_id="0198c000-0000-7000-8000-000000000002")

    assert not (await booking.call("SearchTrips", asked(), other)).options


async def test_very_many_full_trips_in_a_row_are_passed_over_in_bounded_pages(
    booking: BookingProcess, migrated_database: TestDatabase, valkey_url: str, short_folder: Path
) -> None:
    layout_id = (await booking.layout(rows=1)).seat_layout_id
    made = [
        await booking.trip(layout_id, departs=DAY + timedelta(minutes=number))
        for number in range(6)
    ]
    for one in made[:5]:
        await Claims(booking, one.trip_id).book("1A", "1B", "1C", "1D", legs=range(3))
    request = asked(page_size=1, only_available=True)

    async with running_booking(
        short_folder,
        dsn=migrated_database.dsn_for("booking"),
        valkey_url=valkey_url,
        mint=TokenMint(),
        booking_search_chunk=2,
        booking_search_chunks_max=2,
    ) as frugal:
        first = await frugal.call("SearchTrips", request, frugal.passenger)
        request.page_token = first.next_page_token
        second = await frugal.call("SearchTrips", request, frugal.passenger)

    assert (list(first.options), first.next_page_token != "") == ([], True)
    assert [one.trip_id for one in second.options] == [made[5].trip_id]
    assert second.next_page_token == ""
