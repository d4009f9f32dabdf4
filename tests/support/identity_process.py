"""IdentityService in the test's own process, with all that is real, on a Unix socket."""

import asyncio
import itertools
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from pydantic import SecretStr

from services.identity.app import wire
from services.identity.settings import IdentitySettings
from services.identity.signing import load_signing_keys
from services.shared.clock import SystemClock
from services.shared.rpc.process import serve
from wayfare.identity.v1 import identity_service_pb2 as pb
from wayfare.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from wayfare.identity.v1.session_pb2 import Session
from wayfare.policy.v1 import policy_pb2

TENANT = "0198c000-0000-7000-8000-000000000001"
ADMIN_PHONE = "+441514960001"
ADMIN_PASSWORD = "correct horse battery"
PASSWORD = "a password of mine"
_numbers = itertools.count(100)
_addresses = itertools.count(1)


def new_address() -> str:
    """Return an IP address that no other test uses."""
    number = next(_addresses)
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


@dataclass(frozen=True)
class Refusal:
    """What a call was refused with."""

    code: grpc.StatusCode
    reason: str
    domain: str
    metadata: dict[str, str]
    retry_seconds: float | None
    fields: tuple[str, ...]
    message: str


@dataclass
class IdentityClient:
    """Calls the service as one phone with one IP address."""

    stub: IdentityServiceStub
    access_token: str = ""
    ip_address: str = field(default_factory=new_address)
    extra: tuple[tuple[str, str], ...] = ()

    async def call(self, method: str, request: Message) -> Any:
        """Call a method and return its answer."""
        metadata = [("x-forwarded-for", self.ip_address), *self.extra]
        if self.access_token:
            metadata.append(("authorization", f"Bearer {self.access_token}"))
        return await getattr(self.stub, method)(request, metadata=metadata, timeout=20)

    async def refused(self, method: str, request: Message) -> Refusal:
        """Call a method that must be refused and return with what."""
        try:
            answer = await self.call(method, request)
        except grpc.aio.AioRpcError as error:
            return refusal_of(error)
        raise AssertionError(f"{method} was not refused but answered {answer}")

    async def sign_up(self, phone: str | None = None, **values: Any) -> Session:
        """Sign up with this tenant and keep the access token."""
        session: Session = await self.call("SignUp", sign_up_request(phone, **values))
        self.access_token = session.access_token
        return session

    async def log_in(self, phone: str, password: str = PASSWORD, **values: Any) -> Session:
        """Log in and keep the access token."""
        request = pb.LogInRequest(
            **{"tenant_id": TENANT, "phone": phone, "password": password, **values}
        )
        session: Session = await self.call("LogIn", request)
        self.access_token = session.access_token
        return session


@dataclass
class IdentityProcess:
    """A running service."""

    settings: IdentitySettings
    channel: grpc.aio.Channel

    def client(self, **values: Any) -> IdentityClient:
        """Return a client with an IP address of its own."""
        return IdentityClient(stub=IdentityServiceStub(self.channel), **values)

    async def admin(self) -> IdentityClient:
        """Return a client that is logged in as the first ADMIN."""
        client = self.client()
        await client.log_in(ADMIN_PHONE, ADMIN_PASSWORD)
        return client


def new_phone() -> str:
    """Return a phone that no other test uses: 0151 496 0xxx is Ofcom's for fiction."""
    return f"+44151496{next(_numbers):04d}"


def new_request_id() -> str:
    """Return a request id."""
    return str(uuid.uuid4())


def sign_up_request(phone: str | None = None, **values: Any) -> pb.SignUpRequest:
    """Return a sign-up of a passenger."""
    return pb.SignUpRequest(
        **{
            "tenant_id": TENANT,
            "phone": phone or new_phone(),
            "password": PASSWORD,
            "display_name": "Ada",
            "role": policy_pb2.ROLE_PASSENGER,
            "request_id": new_request_id(),
            **values,
        }
    )


def refusal_of(error: grpc.aio.AioRpcError) -> Refusal:
    """Take an error apart; asserts that it has exactly one ErrorInfo."""
    call: Any = error  # the stubs know the synchronous kind only
    status = rpc_status.from_call(call)
    assert status is not None, f"{error.code()} without details: {error.details()}"
    infos, fields, retry_seconds = [], [], None
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo()
            detail.Unpack(info)
            infos.append(info)
        if detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest()
            detail.Unpack(bad)
            fields += [violation.field for violation in bad.field_violations]
        if detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo()
            detail.Unpack(retry)
            retry_seconds = retry.retry_delay.ToTimedelta().total_seconds()
    assert len(infos) == 1
    return Refusal(
        code=error.code(),
        reason=infos[0].reason,
        domain=infos[0].domain,
        metadata=dict(infos[0].metadata),
        retry_seconds=retry_seconds,
        fields=tuple(fields),
        message=error.details() or "",
    )


def write_signing_key(folder: Path, key_id: str) -> None:
    """Write a new private key, and the JWKS of the folder beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / f"{key_id}.pem").write_bytes(pem)
    jwks = load_signing_keys(folder).jwks()
    assert json.loads(jwks)["keys"]
    (folder / "jwks.json").write_bytes(jwks)


def settings_for(folder: Path, *, dsn: str, valkey_url: str, **values: Any) -> IdentitySettings:
    """Return settings for a process whose files are in a folder (of a short path)."""
    keys = folder / "keys"
    if not keys.exists():
        write_signing_key(keys, "2026-01")
    return IdentitySettings(
        **{
            "listen": f"unix:{folder}/{uuid.uuid4().hex[:8]}.sock",
            "database_url": SecretStr(dsn),
            "valkey_url": SecretStr(valkey_url),
            "jwks_file": keys / "jwks.json",
            "drain_seconds": 1.0,
            "identity_signing_key_dir": keys,
            "identity_argon2_memory_kibibytes": 1024,
            "identity_argon2_passes": 1,
            "identity_upkeep_seconds": 0.1,
            "identity_bootstrap_tenant_id": TENANT,
            "identity_bootstrap_tenant_name": "Demo Transit",
            "identity_bootstrap_admin_phone": ADMIN_PHONE,
            "identity_bootstrap_admin_password": SecretStr(ADMIN_PASSWORD),
            **values,
        }
    )


@asynccontextmanager
async def running_identity(settings: IdentitySettings) -> AsyncIterator[IdentityProcess]:
    """Run the service until the block ends; it serves when the block begins."""
    stop = asyncio.Event()
    task = asyncio.create_task(_run(settings, stop))
    channel = grpc.aio.insecure_channel(settings.listen)
    try:
        await until_serving(channel, task=task)
        yield IdentityProcess(settings=settings, channel=channel)
    finally:
        await channel.close()
        stop.set()
        await task


async def _run(settings: IdentitySettings, stop: asyncio.Event) -> None:
    async with AsyncExitStack() as stack:
        rpc, background = await wire(stack, settings, clock=SystemClock())
        await serve(rpc, background, stop)


async def health_of(channel: grpc.aio.Channel) -> int:
    """Return the health of the service: a status of grpc.health.v1, 0 when nobody answers."""
    health: Any = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest(service="wayfare.identity.v1.IdentityService")
    try:
        answer = await health.Check(request, wait_for_ready=True, timeout=5)
    except grpc.aio.AioRpcError:
        return 0
    return int(answer.status)


async def until_serving(
    channel: grpc.aio.Channel, *, task: asyncio.Task[None] | None = None, seconds: float = 15
) -> None:
    """Wait until the service serves; raises what ended its task, or TimeoutError."""
    async with asyncio.timeout(seconds):
        while await health_of(channel) != health_pb2.HealthCheckResponse.SERVING:
            if task is not None and task.done():
                await task
            await asyncio.sleep(0.02)
