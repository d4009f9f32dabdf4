"""Makes many trips at the edge: each once, several at a time, as fast as the limits allow."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from wayfare.booking.v1 import booking_service_pb2 as pb
from wayfare.booking.v1 import trip_pb2
from wayfare_client import WayfareClient, WayfareError

_AT_ONCE = 8
_PAGE_SIZE = 200
_RATE_LIMIT_SECONDS = 1.0
_WINDOW = timedelta(days=30)
_NAMESPACE = uuid.UUID("0b0e3d0a-2f3e-4a44-8c53-9c1d6f6f7d10")

Key = tuple[str, str, int]
"""Is what tells trips apart: name in the timetable or on the sign, its day, the first departure."""


@dataclass(slots=True, kw_only=True)
class Scheduled:
    """Counts what became of the trips; `refused` are names and why."""

    made: list[trip_pb2.Trip] = field(default_factory=list)
    existing_count: int = 0
    left_count: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Return how many were dealt with."""
        return len(self.made) + self.existing_count + self.left_count + len(self.refused)


def key_of(trip: trip_pb2.Trip) -> Key:
    """Return what tells a trip apart."""
    day = trip.service_date
    named = trip.timetable_trip_id or trip.display_name
    return (
        named,
        f"{day.year}-{day.month}-{day.day}",
        trip.stops[0].scheduled_departure_time.seconds,
    )


async def schedule_trips(
    client: WayfareClient,
    trips: Sequence[trip_pb2.Trip],
    *,
    progress: Callable[[Scheduled], None],
) -> Scheduled:
    """Make the trips that are not there yet, and say what became of each.

    To be repeated after anything that went wrong: what is there is left as it is.
    """
    outcome = Scheduled()
    if not trips:
        return outcome
    there = await _existing(client, trips)
    waiting = iter(trips)

    async def work() -> None:
        for trip in waiting:
            if key_of(trip) in there:
                outcome.existing_count += 1
            else:
                await _create(client, trip, outcome)
            progress(outcome)

    async with asyncio.TaskGroup() as workers:
        for _ in range(_AT_ONCE):
            workers.create_task(work())
    return outcome


async def _existing(client: WayfareClient, trips: Iterable[trip_pb2.Trip]) -> set[Key]:
    """Return the keys of all trips that depart while the wanted ones do, cancelled ones too."""
    moments = [trip.stops[0].scheduled_departure_time.ToDatetime() for trip in trips]
    found: set[Key] = set()
    start, end = min(moments), max(moments) + timedelta(seconds=1)
    while start < end:
        until = min(start + _WINDOW, end)
        request = pb.ListTripsRequest(
            start_time=_timestamp(start), end_time=_timestamp(until), page_size=_PAGE_SIZE
        )
        while True:
            page = await _patiently(client.booking.ListTrips, request)
            found.update(map(key_of, page.trips))
            request.page_token = page.next_page_token
            if not request.page_token:
                break
        start = until
    return found


async def _create(client: WayfareClient, trip: trip_pb2.Trip, outcome: Scheduled) -> None:
    # Two imports that run at once make one trip.
    request_id = str(uuid.uuid5(_NAMESPACE, "/".join(map(str, (client.tenant_id, *key_of(trip))))))
    request = pb.CreateTripRequest(trip=trip, request_id=request_id)
    try:
        outcome.made.append(await _patiently(client.booking.CreateTrip, request))
    except WayfareError as error:
        match error.reason:
            case "REQUEST_ID_REUSED":
                outcome.existing_count += 1
            case "TRIP_DEPARTED":
                outcome.left_count += 1
            case "TRIP_INVALID" | "REQUEST_INVALID":
                outcome.refused.append((trip.display_name, str(error)))
            case _:
                raise


async def _patiently(method: Callable[[Any], Awaitable[Any]], request: Message) -> Any:
    """Call a method, and again when the rate limit says so."""
    while True:
        try:
            return await method(request)
        except WayfareError as error:
            if error.reason != "RATE_LIMITED":
                raise
            await asyncio.sleep(error.retry_after_seconds or _RATE_LIMIT_SECONDS)


def _timestamp(moment: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(moment)
    return message
