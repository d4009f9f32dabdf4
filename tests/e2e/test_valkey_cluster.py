"""Valkey as a cluster of three masters and three replicas: a master dies under load."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
from redis.asyncio import Redis

from services.location.store.keys import bucket_of, updates_key
from services.stack.embedded import EmbeddedStack, StackOptions
from services.stack.environments import CLUSTER_BUCKETS
from services.stack.valkey_cluster import NODE_TIMEOUT_MILLISECONDS, ValkeyCluster
from tests.support.e2e_edge import Edge
from tests.support.e2e_journeys import Journey, driving, journeys
from tests.support.e2e_streams import LATITUDE, STEP_DEGREES
from tests.support.waiting import until
from wayfare.location.v1 import location_service_pb2
from wayfare.location.v1.location_service_pb2_grpc import LocationServiceStub

pytestmark = [pytest.mark.e2e, pytest.mark.alone, pytest.mark.timeout(180)]

# Its replica asks for votes after the node's timeout and up to a second more; clients learn of it,
# and what the drivers hold back comes with the next acknowledgement.
FAILOVER_SECONDS = 2.5 * NODE_TIMEOUT_MILLISECONDS / 1000 + 5


@pytest.fixture
async def clustered(short_folder: Path) -> AsyncIterator[Edge]:
    options = StackOptions(valkey_cluster=True)
    async with EmbeddedStack(home=short_folder / "cluster-home", options=options) as stack:
        yield Edge(stack)


def cluster_of(edge: Edge) -> ValkeyCluster:
    assert isinstance(edge.stack.valkey, ValkeyCluster)
    return edge.stack.valkey


def bucket_key(journey: Journey) -> str:
    return updates_key(bucket_of(journey.trip.driver_id, CLUSTER_BUCKETS))


def moved(begun: Sequence[Journey], steps: int) -> Callable[[], bool]:
    """Return whether all viewers have seen some steps beyond what is sent by now."""
    goals = [(one, one.sent_steps + steps) for one in begun]
    return lambda: all(one.progress() >= goal for one, goal in goals)


async def last_step(edge: Edge, journey: Journey) -> int:
    """Return the step of the vehicle's newest position, by GetVehiclePosition."""
    async with edge.client(edge.mint.token("ADMIN")) as staff:
        request = location_service_pb2.GetVehiclePositionRequest(vehicle_id=journey.trip.vehicle_id)
        answer = await staff.location.GetVehiclePosition(request)
    return round((answer.position.location.latitude - LATITUDE) / STEP_DEGREES)


async def nodes_asked_where_keys_are(cluster: ValkeyCluster) -> list[str]:
    """Return the nodes that a client asked which keys a command has: reads then depend on them."""
    asked = []
    for node in cluster.nodes:
        async with Redis.from_url(node.url) as client:
            if "cmdstat_command|getkeys" in await client.info("commandstats"):
                asked.append(node.name)
    return asked


async def test_a_killed_master_delays_its_trips_and_loses_nothing(clustered: Edge) -> None:
    edge, cluster = clustered, cluster_of(clustered)
    trips = [await edge.track() for _ in range(12)]
    async with journeys(edge, trips) as begun:
        masters = [await cluster.master_of(bucket_key(journey)) for journey in begun]
        assert len({node.name for node in masters}) == 3
        doomed = masters[0]
        spared = [one for one, master in zip(begun, masters, strict=True) if master is not doomed]
        async with driving(begun, gap_seconds=0.05):
            await until(lambda: all(journey.progress() > 10 for journey in begun))
            assert await nodes_asked_where_keys_are(cluster) == []
            await doomed.kill()
            # Who lives on another master hears on.
            await until(moved(spared, 5), seconds=10)
            await until(moved(begun, 5), seconds=FAILOVER_SECONDS)
        assert (await cluster.master_of(bucket_key(begun[0]))) is not doomed
        for journey in begun:
            await journey.arrive()
            journey.check_nothing_missing()
            assert await last_step(edge, journey) == journey.sent_steps

        # The dead node comes back as a replica; nobody notices.
        await doomed.start()
        async with driving(begun, gap_seconds=0.05):
            await until(moved(begun, 20), seconds=15)
        for journey in begun:
            await journey.arrive()
            journey.check_nothing_missing()


async def test_a_cluster_keeps_its_data_over_a_restart(clustered: Edge) -> None:
    edge, cluster = clustered, cluster_of(clustered)
    trip = await edge.track()
    async with journeys(edge, [trip]) as (journey,):
        await journey.send_position()
        await journey.send_status()
        await journey.arrive()

    await cluster.stop()
    await cluster.start()

    await asyncio.sleep(1)
    async with journeys(edge, [trip]) as (again,):
        again.sent_steps, again.begin = 100, journey.begin
        await again.send_position()
        await again.session.wait_acknowledged(20)
        assert again.session.statistics.rejected_counts == {}


async def test_drivers_who_left_are_not_near_after_a_failover(clustered: Edge) -> None:
    edge, cluster = clustered, cluster_of(clustered)
    async with edge.channel() as channel:
        stub = LocationServiceStub(channel)
        staff = (("authorization", f"Bearer {edge.mint.token('ADMIN')}"),)
        request = location_service_pb2.ListNearbyDriversRequest()
        request.location.latitude, request.location.longitude = LATITUDE, -2.99
        driver_id = str(uuid.uuid4())
        token = edge.mint.token("DRIVER", sub=driver_id)
        async with edge.client(token) as client, client.drive("car-1") as car:
            await car.send_position(LATITUDE, -2.99)
            await car.wait_acknowledged(10)
            found = await stub.ListNearbyDrivers(request, metadata=staff)
            assert len(found.drivers) == 1
            bucket = bucket_of(driver_id, CLUSTER_BUCKETS)
            await (await cluster.master_of(updates_key(bucket))).kill()
            async with asyncio.timeout(FAILOVER_SECONDS):
                while True:
                    answer = await stub.ListNearbyDrivers(request, metadata=staff)
                    if not answer.degraded:
                        break
                    await asyncio.sleep(0.2)
            assert len(answer.drivers) == 1
            offline = location_service_pb2.SetPresenceRequest(vehicle_id="car-1", online=False)
            await client.location.SetPresence(offline)
        gone = await stub.ListNearbyDrivers(request, metadata=staff)
        assert not gone.drivers
