"""Protos to domain and back, and the settings."""

from datetime import UTC, datetime

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from pydantic import SecretStr, ValidationError

from services.identity import convert
from services.identity.domain import Role, TenantId, UserChange, UserStatus
from services.identity.settings import IdentitySettings
from tests.support.identity_values import a_user
from wayfare.identity.v1 import identity_service_pb2 as pb
from wayfare.identity.v1 import user_pb2
from wayfare.policy.v1 import policy_pb2

USER_ID = "0198c000-0000-7000-8000-000000000009"


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("status", list(UserStatus))
def test_every_role_and_status_has_its_value(role: Role, status: UserStatus) -> None:
    user = a_user(TenantId("tenant"), role=role, status=status)

    message = convert.user_message(user)

    assert policy_pb2.Role.Name(message.role) == f"ROLE_{role}"
    assert user_pb2.UserStatus.Name(message.status) == f"USER_STATUS_{status}"
    query = convert.user_query_of(pb.ListUsersRequest(role=message.role, status=message.status))
    assert (query.role, query.status) == (role, status)


def test_an_absent_moment_stays_absent() -> None:
    user = a_user(TenantId("tenant"))

    assert not convert.user_message(user).HasField("approve_time")
    approved = convert.user_message(a_user(TenantId("t"), approve_time=datetime.now(UTC)))
    assert approved.HasField("approve_time")


@pytest.mark.parametrize(
    ("paths", "change"),
    [
        ([], UserChange(display_name="Bob", role=Role.ADMIN)),
        (["role"], UserChange(role=Role.ADMIN)),
        (["display_name"], UserChange(display_name="Bob")),
    ],
    ids=["no mask", "role", "name"],
)
def test_a_mask_names_what_changes(paths: list[str], change: UserChange) -> None:
    user = user_pb2.User(user_id=USER_ID, display_name="Bob", role=policy_pb2.ROLE_ADMIN)
    request = pb.UpdateUserRequest(user=user, update_mask=FieldMask(paths=paths))

    assert convert.user_change_of(request) == change


def test_ids_are_read_in_their_canonical_form() -> None:
    request = pb.LogInRequest(
        tenant_id=USER_ID.upper(), request_id="0198C000-0000-4000-8000-00000000ABCD"
    )

    command = convert.log_in_of(request, ip_address="192.0.2.1")

    assert command.tenant_id == USER_ID
    assert command.request_id == "0198c000-0000-4000-8000-00000000abcd"
    assert convert.log_in_of(pb.LogInRequest(), ip_address="").request_id is None


BOOTSTRAP = {
    "identity_bootstrap_tenant_id": USER_ID,
    "identity_bootstrap_tenant_name": "Demo",
    "identity_bootstrap_admin_phone": "+441514960001",
    "identity_bootstrap_admin_password": SecretStr("a password of mine"),
}


def settings_with(**values: object) -> IdentitySettings:
    return IdentitySettings(**values)  # type: ignore[arg-type]  # fields by name


def test_a_first_admin_is_wanted_whole_or_not_at_all() -> None:
    assert settings_with(**BOOTSTRAP).has_bootstrap
    assert not settings_with().has_bootstrap


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("identity_bootstrap_tenant_name", ""),
        ("identity_bootstrap_tenant_id", "demo"),
        ("identity_bootstrap_admin_phone", "+44123"),
    ],
)
def test_a_wrong_first_admin_stops_the_start_and_names_itself(name: str, value: str) -> None:
    with pytest.raises(ValidationError, match="WAYFARE_IDENTITY_BOOTSTRAP_"):
        settings_with(**{**BOOTSTRAP, name: value})


def test_no_password_is_printed_with_the_settings() -> None:
    assert "a password of mine" not in repr(settings_with(**BOOTSTRAP))
