"""Holds what a trip and its status are, and who may follow it. Pure."""

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum


class TripStatus(StrEnum):
    """Says how far a trip is."""

    UNSPECIFIED = ""
    STARTED = "STARTED"
    PAUSED = "PAUSED"
    ENDED = "ENDED"
    EMERGENCY = "EMERGENCY"


STATUS_MOVES: dict[TripStatus, frozenset[TripStatus]] = {
    TripStatus.UNSPECIFIED: frozenset(
        {TripStatus.STARTED, TripStatus.PAUSED, TripStatus.ENDED, TripStatus.EMERGENCY}
    ),
    TripStatus.STARTED: frozenset(
        {TripStatus.STARTED, TripStatus.PAUSED, TripStatus.ENDED, TripStatus.EMERGENCY}
    ),
    TripStatus.PAUSED: frozenset(
        {TripStatus.STARTED, TripStatus.PAUSED, TripStatus.ENDED, TripStatus.EMERGENCY}
    ),
    TripStatus.EMERGENCY: frozenset(
        {TripStatus.STARTED, TripStatus.PAUSED, TripStatus.ENDED, TripStatus.EMERGENCY}
    ),
    TripStatus.ENDED: frozenset(),
}
"""Lists the moves from each status.

The store's function `apply` decides by the same rule: nothing after ENDED.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TripStop:
    """Is one stop of a trip."""

    stop_id: str
    display_name: str
    latitude: float
    longitude: float
    scheduled_arrival_time: datetime | None = None
    scheduled_departure_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedTrip:
    """Is a trip whose vehicle is tracked."""

    trip_id: str
    tenant_id: str
    driver_id: str
    vehicle_id: str
    follower_ids: frozenset[str] = frozenset()
    conductor_ids: frozenset[str] = frozenset()
    stops: tuple[TripStop, ...] = ()
    expected_count: int = 0
    start_time: datetime | None = None
    stop_time: datetime | None = None
    timetable_trip_id: str = ""
    service_date: date | None = None
    capacity_count: int = 0

    @property
    def stopped(self) -> bool:
        """Say whether tracking was stopped."""
        return self.stop_time is not None


STAFF_ROLES = frozenset({"BUSINESS", "ADMIN"})


def may_follow(trip: TrackedTrip, *, tenant_id: str, user_id: str, role: str) -> bool:
    """Say whether a person may follow `trip`.

    Its tenant's staff, its driver, conductors and passengers.
    """
    if trip.tenant_id != tenant_id:
        return False
    if role in STAFF_ROLES:
        return True
    return (
        user_id == trip.driver_id or user_id in trip.conductor_ids or user_id in trip.follower_ids
    )
