"""Counts what a position weighs on the wire, up from a phone and down to a follower.

`python -m bench.wire_bytes --help` teaches it.
"""

import argparse
import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

import grpc
import uvloop
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.console import Console
from rich.table import Table

from bench.world import BenchTrip, TokenMint, make_trips, track
from services.stack.embedded import EmbeddedStack
from wayfare.location.v1 import location_service_pb2, location_service_pb2_grpc
from wayfare.location.v1.driver_stream_pb2 import DriverHello, DriverMessage
from wayfare.location.v1.position_pb2 import Position

_ABOUT = """\
Start a stack, drive one bus and follow it, both through Envoy and each over a connection of its own
that counts bytes, and print what one position takes: everything on the connection is counted, with
HTTP/2's frames, pings and leave to send. JSON is the same message, no spaces and no frame of any
kind.
"""
_ANSWER_SECONDS = 10.0
# What opens a stream (headers, settings, the first answers) has passed by then.
_WARM = 5


@dataclass(slots=True)
class Relay:
    """Passes one connection on and counts its bytes."""

    up: int = 0
    down: int = 0
    address: str = ""

    @asynccontextmanager
    async def open(self, target: str) -> AsyncIterator["Relay"]:
        """Listen while inside; `target` is host:port."""
        host, _, port = target.rpartition(":")

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, back = await asyncio.open_connection(host, int(port))
            await asyncio.gather(self._pass(reader, back, "up"), self._pass(there, writer, "down"))

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str
    ) -> None:
        while data := await reader.read(65_536):
            setattr(self, way, getattr(self, way) + len(data))
            writer.write(data)
        writer.close()


@dataclass(slots=True)
class Weights:
    """Holds what the counted messages take, in bytes."""

    protobuf: list[int] = field(default_factory=list)
    json: list[int] = field(default_factory=list)

    def add(self, message: Message) -> None:
        """Weigh a message."""
        as_json = json.dumps(MessageToDict(message), separators=(",", ":"))
        self.protobuf.append(message.ByteSize())
        self.json.append(len(as_json))


class Bus:
    """Drives on, three seconds of its own time at a time; all fields are set, as phones do."""

    def __init__(self, count: int, seed: int) -> None:
        """Begin long enough ago for `count` positions."""
        self._random = random.Random(seed)
        self._latitude, self._longitude = 53.4084, -2.9916
        self._time_ms = int(time.time() * 1000) - (count + _WARM) * 3_000

    def position(self) -> Position:
        """Return the next one."""
        chance = self._random
        self._latitude += chance.uniform(-1e-4, 1e-4)
        self._longitude += chance.uniform(-1e-4, 1e-4)
        self._time_ms += 3_000
        position = Position(
            speed_meters_per_second=chance.uniform(3, 14),
            heading_degrees=chance.uniform(0, 359),
            accuracy_meters=chance.uniform(3, 12),
        )
        position.location.latitude = round(self._latitude, 6)
        position.location.longitude = round(self._longitude, 6)
        position.capture_time.FromMilliseconds(self._time_ms)
        return position


def _stream(channel: grpc.aio.Channel, method: str, token: str, *request: Message) -> Any:
    stub = location_service_pb2_grpc.LocationServiceStub(channel)
    metadata = (("authorization", f"Bearer {token}"),)
    return getattr(stub, method)(*request, metadata=metadata)


async def _next(stream: Any, field_name: str) -> Any:
    """Return the stream's next message that has the field."""
    async with asyncio.timeout(_ANSWER_SECONDS):
        while True:
            message = await stream.read()
            if message is grpc.aio.EOF:
                raise RuntimeError(f"the stream ended: {await stream.details()}")
            if message.HasField(field_name):
                return message


async def weigh(trip: BenchTrip, edge: str, count: int) -> Table:
    """Send `count` positions one after the other, each when the one before has arrived."""
    up, down, bus = Weights(), Weights(), Bus(count, seed=1)
    before: tuple[int, ...] = ()
    async with (
        Relay().open(edge) as phone,
        Relay().open(edge) as seat,
        grpc.aio.insecure_channel(phone.address) as to_driver,
        grpc.aio.insecure_channel(seat.address) as to_follower,
    ):
        driver = _stream(to_driver, "StreamDriver", trip.driver_token)
        hello = DriverHello(vehicle_id=trip.vehicle_id, trip_id=trip.trip_id)
        await driver.write(DriverMessage(hello=hello))
        await _next(driver, "welcome")
        request = location_service_pb2.FollowTripRequest(trip_id=trip.trip_id)
        follower = _stream(to_follower, "FollowTrip", trip.follower_tokens[0], request)
        await _next(follower, "snapshot")
        for number in range(count + _WARM):
            if number == _WARM:
                before = (phone.up, phone.down, seat.up, seat.down)
            sent = DriverMessage(seq=number + 1, position=bus.position())
            await driver.write(sent)
            arrived = await _next(follower, "position")
            if number >= _WARM:
                up.add(sent)
                down.add(arrived)
        now = (phone.up, phone.down, seat.up, seat.down)
        await driver.done_writing()
        follower.cancel()
    answered, told = ((now[at] - before[at]) / count for at in (1, 2))
    table = Table(
        "way",
        "protobuf",
        "on the wire",
        "JSON",
        "ratio",
        title=f"bytes of a position, {count} of them",
        caption=f"the other way: {answered:.0f} to the driver, {told:.0f} from the follower",
    )
    for name, weights, at in (("up, driver", up, 0), ("down, follower", down, 3)):
        wire, text = (now[at] - before[at]) / count, mean(weights.json)
        row = (f"{mean(weights.protobuf):.1f}", f"{wire:.1f}", f"{text:.1f}", f"{wire / text:.2f}")
        table.add_row(name, *row)
    return table


async def run(count: int) -> None:
    """Measure with a stack of its own."""
    console = Console()
    async with EmbeddedStack() as stack:
        (trip,) = make_trips(TokenMint(stack), trip_count=1, followers_per_trip=1)
        await track(stack, [trip])
        with console.status(f"sending {count} positions"):
            table = await weigh(trip, stack.edge_address, count)
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(prog="python -m bench.wire_bytes", description=_ABOUT)
    parser.add_argument("--count", type=int, default=300, help="positions that are counted")
    uvloop.run(run(parser.parse_args(arguments).count))


if __name__ == "__main__":
    main()
