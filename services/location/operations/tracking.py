"""Begins and stops the tracking of trips, and says who may drive and follow them."""

from contextlib import suppress
from dataclasses import replace

import structlog

from services.location.domain.timetable import PlannedStop
from services.location.domain.trips import TrackedTrip, TripStop, may_follow
from services.location.errors import (
    NotAFollowerError,
    NotTheTripDriverError,
    TimetableTripUnknownError,
    TooManyFollowedTripsError,
    TripNotTrackedError,
    VehicleNotOfTripError,
)
from services.location.ports.live import LiveStore
from services.location.ports.timetables import TimetableStore
from services.location.ports.trips import TripStore
from services.shared.errors import DependencyUnavailableError

_log = structlog.get_logger()


class Tracking:
    """Knows the tracked trips.

    Valkey answers first, PostgreSQL when Valkey does not know or is away.
    """

    def __init__(
        self,
        *,
        live: LiveStore,
        trips: TripStore,
        timetables: TimetableStore,
        followed_trips_max: int,
    ) -> None:
        """Take the stores, and how many trips a passenger may follow at once."""
        self._timetables = timetables
        self._live = live
        self._trips = trips
        self._followed_trips_max = followed_trips_max

    async def start(self, trip: TrackedTrip, *, request_id: str, body_hash: bytes) -> TrackedTrip:
        """Begin to track `trip`, or change who drives and follows it.

        A trip of a timetable that names no stops has those of the timetable. Raises
        TimetableTripUnknownError.
        """
        trip = await self._with_stops(trip)
        kept = await self._trips.start(trip, request_id=request_id, body_hash=body_hash)
        await self._tell_live(kept)
        return kept

    async def _with_stops(self, trip: TrackedTrip) -> TrackedTrip:
        if not trip.timetable_trip_id or trip.service_date is None:
            return trip
        plan = await self._timetables.trip_plan(
            trip.tenant_id, trip.timetable_trip_id, trip.service_date
        )
        if plan is None:
            raise TimetableTripUnknownError(trip.timetable_trip_id, trip.service_date)
        if trip.stops:
            return trip
        return replace(trip, stops=tuple(_stop_of(stop) for stop in plan.stops))

    async def stop(
        self, trip_id: str, *, tenant_id: str, request_id: str, body_hash: bytes
    ) -> TrackedTrip:
        """Stop tracking a trip; its followers' streams end.

        Raises NotAFollowerError if there is none.
        """
        trip = await self._trips.stop(
            trip_id, tenant_id=tenant_id, request_id=request_id, body_hash=body_hash
        )
        if trip is None:
            raise NotAFollowerError(trip_id)
        # Not swallowed: without it the followers would wait forever; the caller repeats the
        # request.
        await self._live.untrack(trip)
        return trip

    async def authorize_driver(
        self, trip_id: str, *, tenant_id: str, driver_id: str, vehicle_id: str
    ) -> TrackedTrip:
        """Return the trip that the driver may publish for, or raise why not."""
        trip = await self._find(trip_id, tenant_id)
        if trip is None or trip.driver_id != driver_id:
            raise NotTheTripDriverError(trip_id)
        if trip.stopped:
            raise TripNotTrackedError(trip_id)
        if trip.vehicle_id != vehicle_id:
            raise VehicleNotOfTripError(vehicle_id, trip_id)
        return trip

    async def authorize_follower(
        self, trip_id: str, *, tenant_id: str, user_id: str, role: str
    ) -> TrackedTrip:
        """Return the trip that the person may follow, stopped or not, or raise why not."""
        trip = await self._find(trip_id, tenant_id)
        if trip is None:
            raise NotAFollowerError(trip_id)
        allowed = may_follow(trip, tenant_id=tenant_id, user_id=user_id, role=role)
        if not allowed and not await self._is_follower(trip_id, tenant_id, user_id):
            raise NotAFollowerError(trip_id)
        return trip

    async def count_followed(self, user_id: str, trip_id: str) -> None:
        """Count a followed trip for ten minutes.

        Raises TooManyFollowedTripsError; passes while Valkey is away.
        """
        try:
            within = await self._live.follow(user_id, trip_id, trips_max=self._followed_trips_max)
        except DependencyUnavailableError:
            return
        if not within:
            raise TooManyFollowedTripsError(self._followed_trips_max)

    async def uncount_followed(self, user_id: str, trip_id: str) -> None:
        """Count the trip no more; while Valkey is away, the count lapses by itself."""
        with suppress(DependencyUnavailableError):
            await self._live.unfollow(user_id, trip_id)

    async def _is_follower(self, trip_id: str, tenant_id: str, user_id: str) -> bool:
        try:
            return await self._live.is_follower(trip_id, user_id)
        except DependencyUnavailableError:
            trip = await self._trips.get(trip_id, tenant_id=tenant_id)
            return trip is not None and (
                user_id in trip.follower_ids or user_id in trip.conductor_ids
            )

    async def _find(self, trip_id: str, tenant_id: str) -> TrackedTrip | None:
        """Return the tenant's trip; one that Valkey lost is told to it again."""
        live_knows = True
        try:
            trip = await self._live.tracked_trip(trip_id)
        except DependencyUnavailableError:
            trip, live_knows = None, False
        if trip is None:
            trip = await self._trips.get(trip_id, tenant_id=tenant_id)
            if trip is not None and live_knows:
                await self._tell_live(trip)
        if trip is None or trip.tenant_id != tenant_id:
            return None
        return trip

    async def _tell_live(self, trip: TrackedTrip) -> None:
        try:
            await self._live.track(trip)
        except DependencyUnavailableError:
            # PostgreSQL has it; whoever asks next tells Valkey again.
            _log.warning("track_degraded", trip_id=trip.trip_id)


def _stop_of(stop: PlannedStop) -> TripStop:
    return TripStop(
        stop_id=stop.stop_id,
        display_name=stop.display_name[:200],
        latitude=stop.latitude,
        longitude=stop.longitude,
        scheduled_arrival_time=stop.arrival_time,
        scheduled_departure_time=stop.departure_time,
    )
