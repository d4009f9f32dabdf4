"""Refusals of holds, and of changes of seats by hand."""

from collections.abc import Iterable
from datetime import datetime
from typing import ClassVar

from services.shared.errors import DomainError, Kind


class SeatHeldError(DomainError):
    """Somebody else holds a seat on one of the legs."""

    kind: ClassVar[Kind] = Kind.PRECONDITION
    reason: ClassVar[str] = "SEAT_HELD"

    def __init__(self, trip_id: str, seat_numbers: Iterable[str]) -> None:
        """Name the seats that are in the way."""
        super().__init__(
            "Somebody else is choosing this seat. It may come free again.",
            metadata=_seats(trip_id, seat_numbers),
        )


class SeatBookedError(DomainError):
    """A seat is sold on one of the legs."""

    kind: ClassVar[Kind] = Kind.PRECONDITION
    reason: ClassVar[str] = "SEAT_BOOKED"

    def __init__(self, trip_id: str, seat_numbers: Iterable[str]) -> None:
        """Name the seats that are in the way."""
        super().__init__(
            "This seat is taken on a part of the way.", metadata=_seats(trip_id, seat_numbers)
        )


class SeatBlockedError(DomainError):
    """A seat is not sold to anybody on one of the legs."""

    kind: ClassVar[Kind] = Kind.PRECONDITION
    reason: ClassVar[str] = "SEAT_BLOCKED"

    def __init__(self, trip_id: str, seat_numbers: Iterable[str]) -> None:
        """Name the seats that are in the way."""
        super().__init__("This seat is not for sale.", metadata=_seats(trip_id, seat_numbers))


class SeatUnknownError(DomainError):
    """The vehicle has no such seat."""

    kind: ClassVar[Kind] = Kind.INVALID
    reason: ClassVar[str] = "SEAT_UNKNOWN"

    def __init__(self, trip_id: str, seat_numbers: Iterable[str]) -> None:
        """Name the seats."""
        super().__init__("The vehicle has no such seat.", metadata=_seats(trip_id, seat_numbers))


class SeatsNotAvailableError(DomainError):
    """Fewer seats are free than best-available was asked for."""

    kind: ClassVar[Kind] = Kind.PRECONDITION
    reason: ClassVar[str] = "SEATS_NOT_AVAILABLE"

    def __init__(self, trip_id: str, *, requested_seats: int, free_seats: int) -> None:
        """Say how many are asked for and how many are free."""
        super().__init__(
            "There are not enough free seats of this kind.",
            metadata={
                "trip_id": trip_id,
                "requested_seats": str(requested_seats),
                "free_seats": str(free_seats),
            },
        )


class TooManySeatsError(DomainError):
    """The user would hold more seats on the trip than one may."""

    kind: ClassVar[Kind] = Kind.PRECONDITION
    reason: ClassVar[str] = "TOO_MANY_SEATS"

    def __init__(self, *, max_seats: int, held_seats: int, requested_seats: int) -> None:
        """Say how many one may hold, how many are held, and how many were asked for."""
        super().__init__(
            f"One may hold {max_seats} seats of this trip at once.",
            metadata={
                "max_seats": str(max_seats),
                "held_seats": str(held_seats),
                "requested_seats": str(requested_seats),
            },
        )


class TooManyHoldsError(DomainError):
    """The user has as many holds as one may have at once."""

    kind: ClassVar[Kind] = Kind.EXHAUSTED
    reason: ClassVar[str] = "TOO_MANY_HOLDS"

    def __init__(self, *, max_holds: int) -> None:
        """Say how many one may have."""
        super().__init__(
            f"One may have {max_holds} holds at once; release one first.",
            metadata={"max_holds": str(max_holds)},
        )


class HoldExpiredError(DomainError):
    """The hold has run out."""

    kind: ClassVar[Kind] = Kind.PRECONDITION
    reason: ClassVar[str] = "HOLD_EXPIRED"

    def __init__(self, hold_id: str, *, expire_time: datetime) -> None:
        """Say when."""
        super().__init__(
            "The time to keep these seats is over; choose again.",
            metadata={"hold_id": hold_id, "expire_time": expire_time.isoformat()},
        )


class HoldNotYoursError(DomainError):
    """The hold is another user's, or there is none."""

    kind: ClassVar[Kind] = Kind.PERMISSION
    reason: ClassVar[str] = "HOLD_NOT_YOURS"

    def __init__(self, hold_id: str) -> None:
        """Name the hold."""
        super().__init__("You have no such hold.", metadata={"hold_id": hold_id})


class HoldNotActiveError(DomainError):
    """The hold was released, replaced, is being paid or became a booking."""

    kind: ClassVar[Kind] = Kind.PRECONDITION
    reason: ClassVar[str] = "HOLD_NOT_ACTIVE"

    def __init__(self, hold_id: str, *, state: str, booking_id: str = "") -> None:
        """Say what became of it."""
        metadata = {"hold_id": hold_id, "state": state}
        if booking_id:
            metadata["booking_id"] = booking_id
        super().__init__("The hold cannot be changed any more.", metadata=metadata)


class HoldExtensionsUsedError(DomainError):
    """The hold was extended as often as it may be."""

    kind: ClassVar[Kind] = Kind.PRECONDITION
    reason: ClassVar[str] = "HOLD_EXTENSIONS_USED"

    def __init__(self, hold_id: str, *, max_extensions: int) -> None:
        """Say how often it may be extended."""
        super().__init__(
            "The hold cannot be extended again.",
            metadata={"hold_id": hold_id, "max_extensions": str(max_extensions)},
        )


class SeatOverrideNotPossibleError(DomainError):
    """There is nothing to unblock, release or move on the legs."""

    kind: ClassVar[Kind] = Kind.PRECONDITION
    reason: ClassVar[str] = "SEAT_OVERRIDE_NOT_POSSIBLE"

    def __init__(self, trip_id: str, *, seat_number: str, action: str) -> None:
        """Name the seat and what was asked."""
        super().__init__(
            "There is nothing on this seat that can be changed like this.",
            metadata={"trip_id": trip_id, "seat_number": seat_number, "action": action},
        )


def _seats(trip_id: str, seat_numbers: Iterable[str]) -> dict[str, str]:
    return {"trip_id": trip_id, "seat_numbers": ",".join(seat_numbers)}
