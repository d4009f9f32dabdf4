"""Pays out through the operator's payout bridge, over HTTP. README.md has its protocol.

Also the provider of demonstrations, which pays nothing.
"""

import asyncio
import ipaddress
from types import TracebackType
from typing import Annotated, Self
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from services.ledger.domain.accounts import derived_id
from services.ledger.domain.withdrawals import Withdrawal
from services.ledger.withdrawal_ports import PayoutAnswer, PayoutStatus, PayoutUncertainError

_ANSWER_BYTES_MAX = 16_384
_CONNECTIONS_MAX = 16
_KNOWS = (httpx.codes.OK, httpx.codes.CREATED, httpx.codes.ACCEPTED)

_PayoutId = Annotated[str, StringConstraints(min_length=1, max_length=128)]


class _Answer(BaseModel):
    """Is a payout as the bridge tells of it. Fields that it has besides are not looked at."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    payout_id: _PayoutId
    idempotency_key: str
    status: str
    amount_minor: int
    currency_code: str
    reason: str = ""


class HttpPayoutProvider:
    """Speaks to a payout bridge. Use it as a context, which closes its connections."""

    def __init__(self, *, url: str, secret: str, timeout_seconds: float) -> None:
        """Call the bridge at `url` with `secret`, each call for so long at most.

        Raises ValueError for a URL that would send the secret over the network in the clear.
        """
        _check_url(url)
        self._timeout_seconds = timeout_seconds
        self._client = httpx.AsyncClient(
            base_url=url.rstrip("/"),
            headers={"authorization": f"Bearer {secret}"},
            timeout=timeout_seconds,
            limits=httpx.Limits(max_connections=_CONNECTIONS_MAX),
            follow_redirects=False,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        """Open nothing yet."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def create(self, withdrawal: Withdrawal) -> PayoutAnswer:
        """Ask to pay, with the withdrawal's id as the idempotency key."""
        body = {
            "idempotency_key": withdrawal.withdrawal_id,
            "tenant_id": withdrawal.tenant_id,
            "destination": withdrawal.payout_destination,
            "amount_minor": withdrawal.amount_minor,
            "currency_code": withdrawal.currency_code,
        }
        request = self._client.build_request(
            "POST", "/payouts", json=body, headers={"idempotency-key": withdrawal.withdrawal_id}
        )
        status, content = await self._send(request)
        if status not in _KNOWS:
            raise PayoutUncertainError(f"http_{status}")
        return _read(content, withdrawal)

    async def find(self, withdrawal: Withdrawal) -> PayoutAnswer | None:
        """Ask what became of a payout; None if the bridge does not know it."""
        request = self._client.build_request("GET", f"/payouts/{withdrawal.withdrawal_id}")
        status, content = await self._send(request)
        if status == httpx.codes.NOT_FOUND:
            # A wrong path or a proxy says this too: only the bridge's own word counts.
            _check_unknown(content, withdrawal)
            return None
        if status not in _KNOWS:
            raise PayoutUncertainError(f"http_{status}")
        return _read(content, withdrawal)

    async def _send(self, request: httpx.Request) -> tuple[int, bytes]:
        """Return status and body. Raises PayoutUncertainError when there is no whole answer."""
        content = bytearray()
        try:
            # httpx bounds each step, and not all of them together.
            async with asyncio.timeout(self._timeout_seconds):
                response = await self._client.send(request, stream=True)
                try:
                    async for part in response.aiter_bytes():
                        content += part
                        if len(content) > _ANSWER_BYTES_MAX:
                            raise PayoutUncertainError("answer_too_long")
                finally:
                    await response.aclose()
        except (TimeoutError, httpx.TimeoutException) as error:
            raise PayoutUncertainError("timeout") from error
        except (httpx.HTTPError, OSError) as error:
            raise PayoutUncertainError("unreachable") from error
        return response.status_code, bytes(content)


class DemoPayoutProvider:
    """Says of every payout that it is paid, and pays nothing. For demonstrations on a laptop.

    It keeps nothing: what it says follows from the withdrawal.
    """

    async def create(self, withdrawal: Withdrawal) -> PayoutAnswer:
        """Say that it is paid."""
        return _demo_answer(withdrawal)

    async def find(self, withdrawal: Withdrawal) -> PayoutAnswer | None:
        """Say that it is paid."""
        return _demo_answer(withdrawal)


def _demo_answer(withdrawal: Withdrawal) -> PayoutAnswer:
    payout_id = "demo-" + derived_id("DemoPayout", withdrawal.withdrawal_id)
    return PayoutAnswer(status=PayoutStatus.PAID, payout_id=payout_id)


def _read(content: bytes, withdrawal: Withdrawal) -> PayoutAnswer:
    """Return the answer. Raises PayoutUncertainError if it is not about this payout."""
    try:
        answer = _Answer.model_validate_json(content)
        status = PayoutStatus(answer.status)
    except (ValidationError, ValueError) as error:
        raise PayoutUncertainError("answer_malformed") from error
    told = (answer.idempotency_key, answer.amount_minor, answer.currency_code)
    if told != (withdrawal.withdrawal_id, withdrawal.amount_minor, withdrawal.currency_code):
        raise PayoutUncertainError("answer_differs")
    return PayoutAnswer(status=status, payout_id=answer.payout_id, reason=answer.reason)


class _Unknown(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    idempotency_key: str
    status: str


def _check_unknown(content: bytes, withdrawal: Withdrawal) -> None:
    try:
        answer = _Unknown.model_validate_json(content)
    except ValidationError as error:
        raise PayoutUncertainError("http_404") from error
    if answer.status != "UNKNOWN" or answer.idempotency_key != withdrawal.withdrawal_id:
        raise PayoutUncertainError("http_404")


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme == "http" and _is_loopback(parts.hostname or ""):
        return
    raise ValueError("the payout bridge needs an https URL; http only on this machine")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
