"""Who travels on a booking, and what of it others may see."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Traveller:
    """Is what a traveller told of themselves; never printed."""

    full_name: str = field(repr=False)
    document_kind: str = field(default="", repr=False)
    document_number: str = field(default="", repr=False)

    @property
    def masked_document_number(self) -> str:
        """Return the last three characters after as many `*` as there are others."""
        number = self.document_number
        return "*" * (len(number) - _SHOWN) + number[-_SHOWN:] if len(number) > _SHOWN else number


class SealedTo(NamedTuple):
    """Names the row that a sealed traveller belongs to."""

    tenant_id: str
    booking_id: str
    passenger_id: str


class BookedSeat(NamedTuple):
    """Is one passenger of a booking with the seat; the ticket is "" before it is issued."""

    seat_number: str
    seat_class_code: str
    price_minor: int
    passenger_id: str
    ticket_id: str = ""


class SealedPassenger(NamedTuple):
    """Is one traveller, encrypted."""

    passenger_id: str
    booking_id: str
    sealed: bytes


def seats_match(hold_seats: Sequence[str], passenger_seats: Sequence[str]) -> bool:
    """Say whether there is exactly one passenger for each seat of a hold."""
    return sorted(hold_seats) == sorted(passenger_seats) and len(set(passenger_seats)) == len(
        passenger_seats
    )
