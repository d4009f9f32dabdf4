"""Lets a stack run for long with drivers and followers who come and go, and looks for what grows.

`python -m bench.soak --help` teaches it. Prints a line every half minute and a verdict at the end:
memory of each process, open streams, tasks of the event loops, keys in Valkey.
"""

import argparse
import asyncio
import random
import sys
import time
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import httpx
import uvloop
from rich.console import Console
from rich.table import Table

from bench.http2 import Connection, header_block
from bench.limits import raise_file_limit
from bench.meters import describe_machine, read_memory
from bench.worker import Arrivals, Driver, FleetFollower, Follower, PositionWriter
from bench.world import BenchTrip, TokenMint, Tracker, make_trips
from services.shared.valkey import open_valkey
from services.stack.embedded import EmbeddedStack, StackOptions
from wayfare.location.v1 import driver_stream_pb2, location_service_pb2

_SERVICE = "/wayfare.location.v1.LocationService/"
_STREAMS_PER_CONNECTION = 100
_POSITION_SECONDS = 3.0
_SAMPLE_SECONDS = 30.0
# Presence lasts 30 s; a sweep and a reaping of streams come on top.
_REST_SECONDS = 60.0
_ANSWER_SECONDS = 30.0
_LOCATIONS = ("location-1", "location-2")
# Python's allocator and the kernel move by some percent; a leak of 2,000 streams' worth does not.
_GROWTH_ALLOWED = 1.10
_TASKS_AT_REST = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Is what was seen at one moment. Memory in bytes."""

    seconds: float
    memory: dict[str, int]
    streams: int
    tasks: int
    keys: int
    valkey_bytes: int


class Soak:
    """Runs drivers who come and go, and followers with them, against one stack."""

    def __init__(self, stack: EmbeddedStack, console: Console, options: argparse.Namespace) -> None:
        """Load `stack`; say how it goes on `console`."""
        self._stack = stack
        self._console = console
        self._options = options
        self._random = random.Random(options.seed)
        self._mint = TokenMint(stack)
        self._writer = PositionWriter()
        self._arrivals = Arrivals()
        self._connections: list[Connection] = []
        self._opened = 0
        self._journeys = 0
        self._sent = 0
        self._failed: dict[str, int] = {}
        self._ending = asyncio.Event()

    async def run(self) -> list[Sample]:
        """Load the stack for as long as asked, then let it rest; return what was seen."""
        samples: list[Sample] = []
        began = time.monotonic()
        async with AsyncExitStack() as exits:
            tracker = await exits.enter_async_context(Tracker(self._stack))
            valkey = open_valkey(self._stack.valkey.url, cluster=False)
            exits.push_async_callback(valkey.aclose)
            await self._watch_fleet()
            async with asyncio.TaskGroup() as group:
                for number in range(self._options.drivers):
                    group.create_task(self._drive_again_and_again(tracker, number))
                while time.monotonic() - began < self._options.minutes * 60:
                    await asyncio.sleep(_SAMPLE_SECONDS)
                    samples.append(await self._sample(valkey, began))
                self._ending.set()
            self._console.print("everybody has left; waiting for presence to lapse")
            for connection in self._connections:
                connection.close()
            for _ in range(3):
                await asyncio.sleep(_REST_SECONDS / 2)
                samples.append(await self._sample(valkey, began))
        return samples

    async def _watch_fleet(self) -> None:
        connection = await self._connection()
        token = self._mint.token(str(uuid.uuid4()), "BUSINESS")
        follower = FleetFollower(connection, self._arrivals)
        block = self._block("FollowFleet", token)
        connection.open(follower, block=block, message=b"", is_last=True)
        connection.flush()

    async def _connection(self) -> Connection:
        """Return a connection with room for another stream."""
        if self._opened % _STREAMS_PER_CONNECTION == 0 or not self._connections:
            host, _, port = self._stack.edge_address.rpartition(":")
            loop = asyncio.get_running_loop()
            made = await loop.create_connection(Connection, host, int(port))
            self._connections.append(made[1])
            self._connections = [one for one in self._connections if not one.lost]
        self._opened += 1
        return self._connections[-1]

    async def _drive_again_and_again(self, tracker: Tracker, number: int) -> None:
        await asyncio.sleep(self._random.uniform(0, 20))
        connection = await self._connection()
        while not self._ending.is_set():
            if connection.lost:
                connection = await self._connection()
            (trip,) = make_trips(self._mint, trip_count=1, followers_per_trip=1)
            await tracker.start(trip)
            try:
                await self._drive(connection, trip, number)
            finally:
                await tracker.stop(trip)
            self._journeys += 1

    async def _drive(self, connection: Connection, trip: BenchTrip, number: int) -> None:
        follower = Follower(connection, self._arrivals)
        request = location_service_pb2.FollowTripRequest(trip_id=trip.trip_id)
        self._open(connection, follower, "FollowTrip", trip.follower_tokens[0], request)
        driver = Driver(connection, number)
        hello = driver_stream_pb2.DriverMessage()
        hello.hello.vehicle_id, hello.hello.trip_id = trip.vehicle_id, trip.trip_id
        self._open(connection, driver, "StreamDriver", trip.driver_token, hello)
        until = time.monotonic() + self._random.uniform(45, 240)
        while time.monotonic() < until and not self._ending.is_set() and not driver.ended:
            await asyncio.sleep(_POSITION_SECONDS)
            self._sent += driver.send_position(self._writer)
            connection.flush()
        for name, stream in (("driver", driver), ("follower", follower)):
            if stream.ended:
                status = f"{name} status {stream.status}"
                self._failed[status] = self._failed.get(status, 0) + 1
        if self._random.random() < 0.5:
            goodbye = driver_stream_pb2.DriverMessage()
            goodbye.goodbye.SetInParent()
            connection.send(driver, goodbye.SerializeToString(), is_last=True)
        else:
            connection.cancel(driver)
        if self._random.random() < 0.5:
            connection.cancel(follower)
        connection.flush()

    def _open(
        self,
        connection: Connection,
        stream: Driver | Follower,
        method: str,
        token: str,
        message: driver_stream_pb2.DriverMessage | location_service_pb2.FollowTripRequest,
    ) -> None:
        block = self._block(method, token)
        is_last = method != "StreamDriver"
        connection.open(stream, block=block, message=message.SerializeToString(), is_last=is_last)
        connection.flush()

    def _block(self, method: str, token: str) -> bytes:
        return header_block(
            {
                ":method": "POST",
                ":scheme": "http",
                ":path": _SERVICE + method,
                ":authority": "localhost",
                "content-type": "application/grpc",
                "te": "trailers",
                "user-agent": "wayfare-soak",
                "authorization": f"Bearer {token}",
            }
        )

    async def _sample(self, valkey: object, began: float) -> Sample:
        metrics = await self._metrics()
        info = await valkey.info("memory")  # type: ignore[attr-defined]  # of either client
        sample = Sample(
            seconds=time.monotonic() - began,
            memory=read_memory(
                {
                    name: process.pid
                    for name, process in self._stack.processes().items()
                    if process.pid is not None
                }
            ),
            streams=round(metrics.get("wayfare_streams_open", 0)),
            tasks=round(metrics.get("wayfare_tasks_open", 0)),
            keys=await valkey.dbsize(),  # type: ignore[attr-defined]  # of either client
            valkey_bytes=info["used_memory"],
        )
        self._say(sample)
        return sample

    async def _metrics(self) -> dict[str, float]:
        total: dict[str, float] = {}
        async with httpx.AsyncClient(trust_env=False, timeout=_ANSWER_SECONDS) as client:
            for name in _LOCATIONS:
                answer = await client.get(self._stack.services[name].metrics_url)
                for line in answer.text.splitlines():
                    if line.startswith("wayfare_"):
                        series, _, value = line.rpartition(" ")
                        family = series.partition("{")[0]
                        total[family] = total.get(family, 0.0) + float(value)
        return total

    def _say(self, sample: Sample) -> None:
        memory = ", ".join(
            f"{name} {size / 2**20:.0f}" for name, size in sorted(sample.memory.items())
        )
        self._console.print(
            f"{sample.seconds / 60:5.1f} min  journeys {self._journeys:,}  positions {self._sent:,}"
            f"  delivered {self._arrivals.count:,}  streams {sample.streams:,}"
            f"  tasks {sample.tasks:,}  keys {sample.keys:,}"
            f"  valkey {sample.valkey_bytes / 2**20:.1f} MiB  RSS MiB: {memory}"
            + (f"  [yellow]ended early: {self._failed}[/]" if self._failed else "")
        )


def verdict(samples: Sequence[Sample], rest_count: int = 3) -> list[tuple[str, bool, str]]:
    """Return what was to stay flat, whether it did, and the figures.

    Memory is compared between the end of the first third, when everything is warm, and the end of
    the load; streams, tasks and keys at rest with each other.
    """
    load, rest = samples[:-rest_count], samples[-rest_count:]
    warm, last = load[len(load) // 3], load[-1]
    rows = []
    for name in _LOCATIONS:
        growth = last.memory[name] / warm.memory[name]
        figures = f"{warm.memory[name] / 2**20:.0f} MiB → {last.memory[name] / 2**20:.0f} MiB"
        rows.append((f"memory of {name}", growth <= _GROWTH_ALLOWED, figures))
    rows.append(("streams open at rest", rest[-1].streams == 0, f"{rest[-1].streams}"))
    tasks = f"{last.tasks:,} under load → {rest[-1].tasks} at rest"
    # A process at rest has its background work, some 60 tasks; a leak leaves some of each stream.
    rows.append(("tasks at rest", rest[-1].tasks <= _TASKS_AT_REST * len(_LOCATIONS), tasks))
    keys = " → ".join(f"{one.keys:,}" for one in rest)
    rows.append(("keys of Valkey do not grow at rest", rest[-1].keys <= rest[0].keys, keys))
    return rows


async def soak(options: argparse.Namespace, console: Console) -> bool:
    """Run the soak; say whether everything stayed flat."""
    console.print("machine: " + ", ".join(f"{k} {v}" for k, v in describe_machine().items()))
    async with EmbeddedStack(options=StackOptions()) as stack:
        samples = await Soak(stack, console, options).run()
    table = Table(box=None, pad_edge=False)
    for heading in ("what", "flat", "figures"):
        table.add_column(heading)
    rows = verdict(samples)
    for name, flat, figures in rows:
        table.add_row(name, "[green]yes[/]" if flat else "[red]no[/]", figures)
    console.print(table)
    return all(flat for _, flat, _ in rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line asks for; the exit code is 1 when something grew."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long the load lasts")
    parser.add_argument("--drivers", type=int, default=2_000, help="drivers on the road at once")
    parser.add_argument("--seed", type=int, default=1, help="seed of who leaves when")
    options = parser.parse_args(arguments)
    raise_file_limit()
    console = Console(highlight=False, width=200, force_terminal=False)
    sys.exit(0 if uvloop.run(soak(options, console)) else 1)


if __name__ == "__main__":
    main()
