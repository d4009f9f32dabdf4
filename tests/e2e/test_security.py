"""Who may call what: one table, derived from the contract, over every method that it has."""

import re
import uuid
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
import httpx
import pytest
from google.api import annotations_pb2

from services.stack.certificates import write_certificates
from services.stack.embedded import MESH_SERVICES
from tests.style.contract import Method, methods
from tests.support.e2e_edge import (
    ALL_ROLES,
    Edge,
    Metadata,
    Refusal,
    TokenMint,
    bearer,
    end_of_raw_call,
)
from tests.support.e2e_people import own_address
from wayfare.policy.v1 import policy_pb2

pytestmark = pytest.mark.e2e

EDGE = "edge.wayfare"
UNAUTHENTICATED, DENIED = "UNAUTHENTICATED", "PERMISSION_DENIED"
NOT_FOR_SERVICE = Refusal(code=DENIED, reason="SERVICE_NOT_ALLOWED", domain=EDGE)
# What stands for "the caller got past the door"; what the method says then is its own business.
OPEN = Refusal(code="OPEN")
_SHUT = {UNAUTHENTICATED, DENIED}
# Whom the policy lets in and the method itself does not know.
_OF_THE_METHOD = {"NOT_A_FOLLOWER", "NOT_THE_TRIP_DRIVER", "NOT_THE_TRIP_CREW"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One way to call a method, and how it must end.

    `certificate` is the calling service's name in the mesh, "" for none; None calls at the edge.
    """

    name: str
    expected: Refusal
    metadata: Metadata = ()
    certificate: str | None = None


def cases_of(method: Method, mint: TokenMint) -> Iterator[Case]:
    """Derive from a method's policy every way in, and every way that must be shut."""
    access = method.policy.access
    if access.HasField("user"):
        yield from _user_cases(method, mint)
    elif not access.public:
        yield Case(name="at the edge without a token", expected=NOT_FOR_SERVICE)
        for role in ALL_ROLES:
            token = bearer(mint.token(role))
            yield Case(name=f"at the edge by {role}", expected=NOT_FOR_SERVICE, metadata=token)
    yield from _mesh_cases(method)


def _user_cases(method: Method, mint: TokenMint) -> Iterator[Case]:
    access = method.policy.access.user
    allowed = [policy_pb2.Role.Name(role).removeprefix("ROLE_") for role in access.roles]
    domain = f"{method.service.split('.')[1]}.wayfare"
    role = allowed[0]
    invalid = Refusal(code=UNAUTHENTICATED, reason="TOKEN_INVALID", domain=EDGE)
    missing = Refusal(code=UNAUTHENTICATED, reason="CREDENTIALS_MISSING", domain=EDGE)
    expired = Refusal(code=UNAUTHENTICATED, reason="TOKEN_EXPIRED", domain=EDGE)
    bad_tokens = {
        "an expired token": (mint.token(role, exp=1_700_000_000), expired),
        "a wrong signature": (mint.forged_token(role), invalid),
        "alg none": (mint.unsigned_token(role), invalid),
        "a wrong audience": (mint.token(role, aud="another"), invalid),
        "a wrong issuer": (mint.token(role, iss="another"), invalid),
    }
    yield Case(name="without a token", expected=missing)
    for name, (token, expected) in bad_tokens.items():
        yield Case(name=f"with {name}", expected=expected, metadata=bearer(token))
    for other in ALL_ROLES:
        by_role = bearer(mint.token(other))
        refused = Refusal(code=DENIED, reason="ROLE_NOT_ALLOWED", domain=domain)
        expected = OPEN if other in allowed else refused
        yield Case(name=f"by {other}", expected=expected, metadata=by_role)
    pending = Refusal(code=DENIED, reason="ACCOUNT_PENDING", domain=domain)
    yield Case(
        name=f"by a pending {role}",
        expected=OPEN if access.allow_pending else pending,
        metadata=bearer(mint.token(role, status="PENDING")),
    )
    unknown_key = Refusal(code=UNAUTHENTICATED, reason="TOKEN_INVALID", domain=domain)
    yield Case(
        name="with an unknown API key",
        expected=unknown_key if access.allow_api_key else missing,
        metadata=(("x-api-key", "wk_unknown"),),
    )
    yield Case(
        name="with a certificate's header and no token",
        expected=missing,
        metadata=(("x-forwarded-client-cert", "URI=spiffe://wayfare/booking"),),
    )


def _mesh_cases(method: Method) -> Iterator[Case]:
    listed = set(method.policy.access.internal.services)
    for service in MESH_SERVICES:
        expected = OPEN if service in listed else NOT_FOR_SERVICE
        yield Case(name=f"in the mesh by {service}", expected=expected, certificate=service)
    no_handshake = Refusal(code="UNAVAILABLE")
    yield Case(name="in the mesh without a certificate", expected=no_handshake, certificate="")


@pytest.mark.parametrize("method", methods(), ids=lambda method: method.descriptor.name)
async def test_a_method_is_open_to_whom_its_policy_names_and_shut_to_everybody_else(
    edge: Edge, method: Method
) -> None:
    wrong: list[str] = []
    async with AsyncExitStack() as closing:
        channels: dict[str | None, grpc.aio.Channel] = {}
        for case in cases_of(method, edge.mint):
            if case.certificate not in channels:
                channel = _channel(edge, case.certificate)
                channels[case.certificate] = await closing.enter_async_context(channel)
            got = await _call(channels[case.certificate], method, case.metadata)
            if _seen(got, case.expected) != case.expected:
                wrong.append(f"{case.name}: {got}, expected {case.expected}")

    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "method", [m for m in methods() if m.has_http], ids=lambda method: method.descriptor.name
)
async def test_a_method_is_as_shut_over_json_when_the_caller_has_no_good_token(
    edge: Edge, method: Method
) -> None:
    access = method.policy.access
    verb, path = _http_binding(method)
    transport = httpx.AsyncHTTPTransport(local_address=own_address())
    async with httpx.AsyncClient(base_url=edge.url, transport=transport) as client:
        answers = [
            await client.request(verb, path, headers=headers, json={} if verb != "GET" else None)
            for headers in (
                {},
                {"authorization": f"Bearer {edge.mint.token('ADMIN', exp=1_700_000_000)}"},
                {"authorization": f"Bearer {edge.mint.forged_token('ADMIN')}"},
            )
        ]

    reasons = [_reason_in(answer) for answer in answers]
    statuses = [answer.status_code for answer in answers]
    if access.public:
        assert not {401, 403} & set(statuses), reasons
    elif access.HasField("user"):
        assert statuses == [401] * 3
        assert reasons == ["CREDENTIALS_MISSING", "TOKEN_EXPIRED", "TOKEN_INVALID"]
    else:
        assert statuses == [403] * 3
        assert reasons == ["SERVICE_NOT_ALLOWED"] * 3


async def test_a_certificate_of_another_authority_opens_nothing(edge: Edge, tmp_path: Path) -> None:
    write_certificates(tmp_path, ["booking"])
    (tmp_path / "ca.pem").write_bytes((edge.stack.certificates / "ca.pem").read_bytes())
    async with edge.mesh_channel("booking", folder=tmp_path) as channel:
        path = "/wayfare.location.v1.LocationService/StartTracking"
        refused = await end_of_raw_call(channel, path, b"")

    assert refused == Refusal(code="UNAVAILABLE")


def test_the_contract_has_methods_of_every_kind_of_access() -> None:
    policies = [method.policy.access for method in methods()]

    assert any(access.public for access in policies)
    assert any(access.HasField("user") for access in policies)
    assert sum(1 for method in methods() if method.internal_only) >= 3


def _channel(edge: Edge, certificate: str | None) -> grpc.aio.Channel:
    return edge.channel() if certificate is None else edge.mesh_channel(certificate or None)


async def _call(channel: grpc.aio.Channel, method: Method, metadata: Metadata) -> Refusal:
    """Call with an empty message, and nothing at all where the caller streams."""
    return await end_of_raw_call(
        channel,
        f"/{method.service}/{method.descriptor.name}",
        None if method.descriptor.client_streaming else b"",
        metadata=metadata,
        streams_answers=method.descriptor.server_streaming,
    )


def _seen(got: Refusal, expected: Refusal) -> Refusal:
    """Take any end that is not the door's own for an open door."""
    passed = got.code not in _SHUT or got.reason in _OF_THE_METHOD
    return OPEN if expected == OPEN and passed and got.code != "UNAVAILABLE" else got


def _http_binding(method: Method) -> tuple[str, str]:
    rule = method.descriptor.options.Extensions[annotations_pb2.http]
    verb = str(rule.WhichOneof("pattern"))
    return verb.upper(), re.sub(r"\{[^}]*\}", str(uuid.uuid4()), getattr(rule, verb))


def _reason_in(answer: httpx.Response) -> str:
    if answer.is_success:
        return ""
    details = answer.json().get("details", [])
    return next((str(detail["reason"]) for detail in details if "reason" in detail), "")
