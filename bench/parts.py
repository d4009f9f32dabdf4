"""Times the parts of the position path one by one, so that one sees where the microseconds go.

`python -m bench.parts` prints the table. Everything is measured in this process, by its CPU time,
with the code of the service and a Valkey of its own; what gRPC, the loop's wake-ups and the kernel
cost is in the figures of load.py only.
"""

import argparse
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import psutil
import uvloop
from rich.console import Console
from rich.table import Table

from bench.meters import describe_machine
from bench.worker import PositionWriter
from services.location import convert
from services.location.domain.positions import Fix, PositionGate, PositionRules
from services.location.domain.trips import TripStatus
from services.location.operations.batcher import UpdateBatcher
from services.location.operations.driver_session import DriverSession
from services.location.operations.follow_hub import FollowHub
from services.location.operations.follower import Follower, ResumeToken
from services.location.ports.live import POSITION, Publisher, Update
from services.location.store.live import ValkeyLiveStore
from services.shared.clock import SystemClock
from services.shared.rpc.validation import check_message, read_message
from services.shared.valkey import open_valkey
from services.stack.valkey import ValkeyServer
from wayfare.location.v1 import driver_stream_pb2

Row = tuple[str, float, float | None]
DriverMessage = driver_stream_pb2.DriverMessage
_MESSAGE_BYTES_MAX = 1 << 20
_DRIVERS = 1_000
_RULES = PositionRules(interval_least_seconds=0.0, positions_per_minute=1_000_000)


class _Clockwork:
    """Times functions by this process's CPU time, the best of several rounds."""

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds

    def each(self, work: Callable[[], object], *, times: int = 5_000) -> float:
        """Return the microseconds of one call."""
        best = float("inf")
        for _ in range(self._rounds):
            began = time.process_time()
            for _ in range(times):
                work()
            best = min(best, (time.process_time() - began) / times)
        return best * 1e6

    async def each_awaited(
        self, work: Callable[[], Awaitable[object]], *, times: int, server: psutil.Process
    ) -> tuple[float, float]:
        """Return the microseconds of one call here and in the server, both the least."""
        best, best_server = float("inf"), float("inf")
        for _ in range(self._rounds):
            server_began = sum(server.cpu_times()[:2])
            began = time.process_time()
            for _ in range(times):
                await work()
            best = min(best, (time.process_time() - began) / times)
            best_server = min(best_server, (sum(server.cpu_times()[:2]) - server_began) / times)
        return best * 1e6, best_server * 1e6


def time_driver_side(clockwork: _Clockwork) -> list[Row]:
    """Time what a process does with one position of a driver before it is written."""
    writer = PositionWriter()
    data = writer.encode(1, 53.4, -2.9)
    message = DriverMessage.FromString(data)
    clock = SystemClock()
    now = int(clock.now().timestamp() * 1000)
    gate = PositionGate(rules=_RULES)
    captures = iter(range(now - 20_000_000, now + 1_000_000_000))
    session = _session(gate, UpdateBatcherStub())
    seqs = iter(range(1, 1 << 40))

    def receive() -> None:
        position = message.position
        fix = Fix(53.4, -2.9, next(captures))
        session.receive_position(next(seqs), fix, convert.position_payload(position), 1 << 60)

    return [
        ("encode in the generator", clockwork.each(lambda: writer.encode(1, 53.4, -2.9)), None),
        ("parse", clockwork.each(lambda: DriverMessage.FromString(data)), None),
        ("validate (protovalidate)", clockwork.each(lambda: check_message(message)), None),
        (
            "read_message: size, parse, validate",
            clockwork.each(lambda: read_message(data, DriverMessage, max_bytes=_MESSAGE_BYTES_MAX)),
            None,
        ),
        ("fix of the position", clockwork.each(lambda: convert.fix_of(message.position)), None),
        (
            "payload for followers",
            clockwork.each(lambda: convert.position_payload(message.position)),
            None,
        ),
        ("clock", clockwork.each(lambda: int(clock.now().timestamp() * 1000)), None),
        (
            "gate",
            clockwork.each(lambda: gate.judge(Fix(53.4, -2.9, next(captures)), 1 << 60)),
            None,
        ),
        ("session: payload, gate, submit", clockwork.each(receive), None),
    ]


class UpdateBatcherStub(UpdateBatcher):
    """Forgets what it is given, so that a session is timed without a store."""

    def __init__(self) -> None:
        """Have room, always."""

    @property
    def has_room(self) -> bool:
        """Say yes."""
        return True

    def add(self, update: Update, submitter: object) -> None:
        """Forget it."""


def _publisher(driver_id: str) -> Publisher:
    return Publisher(driver_id=driver_id, tenant_id="t", vehicle_id="v")


def _session(gate: PositionGate, batcher: UpdateBatcher) -> DriverSession:
    return DriverSession(
        publisher=_publisher(str(uuid.uuid4())),
        session="1",
        trip_id=str(uuid.uuid4()),
        trip_status=TripStatus.STARTED,
        resume_seq=0,
        gate=gate,
        batcher=batcher,
        token_expire_time=None,
    )


class StoreBench:
    """Writes and reads ticks with the service's own store and a real Valkey."""

    def __init__(self, store: ValkeyLiveStore, server: psutil.Process) -> None:
        """Measure `store`, and the process of its server beside it."""
        self._store = store
        self._server = server
        self._drivers = [(str(uuid.uuid4()), str(uuid.uuid4())) for _ in range(_DRIVERS)]
        self._sessions: list[str] = []
        self._capture = int(time.time() * 1000)
        self._seq = 0
        writer = PositionWriter()
        message = DriverMessage.FromString(writer.encode(1, 53.4, -2.9))
        self._payload = convert.position_payload(message.position)

    async def open_sessions(self) -> None:
        """Make every driver known."""
        await self._store.ping()
        for driver_id, trip_id in self._drivers:
            grant = await self._store.open_session(
                driver_id=driver_id,
                tenant_id="t",
                vehicle_id="v",
                trip_id=trip_id,
                resume_seq=None,
            )
            self._sessions.append(grant.session)

    def updates(self, count: int) -> list[Update]:
        """Return the next positions of the first `count` drivers."""
        self._seq += 1
        self._capture += 1
        return [
            Update(
                _publisher(driver_id),
                session,
                self._seq,
                POSITION,
                trip_id,
                self._payload,
                Fix(53.4, -2.9, self._capture),
            )
            for (driver_id, trip_id), session in zip(
                self._drivers[:count], self._sessions, strict=False
            )
        ]

    async def time_writes(self, clockwork: _Clockwork, sizes: Sequence[int]) -> list[Row]:
        """Time writing batches of these sizes, per position."""
        rows: list[Row] = []
        for size in sizes:

            async def write(size: int = size) -> None:
                verdicts = await self._store.apply(0, self.updates(size))
                assert verdicts == "A" * size, verdicts

            here, there = await clockwork.each_awaited(
                write, times=max(20, 4_000 // size), server=self._server
            )
            rows.append((f"write, {size} per batch", here / size, there / size))
        return rows

    async def time_reads(self, clockwork: _Clockwork, sizes: Sequence[int]) -> list[Row]:
        """Time reading ticks of these sizes one by one, and delivering them, per position."""
        rows: list[Row] = []
        for size in sizes:
            before = await self._store.last_tick_id(0)
            await self._store.apply(0, self.updates(size))
            here, there = await clockwork.each_awaited(
                lambda before=before: self._store.read_ticks(0, before),  # type: ignore[misc]  # the default binds the id
                times=max(20, 4_000 // size),
                server=self._server,
            )
            rows.append((f"read, {size} per tick", here / size, there / size))
        rows.append(await self._time_deliver(clockwork))
        return rows

    async def _time_deliver(self, clockwork: _Clockwork) -> Row:
        hub = FollowHub(
            live=self._store,
            events_max=64,
            ends_trip=convert.ends_trip,
            many_followers=200,
            many_followers_seconds=3.0,
        )
        followers = [
            Follower(trip_id, events_max=64, token_expire_time=None) for _, trip_id in self._drivers
        ]
        # Not by attach, which would start a reader.
        for follower in followers:
            hub._followers[follower.trip_id].append(follower)
        before = await self._store.last_tick_id(0)
        await self._store.apply(0, self.updates(50))
        ticks = await self._store.read_ticks(0, before)

        def deliver() -> None:
            hub.deliver(ticks)
            for follower in followers[:50]:
                follower.take()
                follower.begin_after(ResumeToken(epoch="", version=-1))

        return ("deliver and take, 50 per tick", clockwork.each(deliver, times=200) / 50, None)


async def measure_parts(rounds: int) -> list[Row]:
    """Measure everything; takes some ten seconds."""
    clockwork = _Clockwork(rounds)
    rows = time_driver_side(clockwork)
    with tempfile.TemporaryDirectory(prefix="wayfare-") as name:
        folder = Path(name)
        server = ValkeyServer(
            data_folder=folder / "data",
            socket_path=folder / "valkey.sock",
            log_path=folder / "valkey.log",
        )
        await server.start()
        client = open_valkey(server.url, cluster=False)
        reader = open_valkey(server.url, cluster=False)
        try:
            store = ValkeyLiveStore(
                client,
                reader=reader,
                bucket_count=1,
                live_seconds=30,
                updates_kept=4_000,
                clock=SystemClock(),
            )
            bench = StoreBench(store, psutil.Process(server.process.pid))
            await bench.open_sessions()
            rows += await bench.time_writes(clockwork, (1, 12, 50, 256))
            rows += await bench.time_reads(clockwork, (1, 12, 50, 256))
        finally:
            await client.aclose()
            await reader.aclose()
            await server.stop()
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.parts", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds, of which the best counts")
    options = parser.parse_args(arguments)
    rows = uvloop.run(measure_parts(options.rounds))
    table = Table(box=None, pad_edge=False)
    table.add_column("part")
    table.add_column("CPU µs per position", justify="right")
    table.add_column("in Valkey", justify="right")
    for name, here, there in rows:
        table.add_row(name, f"{here:.2f}", "" if there is None else f"{there:.2f}")
    console = Console(highlight=False)
    console.print(table)
    console.print("machine: " + ", ".join(f"{k} {v}" for k, v in describe_machine().items()))


if __name__ == "__main__":
    main()
