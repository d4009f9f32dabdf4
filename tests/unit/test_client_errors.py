"""The typed errors of the Python client."""

import grpc
import pytest

from tests.support.client_refusal import Refusal
from wayfare.booking.v1 import error_reason_pb2 as booking_reasons
from wayfare.identity.v1 import error_reason_pb2 as identity_reasons
from wayfare.ledger.v1 import error_reason_pb2 as ledger_reasons
from wayfare.location.v1 import error_reason_pb2 as location_reasons
from wayfare.policy.v1 import error_reason_pb2 as policy_reasons
from wayfare_client import WayfareError, reasons
from wayfare_client.errors import error_from_status

PREFIX = "ERROR_REASON_"
ENUMS = [
    policy_reasons.ErrorReason,
    identity_reasons.ErrorReason,
    location_reasons.ErrorReason,
    booking_reasons.ErrorReason,
    ledger_reasons.ErrorReason,
]
NAMES = {
    name.removeprefix(PREFIX)
    for enum in ENUMS
    for name in enum.DESCRIPTOR.values_by_name
    if name != f"{PREFIX}UNSPECIFIED"
}


def raised_by(refusal: Refusal) -> WayfareError:
    details = dict(refusal.trailing_metadata).get("grpc-status-details-bin", b"")
    return error_from_status(refusal.code, "refused", details=details)


@pytest.mark.parametrize("reason", sorted(NAMES))
def test_every_reason_of_the_contract_has_a_class(reason: str) -> None:
    error = raised_by(Refusal(code=grpc.StatusCode.FAILED_PRECONDITION, reason=reason))

    assert error.reason == type(error).reason_name == reason
    assert getattr(reasons, type(error).__name__) is type(error)


def test_no_class_stands_for_a_reason_that_the_contract_does_not_have() -> None:
    assert set(WayfareError.by_reason) == NAMES


def test_a_reason_newer_than_the_client_is_a_plain_error_with_its_name() -> None:
    error = raised_by(Refusal(code=grpc.StatusCode.ABORTED, reason="FROM_THE_FUTURE"))

    assert type(error) is WayfareError
    assert error.reason == "FROM_THE_FUTURE"


def test_an_error_carries_all_details() -> None:
    error = raised_by(
        Refusal(
            code=grpc.StatusCode.RESOURCE_EXHAUSTED,
            reason="RATE_LIMITED",
            retry_after_seconds=1.5,
            metadata={"max_requests": "10"},
            fields={"phone": "is too short"},
        )
    )

    assert isinstance(error, reasons.RateLimitedError)
    assert error.domain == "location.wayfare"
    assert error.metadata == {"max_requests": "10"}
    assert error.retry_after_seconds == 1.5
    assert [(violation.field, violation.description) for violation in error.field_violations] == [
        ("phone", "is too short")
    ]
    assert str(error) == "RESOURCE_EXHAUSTED RATE_LIMITED: refused; phone: is too short"


@pytest.mark.parametrize("details", [b"", b"\xff\xff not a message"])
def test_a_status_without_readable_details_keeps_its_code(details: bytes) -> None:
    error = error_from_status(grpc.StatusCode.UNAVAILABLE, "refused", details=details)

    assert (error.code, error.reason, error.retry_after_seconds) == (
        grpc.StatusCode.UNAVAILABLE,
        "",
        None,
    )
