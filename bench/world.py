"""Makes what a load needs: drivers, trips and followers with tokens, and the trips tracked.

Called by measure.py, once per scenario.
"""

import asyncio
import time
import uuid
from dataclasses import dataclass
from typing import Self

import grpc
import jwt
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from services.stack.embedded import EmbeddedStack
from wayfare.location.v1 import location_service_pb2, location_service_pb2_grpc, trip_pb2

TENANT_ID = "0198c000-0000-7000-8000-000000000001"
_TOKEN_SECONDS = 3600
_CALLS_AT_ONCE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchTrip:
    """Is one driver on one trip, and who follows it; tokens are signed."""

    trip_id: str
    vehicle_id: str
    driver_id: str
    driver_token: str
    follower_ids: tuple[str, ...]
    follower_tokens: tuple[str, ...]


class TokenMint:
    """Signs access tokens as IdentityService does: logging in 20,000 people is not measured."""

    def __init__(self, stack: EmbeddedStack) -> None:
        """Sign with the key that the stack's JWKS publishes."""
        pem = max(stack.home.signing_keys.glob("*.pem"))
        self._key = load_pem_private_key(pem.read_bytes(), None)
        self._key_id = pem.stem

    def token(self, user_id: str, role: str) -> str:
        """Return an access token that lasts an hour."""
        now = int(time.time())
        claims = {
            "iss": "wayfare-identity",
            "aud": "wayfare",
            "sub": user_id,
            "tenant_id": TENANT_ID,
            "role": role,
            "status": "ACTIVE",
            "sid": user_id,
            "iat": now,
            "exp": now + _TOKEN_SECONDS,
            "jti": str(uuid.uuid4()),
        }
        headers = {"kid": self._key_id}
        return jwt.encode(claims, self._key, algorithm="EdDSA", headers=headers)  # type: ignore[arg-type]  # an Ed25519 key


def make_trips(mint: TokenMint, *, trip_count: int, followers_per_trip: int) -> list[BenchTrip]:
    """Make that many trips, each with a driver and followers of its own."""
    trips = []
    for number in range(trip_count):
        driver_id = str(uuid.uuid4())
        follower_ids = tuple(str(uuid.uuid4()) for _ in range(followers_per_trip))
        trips.append(
            BenchTrip(
                trip_id=str(uuid.uuid4()),
                vehicle_id=f"bench-{number}",
                driver_id=driver_id,
                driver_token=mint.token(driver_id, "DRIVER"),
                follower_ids=follower_ids,
                follower_tokens=tuple(mint.token(one, "PASSENGER") for one in follower_ids),
            )
        )
    return trips


class Tracker:
    """Starts and stops tracking as BookingService does: through the mesh, with its certificate."""

    def __init__(self, stack: EmbeddedStack) -> None:
        """Call the mesh of `stack`."""
        folder = stack.certificates
        credentials = grpc.ssl_channel_credentials(
            (folder / "ca.pem").read_bytes(),
            (folder / "booking.key").read_bytes(),
            (folder / "booking.pem").read_bytes(),
        )
        options = [("grpc.ssl_target_name_override", "mesh.wayfare")]
        self._channel = grpc.aio.secure_channel(stack.mesh_address, credentials, options=options)
        self._stub = location_service_pb2_grpc.LocationServiceStub(self._channel)
        self._places = asyncio.Semaphore(_CALLS_AT_ONCE)

    async def __aenter__(self) -> Self:
        """Begin; the channel connects by itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the channel."""
        await self._channel.close()

    async def start(self, trip: BenchTrip) -> None:
        """Start tracking a trip."""
        async with self._places:
            await self._stub.StartTracking(_tracking_of(trip), timeout=30)

    async def stop(self, trip: BenchTrip) -> None:
        """Stop tracking a trip."""
        request = location_service_pb2.StopTrackingRequest(
            trip_id=trip.trip_id, tenant_id=TENANT_ID, request_id=str(uuid.uuid4())
        )
        async with self._places:
            await self._stub.StopTracking(request, timeout=30)


async def track(stack: EmbeddedStack, trips: list[BenchTrip]) -> None:
    """Start tracking every trip."""
    async with Tracker(stack) as tracker:
        waiting = iter(trips)

        async def start_next() -> None:
            for trip in waiting:
                await tracker.start(trip)

        async with asyncio.TaskGroup() as group:
            for _ in range(_CALLS_AT_ONCE):
                group.create_task(start_next())


def _tracking_of(trip: BenchTrip) -> location_service_pb2.StartTrackingRequest:
    return location_service_pb2.StartTrackingRequest(
        request_id=str(uuid.uuid4()),
        trip=trip_pb2.TrackedTrip(
            trip_id=trip.trip_id,
            tenant_id=TENANT_ID,
            driver_id=trip.driver_id,
            vehicle_id=trip.vehicle_id,
            follower_ids=trip.follower_ids,
        ),
    )
