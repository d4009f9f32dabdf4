"""Holds what operations need of the store of imported timetables."""

from datetime import date
from typing import Protocol

from services.location.domain.timetable import TripPlan


class TimetableStore(Protocol):
    """Reads timetables; the job of `services/location/gtfs` writes them."""

    async def trip_plan(
        self, tenant_id: str, timetable_trip_id: str, service_date: date
    ) -> TripPlan | None:
        """Return the trip as it runs on the day, or None when the tenant's timetable has none.

        Raises DependencyUnavailableError when the store is away and the plan is not known here.
        """
        ...
