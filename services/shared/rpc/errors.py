"""Is THE error table: what each error becomes on the wire. Nothing else makes a status."""

from collections.abc import Mapping, Sequence

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from services.shared.errors import (
    DependencyUnavailableError,
    DomainError,
    FieldViolation,
    Kind,
)
from services.shared.valkey import VALKEY_ERRORS

CODES: Mapping[Kind, grpc.StatusCode] = {
    Kind.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Kind.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    Kind.PERMISSION: grpc.StatusCode.PERMISSION_DENIED,
    Kind.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Kind.EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    Kind.PRECONDITION: grpc.StatusCode.FAILED_PRECONDITION,
    Kind.EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Kind.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Kind.UNIMPLEMENTED: grpc.StatusCode.UNIMPLEMENTED,
    Kind.DEADLINE: grpc.StatusCode.DEADLINE_EXCEEDED,
    Kind.ABORTED: grpc.StatusCode.ABORTED,
    Kind.OUT_OF_RANGE: grpc.StatusCode.OUT_OF_RANGE,
    Kind.INTERNAL: grpc.StatusCode.INTERNAL,
}
DETAILS_KEY = "grpc-status-details-bin"


class RpcStatus(grpc.Status):
    """Is a status with its details, in the form that grpc aborts with."""

    def __init__(self, code: grpc.StatusCode, details: str, status: status_pb2.Status) -> None:
        """Take the code, the sentence, and the whole status for the trailer."""
        self.code = code
        self.details = details
        self.trailing_metadata = ((DETAILS_KEY, status.SerializeToString()),)


class InternalError(DomainError):
    """Says that the server failed in a way that it did not expect."""

    kind = Kind.INTERNAL
    reason = "INTERNAL"

    def __init__(self, request_id: str) -> None:
        """Name the request, under which the log has the cause."""
        super().__init__(
            "something went wrong on our side; quote the request id when you tell us",
            metadata={"request_id": request_id},
        )


def known_error(error: Exception, *, request_id: str) -> DomainError:
    """Return the error that callers may see for `error`.

    An unknown one becomes INTERNAL without its text.
    """
    if isinstance(error, DomainError):
        return error
    if isinstance(error, VALKEY_ERRORS):
        return DependencyUnavailableError("valkey")
    return InternalError(request_id)


def status_of(error: DomainError, *, service_name: str) -> RpcStatus:
    """Return the status for `error`.

    Its code and exactly one ErrorInfo, BadRequest and RetryInfo where they apply.
    """
    code = CODES[error.kind]
    details: list[Message] = [
        error_details_pb2.ErrorInfo(
            reason=error.reason, domain=f"{service_name}.wayfare", metadata=error.metadata
        )
    ]
    if error.fields:
        details.append(_bad_request(error.fields))
    if error.retry_after_seconds is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(max(1, int(error.retry_after_seconds * 1000)))
        details.append(retry)
    number: int = code.value[0]
    status = status_pb2.Status(code=number, message=error.message, details=map(_packed, details))
    return RpcStatus(code, error.message, status)


def _bad_request(fields: Sequence[FieldViolation]) -> error_details_pb2.BadRequest:
    return error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(
                field=violation.field, description=violation.description, reason=violation.rule
            )
            for violation in fields
        ]
    )


def _packed(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
