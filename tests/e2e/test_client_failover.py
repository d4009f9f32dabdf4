"""Drivers and passengers of the Python client while location processes come and go."""

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

POSITION_EVERY = 10
BOARDED_MAX = 1000


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


async def report_while(work: asyncio.Task[None], session: DriverSession) -> list[int]:
    """Send reports that may not be conflated, and positions among them, until the work is done."""
    # Captured at the interval that drivers are allowed, a while ago.
    first = datetime.now(UTC) - timedelta(minutes=30)
    counts: list[int] = []
    while not work.done():
        counts.append(len(counts) % BOARDED_MAX)
        await session.send_boarding(counts[-1])
        if len(counts) % POSITION_EVERY == 0:
            step = len(counts) // POSITION_EVERY
            await session.send_position(
                53.40 + step / 1000, -2.98, capture_time=first + timedelta(seconds=3 * step)
            )
        await asyncio.sleep(0.05)
    return counts


async def replace_processes(stack: EmbeddedStack) -> None:
    """End location processes so that every stream lives through a kill and a drain at least."""
    first, second = stack.services["location-1"], stack.services["location-2"]
    await first.kill()
    await stack.restart_part(first.name)
    await second.terminate()
    await stack.restart_part(second.name)
    await first.kill()
    await stack.restart_part(first.name)


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timeout(180)  # starts a stack of its own, and parts of it again
async def test_nothing_is_lost_while_location_processes_die_and_drain(
    private_stack: EmbeddedStack,
) -> None:
    trip = Trip(private_stack)
    await trip.begin()
    async with trip.driver as driver, trip.passenger as passenger:
        follower = passenger.follow_trip(trip.trip_id)
        following = asyncio.create_task(trip.follow(follower))
        await until(lambda: trip.updates)
        async with driver.drive("bus-14", trip.trip_id, pacing=Pacing.KEEP) as session:
            replacing = asyncio.create_task(replace_processes(private_stack))
            counts = await report_while(replacing, session)
            await replacing
            await session.send_status(trip_pb2.TRIP_STATUS_ENDED)
            await session.wait_acknowledged(20)
        async with asyncio.timeout(20):
            await following

    statistics = session.statistics
    assert statistics.reconnect_count >= 2
    assert follower.reconnect_count >= 2
    assert statistics.accepted_count == statistics.sent_count, statistics
    assert follower.gap_count == 0
    assert trip.boarded_counts() == counts
