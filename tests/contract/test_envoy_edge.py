"""What callers from outside get from a real Envoy, over gRPC, gRPC-Web and JSON."""

import json
from collections.abc import Callable
from typing import Any

import grpc
import httpx
import jwt
import pytest

from tests.support.edge_callers import Answer, call_grpc, call_grpc_web, call_json, unary
from tests.support.envoy_fixtures import BROWSER_ORIGIN, EnvoyMesh, TokenSigner
from wayfare_envoy.policies import read_methods

GET_ME = "/wayfare.identity.v1.IdentityService/GetMe"
VERIFY_API_KEY = "/wayfare.identity.v1.IdentityService/VerifyApiKey"
GET_VEHICLE = "/wayfare.location.v1.LocationService/GetVehiclePosition"
FOLLOW_JSON = "/v1/trips/0198c000-0000-7000-8000-000000000001:follow"

Credentials = Callable[[TokenSigner], dict[str, str]]


def _bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def _unsigned(signer: TokenSigner) -> str:
    return jwt.encode(signer.claims(), "", algorithm="none")


def _symmetric(signer: TokenSigner) -> str:
    # Signed with the public key as if it were a shared secret.
    secret = signer.jwk()["x"].encode()
    return jwt.encode(signer.claims(), secret, algorithm="HS256", headers={"kid": "test"})


REFUSED: dict[str, tuple[Credentials, str]] = {
    "none": (lambda _: {}, "CREDENTIALS_MISSING"),
    "of another kind": (lambda _: {"authorization": "Basic YTpi"}, "CREDENTIALS_MISSING"),
    "expired": (lambda signer: _bearer(signer.sign(seconds=-60)), "TOKEN_EXPIRED"),
    "garbage": (lambda _: _bearer("not.a.token"), "TOKEN_INVALID"),
    "signed by a stranger": (lambda _: _bearer(TokenSigner().sign()), "TOKEN_INVALID"),
    "by an unknown key": (lambda _: _bearer(TokenSigner("other").sign()), "TOKEN_INVALID"),
    "with alg none": (lambda signer: _bearer(_unsigned(signer)), "TOKEN_INVALID"),
    "with a symmetric alg": (lambda signer: _bearer(_symmetric(signer)), "TOKEN_INVALID"),
    "for another audience": (lambda signer: _bearer(signer.sign(aud="other")), "TOKEN_INVALID"),
    "of another issuer": (lambda signer: _bearer(signer.sign(iss="other")), "TOKEN_INVALID"),
    "without an end": (lambda signer: _bearer(signer.sign(exp=None)), "TOKEN_INVALID"),
}
with_bad_credentials = pytest.mark.parametrize(
    ("credentials", "reason"), REFUSED.values(), ids=REFUSED.keys()
)


@with_bad_credentials
async def test_bad_credentials_are_refused_over_grpc(
    envoy_mesh: EnvoyMesh, credentials: Credentials, reason: str
) -> None:
    answer = await call_grpc(envoy_mesh, GET_ME, headers=credentials(envoy_mesh.signer))

    assert answer == Answer(code="UNAUTHENTICATED", reason=reason, domain="edge.wayfare")


@with_bad_credentials
async def test_bad_credentials_are_refused_over_grpc_web(
    envoy_mesh: EnvoyMesh, credentials: Credentials, reason: str
) -> None:
    answer = await call_grpc_web(envoy_mesh, GET_ME, headers=credentials(envoy_mesh.signer))

    assert answer == Answer(code="UNAUTHENTICATED", reason=reason, domain="edge.wayfare")


@with_bad_credentials
async def test_bad_credentials_are_refused_over_json(
    envoy_mesh: EnvoyMesh, credentials: Credentials, reason: str
) -> None:
    headers = credentials(envoy_mesh.signer)
    answer = await call_json(envoy_mesh, "GET", "/v1/me", headers=headers)

    expected = Answer(code="UNAUTHENTICATED", reason=reason, domain="edge.wayfare", http_status=401)
    assert answer == expected


async def test_a_good_token_passes_over_every_protocol(envoy_mesh: EnvoyMesh) -> None:
    headers = _bearer(envoy_mesh.signer.sign())

    over_grpc = await call_grpc(envoy_mesh, GET_ME, headers=headers)
    over_web = await call_grpc_web(envoy_mesh, GET_ME, headers=headers)
    over_json = await call_json(envoy_mesh, "GET", "/v1/me", headers=headers)

    assert [over_grpc.code, over_web.code, over_json.code] == ["OK", "OK", "OK"]
    assert over_grpc.saw["authorization"] == headers["authorization"]
    assert over_json.saw["authorization"] == headers["authorization"]


async def test_a_token_in_the_query_is_no_token(envoy_mesh: EnvoyMesh) -> None:
    path = f"/v1/me?access_token={envoy_mesh.signer.sign()}"
    answer = await call_json(envoy_mesh, "GET", path, headers={})

    assert answer.code != "OK"


async def test_a_public_method_needs_no_token(envoy_mesh: EnvoyMesh) -> None:
    answer = await call_json(
        envoy_mesh, "POST", "/v1/phones:check", headers={}, body=json.dumps({"phone": "+4415"})
    )

    assert answer.code == "OK"


async def test_a_key_replaces_the_token_only_where_the_policy_says_so(
    envoy_mesh: EnvoyMesh,
) -> None:
    key = {"x-api-key": "wk_test"}

    allowed = await call_grpc(envoy_mesh, GET_VEHICLE, headers=key)
    refused = await call_grpc(envoy_mesh, GET_ME, headers=key)
    with_bad_token = await call_grpc(envoy_mesh, GET_VEHICLE, headers={**key, **_bearer("x.y.z")})

    assert allowed.saw["x-api-key"] == "wk_test"
    assert refused.reason == "CREDENTIALS_MISSING"
    assert with_bad_token.reason == "TOKEN_INVALID"


async def test_every_internal_method_is_refused_at_the_edge(envoy_mesh: EnvoyMesh) -> None:
    headers = _bearer(envoy_mesh.signer.sign(role="ADMIN"))
    internal = [
        method for method in read_methods(envoy_mesh.topology.descriptor_set) if not method.at_edge
    ]

    assert internal
    for method in internal:
        answer = await call_grpc(envoy_mesh, method.path, headers=headers)
        assert answer == Answer(
            code="PERMISSION_DENIED", reason="SERVICE_NOT_ALLOWED", domain="edge.wayfare"
        ), method.path


async def test_an_internal_method_is_refused_over_grpc_web_and_json_too(
    envoy_mesh: EnvoyMesh,
) -> None:
    over_web = await call_grpc_web(envoy_mesh, VERIFY_API_KEY, headers={})
    over_json = await call_json(
        envoy_mesh, "POST", "/v1/apiKeys:verify", headers={}, body='{"key":"k"}'
    )

    assert (over_web.code, over_web.reason) == ("PERMISSION_DENIED", "SERVICE_NOT_ALLOWED")
    assert (over_json.http_status, over_json.reason) == (403, "SERVICE_NOT_ALLOWED")


@pytest.mark.parametrize(
    "path", ["/wayfare.identity.v1.IdentityService/Nothing", "/other.Service/Method", "/"]
)
async def test_an_unknown_method_is_unimplemented(envoy_mesh: EnvoyMesh, path: str) -> None:
    over_grpc = await call_grpc(envoy_mesh, path, headers={})
    over_json = await call_json(envoy_mesh, "GET", path, headers={})

    assert over_grpc == Answer(code="UNIMPLEMENTED", reason="METHOD_UNKNOWN", domain="edge.wayfare")
    assert (over_json.http_status, over_json.reason) == (404, "METHOD_UNKNOWN")


async def test_what_a_caller_says_about_itself_is_not_believed(envoy_mesh: EnvoyMesh) -> None:
    spoofed = {
        "x-forwarded-client-cert": "URI=spiffe://wayfare/booking",
        "x-wayfare-caller": "booking",
        "x-wayfare-instance": "location-2",
        "x-forwarded-for": "203.0.113.7",
        "x-request-id": "chosen-by-caller",
        "x-envoy-original-path": "/elsewhere",
        **_bearer(envoy_mesh.signer.sign()),
    }
    answer = await call_grpc(envoy_mesh, GET_ME, headers=spoofed)

    assert answer.code == "OK"
    assert "x-forwarded-client-cert" not in answer.saw
    assert not [name for name in answer.saw if name.startswith("x-wayfare-")]
    assert answer.saw["x-forwarded-for"] == "127.0.0.1"
    assert answer.saw["x-request-id"] != "chosen-by-caller"


async def test_the_address_of_a_caller_is_the_one_it_connects_from(envoy_mesh: EnvoyMesh) -> None:
    transport = httpx.AsyncHTTPTransport(local_address="127.0.3.9")
    async with httpx.AsyncClient(transport=transport, trust_env=False) as client:
        answer = await client.get(
            envoy_mesh.url + "/v1/me", headers=_bearer(envoy_mesh.signer.sign())
        )

    assert json.loads(answer.headers["x-stub-saw"])["x-forwarded-for"] == "127.0.3.9"


async def test_every_answer_carries_its_request_id(envoy_mesh: EnvoyMesh) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        good = await client.get(
            envoy_mesh.url + "/v1/me", headers=_bearer(envoy_mesh.signer.sign())
        )
        bad = await client.get(envoy_mesh.url + "/v1/me")

    seen = json.loads(good.headers["x-stub-saw"])["x-request-id"]
    assert good.headers["x-request-id"] == seen
    assert bad.headers["x-request-id"] != seen


async def test_json_follows_a_stream_line_by_line(envoy_mesh: EnvoyMesh) -> None:
    headers = _bearer(envoy_mesh.signer.sign())
    async with (
        httpx.AsyncClient(trust_env=False) as client,
        client.stream("GET", envoy_mesh.url + FOLLOW_JSON, headers=headers) as answer,
    ):
        updates = [json.loads(line) async for line in answer.aiter_lines() if line]

    assert [update["resumeToken"] for update in updates] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("code", "http_status"),
    [
        ("NOT_FOUND", 404),
        ("PERMISSION_DENIED", 403),
        ("FAILED_PRECONDITION", 400),
        ("RESOURCE_EXHAUSTED", 429),
        ("ABORTED", 409),
        ("INTERNAL", 500),
    ],
)
async def test_a_service_s_refusal_reaches_json_with_its_details(
    envoy_mesh: EnvoyMesh, code: str, http_status: int
) -> None:
    headers = {**_bearer(envoy_mesh.signer.sign()), "x-stub-fail": code}
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(envoy_mesh.url + "/v1/me", headers=headers)

    status: dict[str, Any] = answer.json()
    details = {detail.pop("@type").rpartition(".")[2]: detail for detail in status["details"]}
    assert answer.status_code == http_status
    assert details["ErrorInfo"]["reason"] == "STUB_FAILED"
    assert details["ErrorInfo"]["metadata"] == {"code": code}
    assert details["BadRequest"]["fieldViolations"][0]["field"] == "trip_id"


@pytest.mark.parametrize("body", ['{"phone', '{"phone": {"a": 1}}', "[]", "\x00"])
async def test_json_that_is_no_request_is_malformed(envoy_mesh: EnvoyMesh, body: str) -> None:
    answer = await call_json(envoy_mesh, "POST", "/v1/phones:check", headers={}, body=body)

    expected = Answer(
        code="INVALID_ARGUMENT",
        reason="MESSAGE_MALFORMED",
        domain="edge.wayfare",
        http_status=400,
    )
    assert answer == expected


async def test_an_unknown_query_parameter_is_malformed(envoy_mesh: EnvoyMesh) -> None:
    headers = _bearer(envoy_mesh.signer.sign())
    answer = await call_json(envoy_mesh, "GET", "/v1/users?pageSise=3", headers=headers)

    assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", "MESSAGE_MALFORMED")


async def test_json_over_a_mebibyte_is_too_large(envoy_mesh: EnvoyMesh) -> None:
    body = json.dumps({"phone": "1" * 2_000_000})
    answer = await call_json(envoy_mesh, "POST", "/v1/phones:check", headers={}, body=body)

    expected = Answer(
        code="RESOURCE_EXHAUSTED",
        reason="MESSAGE_TOO_LARGE",
        domain="edge.wayfare",
        http_status=413,
    )
    assert answer == expected


async def test_a_grpc_request_over_the_limit_is_too_large(envoy_mesh: EnvoyMesh) -> None:
    headers = _bearer(envoy_mesh.signer.sign())
    async with envoy_mesh.edge_channel() as channel:
        call = unary(channel, GET_ME)(
            b"\x0a" * 2_000_000, metadata=tuple(headers.items()), timeout=10
        )
        assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_json_of_half_a_mebibyte_arrives(envoy_mesh: EnvoyMesh) -> None:
    body = json.dumps({"phone": "1" * 500_000})
    answer = await call_json(envoy_mesh, "POST", "/v1/phones:check", headers={}, body=body)

    assert answer.code == "OK"


async def test_headers_over_the_limit_are_too_large(envoy_mesh: EnvoyMesh) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(envoy_mesh.url + "/v1/me", headers={"x-long": "a" * 20_000})

    assert answer.status_code in {413, 431}


async def test_a_browser_may_ask_from_the_allowed_origin_only(envoy_mesh: EnvoyMesh) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        for path, verb in ((GET_ME, "POST"), ("/v1/me", "GET")):
            ours, theirs = [
                await client.options(
                    envoy_mesh.url + path,
                    headers={"origin": origin, "access-control-request-method": verb},
                )
                for origin in (BROWSER_ORIGIN, "https://evil.example")
            ]
            assert ours.status_code == 200
            assert ours.headers["access-control-allow-origin"] == BROWSER_ORIGIN
            assert "x-grpc-web" in ours.headers["access-control-allow-headers"]
            assert "access-control-allow-origin" not in theirs.headers


async def test_a_browser_may_read_refusals_and_their_details(envoy_mesh: EnvoyMesh) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        refused = await client.get(envoy_mesh.url + "/v1/me", headers={"origin": BROWSER_ORIGIN})

    assert refused.headers["access-control-allow-origin"] == BROWSER_ORIGIN
    assert "grpc-status-details-bin" in refused.headers["access-control-expose-headers"]


async def test_the_edge_says_that_it_is_well(envoy_mesh: EnvoyMesh) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(envoy_mesh.url + "/healthz")

    assert answer.status_code == 200


async def test_metrics_are_served_and_the_rest_of_the_admin_page_is_not(
    envoy_mesh: EnvoyMesh,
) -> None:
    base = f"http://{envoy_mesh.topology.metrics_address}"
    async with httpx.AsyncClient(trust_env=False) as client:
        metrics = await client.get(f"{base}/metrics")
        shutdown = await client.post(f"{base}/quitquitquit")

    assert "envoy_cluster_upstream_rq_active" in metrics.text
    assert shutdown.status_code == 404


async def test_grpc_health_is_reachable_at_the_edge(envoy_mesh: EnvoyMesh) -> None:
    async with envoy_mesh.edge_channel() as channel:
        answer = await unary(channel, "/grpc.health.v1.Health/Check")(b"", timeout=5)

    assert answer == b"\x08\x01"


async def test_a_caller_s_deadline_is_honoured(envoy_mesh: EnvoyMesh) -> None:
    headers = {**_bearer(envoy_mesh.signer.sign()), "x-stub-wait": "1"}
    async with envoy_mesh.edge_channel() as channel:
        call = unary(channel, GET_ME)(b"", metadata=tuple(headers.items()), timeout=0.3)
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
