"""A Valkey Cluster as child processes: three masters, each with a replica that takes over.

Used by `wayfare up --cluster` and by the tests of failover. The nodes speak TCP on the loopback
address, because a cluster tells its clients host and port; a bus port lies 10,000 above each.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.stack.errors import StackError
from services.stack.ports import LOOPBACK
from services.stack.valkey import ValkeyServer, command_of

MASTERS = 3
NODES = 2 * MASTERS
# A master is taken for dead after this long; its replica is elected within as much again.
NODE_TIMEOUT_MILLISECONDS = 2_000
FIRST_PORT = 7001
_BUS_OFFSET = 10_000
_PORT_MOST = 65_535 - _BUS_OFFSET
_SLOTS = 16_384
_FORM_SECONDS = 60.0
_POLL_SECONDS = 0.1


class ValkeyCluster:
    """Runs the nodes; each can be killed and started again, and keeps its data."""

    def __init__(
        self,
        *,
        data_folder: Path,
        socket_folder: Path,
        log_folder: Path,
        ports: Sequence[int],
    ) -> None:
        """Describe the nodes, one a port: first the masters, then their replicas."""
        self.nodes = [
            ValkeyServer(
                name=f"valkey-{number}",
                data_folder=data_folder / f"node-{number}",
                socket_path=socket_folder / f"valkey-{number}.sock",
                log_path=log_folder / f"valkey-{number}.log",
                port=port,
                cluster=True,
                settings={
                    "cluster-node-timeout": str(NODE_TIMEOUT_MILLISECONDS),
                    # The slots of other masters go on while one is away.
                    "cluster-require-full-coverage": "no",
                    "repl-diskless-sync-delay": "0",
                },
            )
            for number, port in enumerate(ports, start=1)
        ]

    @property
    def url(self) -> str:
        """Return the URL of a node, from which clients learn the others."""
        return self.nodes[0].url

    @property
    def urls(self) -> str:
        """Return the URLs of all nodes, with commas between: any of them may be away."""
        return ",".join(node.url for node in self.nodes)

    @property
    def address(self) -> str:
        """Return where the nodes listen, for people."""
        return ", ".join(node.address for node in self.nodes)

    async def start(self) -> None:
        """Start every node, and wait until the cluster serves every slot with a replica each."""
        async with asyncio.TaskGroup() as together:
            for node in self.nodes:
                together.create_task(node.start())
        end = time.monotonic() + _FORM_SECONDS
        if await self._is_new():
            await self._form(end)
        else:
            # Ports may be others than the last time.
            await self._meet()
        await self._until_complete(end)

    async def stop(self) -> None:
        """Stop every node."""
        async with asyncio.TaskGroup() as together:
            for node in self.nodes:
                together.create_task(node.stop())

    async def master_of(self, key: str) -> ValkeyServer:
        """Return the node that serves a key now."""
        for node in self.nodes:
            if node.running:
                slot = int(str(await _ask(node, "CLUSTER", "KEYSLOT", key)))
                break
        else:
            raise StackError("no node of the cluster runs")
        for line in str(await _ask(node, "CLUSTER", "NODES")).splitlines():
            _, address, flags, *_ = line.split()
            if "master" in flags and "fail" not in flags and _serves(line, slot):
                port = int(address.partition("@")[0].rpartition(":")[2])
                return next(node for node in self.nodes if node.port == port)
        raise StackError(f"nobody serves slot {slot}")

    async def _is_new(self) -> bool:
        return "cluster_slots_assigned:0" in str(await _ask(self.nodes[0], "CLUSTER", "INFO"))

    async def _form(self, end: float) -> None:
        share = _SLOTS // MASTERS
        for number, node in enumerate(self.nodes[:MASTERS]):
            last = _SLOTS - 1 if number == MASTERS - 1 else (number + 1) * share - 1
            await _ask(node, "CLUSTER", "ADDSLOTSRANGE", number * share, last)
        for number, node in enumerate(self.nodes, start=1):
            await _ask(node, "CLUSTER", "SET-CONFIG-EPOCH", number)
        await self._meet()
        known = f"cluster_known_nodes:{NODES}"
        for node in self.nodes:
            await self._until(node, lambda info: known in info, end)
        for master, replica in zip(self.nodes, self.nodes[MASTERS:], strict=False):
            master_id = str(await _ask(master, "CLUSTER", "MYID"))
            await self._until_done(replica, ("CLUSTER", "REPLICATE", master_id), end)

    async def _meet(self) -> None:
        for node in self.nodes[1:]:
            await _ask(self.nodes[0], "CLUSTER", "MEET", LOOPBACK, node.port)

    async def _until_complete(self, end: float) -> None:
        for node in self.nodes:
            await self._until(
                node,
                lambda info: "cluster_state:ok" in info and f"cluster_slots_ok:{_SLOTS}" in info,
                end,
            )
        while len([node for node in self.nodes if await _is_linked_replica(node)]) < MASTERS:
            self._check_time(self.nodes[0], end)
            await asyncio.sleep(_POLL_SECONDS)

    async def _until(self, node: ValkeyServer, good: Callable[[str], bool], end: float) -> None:
        while not good(str(await _ask(node, "CLUSTER", "INFO"))):
            self._check_time(node, end)
            await asyncio.sleep(_POLL_SECONDS)

    async def _until_done(
        self, node: ValkeyServer, command: tuple[str | int, ...], end: float
    ) -> None:
        while True:
            # Gossip about a master may take a moment more.
            with contextlib.suppress(RedisError):
                await _ask(node, *command)
                return
            self._check_time(node, end)
            await asyncio.sleep(_POLL_SECONDS)

    def _check_time(self, node: ValkeyServer, end: float) -> None:
        if time.monotonic() >= end:
            raise node.process.start_error("did not form the cluster in time")


def choose_cluster_ports(preferred: int | None, chosen: set[int]) -> list[int]:
    """Return free ports for all nodes, whose bus ports are free too; add them to `chosen`."""
    candidate = preferred or 20_000
    ports: list[int] = []
    while len(ports) < NODES:
        if candidate > _PORT_MOST:
            raise StackError("no free ports for a cluster below 55,536")
        both = {candidate, candidate + _BUS_OFFSET}
        if not both & chosen and all(_is_free(port) for port in both):
            chosen |= both
            ports.append(candidate)
        candidate += 1
    return ports


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _serves(line: str, slot: int) -> bool:
    # The ninth field and those after it are slots: "5461-10922", or one; moving ones in brackets.
    for field in line.split()[8:]:
        first, _, last = field.partition("-")
        if first.isdigit() and int(first) <= slot <= int(last or first):
            return True
    return False


async def _is_linked_replica(node: ValkeyServer) -> bool:
    # The client makes a mapping of this answer.
    answer = cast("Mapping[str, object]", await _ask(node, "INFO", "replication"))
    return answer["role"] == "slave" and answer["master_link_status"] == "up"


async def _ask(node: ValkeyServer, *words: str | int) -> object:
    client = Redis.from_url(f"unix://{node.socket_path}", decode_responses=True)
    try:
        return await command_of(client, *words)
    finally:
        await client.aclose()
