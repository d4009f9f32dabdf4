"""CheckPhone, SignUp and GetMe over gRPC with real interceptors, PostgreSQL and Valkey."""

import asyncio

import asyncpg
import grpc
import pytest

from tests.support.identity_process import (
    TENANT,
    IdentityProcess,
    Refusal,
    new_phone,
    refusal_of,
    sign_up_request,
)
from tests.support.stack_fixtures import TestDatabase
from wayfare.identity.v1 import identity_service_pb2 as pb
from wayfare.identity.v1 import user_pb2
from wayfare.policy.v1 import policy_pb2

pytestmark = pytest.mark.integration

OTHER_TENANT = "0198c000-0000-7000-8000-000000000002"


async def test_a_new_phone_signs_up_and_reads_its_own_account(identity: IdentityProcess) -> None:
    client = identity.client()
    phone = new_phone()
    check = pb.CheckPhoneRequest(tenant_id=TENANT, phone=phone)
    assert not (await client.call("CheckPhone", check)).registered

    session = await client.sign_up(phone)

    assert (await client.call("CheckPhone", check)).registered
    me = await client.call("GetMe", pb.GetMeRequest())
    assert me == session.user
    assert (me.phone, me.status) == (phone, user_pb2.USER_STATUS_ACTIVE)


async def test_twenty_sign_ups_of_one_phone_at_once_make_one_account(
    identity: IdentityProcess, module_database: TestDatabase
) -> None:
    phone = new_phone()

    async def sign_up() -> object:
        try:
            return await identity.client().sign_up(phone)
        except grpc.aio.AioRpcError as error:
            return refusal_of(error)

    answers = await asyncio.gather(*(sign_up() for _ in range(20)))

    refusals = [answer for answer in answers if isinstance(answer, Refusal)]
    assert {refusal.reason for refusal in refusals} == {"PHONE_TAKEN"}
    assert len(refusals) == 19
    connection = await asyncpg.connect(module_database.admin_dsn)
    count = await connection.fetchval("SELECT count(*) FROM identity.users WHERE phone = $1", phone)
    await connection.close()
    assert count == 1


async def test_one_sign_up_repeated_at_once_gives_everybody_the_same_session(
    identity: IdentityProcess,
) -> None:
    request = sign_up_request()

    sessions = await asyncio.gather(*(identity.client().call("SignUp", request) for _ in range(10)))

    assert len({session.session_id for session in sessions}) == 1
    assert len({session.refresh_token for session in sessions}) == 1


@pytest.mark.parametrize(
    "change",
    [{"display_name": "Bob"}, {"password": "another password"}, {"role": policy_pb2.ROLE_DRIVER}],
    ids=["name", "password", "role"],
)
async def test_a_sign_up_with_a_used_request_id_and_another_body_is_refused(
    identity: IdentityProcess, change: dict[str, object]
) -> None:
    request = sign_up_request()
    client = identity.client()
    await client.call("SignUp", request)
    other = sign_up_request(request.phone, request_id=request.request_id, **change)

    refusal = await client.refused("SignUp", other)

    assert refusal.reason == "REQUEST_ID_REUSED"
    assert refusal.code is grpc.StatusCode.ALREADY_EXISTS
    assert refusal.domain == "identity.wayfare"


async def test_one_phone_can_sign_up_with_two_tenants_that_know_nothing_of_each_other(
    identity: IdentityProcess, module_database: TestDatabase
) -> None:
    connection = await asyncpg.connect(module_database.admin_dsn)
    await connection.execute(
        "INSERT INTO identity.tenants VALUES ($1, 'Other', now()) ON CONFLICT DO NOTHING",
        OTHER_TENANT,
    )
    await connection.close()
    phone = new_phone()
    here = await identity.client().sign_up(phone)

    there = await identity.client().sign_up(phone, tenant_id=OTHER_TENANT)

    assert here.user.user_id != there.user.user_id
    admin = await identity.admin()
    update = pb.UpdateUserRequest(
        user=user_pb2.User(user_id=there.user.user_id, display_name="Mallory")
    )
    assert (await admin.refused("UpdateUser", update)).reason == "USER_UNKNOWN"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"phone": "+44123456"}, "PHONE_INVALID"),
        ({"phone": "01514960001"}, "REQUEST_INVALID"),
        ({"password": "short"}, "REQUEST_INVALID"),
        ({"request_id": ""}, "REQUEST_INVALID"),
        ({"role": policy_pb2.ROLE_ADMIN}, "ROLE_NOT_ALLOWED"),
        ({"tenant_id": "0198c000-0000-7000-8000-00000000dead"}, "TENANT_UNKNOWN"),
    ],
    ids=["no such number", "national form", "short password", "no id", "admin", "tenant"],
)
async def test_a_bad_sign_up_is_refused_with_a_reason(
    identity: IdentityProcess, change: dict[str, object], reason: str
) -> None:
    refusal = await identity.client().refused("SignUp", sign_up_request(**change))  # type: ignore[arg-type]  # fields by name

    assert refusal.reason == reason
