"""Puts LedgerService together and runs it: the one place that knows every part.

Called by __main__.py.
"""

from collections.abc import Sequence
from contextlib import AsyncExitStack

from services.ledger import convert, wiring
from services.ledger.audit_parts import audit_parts
from services.ledger.domain.transfers import Transfer
from services.ledger.operations.accounts import Accounts
from services.ledger.operations.posting import Poster
from services.ledger.operations.reports import Reports
from services.ledger.operations.transfers import Transfers
from services.ledger.operations.upkeep import Upkeep
from services.ledger.ports import NewEvent
from services.ledger.servicer import LedgerServicer
from services.ledger.settings import LedgerSettings
from services.ledger.store import PostgresLedgerStore
from services.ledger.store.reports import PostgresReportStore
from services.shared.clock import Clock, SystemClock
from services.shared.events.log import EventLog
from services.shared.events.relay import EventRelay
from services.shared.health import Dependency
from services.shared.ids import IdSource, Uuid7Source
from services.shared.logs import configure_logging
from services.shared.postgres import Database, open_database
from services.shared.rpc.api_keys import IdentityApiKeyVerifier
from services.shared.rpc.authentication import (
    ApiKeyVerifier,
    Authenticator,
    JwksFile,
    TokenVerifier,
)
from services.shared.rpc.client import mesh_channel
from services.shared.rpc.process import Background
from services.shared.rpc.rate_limits import RateLimiter, ValkeyRateLimiter
from services.shared.rpc.server import RpcServer
from services.shared.valkey import Valkey, open_valkey, ping_valkey
from wayfare.identity.v1 import identity_service_pb2
from wayfare.ledger.v1 import ledger_service_pb2
from wayfare.ledger.v1.ledger_service_pb2_grpc import add_LedgerServiceServicer_to_server

SERVICE_NAME = "ledger"


async def build(stack: AsyncExitStack) -> tuple[RpcServer, Sequence[Background]]:
    """Build what this process is told to be; what is opened is closed by `stack`."""
    settings = LedgerSettings()
    configure_logging(
        log_format=settings.log_format, level=settings.log_level, instance=settings.instance
    )
    clock = SystemClock()
    identity = identity_service_pb2.DESCRIPTOR.services_by_name["IdentityService"]
    channel = mesh_channel(settings, SERVICE_NAME, [identity])
    stack.push_async_callback(channel.close)
    return await wire(stack, settings, clock=clock, api_keys=IdentityApiKeyVerifier(channel, clock))


async def wire(
    stack: AsyncExitStack, settings: LedgerSettings, *, clock: Clock, api_keys: ApiKeyVerifier
) -> tuple[RpcServer, Sequence[Background]]:
    """Return the server and its background work; what is opened is closed by `stack`."""
    ids = Uuid7Source(clock)
    database = await open_database(
        settings.database_url.get_secret_value(), pool_size=settings.database_pool_size
    )
    stack.push_async_callback(database.close)
    valkey_url = settings.valkey_url.get_secret_value()
    valkey = open_valkey(valkey_url, cluster=settings.valkey_cluster)
    stack.push_async_callback(valkey.aclose)
    rate_limiter = ValkeyRateLimiter(valkey_url, cluster=settings.valkey_cluster, clock=clock)
    stack.push_async_callback(rate_limiter.close)

    store = PostgresLedgerStore(database, clock)
    poster = _poster(settings, store, clock, ids)
    transfers = Transfers(
        store=store, poster=poster, driver_debt_max_minor=settings.ledger_driver_debt_max_minor
    )
    upkeep = Upkeep(
        store=store,
        poster=poster,
        clock=clock,
        expire_seconds=settings.ledger_expire_seconds,
        fold_seconds=settings.ledger_fold_seconds,
    )
    deposits, webhooks, audit = wiring.deposit_rooms(settings, database, poster, clock, ids)
    withdrawals, payouts = await wiring.withdrawal_rooms(
        stack, settings, database=database, ledger=store, poster=poster, clock=clock, ids=ids
    )
    audits = await audit_parts(
        stack, settings, database=database, transfers=transfers, clock=clock, ids=ids
    )
    relay = _relay(settings, database, valkey)
    rpc = _rpc_server(
        settings,
        clock=clock,
        ids=ids,
        api_keys=api_keys,
        rate_limiter=rate_limiter,
        dependencies=[
            Dependency(name="postgresql", check=database.ping),
            Dependency(name="valkey", check=lambda: ping_valkey(valkey), required=False),
        ],
    )
    servicer = LedgerServicer(
        accounts=Accounts(store),
        transfers=transfers,
        deposits=deposits,
        webhooks=webhooks,
        withdrawals=withdrawals,
        reports=Reports(store=PostgresReportStore(database), clock=clock),
        auditor=audits.auditor,
        reconciler=audits.reconciler,
    )
    add_LedgerServiceServicer_to_server(servicer, rpc.server)
    return rpc, [
        poster.run,
        upkeep.expire_forever,
        upkeep.fold_forever,
        deposits.work_forever,
        audit.sum_forever,
        payouts.run,
        wiring.fraud_watch(settings, database, ids).run,
        relay.run,
        *audits.background,
    ]


def _relay(settings: LedgerSettings, database: Database, valkey: Valkey) -> EventRelay:
    return EventRelay(
        log=EventLog(database, SERVICE_NAME),
        valkey=valkey,
        service=SERVICE_NAME,
        idle_seconds=settings.ledger_relay_seconds,
        entries_kept=settings.ledger_event_entries_kept,
    )


def _rpc_server(
    settings: LedgerSettings,
    *,
    clock: Clock,
    ids: IdSource,
    api_keys: ApiKeyVerifier,
    rate_limiter: RateLimiter,
    dependencies: Sequence[Dependency],
) -> RpcServer:
    """Return the server of LedgerService, without its methods."""
    return RpcServer(
        service_name=SERVICE_NAME,
        settings=settings,
        authenticator=Authenticator(
            TokenVerifier(JwksFile(settings.jwks_file, clock), clock), api_keys
        ),
        rate_limiter=rate_limiter,
        clock=clock,
        ids=ids,
        services=[ledger_service_pb2.DESCRIPTOR.services_by_name["LedgerService"]],
        dependencies=dependencies,
    )


def _poster(
    settings: LedgerSettings, store: PostgresLedgerStore, clock: Clock, ids: IdSource
) -> Poster:
    """Return what moves all money."""

    def event_of(tenant_id: str, transfer: Transfer) -> NewEvent:
        return convert.event_of(tenant_id, transfer, event_id=ids.new_id())

    return Poster(
        store=store,
        event_of=event_of,
        clock=clock,
        batch_max=settings.ledger_batch_max,
        waiting_max=settings.ledger_waiting_max,
        committers=settings.ledger_committers,
        gather_seconds=settings.ledger_gather_seconds,
    )
