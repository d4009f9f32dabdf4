"""Refusals of tickets, scans and manifests."""

from typing import ClassVar

from services.shared.errors import DomainError, FieldViolation, Kind


class TicketNotYoursError(DomainError):
    """The ticket is another user's, or there is none."""

    kind: ClassVar[Kind] = Kind.PERMISSION
    reason: ClassVar[str] = "TICKET_NOT_YOURS"

    def __init__(self, ticket_id: str) -> None:
        """Name the ticket."""
        super().__init__("This is no ticket of yours.", metadata={"ticket_id": ticket_id})


class NotTheTripCrewError(DomainError):
    """The caller is not of the trip's crew, or there is no such trip."""

    kind: ClassVar[Kind] = Kind.PERMISSION
    reason: ClassVar[str] = "NOT_THE_TRIP_CREW"

    def __init__(self, trip_id: str) -> None:
        """Name the trip."""
        super().__init__("You are not of the crew of this trip.", metadata={"trip_id": trip_id})


class StopIndexUnknownError(DomainError):
    """The trip has no stop of this index."""

    kind: ClassVar[Kind] = Kind.INVALID
    reason: ClassVar[str] = "STOP_INDEX_UNKNOWN"

    def __init__(self, trip_id: str, *, stop_index: int, stop_count: int, field: str) -> None:
        """Say which stops there are; `field` is where the index stands."""
        message = f"The trip has the stops 0 to {stop_count - 1}, and none with index {stop_index}."
        super().__init__(
            message,
            metadata={
                "trip_id": trip_id,
                "stop_index": str(stop_index),
                "stop_count": str(stop_count),
            },
            fields=[FieldViolation(field=field, description=message)],
        )


class PassengerNotOnTripError(DomainError):
    """The trip has no such passenger."""

    kind: ClassVar[Kind] = Kind.NOT_FOUND
    reason: ClassVar[str] = "PASSENGER_NOT_ON_TRIP"

    def __init__(self, trip_id: str, passenger_id: str) -> None:
        """Name the passenger by id."""
        super().__init__(
            "The trip has no such passenger.",
            metadata={"trip_id": trip_id, "passenger_id": passenger_id},
        )
