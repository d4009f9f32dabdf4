"""Who may see and scan what happens on a trip."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from services.booking.domain.trips import Trip
from services.booking.errors.tickets import NotTheTripCrewError, StopIndexUnknownError
from services.booking.ports.trips import TripStore

MANIFEST_KEPT = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attendant:
    """Is who asks: staff of the operator, or somebody who drives or checks tickets."""

    tenant_id: str
    user_id: str
    is_staff: bool


async def trip_of(trips: TripStore, attendant: Attendant, trip_id: str) -> Trip:
    """Return a trip of whose crew the attendant is, any for staff. Raises NotTheTripCrewError."""
    trip = await trips.find(attendant.tenant_id, trip_id)
    if trip is None or not (attendant.is_staff or attendant.user_id in trip.crew_ids):
        raise NotTheTripCrewError(trip_id)
    return trip


def check_manifest_time(trip: Trip, attendant: Attendant, now: datetime) -> None:
    """Raise NotTheTripCrewError for crew when the trip is over for longer than a day."""
    if not attendant.is_staff and now > trip.stops[-1].arrival_time + MANIFEST_KEPT:
        raise NotTheTripCrewError(trip.trip_id)


def check_stop(trip: Trip, stop_index: int, *, field: str) -> None:
    """Raise StopIndexUnknownError if the trip has no such stop."""
    if stop_index >= len(trip.stops):
        raise StopIndexUnknownError(
            trip.trip_id, stop_index=stop_index, stop_count=len(trip.stops), field=field
        )
