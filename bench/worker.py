"""One generator process: opens streams, sends positions in ticks, counts what arrives.

Started by measure.py as `python -m bench.worker CONFIG`. Takes one command per line on standard
input (connect, open, start, mark, stop, settle, quit) and answers each with one line of JSON.
"""

import asyncio
import gc
import itertools
import json
import sys
import time
from array import array
from collections import Counter
from pathlib import Path
from typing import Any

import uvloop

from bench.http2 import Connection, Stream, header_block
from bench.limits import raise_file_limit
from wayfare.location.v1 import (
    driver_stream_pb2,
    fleet_pb2,
    location_service_pb2,
    trip_update_pb2,
)

_SERVICE = "/wayfare.location.v1.LocationService/"
_OPEN_SECONDS = 60.0
_SETTLE_SECONDS = 15.0
_NANOSECONDS = 1_000_000_000
DriverReply = driver_stream_pb2.DriverReply
FleetFrame = fleet_pb2.FleetFrame
TripUpdate = trip_update_pb2.TripUpdate


class PositionWriter:
    """Encodes positions into one message object that is used again and again."""

    def __init__(self) -> None:
        """Prepare the fields that never change."""
        self._message = driver_stream_pb2.DriverMessage()
        position = self._message.position
        position.speed_meters_per_second = 8.5
        position.heading_degrees = 271.0
        position.accuracy_meters = 4.0
        self._location = position.location
        self._capture_time = position.capture_time

    def encode(self, seq: int, latitude: float, longitude: float) -> bytes:
        """Encode a position that is captured now: its capture time is the time of sending."""
        now = time.time_ns()
        self._message.seq = seq
        self._location.latitude = latitude
        self._location.longitude = longitude
        self._capture_time.seconds = now // _NANOSECONDS
        self._capture_time.nanos = now % _NANOSECONDS
        return self._message.SerializeToString()


class Driver(Stream):
    """Is one phone of a driver."""

    __slots__ = ("acked_seq", "latitude", "longitude", "rejected_count", "seq", "welcomed")

    def __init__(self, connection: Connection, number: int) -> None:
        """Stand on a place of its own."""
        super().__init__(connection)
        self.latitude = 50.0 + number % 100 * 0.05
        self.longitude = -3.0 + number // 100 * 0.05
        self.seq = 0
        self.acked_seq = 0
        self.rejected_count = 0
        self.welcomed = False

    def send_position(self, writer: PositionWriter) -> bool:
        """Send the next position, a few meters on; say False when it could not leave."""
        if self.ended:
            return False
        self.latitude += 0.00002
        message = writer.encode(self.seq + 1, self.latitude, self.longitude)
        if not self.connection.send(self, message):
            return False
        self.seq += 1
        return True

    def receive(self, message: bytes) -> None:
        """Take welcome and acknowledgements."""
        reply = DriverReply.FromString(message)
        if reply.HasField("ack"):
            self.acked_seq = reply.ack.seq
            self.rejected_count += len(reply.ack.rejected)
        elif reply.HasField("welcome"):
            self.welcomed = True


class Arrivals:
    """Holds what all followers got, and the latencies of the measured window in µs."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.count = 0
        self.measuring = False
        self.latencies = array("q")


class Follower(Stream):
    """Is one passenger who follows one trip."""

    __slots__ = ("arrivals", "gap_count", "received_count", "shown", "version")

    def __init__(self, connection: Connection, arrivals: Arrivals) -> None:
        """Count into `arrivals`."""
        super().__init__(connection)
        self.arrivals = arrivals
        self.shown = False
        self.version = 0
        self.received_count = 0
        self.gap_count = 0

    def receive(self, message: bytes) -> None:
        """Take one update. Versions of a trip count by one, so that a gap is exact."""
        update = TripUpdate.FromString(message)
        if not update.resume_token:
            return
        version = int(update.resume_token[8:], 16)
        if update.HasField("position"):
            self.gap_count += max(0, version - self.version - 1)
            self.received_count += 1
            arrivals = self.arrivals
            arrivals.count += 1
            if arrivals.measuring:
                sent = update.position.capture_time
                sent_at = sent.seconds * _NANOSECONDS + sent.nanos
                arrivals.latencies.append((time.time_ns() - sent_at) // 1000)
        elif update.HasField("snapshot"):
            self.shown = True
        self.version = version


class FleetFollower(Stream):
    """Is one dispatcher who follows the whole fleet."""

    __slots__ = ("arrivals", "shown")

    def __init__(self, connection: Connection, arrivals: Arrivals) -> None:
        """Count into `arrivals`."""
        super().__init__(connection)
        self.arrivals = arrivals
        self.shown = False

    def receive(self, message: bytes) -> None:
        """Take one frame; every vehicle in it is a position delivered."""
        frame = FleetFrame.FromString(message)
        self.shown = True
        arrivals = self.arrivals
        arrivals.count += len(frame.vehicles)
        if arrivals.measuring and frame.vehicles:
            now = time.time_ns()
            # One vehicle in a hundred tells how old positions are when they arrive.
            for vehicle in frame.vehicles[::100]:
                sent = vehicle.position.capture_time
                sent_at = sent.seconds * _NANOSECONDS + sent.nanos
                arrivals.latencies.append((now - sent_at) // 1000)


class Generator:
    """Holds the streams of this process and does what the commands say."""

    def __init__(self, config: dict[str, Any]) -> None:
        """Take the part of the load that this process makes."""
        self._config = config
        self._writer = PositionWriter()
        self._arrivals = Arrivals()
        self._drivers: list[Driver] = []
        self._followers: list[Follower] = []
        self._fleet_followers: list[FleetFollower] = []
        self._connections: list[Connection] = []
        self._openings: list[Any] = []
        self._sending: asyncio.Task[None] | None = None
        self._sent_count = 0
        self._late_tick_count = 0
        self._marked = (0, 0)

    async def connect(self) -> dict[str, Any]:
        """Open the connections and prepare every call, without opening one."""
        per_connection = self._config["streams_per_connection"]
        calls: list[tuple[str, Any, str]] = [("driver", trip, "") for trip in self._config["trips"]]
        calls += [
            ("follower", trip, token)
            for trip in self._config["trips"]
            for token in trip["follower_tokens"]
        ]
        calls += [("fleet", None, token) for token in self._config["fleet_tokens"]]
        connection = None
        for kind, group in itertools.groupby(calls, key=lambda call: call[0]):
            for index, (_, trip, token) in enumerate(group):
                if index % per_connection == 0:
                    side = "driver" if kind == "driver" else "follower"
                    connection = await self._connect(self._config[f"{side}_address"])
                assert connection is not None
                self._prepare(kind, trip, token, connection)
        # Followers first: they shall see the first position.
        self._openings.reverse()
        return {"connections": len(self._connections)}

    async def _connect(self, address: str) -> Connection:
        loop = asyncio.get_running_loop()
        if address.startswith("unix:"):
            made = await loop.create_unix_connection(Connection, address.removeprefix("unix:"))
            connection = made[1]
        else:
            host, _, port = address.rpartition(":")
            connection = (await loop.create_connection(Connection, host, int(port)))[1]
        self._connections.append(connection)
        return connection

    def _prepare(self, kind: str, trip: Any, token: str, connection: Connection) -> None:
        if kind == "driver":
            driver = Driver(connection, len(self._drivers))
            hello = driver_stream_pb2.DriverMessage()
            hello.hello.vehicle_id = trip["vehicle_id"]
            hello.hello.trip_id = trip["trip_id"]
            block = self._block("StreamDriver", trip["driver_token"], kind)
            self._openings.append((driver, block, hello.SerializeToString(), False))
            self._drivers.append(driver)
            return
        if kind == "fleet":
            fleet_follower = FleetFollower(connection, self._arrivals)
            block = self._block("FollowFleet", token, "follower")
            self._openings.append((fleet_follower, block, b"", True))
            self._fleet_followers.append(fleet_follower)
            return
        follower = Follower(connection, self._arrivals)
        request = location_service_pb2.FollowTripRequest(trip_id=trip["trip_id"])
        block = self._block("FollowTrip", token, kind)
        self._openings.append((follower, block, request.SerializeToString(), True))
        self._followers.append(follower)

    def _block(self, method: str, token: str, kind: str) -> bytes:
        headers = {
            ":method": "POST",
            ":scheme": "http",
            ":path": _SERVICE + method,
            ":authority": "localhost",
            "content-type": "application/grpc",
            "te": "trailers",
            "user-agent": "wayfare-bench",
            "authorization": f"Bearer {token}",
        }
        instance = self._config[f"{kind}_instance"]
        if instance:
            headers["x-wayfare-instance"] = instance
        return header_block(headers)

    async def open(self) -> dict[str, Any]:
        """Open every stream, so many a second or all at once, and wait until each was answered."""
        per_second = self._config["open_per_second"]
        began = time.monotonic()
        for index, (stream, block, message, is_last) in enumerate(self._openings):
            stream.connection.open(stream, block=block, message=message, is_last=is_last)
            if per_second:
                stream.connection.flush()
                ahead = index / per_second - (time.monotonic() - began)
                if ahead > 0.01:
                    await asyncio.sleep(ahead)
        self._flush()
        self._openings.clear()
        asked = time.monotonic()
        while self._unanswered() and time.monotonic() - asked < _OPEN_SECONDS:  # noqa: ASYNC110 - an event per stream would cost the streams
            await asyncio.sleep(0.005)
        answered = time.monotonic()
        gc.collect()
        gc.freeze()
        return {
            "opened": len(self._drivers) + len(self._shown()),
            "seconds": answered - began,
            "unanswered": self._unanswered(),
            "ended": self._ended(),
        }

    def _unanswered(self) -> int:
        return sum(1 for one in self._drivers if not one.welcomed and not one.ended) + sum(
            1 for one in self._shown() if not one.shown and not one.ended
        )

    def _shown(self) -> list[Follower | FleetFollower]:
        return [*self._followers, *self._fleet_followers]

    def _ended(self) -> dict[str, int]:
        ended = Counter(str(one.status) for one in (*self._drivers, *self._shown()) if one.ended)
        return dict(ended)

    async def start(self) -> dict[str, Any]:
        """Begin to send."""
        self._sending = asyncio.create_task(self._send())
        return {}

    async def _send(self) -> None:
        loop = asyncio.get_running_loop()
        tick = self._config["tick_seconds"]
        slots: list[list[Driver]] = [
            [] for _ in range(max(1, round(self._config["interval_seconds"] / tick)))
        ]
        for number, driver in enumerate(self._drivers):
            slots[number % len(slots)].append(driver)
        next_at = loop.time()
        for slot in itertools.cycle(slots):
            for driver in slot:
                self._sent_count += driver.send_position(self._writer)
            for driver in slot:
                driver.connection.flush()
            next_at += tick
            ahead = next_at - loop.time()
            self._late_tick_count += ahead < -tick
            await asyncio.sleep(max(0.0, ahead))

    async def mark(self) -> dict[str, Any]:
        """Begin the measured window."""
        self._marked = (self._sent_count, self._arrivals.count)
        self._arrivals.measuring = True
        return {}

    async def stop(self) -> dict[str, Any]:
        """End the measured window and stop sending."""
        if self._sending is not None:
            self._sending.cancel()
        self._arrivals.measuring = False
        return {
            "sent": self._sent_count - self._marked[0],
            "delivered": self._arrivals.count - self._marked[1],
            "late_ticks": self._late_tick_count,
        }

    async def settle(self) -> dict[str, Any]:
        """Wait until everything is acknowledged and delivered, and count from the beginning."""
        until = time.monotonic() + _SETTLE_SECONDS
        while time.monotonic() < until and self._is_owed():  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.1)
        accepted = [one.acked_seq - one.rejected_count for one in self._drivers]
        # Nothing is owed to a follower who was never shown the trip: it counts as refused.
        behind = [
            max(0, accepted[self._driver_of(index)] - one.version)
            for index, one in enumerate(self._followers)
            if one.shown
        ]
        return {
            "sent": sum(one.seq for one in self._drivers),
            "acked": sum(one.acked_seq for one in self._drivers),
            "rejected": sum(one.rejected_count for one in self._drivers),
            "missing": sum(behind) + sum(one.gap_count for one in self._followers),
            "delivered": self._arrivals.count,
            "held_back": sum(one.held_back_count for one in self._connections),
            "ended": self._ended(),
            "latencies": sorted(Counter(one // 20 for one in self._arrivals.latencies).items()),
        }

    def _is_owed(self) -> bool:
        if any(one.acked_seq < one.seq and not one.ended for one in self._drivers):
            return True
        # A follower has everything when it has the version of the trip's newest position.
        for index, follower in enumerate(self._followers):
            driver = self._drivers[self._driver_of(index)]
            if follower.version < driver.acked_seq - driver.rejected_count and not follower.ended:
                return True
        return False

    def _driver_of(self, follower_index: int) -> int:
        return follower_index // (len(self._followers) // len(self._drivers))

    async def quit(self) -> dict[str, Any]:
        """Close all connections."""
        for connection in self._connections:
            connection.close()
        return {}

    def _flush(self) -> None:
        for connection in self._connections:
            connection.flush()


async def _serve(config: dict[str, Any]) -> None:
    loop = asyncio.get_running_loop()
    generator = Generator(config)
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := (await commands.readline()).decode().strip():
        answer = await getattr(generator, line)()
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    raise_file_limit()
    gc.set_threshold(100_000, 50, 100)
    uvloop.run(_serve(json.loads(Path(sys.argv[1]).read_text())))
