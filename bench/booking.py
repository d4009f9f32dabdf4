"""Measures booking: holds of seats through gRPC, with fsync on, and watchers of a trip.

`python -m bench.booking --help` teaches it. The stack, its PostgreSQL and this generator share the
machine; requests and tokens are made before the clock starts.
"""

import argparse
import asyncio
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial

import uvloop
from rich.console import Console
from rich.table import Table

from bench.booking_calls import PLACES_PER_TRIP, Booking, Request
from bench.meters import CpuReading, describe_machine, read_cpu
from services.stack.embedded import EmbeddedStack, StackOptions
from wayfare.booking.v1 import booking_service_pb2 as pb

_PARTS = ("booking-1", "postgres", "valkey")


async def closed_loop(booking: Booking, requests: Sequence[Request], callers: int) -> list[float]:
    """Send the requests by so many callers; return what each took, in seconds."""
    left = list(requests)
    took: list[float] = []

    async def call() -> None:
        while left:
            took.append(await booking.call(left.pop()))

    await asyncio.gather(*(call() for _ in range(callers)))
    return took


async def open_loop(booking: Booking, requests: Sequence[Request], per_second: int) -> list[float]:
    """Send a request every so often, whether the last was answered or not."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    tasks = []
    for number, request in enumerate(requests):
        late = began + number / per_second - loop.time()
        if late > 0:
            await asyncio.sleep(late)
        tasks.append(asyncio.create_task(booking.call(request)))
    return list(await asyncio.gather(*tasks))


async def tell_watchers(
    booking: Booking, trip_id: str, requests: Sequence[Request], options: argparse.Namespace
) -> list[float]:
    """Let many watch a trip while its seats are held; return when each change came to each."""
    began: dict[int, float] = {}
    took: list[float] = []

    def arrived(version: int) -> None:
        took.append(time.perf_counter() - began[version])

    watch = pb.WatchSeatsRequest(trip_id=trip_id)
    streams = [
        booking.watch(
            booking.request(
                "WatchSeats", booking.mint.token(str(uuid.uuid4()), "PASSENGER"), watch
            ),
            arrived,
        )
        for _ in range(options.watchers)
    ]
    await _until(lambda: all(stream.opened for stream in streams), seconds=60)
    for version, request in enumerate(requests, start=1):
        began[version] = time.perf_counter()
        await booking.call(request)
        await asyncio.sleep(1 / options.changes_per_second)
    await _until(lambda: len(took) == len(streams) * len(requests), seconds=30)
    return took


async def _until(condition: Callable[[], bool], *, seconds: float) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            raise TimeoutError("not everybody got everything")
        await asyncio.sleep(0.05)


class Rows:
    """Measures works, one after the other, and prints a row for each."""

    def __init__(self, stack: EmbeddedStack, console: Console) -> None:
        """Measure the processes of `stack`."""
        self._stack = stack
        self._console = console
        self.table = Table("scenario", "a second", "p50 ms", "p99 ms", "CPU µs each")

    async def measure(
        self, name: str, count: int, work: Callable[[], Awaitable[list[float]]]
    ) -> None:
        """Do `work`, which does `count` of what the row is about."""
        process_ids = {
            part: process.pid
            for part, process in self._stack.processes().items()
            if process.pid is not None
        }
        before, began = read_cpu(process_ids), time.perf_counter()
        own = time.process_time()
        took = sorted(await work())
        seconds = time.perf_counter() - began
        own = time.process_time() - own
        after = read_cpu(process_ids)
        parts = [f"{part} {_each(before, after, part, count)}" for part in _PARTS]
        self.table.add_row(
            name,
            f"{count / seconds:,.0f}",
            f"{took[len(took) // 2] * 1000:.1f}",
            f"{took[int(len(took) * 0.99)] * 1000:.1f}",
            ", ".join((*parts, f"generator {own / count * 1e6:.0f}")),
        )
        self._console.print(f"{name}: done in {seconds:.1f} s")


def _each(before: CpuReading, after: CpuReading, part: str, count: int) -> str:
    return f"{(after.parts[part] - before.parts[part]) / count * 1e6:.0f}"


async def measure_holds(
    rows: Rows, booking: Booking, exits: AsyncExitStack, options: argparse.Namespace
) -> None:
    """Measure holds on few trips and on many, as fast as can be and at a steady rate."""
    await booking.connect(exits, max(options.callers, 400))
    for trips in options.trips:
        trip_ids = await booking.make_trips(trips)
        count = min(options.count, trips * PLACES_PER_TRIP // 3)
        # The first hold of a trip in a process reads it: a row of its own, because a trip is sold
        # in dozens of holds.
        first, more = booking.first_holds(trip_ids, count)
        for name, requests in (("first holds", first), ("holds", more)):
            work = partial(closed_loop, booking, requests, options.callers)
            name = f"{name}, {trips:,} trips, {options.callers} callers"  # noqa: PLW2901
            await rows.measure(name, len(requests), work)
    trip_ids = await booking.make_trips(options.trips[0])
    count = min(options.per_second * options.seconds, len(trip_ids) * PLACES_PER_TRIP // 2)
    requests = booking.holds(trip_ids, count)
    steady = partial(open_loop, booking, requests, options.per_second)
    await rows.measure(f"holds, {options.per_second:,}/s", count, steady)


async def measure_watchers(
    rows: Rows, booking: Booking, exits: AsyncExitStack, options: argparse.Namespace
) -> None:
    """Measure how long a change takes to everybody who watches a trip."""
    await booking.connect(exits, options.watchers)
    (trip_id,) = await booking.make_trips(1)
    # Each is of another seat: a second leg of one makes no difference to who goes all the way.
    changes = options.changes_per_second * options.seconds
    requests = booking.holds_of_new_seats(trip_id, changes)
    work = partial(tell_watchers, booking, trip_id, requests, options)
    name = f"changes, {options.watchers:,} watchers"
    await rows.measure(name, options.watchers * len(requests), work)


Scenario = Callable[[Rows, Booking, AsyncExitStack, argparse.Namespace], Awaitable[None]]
SCENARIOS: Mapping[str, Scenario] = {"holds": measure_holds, "watchers": measure_watchers}


def _stack_options(options: argparse.Namespace) -> StackOptions:
    settings = dict(text.split("=", 1) for text in options.set)
    return StackOptions(location_processes=1, settings={"booking": settings})


async def run(options: argparse.Namespace, console: Console) -> None:
    """Run scenarios, each on a stack of its own, and print the figures."""
    machine = describe_machine()
    console.print("machine: " + ", ".join(f"{name} {value}" for name, value in machine.items()))
    for name in options.scenarios or SCENARIOS:
        async with (
            EmbeddedStack(options=_stack_options(options)) as stack,
            AsyncExitStack() as exits,
        ):
            rows = Rows(stack, console)
            await SCENARIOS[name](rows, Booking(stack), exits, options)
            console.print(rows.table)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(prog="python -m bench.booking", description=__doc__)
    parser.add_argument("scenarios", nargs="*", choices=list(SCENARIOS), help="default: all")
    parser.add_argument("--count", type=int, default=20_000, help="holds of a scenario")
    parser.add_argument("--callers", type=int, default=100, help="calls at once")
    parser.add_argument(
        "--trips", type=int, nargs="+", default=[50, 5_000], help="how many trips there are"
    )
    parser.add_argument("--per-second", type=int, default=1_500, help="holds a second")
    parser.add_argument("--seconds", type=int, default=10, help="how long a steady load goes on")
    parser.add_argument("--watchers", type=int, default=1_000, help="watchers of the trip")
    parser.add_argument("--changes-per-second", type=int, default=2, help="changes of the trip")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of booking"
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(parser.parse_args(arguments), Console(width=160)))


if __name__ == "__main__":
    main(sys.argv[1:])
