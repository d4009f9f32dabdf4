"""A stack as its callers see it: tokens, channels, tracked trips. Used by tests/e2e."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from services.stack.embedded import EmbeddedStack
from services.stack.environments import DEMO_TENANT_ID
from wayfare.location.v1 import location_service_pb2, trip_pb2
from wayfare.location.v1.location_service_pb2_grpc import LocationServiceStub
from wayfare_client import WayfareClient

OTHER_TENANT_ID = "0198c000-0000-7000-8000-000000000002"
ALL_ROLES = ("PASSENGER", "DRIVER", "CONDUCTOR", "BUSINESS", "ADMIN")
INSTANCE = "x-wayfare-instance"

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """How a call ended: canonical code, and reason and domain of its one ErrorInfo."""

    code: str
    reason: str = ""
    domain: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trip:
    """A tracked trip with one driver and one passenger, and their tokens."""

    trip_id: str
    driver_id: str
    passenger_id: str
    vehicle_id: str
    driver_token: str
    passenger_token: str


class TokenMint:
    """Signs access tokens with the stack's own key, the wrong ones that nobody would give too."""

    def __init__(self, signing_keys: Path) -> None:
        """Sign with the greatest key of the folder, as IdentityService does."""
        newest = max(signing_keys.glob("*.pem"))
        self._key_id = newest.stem
        self._key = load_pem_private_key(newest.read_bytes(), None)

    def claims(self, role: str, **changed: Any) -> dict[str, Any]:
        """Return the claims of a good token; `changed` replaces some, None drops one."""
        now = int(time.time())
        claims = {
            "iss": "wayfare-identity",
            "aud": "wayfare",
            "sub": str(uuid.uuid4()),
            "tenant_id": DEMO_TENANT_ID,
            "role": role,
            "status": "ACTIVE",
            "sid": str(uuid.uuid4()),
            "jti": str(uuid.uuid4()),
            "iat": now,
            "exp": now + 900,
            **changed,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, role: str, **changed: Any) -> str:
        """Return a signed token."""
        return self._signed(self.claims(role, **changed), self._key)

    def forged_token(self, role: str) -> str:
        """Return a token that names our key and is signed with a stranger's."""
        return self._signed(self.claims(role), Ed25519PrivateKey.generate())

    def unsigned_token(self, role: str) -> str:
        """Return a token with `"alg": "none"`."""
        return jwt.encode(self.claims(role), "", algorithm="none", headers={"kid": self._key_id})

    def _signed(self, claims: dict[str, Any], key: Any) -> str:
        return jwt.encode(claims, key, algorithm="EdDSA", headers={"kid": self._key_id})


class Edge:
    """Reaches a stack as phones, browsers and other services do."""

    def __init__(self, stack: EmbeddedStack) -> None:
        """Look at a running stack."""
        self.stack = stack
        self.mint = TokenMint(stack.home.signing_keys)

    @property
    def url(self) -> str:
        """Return the URL of JSON and gRPC-Web."""
        return f"http://{self.stack.edge_address}"

    def channel(self) -> grpc.aio.Channel:
        """Open a connection of its own, as every phone has."""
        return grpc.aio.insecure_channel(
            self.stack.edge_address, options=[("grpc.use_local_subchannel_pool", 1)]
        )

    def mesh_channel(self, service: str | None, *, folder: Path | None = None) -> grpc.aio.Channel:
        """Open a connection to the mesh with a service's certificate, or with none."""
        folder = folder or self.stack.certificates
        credentials = grpc.ssl_channel_credentials(
            root_certificates=(folder / "ca.pem").read_bytes(),
            private_key=(folder / f"{service}.key").read_bytes() if service else None,
            certificate_chain=(folder / f"{service}.pem").read_bytes() if service else None,
        )
        options = [("grpc.use_local_subchannel_pool", 1)]
        return grpc.aio.secure_channel(self.stack.mesh_address, credentials, options=options)

    def client(self, token: str, *, instance: str = "") -> WayfareClient:
        """Make a Python client that calls with a token, of one process if it is named."""
        metadata = ((INSTANCE, instance),) if instance else ()
        client = WayfareClient(self.stack.edge_address, tenant_id=DEMO_TENANT_ID, metadata=metadata)
        client.tokens.use_fixed(token)
        return client

    async def track(self, *, tenant_id: str = DEMO_TENANT_ID) -> Trip:
        """Begin to track a trip with a driver of its own."""
        return await self.track_for(str(uuid.uuid4()), tenant_id=tenant_id)

    async def track_for(
        self, driver_id: str, *, passenger_id: str = "", tenant_id: str = DEMO_TENANT_ID
    ) -> Trip:
        """Begin to track a trip, by default with a new passenger, as the trips' service does."""
        passenger_id = passenger_id or str(uuid.uuid4())
        trip = trip_pb2.TrackedTrip(
            trip_id=str(uuid.uuid4()),
            tenant_id=tenant_id,
            driver_id=driver_id,
            vehicle_id=f"bus-{uuid.uuid4().hex[:8]}",
            follower_ids=[passenger_id],
        )
        async with self.mesh_channel("booking") as mesh:
            await LocationServiceStub(mesh).StartTracking(
                location_service_pb2.StartTrackingRequest(trip=trip, request_id=str(uuid.uuid4())),
                timeout=10,
            )
        return Trip(
            trip_id=trip.trip_id,
            driver_id=driver_id,
            passenger_id=passenger_id,
            vehicle_id=trip.vehicle_id,
            driver_token=self.mint.token("DRIVER", sub=driver_id, tenant_id=tenant_id),
            passenger_token=self.mint.token("PASSENGER", sub=passenger_id, tenant_id=tenant_id),
        )

    async def stop_tracking(self, trip: Trip) -> None:
        """Stop tracking, as the service that owns trips does."""
        async with self.mesh_channel("booking") as mesh:
            await LocationServiceStub(mesh).StopTracking(
                location_service_pb2.StopTrackingRequest(
                    trip_id=trip.trip_id, tenant_id=DEMO_TENANT_ID, request_id=str(uuid.uuid4())
                ),
                timeout=10,
            )


def bearer(token: str, *, instance: str = "") -> Metadata:
    """Return the metadata of a call with a token, to one process if it is named."""
    chosen = ((INSTANCE, instance),) if instance else ()
    return (("authorization", f"Bearer {token}"), *chosen)


def now() -> datetime:
    """Return the moment as a phone captures it."""
    return datetime.now(UTC)


async def refusal_of(call: Any) -> Refusal:
    """Wait for the end of a call and say how it ended; at most one ErrorInfo is allowed."""
    code: grpc.StatusCode = await call.code()
    status = await rpc_status.aio.from_call(call)
    infos: list[error_details_pb2.ErrorInfo] = []
    for detail in status.details if status else ():
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo()
            detail.Unpack(info)
            infos.append(info)
    if not infos:
        return Refusal(code=code.name)
    assert len(infos) == 1, infos
    return Refusal(code=code.name, reason=infos[0].reason, domain=infos[0].domain)


async def end_of_raw_call(
    channel: grpc.aio.Channel,
    path: str,
    body: bytes | None,
    *,
    metadata: Metadata = (),
    streams_answers: bool = False,
) -> Refusal:
    """Call with bytes as they are, and say how that ended; without a body, stream no message."""
    # Typed for messages, and these are bytes.
    untyped: Any = channel
    if body is None:
        call = untyped.stream_stream(path)(iter(()), metadata=metadata, timeout=10)
    elif streams_answers:
        call = untyped.unary_stream(path)(body, metadata=metadata, timeout=10)
        # A stream that answers is open: nobody needs to wait for its end.
        if await _first_of(call) is not grpc.aio.EOF:
            call.cancel()
            return Refusal(code="OK")
    else:
        call = untyped.unary_unary(path)(body, metadata=metadata, timeout=10)
    return await refusal_of(call)


async def _first_of(call: Any) -> object:
    try:
        return await call.read()
    except grpc.aio.AioRpcError:
        return grpc.aio.EOF


def reasons_of(details: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return reason and domain of every ErrorInfo in the details of a JSON error."""
    return [
        (str(detail["reason"]), str(detail["domain"]))
        for detail in details
        if str(detail.get("@type", "")).endswith("google.rpc.ErrorInfo")
    ]
