"""Opens channels to other services through Envoy's mesh listener, with our certificate."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import grpc
from google.protobuf import descriptor as descriptors

from services.shared.errors import DomainError, Kind
from services.shared.rpc.caller import DEADLINE_MONOTONIC, REQUEST_ID
from services.shared.rpc.policy import MethodRule, load_rules
from services.shared.settings import ServiceSettings

_LEAST_SECONDS = 0.02
_SERVER_NAME = "mesh.wayfare"


class DeadlineSpentError(DomainError):
    """Says that no time is left for a call to another service."""

    kind = Kind.DEADLINE
    reason = "DEADLINE_PASSED"


class _DeadlineInterceptor(grpc.aio.UnaryUnaryClientInterceptor):
    """Gives each call its method's time, or what is left of the call that we serve."""

    def __init__(self, rules: dict[str, MethodRule]) -> None:
        self._rules = rules

    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        method = client_call_details.method
        path = method.decode() if isinstance(method, bytes) else method
        rule = self._rules.get(path)
        seconds = rule.max_seconds if rule and rule.max_seconds else 5.0
        if client_call_details.timeout is not None:
            seconds = min(seconds, client_call_details.timeout)
        deadline = DEADLINE_MONOTONIC.get()
        if deadline is not None:
            seconds = min(seconds, deadline - time.monotonic())
        if seconds < _LEAST_SECONDS:
            raise DeadlineSpentError("no time is left to ask another service")
        metadata = grpc.aio.Metadata(*(client_call_details.metadata or ()))
        if REQUEST_ID.get():
            metadata["x-request-id"] = REQUEST_ID.get()
        details = client_call_details._replace(timeout=seconds, metadata=metadata)
        return await continuation(details, request)


def mesh_channel(
    settings: ServiceSettings, service_name: str, services: Sequence[descriptors.ServiceDescriptor]
) -> grpc.aio.Channel:
    """Return a channel on which `service_name` calls the methods of `services`.

    Envoy retries reads, by the class that the contract gives them. A write that may have left is
    repeated by its caller, with the same request id.
    """
    rules: dict[str, MethodRule] = {}
    for service in services:
        rules |= load_rules(service)
    folder = settings.mesh_certificate_dir
    credentials = grpc.ssl_channel_credentials(
        root_certificates=(folder / "ca.pem").read_bytes(),
        private_key=(folder / f"{service_name}.key").read_bytes(),
        certificate_chain=(folder / f"{service_name}.pem").read_bytes(),
    )
    options = [
        ("grpc.ssl_target_name_override", _SERVER_NAME),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
    ]
    return grpc.aio.secure_channel(
        settings.mesh_address,
        credentials,
        options=options,
        interceptors=[_DeadlineInterceptor(rules)],
    )
