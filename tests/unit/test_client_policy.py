"""What the Python client reads out of the contract."""

import pytest
from google.protobuf import descriptor_pool

from wayfare_client.policy import RetryClass, rules_of


@pytest.mark.parametrize(
    ("path", "retry_class", "max_seconds", "needs_credentials"),
    [
        ("wayfare.location.v1.LocationService/GetVehiclePosition", RetryClass.READ, 2.0, True),
        ("wayfare.location.v1.LocationService/SetPresence", RetryClass.IDEMPOTENT, 2.0, True),
        ("wayfare.location.v1.LocationService/StreamDriver", RetryClass.IDEMPOTENT, None, True),
        ("wayfare.location.v1.LocationService/StartTracking", RetryClass.IDEMPOTENT, 5.0, False),
        ("wayfare.identity.v1.IdentityService/LogIn", RetryClass.IDEMPOTENT, 10.0, False),
    ],
)
def test_the_rules_of_a_method_come_from_its_policy(
    path: str, retry_class: RetryClass, max_seconds: float | None, needs_credentials: bool
) -> None:
    rules = rules_of(f"/{path}")

    assert rules.retry_class is retry_class
    assert rules.max_seconds == max_seconds
    assert rules.needs_credentials is needs_credentials


def test_every_unary_method_has_a_deadline() -> None:
    pool = descriptor_pool.Default()
    for service in (
        "wayfare.location.v1.LocationService",
        "wayfare.identity.v1.IdentityService",
    ):
        for method in pool.FindServiceByName(service).methods:
            if not (method.client_streaming or method.server_streaming):
                assert rules_of(f"/{service}/{method.name}").max_seconds, method.name
