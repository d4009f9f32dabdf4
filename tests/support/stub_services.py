"""Stands in for every Wayfare service behind a real Envoy, and says what arrived.

Any method of the contract answers with an empty message. The answer's initial metadata has
`x-stub-instance`, and `x-stub-saw`: the request's metadata as JSON. A caller steers the stub with
metadata: `x-stub-fail: UNAVAILABLE` (or another code) refuses the call; `x-stub-wait: 1` answers
only when the test calls `release`.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeAlias

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from wayfare.location.v1 import trip_update_pb2
from wayfare_envoy.policies import Method, read_methods

DESCRIPTOR_SET = Path(__file__).parents[2] / "gen" / "descriptors.binpb"
FOLLOW_TRIP = "/wayfare.location.v1.LocationService/FollowTrip"


Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"


class StubService(grpc.GenericRpcHandler):
    """Runs one stand-in process of a service on a Unix socket."""

    def __init__(self, instance: str, socket: Path) -> None:
        """Name the process and its socket."""
        self.instance = instance
        self.address = f"unix:{socket}"
        self.calls: Counter[str] = Counter()
        self.open_streams = 0
        self._methods = {method.path: method for method in read_methods(DESCRIPTOR_SET)}
        self._released = asyncio.Event()
        self._health = health.aio.HealthServicer()
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Listen and be healthy."""
        self._server = grpc.aio.server(
            options=[
                ("grpc.server.max_pending_requests", 10_000),
                ("grpc.server.max_pending_requests_hard_limit", 10_000),
            ]
        )
        self._released.clear()
        self._server.add_generic_rpc_handlers((self,))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        await self.say(health_pb2.HealthCheckResponse.SERVING)
        self._server.add_insecure_port(self.address)
        await self._server.start()

    async def stop(self) -> None:
        """Go away at once, as a killed process does."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def say(self, status: int) -> None:
        """Answer health checks with a status."""
        await self._health.set("", status)

    def release(self) -> None:
        """Let streams that wait for it end."""
        self._released.set()

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """Answer any method of the contract."""
        method = self._methods.get(handler_call_details.method)
        if method is None:
            return None
        if method.streaming:
            return self._streaming(method)
        return grpc.unary_unary_rpc_method_handler(self._unary_of(method))

    def _streaming(self, method: Method) -> "grpc.RpcMethodHandler[Any, Any]":
        async def follow(_: bytes, context: Context) -> AsyncIterator[bytes]:
            await self._greet(method, context)
            for number in range(3):
                yield trip_update_pb2.TripUpdate(resume_token=str(number)).SerializeToString()

        async def echo(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
            await self._greet(method, context)
            self.open_streams += 1
            try:
                async for request in requests:
                    yield request
            finally:
                self.open_streams -= 1

        if method.name == "StreamDriver":
            return grpc.stream_stream_rpc_method_handler(echo)
        return grpc.unary_stream_rpc_method_handler(follow)

    def _unary_of(self, method: Method) -> Any:
        async def answer(request: bytes, context: Context) -> bytes:
            await self._greet(method, context)
            return b""

        return answer

    async def _greet(self, method: Method, context: Context) -> None:
        saw = {key: str(value) for key, value in context.invocation_metadata() or ()}
        self.calls[method.path] += 1
        if "x-stub-fail" in saw:
            await context.abort_with_status(rpc_status.to_status(_failure(saw["x-stub-fail"])))
        if "x-stub-wait" in saw:
            await self._released.wait()
        await context.send_initial_metadata(
            (("x-stub-instance", self.instance), ("x-stub-saw", json.dumps(saw)))
        )


def _failure(code: str) -> status_pb2.Status:
    status = status_pb2.Status(code=code_pb2.Code.Value(code), message="The stub was told to fail.")
    info = error_details_pb2.ErrorInfo(
        reason="STUB_FAILED", domain="stub.wayfare", metadata={"code": code}
    )
    status.details.add().Pack(info)
    field = error_details_pb2.BadRequest.FieldViolation(field="trip_id", description="is not ours")
    status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[field]))
    return status
