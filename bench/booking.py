"""Measures booking: holds of seats through gRPC, with fsync on, and watchers of a trip.

`python -m bench.booking --help` teaches it. The stack, its PostgreSQL and this generator share the
machine; requests and tokens are made before the clock starts.
"""

import argparse
import asyncio
import random
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

import grpc
import uvloop
from google.type import latlng_pb2, money_pb2
from rich.console import Console
from rich.table import Table

from bench.http2 import Connection, Stream, header_block
from bench.meters import CpuReading, describe_machine, read_cpu
from bench.world import TokenMint
from services.stack.embedded import EmbeddedStack, StackOptions
from wayfare.booking.v1 import booking_service_pb2 as pb
from wayfare.booking.v1 import layout_pb2, seat_map_pb2, trip_pb2
from wayfare.booking.v1.booking_service_pb2_grpc import BookingServiceStub

_SERVICE = "/wayfare.booking.v1.BookingService/"
_SEATS, _STOPS = 50, 21
_STREAMS_PER_CONNECTION = 100
_HOLDS_PER_PASSENGER = 10
_CREATE_AT_ONCE = 16
_PARTS = ("booking-1", "postgres", "valkey")


class UnaryCall(Stream):
    """Is one call that is answered once."""

    __slots__ = ("_done", "answer")

    def __init__(self, connection: Connection, done: "asyncio.Future[bytes]") -> None:
        """Tell `done` what the answer is."""
        super().__init__(connection)
        self._done = done
        self.answer = b""

    def receive(self, message: bytes) -> None:
        """Take the answer."""
        self.answer = message

    def end(self, status: int | None) -> None:
        """Take the end: an error, unless the status is OK."""
        super().end(status)
        if self._done.done():
            return
        if self.status == 0:
            self._done.set_result(self.answer)
        else:
            self._done.set_exception(RuntimeError(f"a call was refused: status {self.status}"))


class SeatStream(Stream):
    """Is one watcher, who says when a version arrived."""

    __slots__ = ("_arrived", "opened")

    def __init__(self, connection: Connection, arrived: Callable[[int], None]) -> None:
        """Tell `arrived` the versions of changes."""
        super().__init__(connection)
        self._arrived = arrived
        self.opened = False

    def receive(self, message: bytes) -> None:
        """Take one update."""
        update = seat_map_pb2.SeatUpdate.FromString(message)
        self.opened = True
        if update.HasField("changes"):
            self._arrived(update.changes.seat_version)


@dataclass(frozen=True, slots=True)
class Request:
    """Is a call that is ready to be sent."""

    block: bytes
    message: bytes


class Booking:
    """Calls one booking process: trips by grpc.aio, what is measured by HTTP/2 by hand."""

    def __init__(self, stack: EmbeddedStack) -> None:
        """Call the first process of `stack`."""
        self._address = stack.services["booking-1"].listen
        self.mint = TokenMint(stack)
        self._connections: list[Connection] = []
        self._open_count = 0
        self.random = random.Random(7)

    async def connect(self, exits: AsyncExitStack, streams: int) -> None:
        """Open connections for so many calls at once."""
        loop = asyncio.get_running_loop()
        for _ in range(0, streams, _STREAMS_PER_CONNECTION):
            if self._address.startswith("unix:"):
                path = self._address.removeprefix("unix:")
                connection = (await loop.create_unix_connection(Connection, path))[1]
            else:
                host, _, port = self._address.rpartition(":")
                connection = (await loop.create_connection(Connection, host, int(port)))[1]
            exits.callback(connection.close)
            self._connections.append(connection)

    def request(
        self, method: str, token: str, message: pb.HoldSeatsRequest | pb.WatchSeatsRequest
    ) -> Request:
        """Return a call that is ready to be sent."""
        block = header_block(
            {
                ":method": "POST",
                ":scheme": "http",
                ":path": f"{_SERVICE}{method}",
                ":authority": "booking",
                "te": "trailers",
                "content-type": "application/grpc",
                "authorization": f"Bearer {token}",
                "x-forwarded-for": "10.0.0.1",
            }
        )
        return Request(block, message.SerializeToString())

    async def call(self, request: Request) -> float:
        """Call and wait for the answer; return the seconds it took. Raises if refused."""
        began = time.perf_counter()
        done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        connection = self._next()
        self._start(connection, UnaryCall(connection, done), request)
        await done
        return time.perf_counter() - began

    def watch(self, request: Request, arrived: Callable[[int], None]) -> SeatStream:
        """Open a stream of a trip's seats."""
        connection = self._next()
        stream = SeatStream(connection, arrived)
        self._start(connection, stream, request)
        return stream

    def _next(self) -> Connection:
        self._open_count += 1
        return self._connections[self._open_count % len(self._connections)]

    def _start(self, connection: Connection, stream: Stream, request: Request) -> None:
        connection.open(stream, block=request.block, message=request.message, is_last=True)
        connection.flush()

    async def make_trips(self, count: int) -> list[str]:
        """Make trips of 50 seats and 20 legs; return their ids."""
        async with grpc.aio.insecure_channel(self._address) as channel:
            stub = BookingServiceStub(channel)
            layout = await stub.CreateSeatLayout(
                pb.CreateSeatLayoutRequest(seat_layout=_layout(), request_id=str(uuid.uuid4())),
                metadata=self._admin(),
            )
            trip = _trip(layout.seat_layout_id)
            turns = asyncio.Semaphore(_CREATE_AT_ONCE)

            async def make() -> str:
                async with turns:
                    request = pb.CreateTripRequest(trip=trip, request_id=str(uuid.uuid4()))
                    return (await stub.CreateTrip(request, metadata=self._admin())).trip_id

            return await asyncio.gather(*(make() for _ in range(count)))

    def _admin(self) -> list[tuple[str, str]]:
        token = self.mint.token(str(uuid.uuid4()), "ADMIN")
        return [("authorization", f"Bearer {token}"), ("x-forwarded-for", "10.0.0.1")]

    def holds(self, trip_ids: Sequence[str], count: int) -> list[Request]:
        """Return so many holds of one seat on one leg, all of which can be had."""
        places = self.random.sample(range(len(trip_ids) * _SEATS * (_STOPS - 1)), count)
        requests = []
        token = ""
        for number, place in enumerate(places):
            if number % _HOLDS_PER_PASSENGER == 0:
                token = self.mint.token(str(uuid.uuid4()), "PASSENGER")
            trip, place = divmod(place, _SEATS * (_STOPS - 1))  # noqa: PLW2901 - taken apart
            seat, leg = divmod(place, _STOPS - 1)
            message = pb.HoldSeatsRequest(
                trip_id=trip_ids[trip],
                from_stop_id=str(leg),
                to_stop_id=str(leg + 1),
                seats=pb.SeatNumbers(seat_numbers=[str(seat + 1)]),
                request_id=str(uuid.uuid4()),
            )
            requests.append(self.request("HoldSeats", token, message))
        return requests


def _layout() -> layout_pb2.SeatLayout:
    seats = [
        layout_pb2.Seat(
            seat_number=str(number + 1),
            seat_class_code="STANDARD",
            row_index=number // 4,
            column_index=number % 4 + (number % 4 > 1),
        )
        for number in range(_SEATS)
    ]
    return layout_pb2.SeatLayout(
        display_name="Coach 50",
        seat_classes=[layout_pb2.SeatClass(seat_class_code="STANDARD", display_name="Standard")],
        decks=[layout_pb2.Deck(row_count=13, column_count=5, seats=seats)],
    )


def _trip(seat_layout_id: str) -> trip_pb2.Trip:
    trip = trip_pb2.Trip(
        display_name="Bench",
        seat_layout_id=seat_layout_id,
        fares=[
            trip_pb2.ClassFare(
                seat_class_code="STANDARD",
                leg_prices=[money_pb2.Money(currency_code="EGP", units=10)] * (_STOPS - 1),
            )
        ],
        sales_terms=trip_pb2.SalesTerms(held_seat_max_count=50),
    )
    leaves = int(time.time()) + 24 * 3600
    for number in range(_STOPS):
        stop = trip.stops.add(stop_id=str(number), display_name=f"Stop {number}")
        stop.location.CopyFrom(latlng_pb2.LatLng(latitude=30 + number * 0.1, longitude=31))
        stop.scheduled_departure_time.seconds = leaves + number * 600
    return trip


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
        count = min(options.count, trips * _SEATS * (_STOPS - 1) // 3)
        requests = booking.holds(trip_ids, count)
        work = partial(closed_loop, booking, requests, options.callers)
        await rows.measure(f"holds, {trips:,} trips, {options.callers} callers", count, work)
    trip_ids = await booking.make_trips(options.trips[0])
    count = min(options.per_second * options.seconds, len(trip_ids) * _SEATS * (_STOPS - 1) // 2)
    requests = booking.holds(trip_ids, count)
    steady = partial(open_loop, booking, requests, options.per_second)
    await rows.measure(f"holds, {options.per_second:,}/s", count, steady)


async def measure_watchers(
    rows: Rows, booking: Booking, exits: AsyncExitStack, options: argparse.Namespace
) -> None:
    """Measure how long a change takes to everybody who watches a trip."""
    await booking.connect(exits, options.watchers)
    (trip_id,) = await booking.make_trips(1)
    requests = booking.holds([trip_id], min(200, options.changes_per_second * options.seconds))
    # A seat is free on the whole way until its first leg is held: each change is one of a new seat.
    work = partial(tell_watchers, booking, trip_id, requests, options)
    name = f"changes, {options.watchers:,} watchers"
    await rows.measure(name, options.watchers * len(requests), work)


Scenario = Callable[[Rows, Booking, AsyncExitStack, argparse.Namespace], Awaitable[None]]
SCENARIOS: Mapping[str, Scenario] = {"holds": measure_holds, "watchers": measure_watchers}


async def run(options: argparse.Namespace, console: Console) -> None:
    """Run scenarios, each on a stack of its own, and print the figures."""
    machine = describe_machine()
    console.print("machine: " + ", ".join(f"{name} {value}" for name, value in machine.items()))
    for name in options.scenarios or SCENARIOS:
        async with (
            EmbeddedStack(options=StackOptions(location_processes=1)) as stack,
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
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(parser.parse_args(arguments), Console(width=160)))


if __name__ == "__main__":
    main(sys.argv[1:])
