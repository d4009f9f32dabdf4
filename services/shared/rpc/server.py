"""Builds and runs a gRPC server.

Health, reflection, the interceptor, and a drain before the end.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, cast

import grpc
import structlog
from google.protobuf import descriptor as descriptors
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from services.shared.clock import Clock
from services.shared.health import Dependency, HealthEndpoint, HealthMonitor
from services.shared.ids import IdSource
from services.shared.rpc.authentication import Authenticator
from services.shared.rpc.interceptor import PolicyInterceptor
from services.shared.rpc.policy import MethodRule, load_rules
from services.shared.rpc.rate_limits import RateLimiter
from services.shared.rpc.wire.limits import Limits
from services.shared.rpc.wire.server import WireServer
from services.shared.settings import ServiceSettings
from wayfare.policy.v1 import policy_pb2

_log = structlog.get_logger()
# What is four times over our own limit is refused as it comes; below that, we answer with a reason.
_HARD_LIMIT_FACTOR = 4
_DRAIN_POLL_SECONDS = 0.05


class RpcServer:
    """Serves one service's methods on one address."""

    def __init__(
        self,
        *,
        service_name: str,
        settings: ServiceSettings,
        authenticator: Authenticator,
        rate_limiter: RateLimiter,
        clock: Clock,
        ids: IdSource,
        services: Sequence[descriptors.ServiceDescriptor],
        dependencies: Sequence[Dependency],
        raw_methods: Sequence[str] = (),
        early_methods: Sequence[str] = (),
    ) -> None:
        """Prepare the server; every method of `services` must have a policy.

        Streaming methods named in `raw_methods` write bytes that are encoded already, so that one
        encoding serves many followers. Reads named in `early_methods` are worked on while their
        callers are counted: see early_answers.py.
        """
        rules: dict[str, MethodRule] = {}
        for service in services:
            rules |= load_rules(service)
        self._settings = settings
        self._interceptor = PolicyInterceptor(
            rules,
            service_name=service_name,
            authenticator=authenticator,
            rate_limiter=rate_limiter,
            clock=clock,
            ids=ids,
            message_bytes_max=settings.message_bytes_max,
            streams_max=settings.streams_max,
            raw_methods=frozenset(raw_methods),
            early_methods=early_methods,
        )
        hard_limit = settings.message_bytes_max * _HARD_LIMIT_FACTOR
        self._wire = WireServer(
            wrap=self._interceptor.wrap, limits=Limits(message_bytes=hard_limit)
        )
        # Generated code says that it wants grpc's own server, and uses two methods of it.
        self.server = cast("grpc.aio.Server", self._wire)
        self._names = [service.full_name for service in services]
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.server)
        _serve_reflection(self.server)
        self.monitor = HealthMonitor(dependencies, self._tell_health)
        self._endpoint = HealthEndpoint(settings.metrics_listen, self.monitor)
        self._drain_callbacks: list[Callable[[], Awaitable[None]]] = []

    def on_drain(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Call `callback` when the server begins to drain, so that streams can be told."""
        self._drain_callbacks.append(callback)

    async def start(self) -> None:
        """Listen. The caller runs `monitor.run()` in its task group."""
        self._endpoint.start()
        await self._tell_health(False)
        self._wire.add_insecure_port(self._settings.listen)
        await self._wire.start()
        _log.info("listening", address=self._settings.listen, metrics_port=self._endpoint.port)

    async def drain_and_stop(self) -> None:
        """Take no new streams, tell the open ones, wait for them to leave, then stop."""
        _log.info("draining", streams=self._interceptor.open_streams)
        self.monitor.draining = True
        self._interceptor.draining = True
        await self._tell_health(False)
        for callback in self._drain_callbacks:
            await callback()
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._settings.drain_seconds
        # A poll: streams end one by one in the interceptor, once in a process's life.
        while self._interceptor.open_streams and loop.time() < give_up:  # noqa: ASYNC110
            await asyncio.sleep(_DRAIN_POLL_SECONDS)
        await self._wire.stop(grace=1.0)
        self._endpoint.stop()
        _log.info("stopped", streams_cut=self._interceptor.open_streams)

    async def _tell_health(self, ready: bool) -> None:
        serving: Any = health_pb2.HealthCheckResponse.ServingStatus
        status = serving.SERVING if ready else serving.NOT_SERVING
        for name in ("", *self._names):
            await self._health.set(name, status)


def _serve_reflection(server: grpc.aio.Server) -> None:
    """Let clients ask what every Wayfare service offers, at whichever process Envoy asks."""
    contract = Path(policy_pb2.__file__).parents[3] / "descriptors.binpb"
    files = descriptor_pb2.FileDescriptorSet.FromString(contract.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    names = [reflection.SERVICE_NAME, health.SERVICE_NAME]
    for file in files.file:
        pool.Add(file)
        names += [f"{file.package}.{service.name}" for service in file.service]
    for module in (health_pb2, reflection_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    servicer = reflection.aio.ReflectionServicer(names, pool=cast("Any", _MethodsToo(pool)))
    add: Any = reflection_pb2_grpc.add_ServerReflectionServicer_to_server
    add(servicer, server)


class _MethodsToo:
    """Is a descriptor pool that finds the file of a method too, for `grpcurl describe`."""

    def __init__(self, pool: descriptor_pool.DescriptorPool) -> None:
        self._pool = pool

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> descriptors.FileDescriptor:  # noqa: N802
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            return self._pool.FindFileContainingSymbol(symbol.rpartition(".")[0])
