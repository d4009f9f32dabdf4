"""Events over a cluster of Valkey, one of whose masters is killed: its replica may have less."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.shared.events.streams import partition_of, stream_key
from services.stack.valkey_cluster import ValkeyCluster, choose_cluster_ports
from tests.support.event_sample import Sample, open_sample, running
from tests.support.stack_fixtures import TestDatabase

pytestmark = [pytest.mark.integration, pytest.mark.slow]

NAMES = [f"thing-{number}" for number in range(20)]


@pytest.fixture
async def cluster(short_folder: Path) -> AsyncIterator[ValkeyCluster]:
    home = Path(tempfile.mkdtemp(dir=short_folder))
    ports = choose_cluster_ports(None, set())
    nodes = ValkeyCluster(data_folder=home, socket_folder=home, log_folder=home, ports=ports)
    try:
        await nodes.start()
        yield nodes
    finally:
        await nodes.stop()


@pytest.fixture
async def sample(migrated_database: TestDatabase, cluster: ValkeyCluster) -> AsyncIterator[Sample]:
    async with open_sample(migrated_database.admin_dsn, cluster.urls, cluster=True) as opened:
        yield opened


async def write_all(sample: Sample, first: int, last: int) -> None:
    for version in range(first, last + 1):
        await asyncio.gather(*(sample.write(name, [version]) for name in NAMES))


async def test_a_replica_takes_over_and_nothing_is_lost_or_out_of_order(
    sample: Sample, cluster: ValkeyCluster
) -> None:
    consumer = sample.consumer()
    async with running(sample.relay(), consumer):
        writing = asyncio.create_task(write_all(sample, 1, 30))
        await asyncio.sleep(0.5)
        master = await cluster.master_of(stream_key("sample", partition_of("thing/thing-0")))
        await master.kill()
        await writing

        async with asyncio.timeout(60):
            while await consumer_is_behind(sample):
                await asyncio.sleep(0.1)
        await sample.until_effects_of(NAMES, 30)
        assert await consumer.look_behind() == 0.0


async def consumer_is_behind(sample: Sample) -> bool:
    done: int = await sample.admin.fetchval("SELECT count(*) FROM sample.effects")
    return done < len(NAMES) * 30
