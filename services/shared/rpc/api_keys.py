"""Asks IdentityService over the mesh what API keys may do. Used by every service but itself."""

from collections import OrderedDict
from dataclasses import dataclass

import grpc

from services.shared.clock import Clock
from services.shared.errors import DependencyUnavailableError
from services.shared.rpc.authentication import ApiKeyGrant, TokenInvalidError
from wayfare.identity.v1 import identity_service_pb2, identity_service_pb2_grpc

_KEYS_MAX = 1_000
_REFUSED_SECONDS = 5.0


@dataclass(slots=True)
class _Kept:
    grant: ApiKeyGrant | None
    until: float
    use_count: int = 0


class IdentityApiKeyVerifier:
    """Asks IdentityService what an API key may do, and keeps the answer for as long as it says."""

    def __init__(self, channel: grpc.aio.Channel, clock: Clock) -> None:
        """Ask over the mesh `channel`; keep at most 1,000 answers."""
        self._stub = identity_service_pb2_grpc.IdentityServiceStub(channel)
        self._clock = clock
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    async def verify(self, api_key: str) -> ApiKeyGrant:
        """Return what `api_key` may do. Raises TokenInvalidError, DependencyUnavailableError."""
        kept = self._kept.get(api_key)
        if kept is None or kept.until <= self._clock.monotonic():
            kept = await self._ask(api_key, use_count=1 if kept is None else kept.use_count + 1)
            self._kept[api_key] = kept
            if len(self._kept) > _KEYS_MAX:
                self._kept.popitem(last=False)
        else:
            kept.use_count += 1
        if kept.grant is None:
            raise TokenInvalidError("the API key is unknown or revoked")
        return kept.grant

    async def _ask(self, api_key: str, *, use_count: int) -> _Kept:
        request = identity_service_pb2.VerifyApiKeyRequest(key=api_key, use_count=use_count)
        try:
            answer = await self._stub.VerifyApiKey(request)
        except grpc.aio.AioRpcError as error:
            if error.code() in {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.INVALID_ARGUMENT}:
                return _Kept(None, self._clock.monotonic() + _REFUSED_SECONDS)
            raise DependencyUnavailableError("identity") from error
        grant = ApiKeyGrant(
            key_id=answer.key_id,
            tenant_id=answer.tenant_id,
            requests_per_minute=answer.requests_per_minute,
        )
        lasts = answer.cache_duration.ToTimedelta().total_seconds()
        return _Kept(grant, self._clock.monotonic() + lasts)
