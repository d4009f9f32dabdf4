"""How far a trip is by the clock, what leads where, what it costs, and when it is sold."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.booking.domain.trip_rules import trip_faults
from services.booking.domain.trips import (
    ClassFare,
    Journey,
    PaymentMethod,
    SalesTerms,
    Trip,
    TripStatus,
    TripStop,
)
from services.booking.errors.lists import PageTokenInvalidError
from services.booking.errors.trips import (
    StopNotOnTripError,
    TripCancelledError,
    TripDepartedError,
    TripNotOnSaleError,
)
from services.booking.operations.paging import read_token, write_token

pytestmark = pytest.mark.unit

EIGHT = datetime(2026, 11, 26, 8, tzinfo=UTC)
HOUR = timedelta(hours=1)


def trip(names: str = "ABCD", **values: Any) -> Trip:
    """Return a trip that leaves at eight and takes an hour to each stop, where it waits 5 min."""
    stops = tuple(
        TripStop(
            stop_id=name,
            display_name=name,
            latitude=30.0,
            longitude=31.0,
            arrival_time=EIGHT + index * HOUR,
            departure_time=EIGHT + index * HOUR + timedelta(minutes=5 if index else 0),
        )
        for index, name in enumerate(names)
    )
    legs = tuple(100 * (index + 1) for index in range(len(names) - 1))
    return Trip(
        **{
            "trip_id": "T",
            "display_name": "X25",
            "seat_layout_id": "L",
            "stops": stops,
            "currency_code": "EGP",
            "fares": (ClassFare(seat_class_code="STANDARD", leg_prices_minor=legs),),
            "terms": SalesTerms(),
            **values,
        }
    )


@pytest.mark.parametrize(
    ("after", "status"),
    [
        (-timedelta(seconds=1), TripStatus.SCHEDULED),
        (timedelta(0), TripStatus.DEPARTED),
        (3 * HOUR - timedelta(seconds=1), TripStatus.DEPARTED),
        (3 * HOUR, TripStatus.COMPLETED),
    ],
)
def test_status_follows_the_timetable(after: timedelta, status: TripStatus) -> None:
    assert trip().status(EIGHT + after) is status
    cancelled = trip(cancel_time=EIGHT - HOUR)
    assert cancelled.status(EIGHT + after) is TripStatus.CANCELLED


@pytest.mark.parametrize(
    ("names", "start", "end", "journey"),
    [
        ("ABCD", "B", "D", (1, 3)),
        ("ABCD", "", "", (0, 3)),
        ("ABCD", "", "C", (0, 2)),
        ("ABCD", "C", "", (2, 3)),
        ("ABAC", "A", "C", (0, 3)),
        ("ABAB", "B", "A", (1, 2)),
        ("BABC", "A", "B", (1, 2)),
    ],
)
def test_a_journey_is_the_first_that_can_be_made(
    names: str, start: str, end: str, journey: tuple[int, int]
) -> None:
    assert trip(names).journey(start, end) == journey


@pytest.mark.parametrize(("start", "end"), [("C", "B"), ("A", "A"), ("X", "B"), ("D", "")])
def test_what_leads_nowhere_is_refused(start: str, end: str) -> None:
    with pytest.raises(StopNotOnTripError):
        trip().journey(start, end)


def test_a_journey_costs_the_sum_of_its_legs() -> None:
    assert trip().price_minor("STANDARD", Journey(1, 3)) == 200 + 300
    assert list(Journey(1, 3).legs) == [1, 2]


@given(st.integers(2, 64), st.data())
def test_prices_of_neighbouring_journeys_add_up(count: int, data: st.DataObject) -> None:
    whole = trip("".join(map(chr, range(1_000, 1_000 + count))))
    start, between, end = sorted(
        data.draw(st.lists(st.integers(0, count - 1), min_size=3, max_size=3))
    )

    def price(from_index: int, to_index: int) -> int:
        return whole.price_minor("STANDARD", Journey(from_index, to_index))

    assert price(start, between) + price(between, end) == price(start, end)
    assert {*Journey(start, between).legs}.isdisjoint(Journey(between, end).legs)


@pytest.mark.parametrize(
    ("now", "error"),
    [
        (EIGHT - 3 * HOUR, TripNotOnSaleError),
        (EIGHT - 2 * HOUR, None),
        (EIGHT + 50 * timedelta(minutes=1), None),
        (EIGHT + 55 * timedelta(minutes=1), TripNotOnSaleError),
        (EIGHT + HOUR + timedelta(minutes=5), TripDepartedError),
    ],
)
def test_seats_are_sold_from_the_opening_until_shortly_before_the_own_stop(
    now: datetime, error: type[Exception] | None
) -> None:
    terms = SalesTerms(open_time=EIGHT - 2 * HOUR, close_before_departure=timedelta(minutes=10))
    sold = trip(terms=terms)
    from_b = sold.journey("B", "D")

    assert sold.is_on_sale(from_b, now) == (error is None)
    if error is not None:
        with pytest.raises(error):
            sold.check_on_sale(from_b, now)
    else:
        sold.check_on_sale(from_b, now)
    with pytest.raises(TripCancelledError):
        replace(sold, cancel_time=EIGHT).check_on_sale(from_b, now)


def test_no_payment_methods_mean_every_one() -> None:
    cash = SalesTerms(payment_methods=(PaymentMethod.CASH,))

    assert all(SalesTerms().allows(method) for method in PaymentMethod)
    assert [cash.allows(method) for method in PaymentMethod] == [False, True, False]


def test_a_right_trip_has_no_faults_and_one_stop_twice_in_a_row_is_one() -> None:
    assert trip_faults(trip("ABAC"), ["STANDARD"]) == []
    (fault,) = trip_faults(trip("AABC"), ["STANDARD"])
    assert fault.field == "trip.stops[1].stop_id"


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), min_size=1, max_size=4))
def test_a_page_token_is_read_by_its_own_list_alone(filters: list[str], place: list[str]) -> None:
    token = write_token(filters, place)

    assert read_token(token, filters, len(place)) == place
    with pytest.raises(PageTokenInvalidError):
        read_token(token, [*filters, "more"], len(place))
    with pytest.raises(PageTokenInvalidError):
        read_token(token, filters, len(place) + 1)


@given(st.text(max_size=100))
def test_what_is_no_page_token_is_refused(text: str) -> None:
    with pytest.raises(PageTokenInvalidError):
        read_token(text, ["list"], 1)
