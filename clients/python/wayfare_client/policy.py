"""What the contract says about a method: its deadline, and who may repeat it. Calls ask here.

Read from the method policy that every RPC carries in its descriptor; nothing here repeats it.
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from google.protobuf import descriptor_pool

from wayfare.policy.v1 import policy_pb2


class RetryClass(StrEnum):
    """Says what a client may do when an answer did not come."""

    READ = "READ"
    IDEMPOTENT = "IDEMPOTENT"
    UNSAFE = "UNSAFE"


_RETRY_CLASSES = {
    policy_pb2.IDEMPOTENCY_READ: RetryClass.READ,
    policy_pb2.IDEMPOTENCY_IDEMPOTENT: RetryClass.IDEMPOTENT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodRules:
    """Holds what a client must know of a method. `max_seconds` is None on streams."""

    retry_class: RetryClass
    max_seconds: float | None
    needs_credentials: bool


@cache
def rules_of(path: str) -> MethodRules:
    """Return the rules of a method by its path.

    A path is as in "/wayfare.location.v1.LocationService/FollowTrip".

    Raises:
        KeyError: there is no such method in the generated code.
    """
    method = descriptor_pool.Default().FindMethodByName(path.lstrip("/").replace("/", "."))
    policy = method.GetOptions().Extensions[policy_pb2.method]
    return MethodRules(
        # What this client does not know is never repeated.
        retry_class=_RETRY_CLASSES.get(policy.idempotency, RetryClass.UNSAFE),
        max_seconds=(
            policy.max_duration.ToTimedelta().total_seconds()
            if policy.HasField("max_duration")
            else None
        ),
        needs_credentials=policy.access.HasField("user"),
    )
