"""Drivers and passengers of the Python client while the location processes behind Envoy come and go."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from services.stack.embedded import EmbeddedStack
from services.stack.environments import DEMO_TENANT_ID
from services.stack.replay.access import access_to_stack
from services.stack.replay.people import People
from tests.support.waiting import until
from wayfare.identity.v1 import session_pb2
from wayfare.location.v1 import trip_pb2, trip_update_pb2
from wayfare_client import DriverSession, Pacing, TripFollower, TripTracking, WayfareClient

REPORT_COUNT = 200
POSITION_EVERY = 10


class Trip:
    """A trip with its driver's and its passenger's clients, and what the passenger heard."""

    def __init__(self, stack: EmbeddedStack) -> None:
        self.trip_id = str(uuid.uuid4())
        self.updates: list[trip_update_pb2.TripUpdate] = []
        self._access = access_to_stack(stack)

    async def begin(self) -> None:
        people = People(self._access)
        (driver,), (passenger,) = await people.drivers(1), await people.passengers(1)
        async with self._access.mesh_channel() as channel:
            await TripTracking(channel).start(
                trip_pb2.TrackedTrip(
                    trip_id=self.trip_id,
                    tenant_id=DEMO_TENANT_ID,
                    driver_id=driver.user.user_id,
                    vehicle_id="bus-14",
                    follower_ids=[passenger.user.user_id],
                )
            )
        self.driver, self.passenger = self._client(driver), self._client(passenger)

    async def follow(self, follower: TripFollower) -> None:
        async for update in follower:
            self.updates.append(update)

    def boarded_counts(self) -> list[int]:
        return [
            update.boarding.boarded_count for update in self.updates if update.HasField("boarding")
        ]

    def _client(self, session: session_pb2.Session) -> WayfareClient:
        client = WayfareClient(self._access.edge_address, tenant_id=DEMO_TENANT_ID)
        client.tokens.use(session)
        return client


async def report(session: DriverSession) -> None:
    """Send reports that may not be conflated, and positions among them, for some seconds."""
    # Captured at the interval that drivers are allowed, a while ago.
    first = datetime.now(UTC) - timedelta(minutes=5)
    for number in range(1, REPORT_COUNT + 1):
        await session.send_boarding(number)
        if number % POSITION_EVERY == 0:
            step = number // POSITION_EVERY
            await session.send_position(
                53.40 + step / 1000, -2.98, capture_time=first + timedelta(seconds=3 * step)
            )
        await asyncio.sleep(0.02)


async def replace_every_process(stack: EmbeddedStack, how: str) -> None:
    """End the location processes one after the other, by force or in good order."""
    for name in ("location-1", "location-2"):
        await asyncio.sleep(0.5)
        process = stack.services[name]
        await (process.kill() if how == "kill" else process.terminate())
        await stack.restart_part(name)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "terminate"])
async def test_nothing_is_lost_while_every_location_process_is_replaced(
    private_stack: EmbeddedStack, how: str
) -> None:
    trip = Trip(private_stack)
    await trip.begin()
    async with trip.driver as driver, trip.passenger as passenger:
        follower = passenger.follow_trip(trip.trip_id)
        following = asyncio.create_task(trip.follow(follower))
        await until(lambda: trip.updates)
        async with driver.drive("bus-14", trip.trip_id, pacing=Pacing.KEEP) as session:
            replacing = asyncio.create_task(replace_every_process(private_stack, how))
            await report(session)
            await replacing
            await session.send_status(trip_pb2.TRIP_STATUS_ENDED)
            await session.wait_acknowledged(20)
        async with asyncio.timeout(20):
            await following

    statistics = session.statistics
    assert statistics.reconnect_count >= 1
    assert statistics.accepted_count == statistics.sent_count, statistics
    assert follower.gap_count == 0
    assert trip.boarded_counts() == list(range(1, REPORT_COUNT + 1))
