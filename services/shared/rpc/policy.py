"""Reads the policy of every method from the contract.

The interceptor, clients and Envoy decide by it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from google.protobuf import descriptor as descriptors
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from wayfare.policy.v1 import policy_pb2


class Idempotency(StrEnum):
    """Says what happens when the same request arrives twice."""

    READ = "READ"
    IDEMPOTENT = "IDEMPOTENT"
    UNSAFE = "UNSAFE"


class LimitSubject(StrEnum):
    """Says what counts as one caller."""

    USER = "USER"
    IP = "IP"
    API_KEY = "API_KEY"


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimitRule:
    """Limits how often one caller may call."""

    max_requests: int
    window_seconds: int
    subject: LimitSubject


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodRule:
    """Is the policy of one method.

    `path` is as on the wire: /wayfare.location.v1.LocationService/FollowTrip.
    """

    path: str
    public: bool
    roles: frozenset[str]
    allow_pending: bool
    allow_api_key: bool
    internal_services: frozenset[str]
    rate_limits: tuple[RateLimitRule, ...]
    max_seconds: float | None
    idempotency: Idempotency
    request_class: type[Message]

    @property
    def internal_only(self) -> bool:
        """Say whether only services may call."""
        return not self.public and not self.roles


class PolicyMissingError(Exception):
    """Says that a method has no policy, or one that says nothing; the process must not start."""


def load_rules(service: descriptors.ServiceDescriptor) -> dict[str, MethodRule]:
    """Return the rule of every method of `service` by path.

    Raises PolicyMissingError if one has none.
    """
    return {rule.path: rule for rule in _rules_of(service)}


def _rules_of(service: descriptors.ServiceDescriptor) -> Iterable[MethodRule]:
    for method in service.methods:
        options = method.GetOptions()
        if not options.HasExtension(policy_pb2.method):
            raise PolicyMissingError(f"{method.full_name} has no wayfare.policy.v1.method option")
        policy = options.Extensions[policy_pb2.method]
        if policy.idempotency == policy_pb2.IDEMPOTENCY_UNSPECIFIED:
            raise PolicyMissingError(f"{method.full_name} does not say whether it may be repeated")
        access = policy.access
        rule = MethodRule(
            path=f"/{service.full_name}/{method.name}",
            public=access.public,
            roles=frozenset(_role_name(role) for role in access.user.roles),
            allow_pending=access.user.allow_pending,
            allow_api_key=access.user.allow_api_key,
            internal_services=frozenset(access.internal.services),
            rate_limits=tuple(_limit_of(limit) for limit in policy.rate_limits),
            max_seconds=_seconds_of(policy),
            idempotency=Idempotency(_short_name(policy_pb2.Idempotency, policy.idempotency)),
            request_class=GetMessageClass(method.input_type),
        )
        if not (rule.public or rule.roles or rule.internal_services):
            raise PolicyMissingError(f"{method.full_name} names nobody who may call it")
        yield rule


def _short_name(enum: object, value: int) -> str:
    name: str = enum.Name(value)  # type: ignore[attr-defined]  # generated wrappers have no common type
    return (
        name.removeprefix("IDEMPOTENCY_").removeprefix("RATE_LIMIT_SUBJECT_").removeprefix("ROLE_")
    )


def _role_name(role: int) -> str:
    return _short_name(policy_pb2.Role, role)


def _limit_of(limit: policy_pb2.RateLimit) -> RateLimitRule:
    return RateLimitRule(
        max_requests=limit.max_requests,
        window_seconds=int(limit.window.ToTimedelta().total_seconds()),
        subject=LimitSubject(_short_name(policy_pb2.RateLimitSubject, limit.subject)),
    )


def _seconds_of(policy: policy_pb2.MethodPolicy) -> float | None:
    if not policy.HasField("max_duration"):
        return None
    duration: timedelta = policy.max_duration.ToTimedelta()
    return duration.total_seconds()
