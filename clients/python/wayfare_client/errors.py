"""What a call or stream can fail with. A refusal is always a WayfareError.

The classes by reason are in wayfare_client.reasons.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import grpc
import grpc.aio
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

_DETAILS_KEY: Final = "grpc-status-details-bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldViolation:
    """Says what is wrong with one field of a request."""

    field: str
    description: str


class WayfareError(Exception):
    """Says that a call was refused or failed, and why.

    `reason` is the name of an ErrorReason of the contract without its prefix, empty when nobody
    gave one (a lost connection, for example); `retry_after_seconds` is how long to wait, when
    waiting helps.
    """

    reason_name: ClassVar[str] = ""
    by_reason: ClassVar[dict[str, type["WayfareError"]]] = {}

    def __init_subclass__(cls, reason: str = "") -> None:
        """Enter a subclass into the table of reasons."""
        super().__init_subclass__()
        if reason:
            cls.reason_name = reason
            WayfareError.by_reason[reason] = cls

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode,
        reason: str = "",
        domain: str = "",
        metadata: Mapping[str, str] | None = None,
        field_violations: Sequence[FieldViolation] = (),
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.domain = domain
        self.metadata = dict(metadata or {})
        self.field_violations = tuple(field_violations)
        self.retry_after_seconds = retry_after_seconds

    def __str__(self) -> str:
        parts = [self.code.name]
        if self.reason:
            parts.append(self.reason)
        text = f"{' '.join(parts)}: {self.message}"
        for violation in self.field_violations:
            text += f"; {violation.field}: {violation.description}"
        return text


class UnacknowledgedError(Exception):
    """Says that a driver session was left while the server had not yet decided all of its messages.

    `pending_count` is how many; they may or may not have arrived.
    """

    def __init__(self, pending_count: int) -> None:
        super().__init__(f"{pending_count} messages were sent and not acknowledged")
        self.pending_count = pending_count


class SessionClosedError(Exception):
    """Says that a driver session was used before it was entered or after it was left."""


def error_from_rpc(error: grpc.aio.AioRpcError) -> WayfareError:
    """Return the typed error of a failed call."""
    # gRPC's own annotation is wrong: a call that never reached a server has no trailing metadata.
    trailing = error.trailing_metadata() or ()
    details = next((value for key, value in trailing if key == _DETAILS_KEY), b"")
    raw = details if isinstance(details, bytes) else details.encode("latin-1")
    return error_from_status(error.code(), error.details() or "", details=raw)


def error_from_status(code: grpc.StatusCode, message: str, *, details: bytes = b"") -> WayfareError:
    """Return the typed error of a status.

    `details` is the serialized google.rpc.Status, if there is one.
    """
    info = error_details_pb2.ErrorInfo()
    bad_request = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    has_retry = False
    for detail in _unpacked(details):
        detail.Unpack(info)
        detail.Unpack(bad_request)
        has_retry = detail.Unpack(retry) or has_retry
    return WayfareError.by_reason.get(info.reason, WayfareError)(
        message,
        code=code,
        reason=info.reason,
        domain=info.domain,
        metadata=info.metadata,
        field_violations=[
            FieldViolation(field=violation.field, description=violation.description)
            for violation in bad_request.field_violations
        ],
        retry_after_seconds=(
            retry.retry_delay.ToTimedelta().total_seconds() if has_retry else None
        ),
    )


def _unpacked(details: bytes) -> Sequence[any_pb2.Any]:
    try:
        return status_pb2.Status.FromString(details).details
    except DecodeError:
        # Something between client and server wrote them; the code still says enough.
        return ()


def lost(message: str) -> WayfareError:
    """Return the error of a stream that the client itself gave up."""
    return WayfareError(message, code=grpc.StatusCode.UNAVAILABLE)
