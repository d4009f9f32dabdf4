"""Opens LocationService's real stores for tests."""

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from redis import Redis

from services.location.ports.live import LiveStore
from services.location.store.live import ValkeyLiveStore
from services.shared.clock import SystemClock
from services.shared.valkey import open_valkey
from services.stack.valkey import ValkeyServer
from tests.support.location_fakes import BUCKETS, MemoryLiveStore
from tests.support.stack_fixtures import run_to_completion


async def opened_live_store(
    stack: AsyncExitStack, url: str, *, cluster: bool = False, live_seconds: int = 30
) -> ValkeyLiveStore:
    """Return a store on a Valkey with its functions loaded; `stack` closes its connections."""
    client = open_valkey(url, cluster=cluster)
    reader = open_valkey(url, cluster=cluster, timeout_seconds=5)
    stack.push_async_callback(client.aclose)
    stack.push_async_callback(reader.aclose)
    store = ValkeyLiveStore(
        client,
        reader=reader,
        bucket_count=BUCKETS,
        live_seconds=live_seconds,
        updates_kept=1000,
        clock=SystemClock(),
    )
    await store.ping()
    return store


@pytest.fixture(scope="session")
def valkey_cluster_server(short_folder: Path) -> Iterator[ValkeyServer]:
    """Start a cluster of one node that owns every slot."""
    home = short_folder / "cluster"
    server = ValkeyServer(
        data_folder=home / "data",
        socket_path=home / "valkey.sock",
        log_path=home / "valkey.log",
        port=_free_port(),
        cluster=True,
    )
    run_to_completion(server.start())
    try:
        run_to_completion(server.own_all_slots())
        yield server
    finally:
        run_to_completion(server.stop())


@pytest.fixture
def valkey_cluster_url(valkey_cluster_server: ValkeyServer) -> str:
    """Empty the cluster for one test and return its URL."""
    with Redis.from_url(valkey_cluster_server.url) as client:
        client.flushall()
    return valkey_cluster_server.url


@pytest.fixture(params=["memory", "valkey", "cluster"])
def live_store_place(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Start what the store needs, outside of the tests' loop, and return its kind and URL."""
    urls = {"valkey": "valkey_url", "cluster": "valkey_cluster_url"}
    name = urls.get(request.param)
    return request.param, request.getfixturevalue(name) if name else ""


@pytest.fixture
async def live(live_store_place: tuple[str, str]) -> AsyncIterator[LiveStore]:
    """Open each store there is: in memory, on Valkey alone, on a cluster."""
    kind, url = live_store_place
    async with AsyncExitStack() as stack:
        if kind == "memory":
            yield MemoryLiveStore()
        else:
            yield await opened_live_store(stack, url, cluster=kind == "cluster")


def _free_port() -> int:
    """Return a port that is free now; a cluster's bus takes the one 10,000 above."""
    while True:
        with socket.socket() as one, socket.socket() as bus:
            one.bind(("127.0.0.1", 0))
            port: int = one.getsockname()[1]
            if port >= 55_536:
                continue
            try:
                bus.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            return port
