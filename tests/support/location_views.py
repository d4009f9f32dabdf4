"""Drivers without a trip, and those who look at many of them, on running servers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.type import latlng_pb2

from tests.support.location_process import (
    DriverMessage,
    DriverStream,
    LocationProcess,
    Metadata,
    running_location,
)
from tests.support.location_tokens import TokenMint
from tests.support.location_values import LATITUDE, LONGITUDE, new_id, now_milliseconds
from wayfare.location.v1 import driver_stream_pb2, location_service_pb2
from wayfare.location.v1.location_service_pb2_grpc import LocationServiceStub

HERE = latlng_pb2.LatLng(latitude=LATITUDE, longitude=LONGITUDE)


@dataclass
class FreeDriver:
    """One driver who drives freely."""

    stream: DriverStream
    driver_id: str
    vehicle_id: str
    seq: int = 0
    captured: int = 0

    async def at(self, meters_north: float, *, age_milliseconds: int = 0) -> None:
        """Report a position, and wait until it is taken."""
        self.seq += 1
        self.captured = max(now_milliseconds() - age_milliseconds, self.captured + 1001)
        await self.stream.position(self.seq, self.captured, meters_north=meters_north)
        assert await self.stream.acknowledged(self.seq) == []


async def free_driver(
    server: LocationProcess, *, vehicle_id: str = "", vehicle_class: int = 0, **values: Any
) -> FreeDriver:
    """Open a stream of a new driver without a trip."""
    driver_id, vehicle_id = new_id(), vehicle_id or f"car-{new_id()[:8]}"
    stream = server.open_drive(server.bearer("DRIVER", driver_id, **values))
    hello = driver_stream_pb2.DriverHello(vehicle_id=vehicle_id, vehicle_class=vehicle_class)  # type: ignore[arg-type]
    await stream.send(DriverMessage(hello=hello))
    assert (await stream.next()).HasField("welcome")
    return FreeDriver(stream, driver_id, vehicle_id)


async def nearby(
    server: LocationProcess, *, metadata: Metadata | None = None, **values: Any
) -> location_service_pb2.ListNearbyDriversResponse:
    """Ask who is near."""
    request = location_service_pb2.ListNearbyDriversRequest(location=HERE, **values)
    answer: location_service_pb2.ListNearbyDriversResponse = await server.call(
        "ListNearbyDrivers", request, metadata or server.bearer("PASSENGER", new_id())
    )
    return answer


@dataclass
class Frames:
    """One open stream of a view."""

    call: Any

    async def next(self) -> Any:
        async with asyncio.timeout(10):
            return await self.call.read()

    async def until(self, condition: Any) -> Any:
        """Read until a message fulfils the condition, and return it."""
        async with asyncio.timeout(10):
            while True:
                message = await self.call.read()
                if condition(message):
                    return message


def follow(server: LocationProcess, method: str, request: Any, metadata: Metadata) -> Frames:
    """Open a stream of a view."""
    return Frames(getattr(LocationServiceStub(server.channel), method)(request, metadata=metadata))


@asynccontextmanager
async def running_pair(
    folder: Path, *, dsn: str, valkey_url: str, **values: Any
) -> AsyncIterator[tuple[LocationProcess, LocationProcess]]:
    """Run two servers that share their stores."""
    mint = TokenMint()
    async with AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(
                running_location(folder, dsn=dsn, valkey_url=valkey_url, mint=mint, **values)
            )
            for _ in range(2)
        ]
        yield servers[0], servers[1]
