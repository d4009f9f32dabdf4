"""Buses on lines of Cairns' timetable, driven by the Python client against a running stack."""

import asyncio
import time
import uuid
from bisect import bisect_right
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp
from google.type import date_pb2

from services.stack.environments import DEMO_TENANT_ID
from services.stack.migrations import role_of
from services.stack.replay.motion import FeedTrip
from tests.support.e2e_edge import Edge
from tests.support.timetable_drives import CAIRNS, SERVICE_DATE, cairns_trips
from tests.support.timetables import import_feed
from wayfare.location.v1 import location_service_pb2, trip_pb2
from wayfare.location.v1.location_service_pb2_grpc import LocationServiceStub
from wayfare_client import DriverSession

METERS_PER_SECOND = 12.0
# Where on its way a bus begins: between two stops, with some of them ahead.
BEGIN_METERS = 1_500.0


@dataclass
class Bus:
    """One bus under way."""

    trip_id: str
    vehicle_id: str
    planned: FeedTrip
    driver_id: str
    session: DriverSession | None = None

    async def drive(self) -> None:
        """Go along the line, a position a second."""
        begin = time.monotonic()
        while True:
            along = BEGIN_METERS + METERS_PER_SECOND * (time.monotonic() - begin)
            latitude, longitude = _place(self.planned, along)
            assert self.session is not None
            await self.session.send_position(
                latitude, longitude, speed_meters_per_second=METERS_PER_SECOND
            )
            await asyncio.sleep(1)


def _place(planned: FeedTrip, along: float) -> tuple[float, float]:
    shape = planned.shape
    index = min(len(shape) - 1, bisect_right(shape, along, key=lambda point: point[2]))
    one, other = shape[index - 1], shape[index]
    share = min(1.0, max(0.0, (along - one[2]) / max(0.1, other[2] - one[2])))
    return one[0] + share * (other[0] - one[0]), one[1] + share * (other[1] - one[1])


async def _track(edge: Edge, bus: Bus, follower_ids: Sequence[str]) -> None:
    shift = datetime.now(UTC) - bus.planned.begin - timedelta(seconds=BEGIN_METERS / 8)
    trip = trip_pb2.TrackedTrip(
        trip_id=bus.trip_id,
        tenant_id=DEMO_TENANT_ID,
        driver_id=bus.driver_id,
        vehicle_id=bus.vehicle_id,
        follower_ids=follower_ids,
        capacity_count=50,
        timetable_trip_id=bus.planned.timetable_trip_id,
        service_date=date_pb2.Date(
            year=SERVICE_DATE.year, month=SERVICE_DATE.month, day=SERVICE_DATE.day
        ),
    )
    for stop in bus.planned.stops:
        arrival = Timestamp()
        arrival.FromDatetime(stop.arrival_time + shift)
        told = trip.stops.add(
            stop_id=stop.stop_id, display_name=stop.display_name, scheduled_arrival_time=arrival
        )
        told.location.latitude, told.location.longitude = stop.latitude, stop.longitude
    async with edge.mesh_channel("booking") as mesh:
        request = location_service_pb2.StartTrackingRequest(trip=trip, request_id=str(uuid.uuid4()))
        await LocationServiceStub(mesh).StartTracking(request, timeout=10)


@asynccontextmanager
async def buses_under_way(
    edge: Edge, count: int, *, follower_ids: Sequence[str] = ()
) -> AsyncIterator[Sequence[Bus]]:
    """Drive buses on different lines until the block ends."""
    planned = {trip.route_short_name: trip for trip in cairns_trips("08:00", "10:00")}
    chosen = sorted(planned.values(), key=lambda trip: -len(trip.stops))[:count]
    buses = [
        Bus(
            trip_id=str(uuid.uuid4()),
            vehicle_id=f"bus-{number + 1}",
            planned=trip,
            driver_id=str(uuid.uuid4()),
        )
        for number, trip in enumerate(chosen)
    ]
    dsn = edge.stack.postgres.dsn_for(role_of("location"))
    await import_feed(dsn, CAIRNS, tenant_id=DEMO_TENANT_ID)
    async with AsyncExitStack() as opened:
        for bus in buses:
            await _track(edge, bus, follower_ids)
            token = edge.mint.token("DRIVER", sub=bus.driver_id)
            client = await opened.enter_async_context(edge.client(token))
            drive = client.drive(bus.vehicle_id, bus.trip_id)
            bus.session = await opened.enter_async_context(drive)
            await bus.session.send_status(trip_pb2.TRIP_STATUS_STARTED)
        tasks = [asyncio.create_task(bus.drive()) for bus in buses]
        try:
            yield buses
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
