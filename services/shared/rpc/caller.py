"""Says who calls. Set by the interceptor, read by servicers."""

from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class CallerKind(StrEnum):
    """Says how the caller proved who it is."""

    ANONYMOUS = "anonymous"
    USER = "user"
    API_KEY = "api_key"
    SERVICE = "service"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Is whoever makes the call. Fields that do not apply to its kind are empty."""

    kind: CallerKind = CallerKind.ANONYMOUS
    user_id: str = ""
    tenant_id: str = ""
    role: str = ""
    pending: bool = False
    session_id: str = ""
    service: str = ""
    api_key_id: str = ""
    api_key_requests_per_minute: int = 0
    ip_address: str = ""
    token_expire_time: datetime | None = None

    @property
    def name(self) -> str:
        """Return what logs may say of the caller: a kind and an id, nothing personal."""
        identity = self.user_id or self.service or self.api_key_id
        return f"{self.kind.value}:{identity}" if identity else self.kind.value


CALLER: ContextVar[Caller] = ContextVar("caller")
REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
DEADLINE_MONOTONIC: ContextVar[float | None] = ContextVar("deadline_monotonic", default=None)


def current_caller() -> Caller:
    """Return who makes the call that this code runs for. Raises LookupError outside a call."""
    return CALLER.get()
