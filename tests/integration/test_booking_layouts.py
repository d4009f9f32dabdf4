"""Seat layouts, and how long request ids are remembered."""

import pytest

from services.booking.operations.upkeep import Upkeep
from services.booking.store.requests import PostgresRequestStore
from services.shared.clock import SystemClock
from services.shared.postgres import open_database
from tests.support.booking_process import (
    BookingProcess,
    layout,
)
from tests.support.location_values import new_id
from tests.support.stack_fixtures import TestDatabase
from wayfare.booking.v1 import booking_service_pb2 as pb
from wayfare.booking.v1 import layout_pb2

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


async def test_a_layout_whose_parts_do_not_fit_is_refused_with_every_fault(
    booking: BookingProcess,
) -> None:
    wrong = layout(rows=2)
    wrong.decks[0].seats[1].seat_number = "1A"
    wrong.decks[0].seats[2].row_index = 7
    wrong.decks[0].seats[3].seat_class_code = "GOLD"
    wrong.decks[0].seats[5].column_index = 0
    wrong.decks[0].fixtures.add(kind=layout_pb2.FIXTURE_KIND_DOOR, row_index=1, row_count=2)

    refusal = await booking.refused(
        "CreateSeatLayout", pb.CreateSeatLayoutRequest(seat_layout=wrong, request_id=new_id())
    )

    assert refusal.reason == "SEAT_LAYOUT_INVALID"
    assert list(refusal.fields) == [
        "seat_layout.decks[0].seats[1].seat_number",
        "seat_layout.decks[0].seats[2]",
        "seat_layout.decks[0].seats[3].seat_class_code",
        "seat_layout.decks[0].seats[5]",
        "seat_layout.decks[0].fixtures[0]",
    ]


async def test_layouts_are_listed_page_by_page_newest_first(booking: BookingProcess) -> None:
    made = [(await booking.layout(rows=2)).seat_layout_id for _ in range(5)]

    seen: list[str] = []
    token = ""
    for _ in range(3):
        page = await booking.call(
            "ListSeatLayouts", pb.ListSeatLayoutsRequest(page_size=2, page_token=token)
        )
        seen += [one.seat_layout_id for one in page.seat_layouts]
        token = page.next_page_token

    assert seen == made[::-1]
    assert token == ""
    for wrong in ("", "AAAA", "é", "A" * 512):
        request = pb.ListSeatLayoutsRequest(page_token=wrong or "x")
        assert (await booking.refused("ListSeatLayouts", request)).reason == "PAGE_TOKEN_INVALID"


async def test_old_request_ids_are_forgotten_and_young_ones_kept(
    booking: BookingProcess, migrated_database: TestDatabase
) -> None:
    clock = SystemClock()
    database = await open_database(migrated_database.dsn_for("booking"), pool_size=1)
    try:
        await booking.trip()
        store = PostgresRequestStore(database)

        young = await Upkeep(store=store, clock=clock, days_kept=1).forget_old()
        old = await Upkeep(store=store, clock=clock, days_kept=0).forget_old()
        gone = await Upkeep(store=store, clock=clock, days_kept=0).forget_old()
    finally:
        await database.close()

    # One of the layout and one of the trip.
    assert (young, old, gone) == (0, 2, 0)
