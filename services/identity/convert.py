"""Protos to domain and back. Pure; used by servicer.py."""

from datetime import UTC

from google.protobuf.duration_pb2 import Duration

from services.identity.domain import (
    API_KEY_CACHE_DURATION,
    Actor,
    ApiKey,
    OpenSession,
    RequestId,
    Role,
    SessionId,
    TenantId,
    User,
    UserChange,
    UserId,
    UserStatus,
)
from services.identity.operations.accounts import SignUp
from services.identity.operations.administration import UserQuery
from services.identity.operations.api_keys import NewApiKey
from services.identity.operations.sessions import LogIn
from services.shared.rpc.caller import Caller
from services.shared.rpc.timestamps import timestamp_of
from wayfare.identity.v1 import api_key_pb2, identity_service_pb2, session_pb2, user_pb2
from wayfare.policy.v1 import policy_pb2

_ROLES = {policy_pb2.Role.Value(f"ROLE_{role}"): role for role in Role}
_ROLE_VALUES = {role: value for value, role in _ROLES.items()}
_STATUSES = {user_pb2.UserStatus.Value(f"USER_STATUS_{status}"): status for status in UserStatus}
_STATUS_VALUES = {status: value for value, status in _STATUSES.items()}


def actor_of(caller: Caller) -> Actor:
    """Return the signed-in person who calls."""
    return Actor(
        tenant_id=TenantId(caller.tenant_id),
        user_id=UserId(caller.user_id),
        session_id=SessionId(caller.session_id),
    )


def request_id_of(text: str) -> RequestId | None:
    """Return the request id, canonical, or None where there is none."""
    return RequestId(text.lower()) if text else None


def sign_up_of(request: identity_service_pb2.SignUpRequest) -> SignUp:
    """Return what a person says of themselves."""
    return SignUp(
        tenant_id=TenantId(request.tenant_id.lower()),
        phone=request.phone,
        password=request.password,
        display_name=request.display_name,
        role=_ROLES[request.role],
        request_id=RequestId(request.request_id.lower()),
    )


def log_in_of(request: identity_service_pb2.LogInRequest, *, ip_address: str) -> LogIn:
    """Return who somebody says they are."""
    return LogIn(
        tenant_id=TenantId(request.tenant_id.lower()),
        phone=request.phone,
        password=request.password,
        ip_address=ip_address,
        request_id=request_id_of(request.request_id),
    )


def user_query_of(request: identity_service_pb2.ListUsersRequest) -> UserQuery:
    """Return which accounts are asked for."""
    return UserQuery(
        role=_ROLES.get(request.role),
        status=_STATUSES.get(request.status),
        page_size=request.page_size,
        page_token=request.page_token,
    )


def user_change_of(request: identity_service_pb2.UpdateUserRequest) -> UserChange:
    """Return what shall change: the fields of the mask, or without one those that have a value."""
    paths = set(request.update_mask.paths) or {"display_name", "role", "status"}
    user = request.user
    return UserChange(
        display_name=(user.display_name or None) if "display_name" in paths else None,
        role=_ROLES.get(user.role) if "role" in paths else None,
        status=_STATUSES.get(user.status) if "status" in paths else None,
    )


def new_api_key_of(request: identity_service_pb2.CreateApiKeyRequest) -> NewApiKey:
    """Return what a key shall be."""
    expires = request.HasField("expire_time")
    return NewApiKey(
        display_name=request.display_name,
        requests_per_minute=request.requests_per_minute,
        expire_time=request.expire_time.ToDatetime(UTC) if expires else None,
        request_id=RequestId(request.request_id.lower()),
    )


def user_message(user: User) -> user_pb2.User:
    """Return an account as it is told."""
    return user_pb2.User(
        user_id=user.user_id,
        tenant_id=user.tenant_id,
        phone=user.phone,
        display_name=user.display_name,
        role=_ROLE_VALUES[user.role],
        status=_STATUS_VALUES[user.status],
        create_time=timestamp_of(user.create_time),
        update_time=timestamp_of(user.update_time),
        approve_time=timestamp_of(user.approve_time),
    )


def session_message(session: OpenSession) -> session_pb2.Session:
    """Return a session as it is told to its user."""
    return session_pb2.Session(
        session_id=session.session_id,
        user=user_message(session.user),
        access_token=session.access_token,
        access_token_expire_time=timestamp_of(session.access_token_expire_time),
        refresh_token=session.refresh_token,
        refresh_token_expire_time=timestamp_of(session.refresh_token_expire_time),
    )


def api_key_message(api_key: ApiKey) -> api_key_pb2.ApiKey:
    """Return a key as it is told, without its secret."""
    return api_key_pb2.ApiKey(
        key_id=api_key.key_id,
        tenant_id=api_key.tenant_id,
        display_name=api_key.display_name,
        requests_per_minute=api_key.requests_per_minute,
        creator_user_id=api_key.creator_user_id,
        create_time=timestamp_of(api_key.create_time),
        expire_time=timestamp_of(api_key.expire_time),
        revoke_time=timestamp_of(api_key.revoke_time),
        request_count=api_key.request_count,
        last_use_time=timestamp_of(api_key.last_use_time),
    )


def verified_key_message(api_key: ApiKey) -> identity_service_pb2.VerifyApiKeyResponse:
    """Return what another service may know of a good key, and for how long."""
    cache_duration = Duration()
    cache_duration.FromTimedelta(API_KEY_CACHE_DURATION)
    return identity_service_pb2.VerifyApiKeyResponse(
        key_id=api_key.key_id,
        tenant_id=api_key.tenant_id,
        requests_per_minute=api_key.requests_per_minute,
        cache_duration=cache_duration,
    )
