"""The loop that gathers the events of grpc.aio."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from services.shared.rpc.event_tick import TickLoop

TICK_SECONDS = 0.02


def run(work: Callable[[], Any]) -> Any:
    with asyncio.Runner(loop_factory=lambda: TickLoop(TICK_SECONDS)) as runner:
        return runner.run(work())


class PollerCompletionQueue:
    """Stands for grpc.aio's poller: takes one byte and notes when."""

    def __init__(self) -> None:
        self.read_end, self.write_end = socket.socketpair()
        self.handled = 0

    def handle(self) -> None:
        self.read_end.recv(1)
        self.handled += 1

    def close(self) -> None:
        self.read_end.close()
        self.write_end.close()


def test_many_events_within_a_tick_are_handled_together() -> None:
    async def work() -> int:
        poller = PollerCompletionQueue()
        asyncio.get_running_loop().add_reader(poller.read_end, poller.handle)
        for _ in range(100):
            poller.write_end.send(b"1")
        await asyncio.sleep(TICK_SECONDS * 10)
        poller.close()
        return poller.handled

    assert run(work) == 1


def test_events_of_later_ticks_are_handled_too() -> None:
    async def work() -> int:
        poller = PollerCompletionQueue()
        asyncio.get_running_loop().add_reader(poller.read_end, poller.handle)
        for _ in range(3):
            poller.write_end.send(b"11")
            await asyncio.sleep(TICK_SECONDS * 3)
        poller.close()
        return poller.handled

    assert run(work) == 3


def test_a_busy_poller_is_handled_once_per_tick() -> None:
    async def busy_for(poller: PollerCompletionQueue, seconds: float) -> float:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        while loop.time() - begin < seconds:
            poller.write_end.send(b"1" * 3)
            await asyncio.sleep(0.001)
        return (loop.time() - begin) / TICK_SECONDS

    async def work() -> tuple[int, float]:
        poller = PollerCompletionQueue()
        asyncio.get_running_loop().add_reader(poller.read_end, poller.handle)
        # Long enough to be noticed, and then counted.
        await busy_for(poller, 0.3)
        poller.handled = 0
        ticks = await busy_for(poller, 0.3)
        poller.close()
        return poller.handled, ticks

    handled, ticks = run(work)
    assert 0 < handled <= ticks + 2


def test_a_flood_of_events_is_never_held_up_by_a_full_socket() -> None:
    async def work() -> int:
        poller = PollerCompletionQueue()
        poller.write_end.setblocking(False)
        loop = asyncio.get_running_loop()
        loop.add_reader(poller.read_end, poller.handle)
        held_up = 0
        begin = loop.time()
        while loop.time() - begin < 0.6:
            # Twenty events a millisecond: in a whole tick the socket would be full.
            for _ in range(20):
                try:
                    poller.write_end.send(b"1")
                except BlockingIOError:
                    held_up += loop.time() - begin > 0.3
            await asyncio.sleep(0.001)
        poller.close()
        return held_up

    assert run(work) == 0


def test_other_readers_are_left_as_they_are() -> None:
    async def work() -> int:
        read_end, write_end = socket.socketpair()
        reads: list[bytes] = []
        loop = asyncio.get_running_loop()
        loop.add_reader(read_end, lambda: reads.append(read_end.recv(1)))
        write_end.send(b"12345")
        async with asyncio.timeout(5):
            while len(reads) < 5:
                await asyncio.sleep(0)
        loop.remove_reader(read_end)
        read_end.close()
        write_end.close()
        return len(reads)

    assert run(work) == 5


# A process of its own: grpc.aio takes the first loop that it meets, and keeps it.
NOTE_WATCHING = """
import asyncio, grpc
from services.shared.rpc import event_tick

async def work():
    watch = event_tick._EventTick.watch
    event_tick._EventTick.watch = lambda tick: (print("watched"), watch(tick))
    await grpc.aio.server().stop(None)

with asyncio.Runner(loop_factory=lambda: event_tick.TickLoop(0.002)) as runner:
    runner.run(work())
"""


def test_the_poller_of_grpc_aio_is_recognised() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", NOTE_WATCHING],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )

    assert "watched" in ended.stdout.split()
