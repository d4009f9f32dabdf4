"""The interceptor before a tiny servicer: reading, deadlines, limits, streams, errors."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.shared.clock import SystemClock
from services.shared.errors import DependencyUnavailableError
from services.shared.ids import Uuid7Source
from services.shared.rpc.authentication import Authenticator, JwksFile, TokenVerifier
from services.shared.rpc.caller import current_caller
from services.shared.rpc.server import RpcServer
from services.shared.settings import ServiceSettings
from tests.support.identity_process import Refusal, refusal_of
from tests.support.location_process import OneApiKey
from tests.support.location_tokens import TokenMint
from tests.support.location_values import new_id
from wayfare.location.v1 import (
    fleet_pb2,
    location_service_pb2,
    location_service_pb2_grpc,
    position_pb2,
)

pb = location_service_pb2
SERVICE = "wayfare.location.v1.LocationService"
UNARY = f"/{SERVICE}/GetVehiclePosition"
STREAM = f"/{SERVICE}/FollowFleet"


class TinyServicer(location_service_pb2_grpc.LocationServiceServicer):
    """Does what the vehicle's name says."""

    async def GetVehiclePosition(  # noqa: N802 - a method of the contract
        self, request: pb.GetVehiclePositionRequest, context: Any
    ) -> position_pb2.VehiclePosition:
        if request.vehicle_id == "slow":
            await asyncio.sleep(30)
        if request.vehicle_id == "broken":
            raise ValueError("the password is hunter2")
        if request.vehicle_id == "away":
            raise DependencyUnavailableError("ledger")
        return position_pb2.VehiclePosition(vehicle_id=current_caller().user_id)

    async def FollowFleet(  # noqa: N802 - a method of the contract
        self, request: pb.FollowFleetRequest, context: Any
    ) -> AsyncIterator[fleet_pb2.FleetFrame]:
        yield fleet_pb2.FleetFrame()
        await asyncio.sleep(30)


class NoLimit:
    async def check(self, caller: Any, rule: Any) -> None:
        """Let everybody pass."""


class Tiny:
    """A server with the tiny servicer, and calls of raw bytes."""

    def __init__(self, folder: Path, mint: TokenMint) -> None:
        self.mint, self.user_id, clock = mint, new_id(), SystemClock()
        settings = ServiceSettings(
            listen=f"unix:{folder}/{new_id()[:8]}.sock", streams_max=2, drain_seconds=10
        )
        jwks = folder / f"{new_id()[:8]}.json"
        mint.write_jwks(jwks)
        self.rpc = RpcServer(
            service_name="location",
            settings=settings,
            authenticator=Authenticator(TokenVerifier(JwksFile(jwks, clock), clock), OneApiKey()),
            rate_limiter=NoLimit(),
            clock=clock,
            ids=Uuid7Source(clock),
            services=[pb.DESCRIPTOR.services_by_name["LocationService"]],
            dependencies=[],
        )
        # Nobody calls the methods that it lacks.
        servicer: Any = TinyServicer
        location_service_pb2_grpc.add_LocationServiceServicer_to_server(servicer(), self.rpc.server)
        self.channel = grpc.aio.insecure_channel(settings.listen)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.mint.token('ADMIN', user_id=self.user_id)}"),)

    async def call(self, data: bytes, *, path: str = UNARY, timeout_seconds: float = 10) -> bytes:
        method: Any = self.channel.unary_unary(path)
        answer: bytes = await method(data, metadata=self.metadata, timeout=timeout_seconds)
        return answer

    async def refused(self, data: bytes, **values: Any) -> Refusal:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.call(data, **values)
        return refusal_of(caught.value)

    def stream(self) -> Any:
        method: Any = self.channel.unary_stream(STREAM)
        return method(b"", metadata=self.metadata)


@pytest.fixture
async def tiny(short_folder: Path) -> AsyncIterator[Tiny]:
    server = Tiny(short_folder, TokenMint())
    await server.rpc.start()
    yield server
    await server.channel.close()
    await server.rpc.drain_and_stop()


def named(vehicle_id: str) -> bytes:
    return pb.GetVehiclePositionRequest(vehicle_id=vehicle_id).SerializeToString()


async def test_a_good_call_is_served_for_its_caller(tiny: Tiny) -> None:
    answer = position_pb2.VehiclePosition.FromString(await tiny.call(named("bus")))

    assert answer.vehicle_id == tiny.user_id


async def test_unknown_fields_are_ignored(tiny: Tiny) -> None:
    await tiny.call(named("bus") + b"\xc2\x3e\x06secret")


@pytest.mark.parametrize(
    ("data", "code", "reason"),
    [
        (b"\xff\xff", "INVALID_ARGUMENT", "MESSAGE_MALFORMED"),
        (b"\x0a\x7fx", "INVALID_ARGUMENT", "MESSAGE_MALFORMED"),
        (b"", "INVALID_ARGUMENT", "REQUEST_INVALID"),
        (b"\x0a\x02\xff\xff", "INVALID_ARGUMENT", "MESSAGE_MALFORMED"),
        (b"\0" * 1_048_577, "RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE"),
    ],
    ids=["garbage", "cut off", "empty", "no text", "too large"],
)
async def test_what_cannot_be_read_is_refused_with_a_reason(
    tiny: Tiny, data: bytes, code: str, reason: str
) -> None:
    refusal = await tiny.refused(data)

    assert (refusal.code.name, refusal.reason, refusal.domain) == (
        code,
        reason,
        "location.wayfare",
    )


async def test_a_field_that_breaks_a_rule_is_named(tiny: Tiny) -> None:
    refusal = await tiny.refused(named("no spaces"))

    assert (refusal.reason, refusal.fields) == ("REQUEST_INVALID", ("vehicle_id",))


async def test_an_unexpected_error_says_nothing_but_where_to_look(tiny: Tiny) -> None:
    refusal = await tiny.refused(named("broken"))

    assert (refusal.code.name, refusal.reason) == ("INTERNAL", "INTERNAL")
    assert "hunter2" not in refusal.message
    assert refusal.metadata["request_id"]


async def test_what_is_away_says_when_to_come_again(tiny: Tiny) -> None:
    refusal = await tiny.refused(named("away"))

    assert (refusal.code.name, refusal.retry_seconds) == ("UNAVAILABLE", 1.0)


async def test_a_deadline_that_is_too_short_is_refused_at_once(tiny: Tiny) -> None:
    await tiny.call(named("bus"))
    # A busy machine may take longer than the deadline to say so: then the client gives up first.
    error = grpc.aio.AioRpcError(grpc.StatusCode.UNKNOWN, grpc.aio.Metadata(), grpc.aio.Metadata())
    for _ in range(20):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await tiny.call(named("slow"), timeout_seconds=0.11)
        error = caught.value
        if error.trailing_metadata():
            break
    refusal = refusal_of(error)

    assert (refusal.code.name, refusal.reason) == ("DEADLINE_EXCEEDED", "DEADLINE_TOO_SHORT")
    assert refusal.metadata["required_milliseconds"] == "120"


async def test_a_call_ends_a_little_before_its_deadline(tiny: Tiny) -> None:
    refusal = await tiny.refused(named("slow"), timeout_seconds=0.6)

    assert refusal.reason == "DEADLINE_PASSED"


async def test_a_method_has_its_own_longest_time(tiny: Tiny) -> None:
    # The contract gives GetVehiclePosition 2 seconds.
    refusal = await tiny.refused(named("slow"), timeout_seconds=10)

    assert refusal.reason == "DEADLINE_PASSED"


async def test_streams_are_bounded(tiny: Tiny) -> None:
    streams = [tiny.stream(), tiny.stream()]
    for stream in streams:
        await stream.read()

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await tiny.stream().read()

    refusal = refusal_of(caught.value)
    assert (refusal.code.name, refusal.reason) == ("RESOURCE_EXHAUSTED", "OVERLOADED")
    assert refusal.metadata == {"streams_max": "2"}
    assert refusal.retry_seconds == 2.0


async def test_a_stream_that_left_makes_room(tiny: Tiny) -> None:
    for _ in range(6):
        stream = tiny.stream()
        await _until_open(tiny, stream)
        stream.cancel()


async def _until_open(tiny: Tiny, stream: Any) -> None:
    async with asyncio.timeout(10):
        while True:
            with suppress(grpc.aio.AioRpcError):
                await stream.read()
                return
            await asyncio.sleep(0.02)
            stream = tiny.stream()


async def test_a_server_that_drains_takes_no_streams_but_answers_calls(tiny: Tiny) -> None:
    stream = tiny.stream()
    await stream.read()
    stopping = asyncio.create_task(tiny.rpc.drain_and_stop())
    await asyncio.sleep(0)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await tiny.stream().read()
    answer = await tiny.call(named("bus"))
    stream.cancel()
    await stopping

    assert refusal_of(caught.value).reason == "SERVER_DRAINING"
    assert answer


async def test_health_is_served_to_anybody(tiny: Tiny) -> None:
    await tiny.rpc.monitor.check_once()
    stub: Any = health_pb2_grpc.HealthStub(tiny.channel)

    answer = await stub.Check(health_pb2.HealthCheckRequest(service=SERVICE))

    assert answer.status == health_pb2.HealthCheckResponse.SERVING
