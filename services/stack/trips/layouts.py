"""Seat layouts that every operator may begin with, and how the operator's own ones are found."""

import uuid
from dataclasses import dataclass

from services.stack.errors import StackError
from wayfare.booking.v1 import booking_service_pb2 as pb
from wayfare.booking.v1 import layout_pb2
from wayfare_client import WayfareClient, WayfareError

STANDARD, COMFORT = "STANDARD", "COMFORT"
_PAGE_SIZE = 200
_NAMESPACE = uuid.UUID("5f1c6d3e-6f0b-4d0c-9a57-9b2f3d0d6a11")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Describes a vehicle row by row: letters are seats, a space is the aisle, a dot is nothing."""

    display_name: str
    rows: tuple[str, ...]
    comfort_rows: int = 0
    accessible: frozenset[str] = frozenset()


PLANS = {
    "coach": Plan(
        display_name="Coach 47",
        rows=(*["AB CD"] * 5, "AB ..", *["AB CD"] * 5, "ABECD"),
        comfort_rows=2,
        accessible=frozenset({"1A", "1B"}),
    ),
    "minibus": Plan(display_name="Minibus 16", rows=(*["A BC"] * 4, "ABCD")),
}


def plan_layout(plan: Plan) -> layout_pb2.SeatLayout:
    """Return the layout of a plan; the first rows are COMFORT, if it has some."""
    columns = max(map(len, plan.rows))
    codes = [COMFORT, STANDARD] if plan.comfort_rows else [STANDARD]
    seats = []
    for row, letters in enumerate(plan.rows):
        for column, letter in enumerate(letters):
            if not letter.isalpha():
                continue
            number = f"{row + 1}{letter}"
            beside = letters[max(0, column - 1) : column] + letters[column + 1 : column + 2]
            seats.append(
                layout_pb2.Seat(
                    seat_number=number,
                    seat_class_code=COMFORT if row < plan.comfort_rows else STANDARD,
                    row_index=row,
                    column_index=column,
                    window=column in {0, columns - 1},
                    aisle=" " in beside,
                    accessible=number in plan.accessible,
                )
            )
    gap = plan.rows[0].index(" ")
    aisle = layout_pb2.Fixture(
        kind=layout_pb2.FIXTURE_KIND_AISLE, column_index=gap, row_count=len(plan.rows) - 1
    )
    deck = layout_pb2.Deck(
        row_count=len(plan.rows), column_count=columns, seats=seats, fixtures=[aisle]
    )
    return layout_pb2.SeatLayout(
        display_name=plan.display_name,
        seat_classes=[
            layout_pb2.SeatClass(seat_class_code=code, display_name=code.capitalize())
            for code in codes
        ],
        decks=[deck],
    )


async def find_layout(client: WayfareClient, name: str) -> layout_pb2.SeatLayout:
    """Return the layout of an id, or of a plan's name, which is made if it is not there.

    Raises StackError if it is neither.
    """
    if name in PLANS:
        return await _layout_of_plan(client, plan_layout(PLANS[name]))
    try:
        uuid.UUID(name)
    except ValueError:
        names = ", ".join(PLANS)
        raise StackError(f"{name} is no layout: name one of {names}, or an id.") from None
    try:
        return await client.booking.GetSeatLayout(pb.GetSeatLayoutRequest(seat_layout_id=name))
    except WayfareError as error:
        if error.reason == "SEAT_LAYOUT_UNKNOWN":
            raise StackError(f"The operator has no seat layout {name}.") from error
        raise


async def _layout_of_plan(
    client: WayfareClient, wanted: layout_pb2.SeatLayout
) -> layout_pb2.SeatLayout:
    request = pb.ListSeatLayoutsRequest(page_size=_PAGE_SIZE)
    while True:
        page = await client.booking.ListSeatLayouts(request)
        for one in page.seat_layouts:
            if one.display_name == wanted.display_name and one.decks == wanted.decks:
                return one
        request.page_token = page.next_page_token
        if not request.page_token:
            break
    content = wanted.SerializeToString(deterministic=True).hex()
    # Two who begin at once make one layout.
    request_id = str(uuid.uuid5(_NAMESPACE, f"{client.tenant_id}/{content}"))
    return await client.booking.CreateSeatLayout(
        pb.CreateSeatLayoutRequest(seat_layout=wanted, request_id=request_id)
    )
