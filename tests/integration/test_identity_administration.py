"""ApproveDriver, ListUsers, UpdateUser and the first ADMIN over gRPC with real servers."""

import asyncio
from pathlib import Path

import asyncpg
import grpc
import jwt
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from services.stack.valkey import ValkeyServer
from tests.support.identity_process import (
    ADMIN_PASSWORD,
    ADMIN_PHONE,
    PASSWORD,
    TENANT,
    IdentityClient,
    IdentityProcess,
    new_phone,
    new_request_id,
    refusal_of,
    running_identity,
    settings_for,
)
from tests.support.stack_fixtures import TestDatabase
from wayfare.identity.v1 import identity_service_pb2 as pb
from wayfare.identity.v1 import user_pb2
from wayfare.identity.v1.session_pb2 import Session
from wayfare.policy.v1 import policy_pb2

pytestmark = pytest.mark.integration


async def test_a_driver_is_pending_until_an_admin_approves(identity: IdentityProcess) -> None:
    driver = identity.client()
    session = await driver.sign_up(role=policy_pb2.ROLE_DRIVER)
    assert session.user.status == user_pb2.USER_STATUS_PENDING
    admin = await identity.admin()
    request = pb.ApproveDriverRequest(user_id=session.user.user_id, request_id=new_request_id())

    approved = await admin.call("ApproveDriver", request)

    assert approved.status == user_pb2.USER_STATUS_ACTIVE
    assert await admin.call("ApproveDriver", request) == approved
    refreshed = await driver.call(
        "RefreshSession",
        pb.RefreshSessionRequest(refresh_token=session.refresh_token, request_id=new_request_id()),
    )
    claims = jwt.decode(refreshed.access_token, options={"verify_signature": False})
    assert claims["status"] == "ACTIVE"


async def test_a_suspended_user_can_neither_refresh_nor_log_in(identity: IdentityProcess) -> None:
    phone = new_phone()
    client = identity.client()
    session = await client.sign_up(phone)
    admin = await identity.admin()
    user = user_pb2.User(
        user_id=session.user.user_id,
        status=user_pb2.USER_STATUS_SUSPENDED,
        role=policy_pb2.ROLE_PASSENGER,
    )

    suspended = await admin.call(
        "UpdateUser", pb.UpdateUserRequest(user=user, update_mask=FieldMask(paths=["status"]))
    )

    assert suspended.status == user_pb2.USER_STATUS_SUSPENDED
    refresh = pb.RefreshSessionRequest(
        refresh_token=session.refresh_token, request_id=new_request_id()
    )
    assert (await client.refused("RefreshSession", refresh)).reason == "ACCOUNT_SUSPENDED"
    log_in = pb.LogInRequest(tenant_id=TENANT, phone=phone, password=PASSWORD)
    assert (await client.refused("LogIn", log_in)).reason == "ACCOUNT_SUSPENDED"

    user.status = user_pb2.USER_STATUS_ACTIVE
    await admin.call("UpdateUser", pb.UpdateUserRequest(user=user))
    assert (await client.refused("RefreshSession", refresh)).reason == "SESSION_REVOKED"
    await client.log_in(phone)


async def test_the_only_admin_cannot_suspend_themselves(identity: IdentityProcess) -> None:
    admin = await identity.admin()
    me = await admin.call("GetMe", pb.GetMeRequest())
    user = user_pb2.User(user_id=me.user_id, status=user_pb2.USER_STATUS_SUSPENDED)

    refusal = await admin.refused("UpdateUser", pb.UpdateUserRequest(user=user))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "LAST_ADMIN")


async def test_users_are_listed_page_by_page_with_filters(identity: IdentityProcess) -> None:
    signed_up = [
        (await identity.client().sign_up(role=policy_pb2.ROLE_DRIVER)).user.user_id
        for _ in range(3)
    ]
    admin = await identity.admin()
    request = pb.ListUsersRequest(
        role=policy_pb2.ROLE_DRIVER, status=user_pb2.USER_STATUS_PENDING, page_size=2
    )

    listed: list[str] = []
    while True:
        page = await admin.call("ListUsers", request)
        assert len(page.users) <= 2
        listed += [user.user_id for user in page.users]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token

    assert listed[:3] == signed_up[::-1]
    assert listed == sorted(set(listed), reverse=True)
    other = pb.ListUsersRequest(page_token=request.page_token)
    refusal = await admin.refused("ListUsers", other)
    assert (refusal.reason, refusal.fields) == ("PAGE_TOKEN_INVALID", ("page_token",))


async def test_passengers_may_not_administer(identity: IdentityProcess) -> None:
    client = identity.client()
    session = await client.sign_up()
    user_id = session.user.user_id
    requests = {
        "ListUsers": pb.ListUsersRequest(),
        "ApproveDriver": pb.ApproveDriverRequest(user_id=user_id),
        "UpdateUser": pb.UpdateUserRequest(
            user=user_pb2.User(user_id=user_id, role=policy_pb2.ROLE_ADMIN)
        ),
        "CreateApiKey": pb.CreateApiKeyRequest(display_name="x", request_id=new_request_id()),
        "ListApiKeys": pb.ListApiKeysRequest(),
        "RevokeApiKey": pb.RevokeApiKeyRequest(key_id=user_id),
    }

    for method, request in requests.items():
        assert (await client.refused(method, request)).reason == "ROLE_NOT_ALLOWED"


async def test_many_processes_starting_at_once_make_one_first_admin(
    migrated_database: TestDatabase, valkey_server: ValkeyServer, identity_folder: Path
) -> None:
    async def start() -> None:
        settings = settings_for(
            identity_folder,
            dsn=migrated_database.dsn_for("identity"),
            valkey_url=valkey_server.url,
        )
        async with running_identity(settings) as process:
            await process.client().log_in(ADMIN_PHONE, ADMIN_PASSWORD)

    settings_for(identity_folder, dsn="", valkey_url="")
    await asyncio.gather(*(start() for _ in range(3)))

    connection = await asyncpg.connect(migrated_database.admin_dsn)
    admins = await connection.fetchval("SELECT count(*) FROM identity.users")
    await connection.close()
    assert admins == 1


async def test_two_admins_who_demote_each_other_at_once_leave_one(
    identity: IdentityProcess, module_database: TestDatabase
) -> None:
    tenant_id = "0198c000-0000-7000-8000-000000000003"
    connection = await asyncpg.connect(module_database.admin_dsn)
    await connection.execute("INSERT INTO identity.tenants VALUES ($1, 'Third', now())", tenant_id)
    first, second = [await identity.client().sign_up(tenant_id=tenant_id) for _ in range(2)]
    await connection.execute(
        "UPDATE identity.users SET role = 'ADMIN' WHERE tenant_id = $1", tenant_id
    )
    await connection.close()
    clients = []
    for session in (first, second):
        client = identity.client()
        await client.log_in(session.user.phone, tenant_id=tenant_id)
        clients.append(client)

    async def demote(client: IdentityClient, session: Session) -> str:
        user = user_pb2.User(user_id=session.user.user_id, role=policy_pb2.ROLE_PASSENGER)
        try:
            await client.call("UpdateUser", pb.UpdateUserRequest(user=user))
        except grpc.aio.AioRpcError as error:
            return refusal_of(error).reason
        return "OK"

    answers = await asyncio.gather(demote(clients[0], second), demote(clients[1], first))

    assert sorted(answers) == ["LAST_ADMIN", "OK"]
