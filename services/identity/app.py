"""Puts IdentityService together and runs it: the one place that knows every part.

Called by __main__.py.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import structlog

from services.identity.attempts import ValkeyLogInAttempts
from services.identity.domain import TenantId
from services.identity.errors import ApiKeyInvalidError
from services.identity.operations.accounts import Accounts
from services.identity.operations.administration import Administration
from services.identity.operations.api_keys import ApiKeys
from services.identity.operations.sessions import Sessions
from services.identity.operations.tokens_of_sessions import SessionLifetimes, SessionTokens
from services.identity.operations.upkeep import FirstAdmin, Upkeep
from services.identity.passwords import Argon2Cost, Argon2PasswordHasher
from services.identity.servicer import IdentityServicer
from services.identity.settings import IdentitySettings
from services.identity.signing import (
    Ed25519AccessTokens,
    SigningKeys,
    SystemRandom,
    load_signing_keys,
)
from services.identity.store import PostgresStore
from services.identity.usage import ValkeyApiKeyUses
from services.shared.clock import Clock, SystemClock
from services.shared.errors import DependencyUnavailableError
from services.shared.health import Dependency
from services.shared.ids import IdSource, Uuid7Source
from services.shared.logs import configure_logging
from services.shared.postgres import open_database
from services.shared.rpc.authentication import (
    ApiKeyGrant,
    Authenticator,
    JwksFile,
    TokenInvalidError,
    TokenVerifier,
)
from services.shared.rpc.process import Background
from services.shared.rpc.rate_limits import ValkeyRateLimiter
from services.shared.rpc.server import RpcServer
from services.shared.valkey import VALKEY_AWAY, Valkey, open_valkey, ping_valkey
from wayfare.identity.v1 import identity_service_pb2
from wayfare.identity.v1.identity_service_pb2_grpc import add_IdentityServiceServicer_to_server

SERVICE_NAME = "identity"

_FORGET_SECONDS = 600.0
_log = structlog.get_logger()


class LocalApiKeys:
    """Verifies API keys here, where they are kept, for calls to IdentityService itself."""

    def __init__(self, api_keys: ApiKeys) -> None:
        """Take the operations."""
        self._api_keys = api_keys

    async def verify(self, api_key: str) -> ApiKeyGrant:
        """Return what the key may do. Raises TokenInvalidError if it is unknown or revoked."""
        try:
            found = await self._api_keys.verify(api_key, use_count=1)
        except ApiKeyInvalidError as error:
            raise TokenInvalidError(error.message) from None
        return ApiKeyGrant(
            key_id=found.key_id,
            tenant_id=found.tenant_id,
            requests_per_minute=found.requests_per_minute,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What the rest of the process needs of the operations."""

    servicer: IdentityServicer
    api_keys: ApiKeys
    upkeep: Upkeep


class FirstAdminCheck:
    """Makes the first tenant and ADMIN once; the process does not serve before."""

    def __init__(self, settings: IdentitySettings, upkeep: Upkeep) -> None:
        """Take what is wanted, and who makes it."""
        self._settings = settings
        self._upkeep = upkeep
        self._is_there = not settings.has_bootstrap

    async def __call__(self) -> None:
        """Make them where absent. Raises DependencyUnavailableError if PostgreSQL is away."""
        if self._is_there:
            return
        settings = self._settings
        new = await self._upkeep.ensure_first_admin(
            FirstAdmin(
                tenant_id=TenantId(settings.identity_bootstrap_tenant_id.lower()),
                tenant_name=settings.identity_bootstrap_tenant_name,
                phone=settings.identity_bootstrap_admin_phone,
                password=settings.identity_bootstrap_admin_password.get_secret_value(),
            )
        )
        self._is_there = True
        _log.info("first_admin", new=new)


async def build(stack: AsyncExitStack) -> tuple[RpcServer, Sequence[Background]]:
    """Build what this process is told to be; what is opened is closed by `stack`."""
    settings = IdentitySettings()
    configure_logging(
        log_format=settings.log_format, level=settings.log_level, instance=settings.instance
    )
    return await wire(stack, settings, clock=SystemClock())


async def wire(
    stack: AsyncExitStack, settings: IdentitySettings, *, clock: Clock
) -> tuple[RpcServer, Sequence[Background]]:
    """Return the server and its background work; what is opened is closed by `stack`."""
    ids = Uuid7Source(clock)
    keys = load_signing_keys(settings.identity_signing_key_dir)
    valkey_url = settings.valkey_url.get_secret_value()
    database = await open_database(
        settings.database_url.get_secret_value(), pool_size=settings.database_pool_size
    )
    stack.push_async_callback(database.close)
    valkey = open_valkey(valkey_url, cluster=settings.valkey_cluster)
    stack.push_async_callback(valkey.aclose)
    rate_limiter = ValkeyRateLimiter(valkey_url, cluster=settings.valkey_cluster, clock=clock)
    stack.push_async_callback(rate_limiter.close)
    hasher = _open_hasher(settings)
    stack.callback(hasher.close)

    parts = _parts(
        settings,
        store=PostgresStore(database),
        valkey=valkey,
        keys=keys,
        hasher=hasher,
        clock=clock,
        ids=ids,
    )
    stack.push_async_callback(_write_last_counts, parts.upkeep)
    tokens = TokenVerifier(JwksFile(settings.jwks_file, clock), clock)
    rpc = RpcServer(
        service_name=SERVICE_NAME,
        settings=settings,
        authenticator=Authenticator(tokens, LocalApiKeys(parts.api_keys)),
        rate_limiter=rate_limiter,
        clock=clock,
        ids=ids,
        services=[identity_service_pb2.DESCRIPTOR.services_by_name["IdentityService"]],
        dependencies=[
            Dependency(name="postgresql", check=database.ping),
            Dependency(name="valkey", check=lambda: ping_valkey(valkey), required=False),
            Dependency(
                name="first_admin", check=FirstAdminCheck(settings, parts.upkeep), required=False
            ),
        ],
    )
    add_IdentityServiceServicer_to_server(parts.servicer, rpc.server)
    seconds = settings.identity_upkeep_seconds
    return rpc, [lambda: _write_counts(parts.upkeep, seconds), lambda: _forget(parts.upkeep)]


def _parts(
    settings: IdentitySettings,
    *,
    store: PostgresStore,
    valkey: Valkey,
    keys: SigningKeys,
    hasher: Argon2PasswordHasher,
    clock: Clock,
    ids: IdSource,
) -> _Parts:
    random = SystemRandom()
    uses = ValkeyApiKeyUses(valkey)
    attempts = ValkeyLogInAttempts(valkey)
    tokens = SessionTokens(
        clock=clock,
        ids=ids,
        random=random,
        secrets=keys,
        access_tokens=Ed25519AccessTokens(keys, ids),
        lifetimes=SessionLifetimes(
            session=settings.identity_session_lifetime,
            refresh_token=settings.identity_refresh_token_lifetime,
            refresh_replay_window=settings.identity_refresh_replay_window,
        ),
    )
    api_keys = ApiKeys(store=store, uses=uses, secrets=keys, random=random, clock=clock, ids=ids)
    servicer = IdentityServicer(
        accounts=Accounts(store=store, hasher=hasher, tokens=tokens, clock=clock, ids=ids),
        sessions=Sessions(
            store=store, hasher=hasher, attempts=attempts, tokens=tokens, clock=clock
        ),
        administration=Administration(store=store, clock=clock),
        api_keys=api_keys,
        keys=keys,
    )
    upkeep = Upkeep(store=store, hasher=hasher, uses=uses, clock=clock, ids=ids)
    return _Parts(servicer=servicer, api_keys=api_keys, upkeep=upkeep)


def _open_hasher(settings: IdentitySettings) -> Argon2PasswordHasher:
    cost = Argon2Cost(
        memory_kibibytes=settings.identity_argon2_memory_kibibytes,
        passes=settings.identity_argon2_passes,
    )
    return Argon2PasswordHasher(
        cost,
        threads=settings.identity_argon2_threads,
        waiting_max=settings.identity_argon2_waiting_max,
    )


async def _write_counts(upkeep: Upkeep, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await upkeep.write_api_key_uses()
        except (DependencyUnavailableError, *VALKEY_AWAY) as error:
            _log.warning("api_key_uses_not_written", error=type(error).__name__)


async def _write_last_counts(upkeep: Upkeep) -> None:
    with contextlib.suppress(DependencyUnavailableError, *VALKEY_AWAY):
        await upkeep.write_api_key_uses()


async def _forget(upkeep: Upkeep) -> None:
    while True:
        await asyncio.sleep(_FORGET_SECONDS)
        try:
            _log.info("forgot", rows=await upkeep.forget_old())
        except DependencyUnavailableError as error:
            _log.warning("nothing_forgotten", error=type(error).__name__)
