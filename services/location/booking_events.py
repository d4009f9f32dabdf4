"""Takes BookingService's events: they say who drives a scheduled trip and who may follow it.

Does what StartTracking and StopTracking do, in the transaction in which the event is taken; Valkey
is told in the same turn. Events of a trip come in order, each once; what comes again changes
nothing.
"""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from google.protobuf.message import Message

from services.location.domain.trips import TrackedTrip, TripStop
from services.location.store import booked
from services.location.store.live import ValkeyLiveStore
from services.location.store.timetables import PostgresTimetableStore
from services.location.store.trips import PostgresTripStore
from wayfare.booking.v1 import events_pb2, trip_pb2
from wayfare.event.v1.envelope_pb2 import Envelope
from wayfare.location.v1 import trip_update_pb2

if TYPE_CHECKING:
    from services.shared.postgres import Connection

CONSUMER = "tracking"
SOURCE = "booking"
# Drives a trip whose driver was taken away and whose next one is not known yet: nobody's id.
_NOBODY = str(uuid.UUID(int=0))
_KINDS: dict[str, Callable[[], Message]] = {
    "TripScheduled": events_pb2.TripScheduled,
    "TripUpdated": events_pb2.TripUpdated,
    "TripCancelled": events_pb2.TripCancelled,
    "PassengerJoined": events_pb2.PassengerJoined,
    "PassengerLeft": events_pb2.PassengerLeft,
    "BoardingCounted": events_pb2.BoardingCounted,
}
_PREFIX = "type.googleapis.com/wayfare.booking.v1."


def wants_trip(event: Envelope) -> bool:
    """Say whether an event is of a trip: most of booking's are of seats."""
    return event.aggregate_type == "trip"


class BookingEvents:
    """Handles the events of one consumer; see services/shared/events/consumer.py."""

    def __init__(
        self,
        *,
        live: ValkeyLiveStore,
        trips: PostgresTripStore,
        timetables: PostgresTimetableStore,
    ) -> None:
        """Take the stores."""
        self._live = live
        self._trips = trips
        self._timetables = timetables

    async def handle(self, connection: "Connection", events: Sequence[Envelope]) -> None:
        """Handle events in order; a trip that several are about is told to Valkey once."""
        by_tenant: dict[str, list[tuple[str, Message]]] = {}
        for event in events:
            message = _message_of(event)
            if message is not None:
                told = by_tenant.setdefault(event.tenant_id, [])
                told.append((event.aggregate_id, message))
        for tenant_id, told in by_tenant.items():
            await booked.act_for(connection, tenant_id)
            await _keep(connection, tenant_id, told)
            trip_ids = list(dict.fromkeys(trip_id for trip_id, _ in told))
            known = await booked.find(connection, trip_ids)
            tracked = await self._trips.kept_on(connection, trip_ids)
            for trip_id in trip_ids:
                if trip_id in known:
                    await self._track(
                        connection, trip_id, known[trip_id], is_kept=trip_id in tracked
                    )
            await self._board(connection, told)
        await booked.act_for(connection, "")

    async def _board(self, connection: "Connection", told: Sequence[tuple[str, Message]]) -> None:
        """Tell those who follow how many are on board."""
        counted = {
            trip_id: message
            for trip_id, message in told
            if isinstance(message, events_pb2.BoardingCounted)
        }
        for trip_id, message in counted.items():
            trip = await self._trips.read_on(connection, trip_id)
            if trip is not None and not trip.stopped:
                await self._live.board(trip, _boarding_payload(message))

    async def _track(
        self, connection: "Connection", trip_id: str, known: booked.BookedTrip, *, is_kept: bool
    ) -> None:
        """Bring what is tracked to what is known."""
        tracked = await self._trips.read_on(connection, trip_id) if is_kept else None
        if tracked is not None and tracked.stopped:
            # It came again, or came after the trip had ended.
            return
        if known.cancelled:
            if tracked is not None:
                stopped = await self._trips.stop_on(connection, trip_id)
                await self._live.untrack(stopped or tracked)
            return
        trip = _tracked_trip(trip_id, known)
        if trip is None and tracked is not None:
            # Without driver or vehicle nobody may publish; passengers may follow all the same.
            trip = replace(
                tracked,
                driver_id=_NOBODY,
                follower_ids=known.passenger_ids,
                expected_count=known.expected_count,
            )
        if trip is None:
            return
        kept = await self._trips.start_on(connection, await self._with_timetable(trip))
        await self._live.track(kept)

    async def _with_timetable(self, trip: TrackedTrip) -> TrackedTrip:
        """Leave out the name of a trip in a timetable that was not imported here."""
        if trip.service_date is None:
            return replace(trip, timetable_trip_id="")
        plan = await self._timetables.trip_plan(
            trip.tenant_id, trip.timetable_trip_id, trip.service_date
        )
        if plan is None:
            return replace(trip, timetable_trip_id="", service_date=None)
        return trip


async def _keep(
    connection: "Connection", tenant_id: str, told: Sequence[tuple[str, Message]]
) -> None:
    """Keep what a tenant's trips are told: of passengers and counts the last that is said."""
    passengers: dict[tuple[str, str], bool] = {}
    expected_counts: dict[str, int] = {}
    for trip_id, message in told:
        if isinstance(message, events_pb2.TripScheduled | events_pb2.TripUpdated):
            await booked.keep_trip(
                connection,
                trip_id,
                tenant_id,
                trip=message.trip.SerializeToString(),
                capacity_count=max(0, message.capacity_count),
            )
        elif isinstance(message, events_pb2.TripCancelled):
            await booked.keep_cancelled(connection, trip_id, tenant_id)
        elif isinstance(message, events_pb2.PassengerJoined | events_pb2.PassengerLeft):
            joined = isinstance(message, events_pb2.PassengerJoined)
            passengers[trip_id, message.user_id] = joined
            expected_counts[trip_id] = message.expected_count
        elif isinstance(message, events_pb2.BoardingCounted):
            expected_counts[trip_id] = message.counts.expected_count
    await booked.keep_passengers(connection, tenant_id, passengers)
    await booked.keep_expected(connection, tenant_id, expected_counts)


def _message_of(event: Envelope) -> Message | None:
    """Return the event, or None if it is not one of a trip that tracking knows.

    Raises google.protobuf.message.DecodeError if it is none of its kind.
    """
    if event.aggregate_type != "trip" or not event.payload.type_url.startswith(_PREFIX):
        return None
    kind = _KINDS.get(event.payload.type_url.removeprefix(_PREFIX))
    if kind is None:
        return None
    message = kind()
    message.ParseFromString(event.payload.value)
    return message


def _tracked_trip(trip_id: str, known: booked.BookedTrip) -> TrackedTrip | None:
    """Return the trip to track, or None while driver or vehicle are not known."""
    if known.trip is None:
        return None
    trip = trip_pb2.Trip.FromString(known.trip)
    if not trip.driver_id or not trip.vehicle_id:
        return None
    return TrackedTrip(
        trip_id=trip_id,
        tenant_id=known.tenant_id,
        driver_id=trip.driver_id,
        vehicle_id=trip.vehicle_id,
        follower_ids=known.passenger_ids,
        conductor_ids=frozenset(trip.conductor_ids),
        stops=tuple(_stop_of(stop) for stop in trip.stops),
        expected_count=known.expected_count,
        timetable_trip_id=trip.timetable_trip_id,
        service_date=_date_of(trip),
        capacity_count=known.capacity_count,
    )


def _date_of(trip: trip_pb2.Trip) -> date | None:
    if not trip.timetable_trip_id or not trip.HasField("service_date"):
        return None
    day = trip.service_date
    return date(day.year, day.month, day.day)


def _stop_of(stop: trip_pb2.TripStop) -> TripStop:
    """Return a stop; one with a single time arrives and departs at it."""
    arrival = _time(stop, "scheduled_arrival_time")
    departure = _time(stop, "scheduled_departure_time")
    return TripStop(
        stop_id=stop.stop_id,
        display_name=stop.display_name,
        latitude=stop.location.latitude,
        longitude=stop.location.longitude,
        scheduled_arrival_time=arrival or departure,
        scheduled_departure_time=departure or arrival,
    )


def _time(stop: trip_pb2.TripStop, field: str) -> datetime | None:
    if not stop.HasField(field):  # type: ignore[arg-type]  # one of two names
        return None
    moment: datetime = getattr(stop, field).ToDatetime(tzinfo=UTC)
    return moment


def _boarding_payload(message: events_pb2.BoardingCounted) -> bytes:
    change = trip_update_pb2.BoardingChange(
        boarded_count=message.counts.boarded_count, expected_count=message.counts.expected_count
    )
    return trip_update_pb2.TripUpdate(boarding=change).SerializeToString()
