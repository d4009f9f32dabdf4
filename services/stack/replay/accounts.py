"""Simulated people: they sign up, log in and are approved as anybody is, as JSON at the edge.

Every one of them calls from a loopback address of its own, so that the limits per IP address stay
on.
"""

import asyncio
import random
import secrets
import uuid
from dataclasses import dataclass

import httpx
from google.protobuf import json_format

from services.stack.errors import StackError
from wayfare.identity.v1 import session_pb2

_ATTEMPTS_MAX = 8
_RETRIED_REASONS = ("OVERLOADED", "RATE_LIMITED", "DEPENDENCY_UNAVAILABLE")
# Numbers that the regulator keeps for fiction, so that no simulated person has a real one.
_FICTIONAL_PREFIXES = (
    *("+44113496", "+44114496", "+44116496", "+44117496", "+44118496", "+44121496"),
    *("+44131496", "+44141496", "+44161496", "+44191498", "+44207946"),
)


class EdgeRefusalError(StackError):
    """Says that the edge refused a call, with the reason of its ErrorInfo."""

    def __init__(self, message: str, *, reason: str) -> None:
        """Keep the reason beside the words."""
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A simulated person: a phone number, a password, and the address to call from."""

    phone: str
    password: str
    ip_address: str


class AccountsAtEdge:
    """Calls IdentityService as JSON through the edge."""

    def __init__(self, edge_address: str, *, tenant_id: str) -> None:
        """Name the edge, and the operator whose accounts they are."""
        self._edge_address = edge_address
        self.tenant_id = tenant_id

    async def sign_up(self, person: Person, *, role: str, display_name: str) -> session_pb2.Session:
        """Make an account for a person and log in with it."""
        body = {
            "tenant_id": self.tenant_id,
            "phone": person.phone,
            "password": person.password,
            "display_name": display_name,
            "role": f"ROLE_{role}",
            "request_id": str(uuid.uuid4()),
        }
        return _session(await self._post("/v1/users:signUp", body, ip_address=person.ip_address))

    async def log_in(
        self, phone: str, password: str, *, ip_address: str | None = None
    ) -> session_pb2.Session:
        """Open a session for an account."""
        body = {"tenant_id": self.tenant_id, "phone": phone, "password": password}
        return _session(await self._post("/v1/sessions:logIn", body, ip_address=ip_address))

    async def refresh(
        self, session: session_pb2.Session, *, ip_address: str | None = None
    ) -> session_pb2.Session:
        """Replace the tokens of a session; the new ones know of an approval."""
        body = {"refresh_token": session.refresh_token, "request_id": str(uuid.uuid4())}
        return _session(await self._post("/v1/sessions:refresh", body, ip_address=ip_address))

    async def approve_driver(self, admin: session_pb2.Session, user_id: str) -> None:
        """Let a driver begin to drive."""
        await self._post(f"/v1/users/{user_id}:approveDriver", {}, access_token=admin.access_token)

    async def _post(
        self,
        path: str,
        body: dict[str, str],
        *,
        ip_address: str | None = None,
        access_token: str = "",
    ) -> bytes:
        headers = {"authorization": f"Bearer {access_token}"} if access_token else {}
        transport = httpx.AsyncHTTPTransport(local_address=ip_address)
        url = f"http://{self._edge_address}{path}"
        async with httpx.AsyncClient(transport=transport, timeout=20.0) as client:
            for attempt in range(1, _ATTEMPTS_MAX + 1):
                try:
                    response = await client.post(url, json=body, headers=headers)
                except httpx.TransportError as error:
                    raise StackError(
                        f"The edge at {self._edge_address} is away: {error}"
                    ) from error
                if response.status_code == httpx.codes.OK:
                    return response.content
                refusal = _refusal(path, response)
                if refusal.reason not in _RETRIED_REASONS or attempt == _ATTEMPTS_MAX:
                    raise refusal
                await asyncio.sleep(random.uniform(0.2, 0.5) * attempt)  # noqa: S311 only jitter
        raise AssertionError("the loop returns or raises")


def make_person(number: int) -> Person:
    """Make up a person with a random fictional phone; `number` decides the loopback address."""
    prefix = secrets.choice(_FICTIONAL_PREFIXES)
    return Person(
        phone=f"{prefix}{secrets.randbelow(1000):04d}",
        password=secrets.token_urlsafe(18),
        ip_address=f"127.1.{number // 250}.{number % 250 + 1}",
    )


def _session(content: bytes) -> session_pb2.Session:
    return json_format.Parse(content, session_pb2.Session(), ignore_unknown_fields=True)


def _refusal(path: str, response: httpx.Response) -> EdgeRefusalError:
    try:
        document = response.json()
        details = document.get("details", [])
        message = str(document.get("message", ""))
        reason = next((str(item["reason"]) for item in details if "reason" in item), "")
    except (ValueError, AttributeError):
        message, reason = response.text[:200], ""
    return EdgeRefusalError(
        f"{path} was refused with {response.status_code} {reason}: {message}", reason=reason
    )
