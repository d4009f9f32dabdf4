"""A status with which the scripted server of the Python client's tests refuses."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Is a status with which the server answers."""

    code: grpc.StatusCode
    reason: str = ""
    retry_after_seconds: float | None = None
    fields: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        """Return what carries the details."""
        if not self.reason:
            return ()
        details: list[Any] = [
            error_details_pb2.ErrorInfo(
                reason=self.reason, domain="location.wayfare", metadata=self.metadata
            )
        ]
        if self.retry_after_seconds is not None:
            delay = Duration()
            delay.FromTimedelta(timedelta(seconds=self.retry_after_seconds))
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        if self.fields:
            violations = [
                error_details_pb2.BadRequest.FieldViolation(field=name, description=text)
                for name, text in self.fields.items()
            ]
            details.append(error_details_pb2.BadRequest(field_violations=violations))
        status = status_pb2.Status(code=self.code.value[0], message="refused by the script")
        for detail in details:
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        return (("grpc-status-details-bin", status.SerializeToString()),)

    async def give(self, context: Any) -> None:
        """End a call with it."""
        await context.abort(
            self.code, "refused by the script", trailing_metadata=self.trailing_metadata
        )
