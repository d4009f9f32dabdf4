"""Seat layouts: where a vehicle's seats are. They never change once made."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from services.shared.errors import FieldViolation

SEATS_MAX = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class SeatClass:
    """Is a class of seats that has a price of its own."""

    seat_class_code: str
    display_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """Is one seat; rows and columns count from 0, from the front and from the left."""

    seat_number: str
    seat_class_code: str
    row_index: int
    column_index: int
    x_ratio: float | None = None
    y_ratio: float | None = None
    window: bool = False
    aisle: bool = False
    rear_facing: bool = False
    accessible: bool = False
    blocked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixture:
    """Is a thing that is no seat, drawn over a rectangle of the grid."""

    kind: str
    row_index: int
    column_index: int
    row_count: int
    column_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Deck:
    """Is one floor of a vehicle: a grid with the front at the top."""

    display_name: str
    row_count: int
    column_count: int
    seats: tuple[Seat, ...]
    fixtures: tuple[Fixture, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SeatLayout:
    """Is how the seats of a kind of vehicle are arranged."""

    seat_layout_id: str
    display_name: str
    vehicle_class: str
    seat_classes: tuple[SeatClass, ...]
    decks: tuple[Deck, ...]
    create_time: datetime | None = field(default=None, compare=False)

    @cached_property
    def seats(self) -> dict[str, Seat]:
        """Return all seats by number, in the order of the layout."""
        return {seat.seat_number: seat for deck in self.decks for seat in deck.seats}

    @cached_property
    def sellable_seats(self) -> dict[str, Seat]:
        """Return by number the seats that can be sold."""
        return {number: seat for number, seat in self.seats.items() if not seat.blocked}

    @property
    def seat_count(self) -> int:
        """Return how many seats can be sold."""
        return len(self.sellable_seats)


def layout_faults(layout: SeatLayout) -> list[FieldViolation]:
    """Return how the parts of a layout do not fit together, one fault for each."""
    return [
        FieldViolation(field=f"seat_layout.{name}", description=what)
        for name, what in _faults(layout)
    ]


def _faults(layout: SeatLayout) -> Iterator[tuple[str, str]]:
    codes: set[str] = set()
    for index, one in enumerate(layout.seat_classes):
        if one.seat_class_code in codes:
            yield f"seat_classes[{index}]", f"the class {one.seat_class_code} comes twice"
        codes.add(one.seat_class_code)
    numbers: set[str] = set()
    for index, deck in enumerate(layout.decks):
        yield from _seat_faults(f"decks[{index}]", deck, codes, numbers)
        yield from _fixture_faults(f"decks[{index}]", deck)
    count = sum(len(deck.seats) for deck in layout.decks)
    if count > SEATS_MAX:
        yield "decks", f"{count} seats are more than {SEATS_MAX}"
    if layout.seat_count == 0:
        yield "decks", "there is no seat that can be sold"


def _seat_faults(
    path: str, deck: Deck, codes: set[str], numbers: set[str]
) -> Iterator[tuple[str, str]]:
    places: dict[tuple[int, int], str] = {}
    for index, seat in enumerate(deck.seats):
        name, number = f"{path}.seats[{index}]", seat.seat_number
        if number in numbers:
            yield f"{name}.seat_number", f"the number {number} comes twice"
        numbers.add(number)
        if seat.seat_class_code not in codes:
            yield (
                f"{name}.seat_class_code",
                f"seat {number}: the layout has no class {seat.seat_class_code}",
            )
        if seat.row_index >= deck.row_count or seat.column_index >= deck.column_count:
            yield name, f"seat {number} is outside of the deck"
        place = (seat.row_index, seat.column_index)
        if place in places:
            yield name, f"seat {number} is where seat {places[place]} is"
        places.setdefault(place, number)


def _fixture_faults(path: str, deck: Deck) -> Iterator[tuple[str, str]]:
    for index, one in enumerate(deck.fixtures):
        below = one.row_index + one.row_count
        right = one.column_index + one.column_count
        if below > deck.row_count or right > deck.column_count:
            yield f"{path}.fixtures[{index}]", f"the {one.kind.lower()} is outside of the deck"
