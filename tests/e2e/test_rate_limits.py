"""Limits per IP address, as Envoy sees it: they stop one address and nobody else."""

import uuid
from typing import Any

import httpx
import pytest

from services.stack.environments import DEMO_TENANT_ID
from tests.style.contract import methods
from tests.support.e2e_edge import Edge, reasons_of
from tests.support.e2e_people import own_address
from wayfare.policy.v1 import policy_pb2

pytestmark = pytest.mark.e2e

PHONE = "+441144960999"


def _body(method: str) -> dict[str, Any]:
    """Return a request of which no two attempts do anything: a wrong password, a bad role."""
    body: dict[str, Any] = {"tenantId": DEMO_TENANT_ID, "phone": PHONE}
    if method == "LogIn":
        # Of a tenant that is not there, so that the limit per phone is not met first.
        return {**body, "tenantId": str(uuid.uuid4()), "password": "wrong password"}
    if method == "SignUp":
        return {
            **body,
            "password": "short",
            "displayName": "Nobody",
            "role": "ROLE_PASSENGER",
            "requestId": str(uuid.uuid4()),
        }
    return body


@pytest.mark.parametrize(
    ("method", "path", "most"),
    [
        ("LogIn", "/v1/sessions:logIn", 10),
        ("SignUp", "/v1/users:signUp", 5),
        ("CheckPhone", "/v1/phones:check", 20),
    ],
)
async def test_calls_of_one_address_are_limited_and_those_of_another_are_not(
    edge: Edge, method: str, path: str, most: int
) -> None:
    async with _from(own_address(), edge) as caller, _from(own_address(), edge) as neighbour:
        answers = [await caller.post(path, json=_body(method)) for _ in range(most + 1)]
        other = await neighbour.post(path, json=_body(method))

    last = answers[-1]
    assert [answer.status_code for answer in answers].count(429) == 1
    assert last.status_code == 429
    assert reasons_of(last.json()["details"]) == [("RATE_LIMITED", "identity.wayfare")]
    details = {detail["@type"].rpartition(".")[2]: detail for detail in last.json()["details"]}
    assert details["ErrorInfo"]["metadata"] == {
        "max_requests": str(most),
        "window_seconds": "60",
        "subject": "IP",
    }
    assert 0 < float(details["RetryInfo"]["retryDelay"].removesuffix("s")) <= 60
    assert other.status_code != 429


async def test_an_address_that_a_caller_claims_to_have_does_not_count(edge: Edge) -> None:
    async with _from(own_address(), edge) as caller:
        answers = [
            await caller.post(
                "/v1/users:signUp",
                json=_body("SignUp"),
                headers={"x-forwarded-for": own_address()},
            )
            for _ in range(6)
        ]

    assert answers[-1].status_code == 429


def test_the_limits_are_those_of_the_contract() -> None:
    limits = {
        method.descriptor.name: [
            (limit.max_requests, limit.window.seconds)
            for limit in method.policy.rate_limits
            if limit.subject == policy_pb2.RATE_LIMIT_SUBJECT_IP
        ]
        for method in methods()
    }

    assert limits["LogIn"] == [(10, 60)]
    assert limits["SignUp"] == [(5, 60)]
    assert limits["CheckPhone"] == [(20, 60)]


def _from(address: str, edge: Edge) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(local_address=address)
    return httpx.AsyncClient(base_url=edge.url, transport=transport, timeout=20)
