"""CreateApiKey, ListApiKeys, RevokeApiKey and VerifyApiKey."""

from dataclasses import dataclass
from datetime import datetime

from services.identity.domain import (
    API_KEY_REQUESTS_PER_MINUTE_DEFAULT,
    API_KEYS_MAX,
    Actor,
    ApiKey,
    ApiKeyId,
    ClaimedRequest,
    RequestId,
    coerced_page_size,
)
from services.identity.errors import (
    ApiKeyInvalidError,
    ApiKeyUnknownError,
    ExpireTimePassedError,
    TooManyApiKeysError,
)
from services.identity.operations.repeats import claim
from services.identity.paging import decode_page_token, encode_page_token
from services.identity.ports import ApiKeyUses, RandomSource, SecretSource, Store, Transaction
from services.identity.tokens import (
    API_KEY_LABEL,
    ApiKeyText,
    body_hash,
    parse_api_key,
    same,
    secret_hash,
)
from services.shared.clock import Clock
from services.shared.errors import RequestIdReusedError
from services.shared.ids import IdSource

_SEED_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class NewApiKey:
    """What a key shall be. 0 requests a minute takes the default."""

    display_name: str
    requests_per_minute: int
    expire_time: datetime | None
    request_id: RequestId


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeyPage:
    """A page of keys; no token on the last."""

    api_keys: tuple[ApiKey, ...]
    next_page_token: str


class ApiKeys:
    """Makes, lists, ends and verifies the keys of partners' systems."""

    def __init__(
        self,
        *,
        store: Store,
        uses: ApiKeyUses,
        secrets: SecretSource,
        random: RandomSource,
        clock: Clock,
        ids: IdSource,
    ) -> None:
        """Take what keys are made of."""
        self._store = store
        self._uses = uses
        self._secrets = secrets
        self._random = random
        self._clock = clock
        self._ids = ids

    async def create(self, actor: Actor, wanted: NewApiKey) -> tuple[ApiKey, str]:
        """Make a key, or return the one that the request made before; with its text."""
        api_key = self._new_api_key(actor, wanted)
        async with self._store.transaction(actor.tenant_id) as transaction:
            earlier = await claim(transaction, self._create_request(actor, wanted, api_key))
            if earlier is not None:
                api_key = await _found(transaction, ApiKeyId(earlier.result_id))
                return api_key, self._text_again(api_key, wanted.request_id)
            # Judged only now: a repetition after the key expired is still a repetition.
            if api_key.expire_time is not None and not api_key.works_at(api_key.create_time):
                raise ExpireTimePassedError
            if await transaction.api_keys.count_working(api_key.create_time) >= API_KEYS_MAX:
                raise TooManyApiKeysError(API_KEYS_MAX)
            await transaction.api_keys.add(api_key)
        return api_key, self._text_again(api_key, wanted.request_id)

    async def list_api_keys(
        self, actor: Actor, *, include_inactive: bool, page_size: int, page_token: str
    ) -> ApiKeyPage:
        """Return a page of the tenant's keys, newest first."""
        filters = {
            "list": "api_keys",
            "tenant_id": actor.tenant_id,
            "include_inactive": str(include_inactive),
        }
        last_id = decode_page_token(page_token, filters=filters)
        size = coerced_page_size(page_size)
        async with self._store.transaction(actor.tenant_id) as transaction:
            # One more than the page holds tells whether there is a page after it.
            api_keys = await transaction.api_keys.list(
                working_at=None if include_inactive else self._clock.now(),
                before=ApiKeyId(last_id) if last_id else None,
                limit=size + 1,
            )
        page = tuple(api_keys[:size])
        more = len(api_keys) > size
        token = encode_page_token(page[-1].key_id, filters=filters) if more else ""
        return ApiKeyPage(api_keys=page, next_page_token=token)

    async def revoke(
        self, actor: Actor, key_id: ApiKeyId, *, request_id: RequestId | None
    ) -> ApiKey:
        """End a key for good; the key as it is then."""
        async with self._store.transaction(actor.tenant_id) as transaction:
            await _found(transaction, key_id)
            if request_id is not None:
                await claim(transaction, self._revoke_request(actor, key_id, request_id=request_id))
            await transaction.api_keys.revoke(key_id, now=self._clock.now())
            return await _found(transaction, key_id)

    async def verify(self, text: str, *, use_count: int) -> ApiKey:
        """Return the key that the text is, and count its use; raises ApiKeyInvalidError."""
        parsed = parse_api_key(text)
        if parsed is None:
            raise ApiKeyInvalidError
        now = self._clock.now()
        api_key = await self._store.find_api_key_by_hash(secret_hash(parsed.secret))
        if api_key is None or api_key.key_id != parsed.key_id or not api_key.works_at(now):
            raise ApiKeyInvalidError
        await self._uses.add(
            api_key.key_id, tenant_id=api_key.tenant_id, count=max(use_count, 1), now=now
        )
        return api_key

    def _new_api_key(self, actor: Actor, wanted: NewApiKey) -> ApiKey:
        seed = self._random.random_bytes(_SEED_BYTES)
        return ApiKey(
            key_id=ApiKeyId(self._ids.new_id()),
            tenant_id=actor.tenant_id,
            display_name=wanted.display_name,
            requests_per_minute=wanted.requests_per_minute or API_KEY_REQUESTS_PER_MINUTE_DEFAULT,
            creator_user_id=actor.user_id,
            create_time=self._clock.now(),
            secret_seed=seed,
            secret_hash=secret_hash(self._secrets.derive(seed, API_KEY_LABEL)),
            expire_time=wanted.expire_time,
        )

    def _text_again(self, api_key: ApiKey, request_id: RequestId) -> str:
        for secret in self._secrets.derive_all(api_key.secret_seed, API_KEY_LABEL):
            if same(secret_hash(secret), api_key.secret_hash):
                return ApiKeyText(key_id=api_key.key_id, secret=secret).text()
        # Only when the server key that made it was deleted since: nobody can say the secret again.
        raise RequestIdReusedError(request_id)

    def _create_request(self, actor: Actor, wanted: NewApiKey, api_key: ApiKey) -> ClaimedRequest:
        fields = {
            "display_name": wanted.display_name,
            "requests_per_minute": wanted.requests_per_minute,
            "expire_time": wanted.expire_time,
        }
        return ClaimedRequest(
            tenant_id=actor.tenant_id,
            caller=actor.user_id,
            request_id=wanted.request_id,
            method="CreateApiKey",
            body_hash=body_hash(fields),
            result_id=api_key.key_id,
            create_time=api_key.create_time,
        )

    def _revoke_request(
        self, actor: Actor, key_id: ApiKeyId, *, request_id: RequestId
    ) -> ClaimedRequest:
        return ClaimedRequest(
            tenant_id=actor.tenant_id,
            caller=actor.user_id,
            request_id=request_id,
            method="RevokeApiKey",
            body_hash=body_hash({"key_id": key_id}),
            result_id=key_id,
            create_time=self._clock.now(),
        )


async def _found(transaction: Transaction, key_id: ApiKeyId) -> ApiKey:
    api_key = await transaction.api_keys.find(key_id)
    if api_key is None:
        raise ApiKeyUnknownError(key_id)
    return api_key
