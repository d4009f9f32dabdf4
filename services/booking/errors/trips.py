"""Refusals of trips and seat layouts."""

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar

from services.shared.errors import DomainError, FieldViolation, Kind


class TripUnknownError(DomainError):
    """The tenant has no such trip."""

    kind: ClassVar[Kind] = Kind.NOT_FOUND
    reason: ClassVar[str] = "TRIP_UNKNOWN"

    def __init__(self, trip_id: str) -> None:
        """Name the trip."""
        super().__init__("There is no such trip.", metadata={"trip_id": trip_id})


class TripNotOnSaleError(DomainError):
    """Seats are not sold yet, or no longer at this stop."""

    kind: ClassVar[Kind] = Kind.PRECONDITION
    reason: ClassVar[str] = "TRIP_NOT_ON_SALE"

    def __init__(self, trip_id: str, *, open_time: datetime | None, close_time: datetime) -> None:
        """Say when the sale is open."""
        super().__init__(
            "Seats of this trip are not on sale now.",
            metadata={
                "trip_id": trip_id,
                "open_time": open_time.isoformat() if open_time else "",
                "close_time": close_time.isoformat(),
            },
        )


class TripDepartedError(DomainError):
    """The trip has left the passenger's stop, or is over."""

    kind: ClassVar[Kind] = Kind.PRECONDITION
    reason: ClassVar[str] = "TRIP_DEPARTED"

    def __init__(self, trip_id: str, *, departure_time: datetime) -> None:
        """Say when it left, or was over."""
        super().__init__(
            "The trip has left already.",
            metadata={"trip_id": trip_id, "departure_time": departure_time.isoformat()},
        )


class TripCancelledError(DomainError):
    """The trip does not run."""

    kind: ClassVar[Kind] = Kind.PRECONDITION
    reason: ClassVar[str] = "TRIP_CANCELLED"

    def __init__(self, trip_id: str) -> None:
        """Name the trip."""
        super().__init__("The trip does not run.", metadata={"trip_id": trip_id})


class TripStopsFixedError(DomainError):
    """A change would alter which stops the trip has."""

    kind: ClassVar[Kind] = Kind.PRECONDITION
    reason: ClassVar[str] = "TRIP_STOPS_FIXED"

    def __init__(self, trip_id: str) -> None:
        """Name the trip."""
        super().__init__(
            "Which stops a trip has is fixed; name the same ones in the same order.",
            metadata={"trip_id": trip_id},
        )


class TripInvalidError(DomainError):
    """The parts of a trip do not fit together."""

    kind: ClassVar[Kind] = Kind.INVALID
    reason: ClassVar[str] = "TRIP_INVALID"

    def __init__(self, faults: Sequence[FieldViolation]) -> None:
        """Say every fault; there is at least one."""
        first = faults[0]
        super().__init__(f"{first.field}: {first.description}", fields=faults)


class StopNotOnTripError(DomainError):
    """The trip does not lead from the one stop to the other."""

    kind: ClassVar[Kind] = Kind.INVALID
    reason: ClassVar[str] = "STOP_NOT_ON_TRIP"

    def __init__(self, trip_id: str, *, from_stop_id: str, to_stop_id: str) -> None:
        """Name the stops."""
        super().__init__(
            "The trip takes nobody from the one stop to the other.",
            metadata={
                "trip_id": trip_id,
                "from_stop_id": from_stop_id,
                "to_stop_id": to_stop_id,
            },
        )


class SeatLayoutUnknownError(DomainError):
    """The tenant has no such seat layout."""

    kind: ClassVar[Kind] = Kind.NOT_FOUND
    reason: ClassVar[str] = "SEAT_LAYOUT_UNKNOWN"

    def __init__(self, seat_layout_id: str) -> None:
        """Name the layout."""
        super().__init__(
            "There is no such seat layout.", metadata={"seat_layout_id": seat_layout_id}
        )


class SeatLayoutInvalidError(DomainError):
    """The parts of a seat layout do not fit together."""

    kind: ClassVar[Kind] = Kind.INVALID
    reason: ClassVar[str] = "SEAT_LAYOUT_INVALID"

    def __init__(self, faults: Sequence[FieldViolation]) -> None:
        """Say every fault; there is at least one."""
        first = faults[0]
        super().__init__(f"{first.field}: {first.description}", fields=faults)


class SearchTooWideError(DomainError):
    """A search covers too many days."""

    kind: ClassVar[Kind] = Kind.INVALID
    reason: ClassVar[str] = "SEARCH_TOO_WIDE"

    def __init__(self, *, max_days: int) -> None:
        """Say how many are allowed."""
        message = f"end_time is at most {max_days} days after start_time."
        super().__init__(
            message,
            metadata={"max_days": str(max_days)},
            fields=[FieldViolation(field="end_time", description=message)],
        )
