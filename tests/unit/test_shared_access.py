"""Who calls and what they may: tokens, certificates, the policy of the contract."""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.empty_pb2 import Empty

from services.shared.errors import DomainError
from services.shared.rpc.authentication import (
    Authenticator,
    CredentialsMissingError,
    JwksFile,
    TokenExpiredError,
    TokenInvalidError,
    TokenVerifier,
)
from services.shared.rpc.authorization import (
    AccountPendingError,
    RoleNotAllowedError,
    ServiceNotAllowedError,
    authorize,
)
from services.shared.rpc.caller import Caller, CallerKind
from services.shared.rpc.policy import (
    Idempotency,
    LimitSubject,
    MethodRule,
    PolicyMissingError,
    load_rules,
)
from tests.support.location_process import GOOD_API_KEY, OneApiKey
from tests.support.location_tokens import KEY_ID, TokenMint
from tests.support.location_values import TENANT, SettableClock, new_id
from wayfare.location.v1 import location_service_pb2
from wayfare.policy.v1 import policy_pb2

SERVICE = location_service_pb2.DESCRIPTOR.services_by_name["LocationService"]


@dataclass
class Gate:
    """An authenticator with a clock that stands still, and a mint whose key it knows."""

    mint: TokenMint
    clock: SettableClock
    jwks: Path
    authenticator: Authenticator

    async def caller(self, **metadata: str) -> Caller:
        named = {name.replace("_", "-"): value for name, value in metadata.items()}
        return await self.authenticator.authenticate(named)

    async def bearer(self, token: str) -> Caller:
        return await self.caller(authorization=f"Bearer {token}")


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    mint, clock, jwks = TokenMint(), SettableClock(), tmp_path / "jwks.json"
    mint.write_jwks(jwks)
    authenticator = Authenticator(TokenVerifier(JwksFile(jwks, clock), clock), OneApiKey())
    return Gate(mint, clock, jwks, authenticator)


def fresh(gate: Gate, **values: Any) -> str:
    """Return a token of the standing clock's time."""
    claims = {"exp": gate.clock.now().timestamp() + 900, **values}
    return gate.mint.token("DRIVER", **claims)


async def test_a_good_token_tells_who_calls(gate: Gate) -> None:
    user_id = new_id()
    caller = await gate.bearer(fresh(gate, user_id=user_id, status="PENDING"))

    assert (caller.kind, caller.user_id, caller.tenant_id, caller.role) == (
        CallerKind.USER,
        user_id,
        TENANT,
        "DRIVER",
    )
    assert caller.pending


async def test_who_brings_nothing_is_anonymous(gate: Gate) -> None:
    assert (await gate.caller()).kind is CallerKind.ANONYMOUS


async def test_the_address_is_the_last_that_envoy_wrote(gate: Gate) -> None:
    assert (await gate.caller(x_forwarded_for="6.6.6.6, 10.0.0.7")).ip_address == "10.0.0.7"


async def test_a_token_expires_even_after_it_was_verified(gate: Gate) -> None:
    token = fresh(gate)
    await gate.bearer(token)
    gate.clock.pass_time(900)

    with pytest.raises(TokenExpiredError):
        await gate.bearer(token)


def unsigned(token: str) -> str:
    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'none', 'kid': KEY_ID})}.{token.split('.')[1]}."


BAD_TOKENS: dict[str, Callable[[Gate], str]] = {
    "another key": lambda gate: fresh(Gate(TokenMint(), gate.clock, gate.jwks, gate.authenticator)),
    "an unknown key id": lambda gate: fresh(gate, key_id="other"),
    "wrong audience": lambda gate: fresh(gate, aud="elsewhere"),
    "wrong issuer": lambda gate: fresh(gate, iss="somebody"),
    "no audience": lambda gate: fresh(gate, aud=None),
    "no subject": lambda gate: fresh(gate, sub=None),
    "no expiry": lambda gate: fresh(gate, exp=None),
    "unknown role": lambda gate: gate.mint.token("CAPTAIN", exp=gate.clock.now().timestamp() + 9),
    "no tenant": lambda gate: fresh(gate, tenant_id=""),
    "alg none": lambda gate: unsigned(fresh(gate)),
    "a changed signature": lambda gate: fresh(gate)[:-6] + "AAAAAA",
    "no token at all": lambda _: "garbage",
}


@pytest.mark.parametrize("name", BAD_TOKENS)
async def test_a_token_that_is_not_ours_is_refused(gate: Gate, name: str) -> None:
    with pytest.raises(TokenInvalidError):
        await gate.bearer(BAD_TOKENS[name](gate))


@pytest.mark.parametrize("value", ["Basic dXNlcjpwYXNz", "Bearer", "Bearer ", "token"])
async def test_only_bearer_tokens_are_taken(gate: Gate, value: str) -> None:
    with pytest.raises(TokenInvalidError):
        await gate.caller(authorization=value)


async def test_a_new_key_is_found_in_the_file_after_a_while(gate: Gate) -> None:
    await gate.bearer(fresh(gate))
    newer = TokenMint()
    newer.write_jwks(gate.jwks, "new")
    token = newer.token("ADMIN", key_id="new", exp=gate.clock.now().timestamp() + 900)
    with pytest.raises(TokenInvalidError):
        await gate.bearer(token)
    gate.clock.pass_time(6)

    assert (await gate.bearer(token)).role == "ADMIN"


@pytest.mark.parametrize(
    ("header", "service"),
    [
        ("By=spiffe://wayfare/envoy;Hash=ab;URI=spiffe://wayfare/booking", "booking"),
        ("URI=spiffe://wayfare/matching;By=x", "matching"),
        ("URI=spiffe://elsewhere/booking", ""),
        ("URI=spiffe://wayfare/booking/evil", ""),
        ("Subject=URI=spiffe://wayfare/booking", ""),
        ("By=spiffe://wayfare/booking", ""),
    ],
)
async def test_a_service_is_named_by_its_certificates_uri(
    gate: Gate, header: str, service: str
) -> None:
    caller = await gate.caller(x_forwarded_client_cert=header)

    assert (caller.kind, caller.service) == (CallerKind.SERVICE, service)


async def test_an_api_key_speaks_for_its_tenant(gate: Gate) -> None:
    caller = await gate.caller(x_api_key=GOOD_API_KEY)

    assert (caller.kind, caller.tenant_id, caller.role) == (
        CallerKind.API_KEY,
        TENANT,
        "BUSINESS",
    )
    with pytest.raises(TokenInvalidError):
        await gate.caller(x_api_key="wrong")


def a_rule(**values: Any) -> MethodRule:
    fields: dict[str, Any] = {
        "path": "/p/M",
        "public": False,
        "roles": frozenset({"DRIVER", "BUSINESS"}),
        "allow_pending": False,
        "allow_api_key": False,
        "internal_services": frozenset(),
        "rate_limits": (),
        "max_seconds": 1.0,
        "idempotency": Idempotency.READ,
        "request_class": Empty,
        **values,
    }
    return MethodRule(**fields)


PUBLIC = a_rule(public=True, roles=frozenset())
FOR_ROLES = a_rule()
FOR_PENDING = a_rule(allow_pending=True)
FOR_KEYS = a_rule(allow_api_key=True)
FOR_BOOKING = a_rule(roles=frozenset(), internal_services=frozenset({"booking"}))
FOR_BOTH = a_rule(internal_services=frozenset({"booking"}))

ANYBODY = Caller()
DRIVER = Caller(kind=CallerKind.USER, user_id="u", role="DRIVER")
PENDING = Caller(kind=CallerKind.USER, user_id="u", role="DRIVER", pending=True)
PASSENGER = Caller(kind=CallerKind.USER, user_id="u", role="PASSENGER")
API_KEY = Caller(kind=CallerKind.API_KEY, api_key_id="k", role="BUSINESS")
BOOKING = Caller(kind=CallerKind.SERVICE, service="booking")
NAMELESS = Caller(kind=CallerKind.SERVICE, service="")

TABLE: list[tuple[MethodRule, Caller, type[DomainError] | None]] = [
    (PUBLIC, ANYBODY, None),
    (PUBLIC, PENDING, None),
    (PUBLIC, NAMELESS, None),
    (FOR_ROLES, ANYBODY, CredentialsMissingError),
    (FOR_ROLES, DRIVER, None),
    (FOR_ROLES, PENDING, AccountPendingError),
    (FOR_ROLES, PASSENGER, RoleNotAllowedError),
    (FOR_ROLES, API_KEY, RoleNotAllowedError),
    (FOR_ROLES, BOOKING, ServiceNotAllowedError),
    (FOR_PENDING, PENDING, None),
    (FOR_KEYS, API_KEY, None),
    (FOR_BOOKING, BOOKING, None),
    (FOR_BOOKING, NAMELESS, ServiceNotAllowedError),
    (FOR_BOOKING, ANYBODY, ServiceNotAllowedError),
    (FOR_BOOKING, DRIVER, ServiceNotAllowedError),
    (FOR_BOTH, BOOKING, None),
    (FOR_BOTH, DRIVER, None),
    (FOR_BOTH, PASSENGER, RoleNotAllowedError),
]


@pytest.mark.parametrize(("rule", "caller", "error"), TABLE)
def test_a_caller_may_what_the_policy_says(
    rule: MethodRule, caller: Caller, error: type[DomainError] | None
) -> None:
    if error is None:
        authorize(caller, rule)
        return
    with pytest.raises(error):
        authorize(caller, rule)


def test_the_rules_of_a_service_are_those_of_its_contract() -> None:
    rules = load_rules(SERVICE)
    stream = rules["/wayfare.location.v1.LocationService/StreamDriver"]
    track = rules["/wayfare.location.v1.LocationService/StartTracking"]

    assert len(rules) == len(SERVICE.methods)
    assert stream.roles == {"DRIVER"}
    assert stream.max_seconds is None
    (limit,) = stream.rate_limits
    assert (limit.max_requests, limit.window_seconds, limit.subject) == (60, 60, LimitSubject.USER)
    assert track.internal_only
    assert track.internal_services == {"booking", "matching"}
    assert track.max_seconds == 5.0


@pytest.mark.parametrize(
    "policy",
    [
        None,
        policy_pb2.MethodPolicy(),
        policy_pb2.MethodPolicy(idempotency=policy_pb2.IDEMPOTENCY_READ),
    ],
)
def test_a_method_without_a_policy_stops_the_start(policy: policy_pb2.MethodPolicy | None) -> None:
    file = descriptor_pb2.FileDescriptorProto(name="x.proto", package="x", syntax="proto3")
    file.message_type.add(name="M")
    method = file.service.add(name="S").method.add(name="Do", input_type=".x.M", output_type=".x.M")
    if policy is not None:
        method.options.Extensions[policy_pb2.method].CopyFrom(policy)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)

    with pytest.raises(PolicyMissingError, match=r"x\.S\.Do"):
        load_rules(pool.FindServiceByName("x.S"))
