"""Reads what the contract says about each method: who may call, how long, how safely repeated."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from google.api import annotations_pb2
from google.protobuf import descriptor_pb2

from wayfare.policy.v1 import policy_pb2

_RAW_BODY = ".google.api.HttpBody"


class PolicyMissingError(ValueError):
    """Say which method has no policy, so that no configuration is rendered that leaves it open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """State the policy of one method in the words that routes are made of.

    `service` is the mesh's name (`location`); `full_service` the contract's
    (`wayfare.location.v1.LocationService`).
    `seconds_max` is None where the policy sets no duration, which only streams may do. `document`
    is said of reads that answer raw bytes, as a feed, which HTTP callers may ask for by condition.
    """

    service: str
    full_service: str
    name: str
    has_json: bool
    streaming: bool
    public: bool
    for_users: bool
    allow_api_key: bool
    calling_services: tuple[str, ...]
    seconds_max: float | None
    read: bool
    document: bool = False

    @property
    def path(self) -> str:
        """Return the HTTP/2 path of the method."""
        return f"/{self.full_service}/{self.name}"

    @property
    def full_name(self) -> str:
        """Return the name as people write it, without the leading slash."""
        return f"{self.full_service}/{self.name}"

    @property
    def at_edge(self) -> bool:
        """Tell whether callers outside the mesh may reach the method."""
        return self.public or self.for_users


def read_methods(descriptor_set: Path) -> list[Method]:
    """Return every Wayfare method of a descriptor set, in the order of its files.

    Raises:
        PolicyMissingError: A method has no usable policy.
    """
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set.read_bytes())
    return [method for file in files.file for method in _methods_of(file)]


def _methods_of(file: descriptor_pb2.FileDescriptorProto) -> Iterator[Method]:
    if not file.package.startswith("wayfare."):
        return
    for service in file.service:
        for method in service.method:
            yield _method(file.package, service.name, method)


def _method(package: str, service: str, method: descriptor_pb2.MethodDescriptorProto) -> Method:
    policy = method.options.Extensions[policy_pb2.method]
    access = policy.access
    streaming = method.client_streaming or method.server_streaming
    seconds = policy.max_duration.ToTimedelta().total_seconds() or None
    full_service = f"{package}.{service}"
    read = policy.idempotency == policy_pb2.IDEMPOTENCY_READ
    if not (access.public or access.user.roles or access.internal.services):
        raise PolicyMissingError(f"{full_service}/{method.name} does not say who may call it.")
    if seconds is None and not streaming:
        raise PolicyMissingError(f"{full_service}/{method.name} has no max_duration.")
    return Method(
        service=package.split(".")[1],
        full_service=full_service,
        name=method.name,
        has_json=method.options.HasExtension(annotations_pb2.http),
        streaming=streaming,
        public=access.public,
        for_users=bool(access.user.roles),
        allow_api_key=access.user.allow_api_key,
        calling_services=tuple(access.internal.services),
        seconds_max=seconds,
        read=read,
        document=read and method.output_type == _RAW_BODY,
    )
