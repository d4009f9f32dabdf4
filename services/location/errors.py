"""Holds the errors of LocationService. Each reason is documented in its proto's ErrorReason."""

from datetime import date

from services.shared.errors import DomainError, Kind


class NotTheTripDriverError(DomainError):
    """Says that the caller does not drive the trip, or that there is none."""

    kind = Kind.PERMISSION
    reason = "NOT_THE_TRIP_DRIVER"

    def __init__(self, trip_id: str) -> None:
        """Name the trip."""
        super().__init__("you do not drive this trip", metadata={"trip_id": trip_id})


class NotAFollowerError(DomainError):
    """Says that the caller may not see the trip, or that there is none."""

    kind = Kind.PERMISSION
    reason = "NOT_A_FOLLOWER"

    def __init__(self, trip_id: str) -> None:
        """Name the trip."""
        super().__init__("you may not follow this trip", metadata={"trip_id": trip_id})


class TooManyFollowedTripsError(DomainError):
    """Says that the user follows as many trips as one may."""

    kind = Kind.EXHAUSTED
    reason = "TOO_MANY_FOLLOWED_TRIPS"

    def __init__(self, trips_max: int) -> None:
        """Say how many one may follow."""
        super().__init__(
            f"you follow {trips_max} trips already; end one of them first",
            metadata={"max_trips": str(trips_max)},
        )


class TripNotTrackedError(DomainError):
    """Says that the trip is not tracked any more."""

    kind = Kind.PRECONDITION
    reason = "TRIP_NOT_TRACKED"

    def __init__(self, trip_id: str) -> None:
        """Name the trip."""
        super().__init__("the trip is over", metadata={"trip_id": trip_id})


class TripOfAnotherTenantError(DomainError):
    """Says that the trip runs already under another tenant."""

    kind = Kind.PRECONDITION
    reason = "TRIP_OF_ANOTHER_TENANT"

    def __init__(self, trip_id: str) -> None:
        """Name the trip."""
        super().__init__("another tenant has a trip of this id", metadata={"trip_id": trip_id})


class VehicleNotOfTripError(DomainError):
    """Says that the vehicle of hello is not the trip's."""

    kind = Kind.PRECONDITION
    reason = "VEHICLE_NOT_OF_TRIP"

    def __init__(self, vehicle_id: str, trip_id: str) -> None:
        """Name both."""
        super().__init__(
            "the trip runs with another vehicle; ask the dispatcher to change it",
            metadata={"vehicle_id": vehicle_id, "trip_id": trip_id},
        )


class VehicleNotLiveError(DomainError):
    """Says that the vehicle sent no position lately."""

    kind = Kind.NOT_FOUND
    reason = "VEHICLE_NOT_LIVE"

    def __init__(self, vehicle_id: str) -> None:
        """Name the vehicle."""
        super().__init__(
            "the vehicle sent no position in the last 30 seconds",
            metadata={"vehicle_id": vehicle_id},
        )


class SessionSupersededError(DomainError):
    """Says that a newer stream of the same driver took over."""

    kind = Kind.ABORTED
    reason = "SESSION_SUPERSEDED"

    def __init__(self, session_id: str) -> None:
        """Name the session that ended."""
        super().__init__(
            "a newer stream of this driver took over", metadata={"session_id": session_id}
        )


class TimetableTripUnknownError(DomainError):
    """Says that no imported timetable has the trip on the day."""

    kind = Kind.PRECONDITION
    reason = "TIMETABLE_TRIP_UNKNOWN"

    def __init__(self, timetable_trip_id: str, service_date: date) -> None:
        """Name the trip and the day."""
        super().__init__(
            "no imported timetable has this trip on this day; import the feed first",
            metadata={
                "timetable_trip_id": timetable_trip_id,
                "service_date": service_date.isoformat(),
            },
        )


class ViewportInvalidError(DomainError):
    """Says that a viewport's corners are swapped or outside the world."""

    kind = Kind.INVALID
    reason = "VIEWPORT_INVALID"

    def __init__(self) -> None:
        """Say what a viewport must be."""
        super().__init__(
            "the viewport's southwest corner must lie south of its northeast one, within the world"
        )


class NotYourTenantError(DomainError):
    """Says that the tenant of the request is not the caller's."""

    kind = Kind.PERMISSION
    reason = "NOT_YOUR_TENANT"

    def __init__(self, tenant_id: str) -> None:
        """Name the tenant."""
        super().__init__("this is not your tenant", metadata={"tenant_id": tenant_id})


class GeofenceShapeInvalidError(DomainError):
    """Says that the border of an area crosses itself, or that it has no inside."""

    kind = Kind.INVALID
    reason = "GEOFENCE_SHAPE_INVALID"

    def __init__(self, corner_index: int) -> None:
        """Name the corner near which it does."""
        super().__init__(
            "the polygon crosses itself or has no inside",
            metadata={"corner_index": str(corner_index)},
        )


class TooManyGeofencesError(DomainError):
    """Says that the tenant has as many geofences as one may."""

    kind = Kind.EXHAUSTED
    reason = "TOO_MANY_GEOFENCES"

    def __init__(self, geofences_max: int) -> None:
        """Say how many one may have."""
        super().__init__(
            f"you have {geofences_max} geofences already; delete one first",
            metadata={"max_geofences": str(geofences_max)},
        )


class HelloExpectedFirstError(DomainError):
    """Says that hello must be the first message, and only the first."""

    kind = Kind.PRECONDITION
    reason = "HELLO_EXPECTED_FIRST"


class HelloTimeoutError(DomainError):
    """Says that hello did not arrive in time."""

    kind = Kind.DEADLINE
    reason = "HELLO_TIMEOUT"

    def __init__(self, timeout_seconds: float) -> None:
        """Say how long was waited."""
        super().__init__(
            "hello did not arrive in time", metadata={"timeout_seconds": f"{timeout_seconds:g}"}
        )


class FollowerTooSlowError(DomainError):
    """Says that the follower read too slowly; it resumes without a gap."""

    kind = Kind.ABORTED
    reason = "FOLLOWER_TOO_SLOW"


class DrainedError(DomainError):
    """Says that the server stops and the client has not left its stream by itself."""

    kind = Kind.UNAVAILABLE
    reason = "SERVER_DRAINING"


class StreamTokenExpiredError(DomainError):
    """Says that the access token with which the stream was opened has expired."""

    kind = Kind.UNAUTHENTICATED
    reason = "TOKEN_EXPIRED"
