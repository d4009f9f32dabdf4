"""Three ways to follow a trip through the edge: gRPC, gRPC-Web as browsers do, and JSON lines.

Each reads until the stream ends and hands every update on as it comes.
"""

import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import httpx
from google.protobuf import json_format

from services.stack.errors import StackError
from wayfare.location.v1 import location_service_pb2, trip_update_pb2
from wayfare_client import WayfareClient

OnUpdate = Callable[[trip_update_pb2.TripUpdate], None]

INSTANCE_HEADER = "x-wayfare-instance"

_METHOD_PATH = "/wayfare.location.v1.LocationService/FollowTrip"
_FRAME_HEADER = struct.Struct(">BI")
_TRAILERS_FLAG = 0x80
_FRAME_BYTES_MAX = 1024 * 1024
# Heartbeats come every 15 seconds; a stream that is silent for longer is dead.
_TIMEOUT = httpx.Timeout(10.0, read=40.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebFollower:
    """A follower without gRPC: its edge, its token, and the process that is to answer."""

    edge_address: str
    access_token: str
    instance: str

    def headers(self) -> dict[str, str]:
        """Return the headers of every call."""
        return {
            "authorization": f"Bearer {self.access_token}",
            INSTANCE_HEADER: self.instance,
        }


async def follow_over_grpc(client: WayfareClient, trip_id: str, on_update: OnUpdate) -> None:
    """Follow with the Python client."""
    async with client.follow_trip(trip_id) as updates:
        async for update in updates:
            on_update(update)


async def follow_over_grpc_web(follower: WebFollower, trip_id: str, on_update: OnUpdate) -> None:
    """Follow with gRPC-Web's frames over HTTP/1.1."""
    message = location_service_pb2.FollowTripRequest(trip_id=trip_id).SerializeToString()
    headers = {
        **follower.headers(),
        "content-type": "application/grpc-web+proto",
        "accept": "application/grpc-web+proto",
        "x-grpc-web": "1",
    }
    async with (
        httpx.AsyncClient(timeout=_TIMEOUT, trust_env=False) as client,
        client.stream(
            "POST",
            f"http://{follower.edge_address}{_METHOD_PATH}",
            content=_FRAME_HEADER.pack(0, len(message)) + message,
            headers=headers,
        ) as response,
    ):
        _check_trailers("grpc-web", dict(response.headers))
        async for flags, payload in grpc_web_frames(response.aiter_raw()):
            if flags & _TRAILERS_FLAG:
                _check_trailers("grpc-web", _parse_trailers(payload))
            else:
                on_update(trip_update_pb2.TripUpdate.FromString(payload))


async def follow_over_json(follower: WebFollower, trip_id: str, on_update: OnUpdate) -> None:
    """Follow as JSON, one update per line."""
    url = f"http://{follower.edge_address}/v1/trips/{trip_id}:follow"
    async with (
        httpx.AsyncClient(timeout=_TIMEOUT, trust_env=False) as client,
        client.stream("GET", url, headers=follower.headers()) as response,
    ):
        if response.status_code != httpx.codes.OK:
            text = (await response.aread()).decode(errors="replace")
            raise StackError(f"Following as JSON was refused: {response.status_code} {text}")
        async for line in response.aiter_lines():
            if line.strip():
                on_update(
                    json_format.Parse(
                        line, trip_update_pb2.TripUpdate(), ignore_unknown_fields=True
                    )
                )


async def grpc_web_frames(chunks: AsyncIterator[bytes]) -> AsyncIterator[tuple[int, bytes]]:
    """Cut a body into gRPC-Web frames: flags and payload of each."""
    buffered = b""
    async for chunk in chunks:
        buffered += chunk
        while len(buffered) >= _FRAME_HEADER.size:
            flags, length = _FRAME_HEADER.unpack_from(buffered)
            if length > _FRAME_BYTES_MAX:
                raise StackError(f"A gRPC-Web frame of {length} bytes is longer than allowed.")
            end = _FRAME_HEADER.size + length
            if len(buffered) < end:
                break
            yield flags, buffered[_FRAME_HEADER.size : end]
            buffered = buffered[end:]


def _parse_trailers(payload: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in payload.decode("latin-1").split("\r\n") if line)
    return {name.strip().lower(): value.strip() for name, _, value in lines}


def _check_trailers(protocol: str, trailers: dict[str, str]) -> None:
    status = trailers.get("grpc-status", "0")
    if status != "0":
        raise StackError(
            f"Following over {protocol} ended with status {status}:"
            f" {trailers.get('grpc-message', '')}"
        )
