"""API keys over gRPC with real interceptors, PostgreSQL and Valkey."""

import asyncio

import grpc
import pytest

from tests.support.identity_process import (
    TENANT,
    IdentityProcess,
    new_request_id,
)
from wayfare.identity.v1 import identity_service_pb2 as pb

pytestmark = pytest.mark.integration


def as_service(name: str) -> tuple[tuple[str, str], ...]:
    return (("x-forwarded-client-cert", f"URI=spiffe://wayfare/{name}"),)


async def test_an_api_key_is_made_verified_counted_and_revoked(identity: IdentityProcess) -> None:
    admin = await identity.admin()
    create = pb.CreateApiKeyRequest(
        display_name="Partner", requests_per_minute=90, request_id=new_request_id()
    )
    made = await admin.call("CreateApiKey", create)
    assert made.key.startswith(f"wf_{made.api_key.key_id}_")
    assert await admin.call("CreateApiKey", create) == made
    service = identity.client(extra=as_service("location"))
    verify = pb.VerifyApiKeyRequest(key=made.key, use_count=7)

    grant = await service.call("VerifyApiKey", verify)

    assert (grant.key_id, grant.tenant_id) == (made.api_key.key_id, TENANT)
    assert grant.requests_per_minute == 90
    assert grant.cache_duration.seconds == 30
    async with asyncio.timeout(10):
        while True:
            listed = await admin.call("ListApiKeys", pb.ListApiKeysRequest())
            found = {api_key.key_id: api_key for api_key in listed.api_keys}[grant.key_id]
            if found.request_count == 7:
                break
            await asyncio.sleep(0.05)
    assert found.last_use_time.seconds > 0

    revoke = pb.RevokeApiKeyRequest(key_id=grant.key_id, request_id=new_request_id())
    revoked = await admin.call("RevokeApiKey", revoke)

    assert revoked.revoke_time.seconds > 0
    assert await admin.call("RevokeApiKey", revoke) == revoked
    refusal = await service.refused("VerifyApiKey", verify)
    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.UNAUTHENTICATED,
        "API_KEY_INVALID",
    )
    page = await admin.call("ListApiKeys", pb.ListApiKeysRequest(include_inactive=True))
    assert grant.key_id in {api_key.key_id for api_key in page.api_keys}


async def test_verify_api_key_is_for_listed_services_only(identity: IdentityProcess) -> None:
    request = pb.VerifyApiKeyRequest(key="wf_x_y")

    for extra in ((), as_service("stranger"), as_service("identity")):
        refusal = await identity.client(extra=extra).refused("VerifyApiKey", request)
        assert refusal.reason == "SERVICE_NOT_ALLOWED"
    admin = await identity.admin()
    assert (await admin.refused("VerifyApiKey", request)).reason == "SERVICE_NOT_ALLOWED"
