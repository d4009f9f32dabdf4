"""Puts IdentityService together and runs it: the one place that knows every part.

Called by __main__.py.
"""

import asyncio
import contextlib
import signal
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
from services.shared.ids import Uuid7Source
from services.shared.postgres import open_database
from services.shared.rpc.authentication import (
    ApiKeyGrant,
    Authenticator,
    JwksFile,
    TokenInvalidError,
    TokenVerifier,
)
from services.shared.rpc.rate_limits import ValkeyRateLimiter
from services.shared.rpc.server import RpcServer
from services.shared.valkey import VALKEY_AWAY, Valkey, open_valkey, ping_valkey
from wayfare.identity.v1 import identity_service_pb2
from wayfare.identity.v1.identity_service_pb2_grpc import add_IdentityServiceServicer_to_server

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


class IdentityApp:
    """One process of IdentityService."""

    def __init__(self, settings: IdentitySettings, *, clock: Clock | None = None) -> None:
        """Take the settings; nothing is opened yet."""
        self._settings = settings
        self._clock = clock or SystemClock()
        self._ids = Uuid7Source(self._clock)
        self._stop = asyncio.Event()
        self._first_admin_is_there = not settings.has_bootstrap

    def stop(self) -> None:
        """Drain and end `run`."""
        self._stop.set()

    async def run(self) -> None:
        """Serve until `stop`, then drain and close everything in reverse order."""
        settings = self._settings
        keys = load_signing_keys(settings.identity_signing_key_dir)
        async with AsyncExitStack() as stack:
            database = await open_database(
                settings.database_url.get_secret_value(), pool_size=settings.database_pool_size
            )
            stack.push_async_callback(database.close)
            valkey = open_valkey(
                settings.valkey_url.get_secret_value(), cluster=settings.valkey_cluster
            )
            stack.push_async_callback(valkey.aclose)
            rate_limiter = ValkeyRateLimiter(
                settings.valkey_url.get_secret_value(),
                cluster=settings.valkey_cluster,
                clock=self._clock,
            )
            stack.push_async_callback(rate_limiter.close)
            hasher = _open_hasher(settings)
            stack.callback(hasher.close)

            parts = self._build(PostgresStore(database), valkey, keys=keys, hasher=hasher)
            server = RpcServer(
                service_name="identity",
                settings=settings,
                authenticator=Authenticator(
                    TokenVerifier(JwksFile(settings.jwks_file, self._clock), self._clock),
                    LocalApiKeys(parts.api_keys),
                ),
                rate_limiter=rate_limiter,
                clock=self._clock,
                ids=self._ids,
                services=[identity_service_pb2.DESCRIPTOR.services_by_name["IdentityService"]],
                dependencies=[
                    Dependency(name="postgresql", check=database.ping),
                    Dependency(name="valkey", check=lambda: ping_valkey(valkey), required=False),
                    Dependency(
                        name="first_admin",
                        check=lambda: self._ensure_first_admin(parts.upkeep),
                        required=False,
                    ),
                ],
            )
            add_IdentityServiceServicer_to_server(parts.servicer, server.server)
            await self._serve(server, parts.upkeep)

    def _build(
        self,
        store: PostgresStore,
        valkey: Valkey,
        *,
        keys: SigningKeys,
        hasher: Argon2PasswordHasher,
    ) -> _Parts:
        settings, clock, ids = self._settings, self._clock, self._ids
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
        api_keys = ApiKeys(
            store=store, uses=uses, secrets=keys, random=random, clock=clock, ids=ids
        )
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

    async def _serve(self, server: RpcServer, upkeep: Upkeep) -> None:
        await server.start()
        try:
            async with asyncio.TaskGroup() as tasks:
                background = [
                    tasks.create_task(server.monitor.run()),
                    tasks.create_task(self._write_counts(upkeep)),
                    tasks.create_task(self._forget(upkeep)),
                ]
                await self._stop.wait()
                await server.drain_and_stop()
                for task in background:
                    task.cancel()
        finally:
            with contextlib.suppress(DependencyUnavailableError, *VALKEY_AWAY):
                await upkeep.write_api_key_uses()

    async def _ensure_first_admin(self, upkeep: Upkeep) -> None:
        """Make the first tenant and ADMIN once; the process does not serve before."""
        if self._first_admin_is_there:
            return
        settings = self._settings
        new = await upkeep.ensure_first_admin(
            FirstAdmin(
                tenant_id=TenantId(settings.identity_bootstrap_tenant_id.lower()),
                tenant_name=settings.identity_bootstrap_tenant_name,
                phone=settings.identity_bootstrap_admin_phone,
                password=settings.identity_bootstrap_admin_password.get_secret_value(),
            )
        )
        self._first_admin_is_there = True
        _log.info("first_admin", new=new)

    async def _write_counts(self, upkeep: Upkeep) -> None:
        while True:
            await asyncio.sleep(self._settings.identity_upkeep_seconds)
            try:
                await upkeep.write_api_key_uses()
            except (DependencyUnavailableError, *VALKEY_AWAY) as error:
                _log.warning("api_key_uses_not_written", error=type(error).__name__)

    async def _forget(self, upkeep: Upkeep) -> None:
        while True:
            await asyncio.sleep(_FORGET_SECONDS)
            try:
                _log.info("forgot", rows=await upkeep.forget_old())
            except DependencyUnavailableError as error:
                _log.warning("nothing_forgotten", error=type(error).__name__)


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


async def run_until_signalled(settings: IdentitySettings) -> None:
    """Run one process until SIGTERM or SIGINT."""
    app = IdentityApp(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, app.stop)
    await app.run()
