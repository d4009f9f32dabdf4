"""LogIn, RefreshSession, LogOut, GetJwks and the limits over gRPC with real servers."""

import asyncio
import json

import grpc
import jwt
import pytest
from google.protobuf.message import Message

from tests.support.identity_process import (
    PASSWORD,
    TENANT,
    IdentityProcess,
    Refusal,
    new_phone,
    new_request_id,
    refusal_of,
    sign_up_request,
)
from wayfare.identity.v1 import identity_service_pb2 as pb
from wayfare.policy.v1 import policy_pb2

pytestmark = pytest.mark.integration


async def test_an_access_token_verifies_with_the_published_keys(identity: IdentityProcess) -> None:
    client = identity.client()
    session = await client.sign_up(role=policy_pb2.ROLE_DRIVER)

    body = await client.call("GetJwks", pb.GetJwksRequest())

    assert body.content_type == "application/json"
    key = jwt.PyJWK(json.loads(body.data)["keys"][0])
    claims = jwt.decode(session.access_token, key.key, algorithms=["EdDSA"], audience="wayfare")
    assert claims["sub"] == session.user.user_id
    assert claims["sid"] == session.session_id
    assert claims["tenant_id"] == TENANT
    assert (claims["role"], claims["status"]) == ("DRIVER", "PENDING")
    assert claims["exp"] - claims["iat"] == 15 * 60
    assert jwt.get_unverified_header(session.access_token)["kid"] == "2026-01"


async def test_twenty_refreshes_with_one_token_at_once_have_one_winner_and_end_the_session(
    identity: IdentityProcess,
) -> None:
    session = await identity.client().sign_up()

    async def refresh() -> object:
        request = pb.RefreshSessionRequest(
            refresh_token=session.refresh_token, request_id=new_request_id()
        )
        try:
            return await identity.client().call("RefreshSession", request)
        except grpc.aio.AioRpcError as error:
            return refusal_of(error)

    answers = await asyncio.gather(*(refresh() for _ in range(20)))

    refusals = [answer for answer in answers if isinstance(answer, Refusal)]
    assert len(refusals) == 19
    assert {refusal.reason for refusal in refusals} == {"SESSION_REVOKED"}
    assert refusals[0].metadata == {"cause": "TOKEN_REUSED"}
    winner = next(answer for answer in answers if not isinstance(answer, Refusal))
    again = pb.RefreshSessionRequest(
        refresh_token=winner.refresh_token,  # type: ignore[attr-defined]  # a Session
        request_id=new_request_id(),
    )
    assert (await identity.client().refused("RefreshSession", again)).reason == "SESSION_REVOKED"


async def test_a_refresh_repeated_at_once_gives_everybody_the_same_token(
    identity: IdentityProcess,
) -> None:
    session = await identity.client().sign_up()
    request = pb.RefreshSessionRequest(
        refresh_token=session.refresh_token, request_id=new_request_id()
    )

    answers = await asyncio.gather(
        *(identity.client().call("RefreshSession", request) for _ in range(10))
    )

    assert len({answer.refresh_token for answer in answers}) == 1
    onwards = pb.RefreshSessionRequest(
        refresh_token=answers[0].refresh_token, request_id=new_request_id()
    )
    await identity.client().call("RefreshSession", onwards)


async def test_a_wrong_password_and_an_unknown_phone_are_answered_alike(
    identity: IdentityProcess,
) -> None:
    phone = new_phone()
    await identity.client().sign_up(phone)
    client = identity.client()

    wrong = await client.refused(
        "LogIn", pb.LogInRequest(tenant_id=TENANT, phone=phone, password="not this one")
    )
    unknown = await client.refused(
        "LogIn", pb.LogInRequest(tenant_id=TENANT, phone=new_phone(), password="not this one")
    )

    assert wrong == unknown
    assert (wrong.code, wrong.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_WRONG")


async def test_the_eleventh_guess_from_one_address_is_refused_even_when_right(
    identity: IdentityProcess,
) -> None:
    phone = new_phone()
    await identity.client().sign_up(phone)
    guesser = identity.client(ip_address="2001:db8:1:2::1")
    for number in range(10):
        # Another address of the same network: the limit of calls per address does not help here.
        guesser.ip_address = f"2001:db8:1:2::{number + 1:x}"
        request = pb.LogInRequest(tenant_id=TENANT, phone=phone, password=f"guess {number}")
        assert (await guesser.refused("LogIn", request)).reason == "CREDENTIALS_WRONG"

    right = pb.LogInRequest(tenant_id=TENANT, phone=phone, password=PASSWORD)
    guesser.ip_address = "2001:db8:1:2::ffff"
    refusal = await guesser.refused("LogIn", right)

    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "TOO_MANY_ATTEMPTS",
    )
    assert refusal.retry_seconds is not None
    assert 0 < refusal.retry_seconds <= 15 * 60
    await identity.client().log_in(phone)


async def test_logging_out_ends_the_session_and_only_that(identity: IdentityProcess) -> None:
    phone = new_phone()
    client = identity.client()
    first = await client.sign_up(phone)
    second = await client.log_in(phone)

    ended = await client.call("LogOut", pb.LogOutRequest())

    assert ended.ended_session_count == 1
    assert (await client.call("LogOut", pb.LogOutRequest())).ended_session_count == 0
    refresh = pb.RefreshSessionRequest(
        refresh_token=second.refresh_token, request_id=new_request_id()
    )
    assert (await client.refused("RefreshSession", refresh)).metadata == {"cause": "LOGGED_OUT"}
    refresh.refresh_token = first.refresh_token
    await client.call("RefreshSession", refresh)
    everywhere = await client.call("LogOut", pb.LogOutRequest(all_sessions=True))
    assert everywhere.ended_session_count == 1


@pytest.mark.parametrize(
    ("method", "request_message", "limit"),
    [
        ("SignUp", sign_up_request(role=policy_pb2.ROLE_ADMIN), 5),
        ("LogIn", pb.LogInRequest(tenant_id=TENANT, phone="+441514960099", password="x"), 10),
        ("CheckPhone", pb.CheckPhoneRequest(tenant_id=TENANT, phone="+441514960099"), 20),
    ],
    ids=["SignUp", "LogIn", "CheckPhone"],
)
async def test_one_address_is_limited_per_minute(
    identity: IdentityProcess, method: str, request_message: Message, limit: int
) -> None:
    client = identity.client()
    reasons = []
    for _ in range(limit + 1):
        try:
            await client.call(method, request_message)
            reasons.append("OK")
        except grpc.aio.AioRpcError as error:
            reasons.append(refusal_of(error).reason)

    assert "RATE_LIMITED" not in reasons[:limit]
    assert reasons[limit] == "RATE_LIMITED"
