"""Holds the errors that operations raise.

What each kind becomes on the wire is in rpc/errors.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar


class Kind(StrEnum):
    """Says what sort of error it is; each kind has one canonical status code."""

    INVALID = "INVALID"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION = "PERMISSION"
    NOT_FOUND = "NOT_FOUND"
    EXISTS = "EXISTS"
    PRECONDITION = "PRECONDITION"
    EXHAUSTED = "EXHAUSTED"
    UNAVAILABLE = "UNAVAILABLE"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    DEADLINE = "DEADLINE"
    ABORTED = "ABORTED"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    INTERNAL = "INTERNAL"


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldViolation:
    """Says what is wrong with one field of a request."""

    field: str
    description: str
    rule: str = ""


class DomainError(Exception):
    """Is the root of the errors that callers can understand. Subclasses fix `kind` and `reason`."""

    kind: ClassVar[Kind] = Kind.INTERNAL
    reason: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        retry_after_seconds: float | None = None,
        fields: Sequence[FieldViolation] = (),
    ) -> None:
        """Take the sentence for people and the details for programs.

        Neither holds personal data.
        """
        super().__init__(message)
        self.message = message
        self.metadata = dict(metadata or {})
        self.retry_after_seconds = retry_after_seconds
        self.fields = tuple(fields)


class RequestInvalidError(DomainError):
    """Says that a field breaks a rule of the contract."""

    kind = Kind.INVALID
    reason = "REQUEST_INVALID"


class DependencyUnavailableError(DomainError):
    """Says that something that the answer needs is away for now."""

    kind = Kind.UNAVAILABLE
    reason = "DEPENDENCY_UNAVAILABLE"

    def __init__(self, dependency: str, *, retry_after_seconds: float = 1.0) -> None:
        """Name the dependency, as in "postgresql" or "valkey"."""
        super().__init__(
            f"{dependency} is away for now; try again shortly",
            metadata={"dependency": dependency},
            retry_after_seconds=retry_after_seconds,
        )
        self.dependency = dependency


class RequestIdReusedError(DomainError):
    """Says that a `request_id` came before with another body."""

    kind = Kind.EXISTS
    reason = "REQUEST_ID_REUSED"

    def __init__(self, request_id: str) -> None:
        """Name the id."""
        super().__init__(
            "this request_id was used before with another body; make a new id for a new request",
            metadata={"request_id": request_id},
        )


class OverloadedError(DomainError):
    """Says that the server has as much work as it can do."""

    kind = Kind.EXHAUSTED
    reason = "OVERLOADED"
