"""Puts BookingService together and runs it: the one place that knows every part.

Called by __main__.py.
"""

from collections.abc import Sequence
from contextlib import AsyncExitStack

import grpc

from services.booking.booking_messages import CONVERSIONS
from services.booking.domain.booking_overrides import BookedSeatsByHand
from services.booking.manifest_calls import ManifestCalls
from services.booking.operations.layouts import Layouts
from services.booking.operations.manifests import Manifests
from services.booking.operations.scans import Scans
from services.booking.operations.search import Search
from services.booking.operations.ticket_keys import TicketKeys
from services.booking.operations.tickets import Tickets
from services.booking.operations.trips import Trips
from services.booking.operations.upkeep import Upkeep
from services.booking.passenger_vault import KeyRing, PassengerVault
from services.booking.seating import Seating, open_tail
from services.booking.selling import Selling
from services.booking.servicer import BookingServicer
from services.booking.settings import BookingSettings
from services.booking.store.boarding import PostgresBoardingStore
from services.booking.store.booking_part import BookingPart
from services.booking.store.holds import PostgresEndedHolds
from services.booking.store.layouts import PostgresLayoutStore
from services.booking.store.manifests import PostgresManifestStore
from services.booking.store.requests import PostgresRequestStore
from services.booking.store.taken_seats import PostgresTakenSeats
from services.booking.store.ticket_keys import PostgresTicketKeyStore
from services.booking.store.tickets import PostgresTicketStore
from services.booking.store.travellers import PostgresTravellers
from services.booking.store.trips import PostgresTripStore
from services.booking.ticket_calls import TicketCalls
from services.booking.ticket_key_seal import AesKeySeal
from services.booking.ticket_messages import TicketEventMessages
from services.booking.trip_calls import TripCalls
from services.booking.trip_messages import TripEventMessages
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
from services.shared.rpc.rate_limits import ValkeyRateLimiter
from services.shared.rpc.server import RpcServer
from services.shared.valkey import Valkey, open_valkey, ping_valkey
from wayfare.booking.v1 import booking_service_pb2
from wayfare.booking.v1.booking_service_pb2_grpc import add_BookingServiceServicer_to_server
from wayfare.identity.v1 import identity_service_pb2
from wayfare.ledger.v1 import ledger_service_pb2

SERVICE_NAME = "booking"


async def build(stack: AsyncExitStack) -> tuple[RpcServer, Sequence[Background]]:
    """Build what this process is told to be; what is opened is closed by `stack`."""
    settings = BookingSettings()
    configure_logging(
        log_format=settings.log_format, level=settings.log_level, instance=settings.instance
    )
    clock = SystemClock()
    identity = identity_service_pb2.DESCRIPTOR.services_by_name["IdentityService"]
    ledger = ledger_service_pb2.DESCRIPTOR.services_by_name["LedgerService"]
    channel = mesh_channel(settings, SERVICE_NAME, [identity, ledger])
    stack.push_async_callback(channel.close)
    return await wire(
        stack,
        settings,
        clock=clock,
        api_keys=IdentityApiKeyVerifier(channel, clock),
        ledger=channel,
    )


async def wire(
    stack: AsyncExitStack,
    settings: BookingSettings,
    *,
    clock: Clock,
    api_keys: ApiKeyVerifier,
    ledger: grpc.aio.Channel,
) -> tuple[RpcServer, Sequence[Background]]:
    """Return the server and its background work; what is opened is closed by `stack`.

    `ledger` is a channel on which LedgerService is called.
    """
    ids = Uuid7Source(clock)
    database, valkey = await _opened(stack, settings)
    rate_limiter = ValkeyRateLimiter(
        settings.valkey_url.get_secret_value(), cluster=settings.valkey_cluster, clock=clock
    )
    stack.push_async_callback(rate_limiter.close)

    layout_store = PostgresLayoutStore(database, clock)
    trip_calls = _trips(settings, database, layout_store, clock=clock, ids=ids)

    ticket_keys = _ticket_keys(settings, database, clock=clock, ids=ids)
    vault = _vault(settings)
    ticket_calls, manifest_calls = _tickets(
        database, PostgresTravellers(database, vault), keys=ticket_keys, clock=clock, ids=ids
    )
    seating = _seating(
        stack, settings, database, valkey, layout_store, keys=ticket_keys, clock=clock, ids=ids
    )
    selling = Selling(
        settings=settings,
        database=database,
        events=open_tail(stack, settings),
        trips=PostgresTripStore(database, clock),
        seats=seating.store,
        batcher=seating.batcher,
        happenings=seating.happenings,
        ledger=ledger,
        keys=ticket_keys,
        vault=vault,
        clock=clock,
        ids=ids,
        service=SERVICE_NAME,
    )

    rpc = _server(
        settings,
        rate_limiter=rate_limiter,
        api_keys=api_keys,
        clock=clock,
        ids=ids,
        dependencies=[
            Dependency(name="postgresql", check=database.ping),
            Dependency(name="valkey", check=lambda: ping_valkey(valkey), required=False),
        ],
    )
    servicer = BookingServicer(
        trip_calls=trip_calls,
        hold_calls=seating.hold_calls,
        seat_map_calls=seating.seat_map_calls,
        override_calls=seating.override_calls,
        booking_calls=selling.booking_calls,
        ticket_calls=ticket_calls,
        manifest_calls=manifest_calls,
    )
    add_BookingServiceServicer_to_server(servicer, rpc.server)
    rpc.on_drain(seating.seat_map_calls.drain_all)
    own = [_relay(settings, database, valkey).run, *_upkeep(settings, database, clock)]
    return rpc, [*own, *seating.background, *selling.background]


async def _opened(stack: AsyncExitStack, settings: BookingSettings) -> tuple[Database, Valkey]:
    """Open PostgreSQL and Valkey; they are closed by `stack`."""
    database = await open_database(
        settings.database_url.get_secret_value(), pool_size=settings.database_pool_size
    )
    stack.push_async_callback(database.close)
    valkey = open_valkey(settings.valkey_url.get_secret_value(), cluster=settings.valkey_cluster)
    stack.push_async_callback(valkey.aclose)
    return database, valkey


def _seating(
    stack: AsyncExitStack,
    settings: BookingSettings,
    database: Database,
    valkey: Valkey,
    layout_store: PostgresLayoutStore,
    *,
    keys: TicketKeys,
    clock: Clock,
    ids: IdSource,
) -> Seating:
    """Return what changes and shows seats; bookings take part in its transactions."""

    async def by_hand(tenant_id: str, reason: str) -> BookedSeatsByHand:
        signer = await keys.signer(tenant_id)
        return BookedSeatsByHand(signer=signer, reason=reason, ticket_id=ids.new_id())

    return Seating(
        settings=settings,
        database=database,
        valkey=valkey,
        tail=open_tail(stack, settings),
        trips=PostgresTripStore(database, clock),
        layouts=layout_store,
        clock=clock,
        ids=ids,
        service=SERVICE_NAME,
        bookings=by_hand,
        parts=[BookingPart()],
        conversions=CONVERSIONS,
    )


def _relay(settings: BookingSettings, database: Database, valkey: Valkey) -> EventRelay:
    """Return what publishes the service's events."""
    return EventRelay(
        log=EventLog(database, SERVICE_NAME),
        valkey=valkey,
        service=SERVICE_NAME,
        idle_seconds=settings.booking_relay_seconds,
        entries_kept=settings.booking_event_entries_kept,
    )


def _server(
    settings: BookingSettings,
    *,
    rate_limiter: ValkeyRateLimiter,
    api_keys: ApiKeyVerifier,
    clock: Clock,
    ids: IdSource,
    dependencies: Sequence[Dependency],
) -> RpcServer:
    """Return the server, which answers nothing yet."""
    tokens = TokenVerifier(JwksFile(settings.jwks_file, clock), clock)
    return RpcServer(
        service_name=SERVICE_NAME,
        settings=settings,
        authenticator=Authenticator(tokens, api_keys),
        rate_limiter=rate_limiter,
        clock=clock,
        ids=ids,
        raw_methods=["WatchSeats"],
        services=[booking_service_pb2.DESCRIPTOR.services_by_name["BookingService"]],
        dependencies=dependencies,
    )


def _trips(
    settings: BookingSettings,
    database: Database,
    layout_store: PostgresLayoutStore,
    *,
    clock: Clock,
    ids: IdSource,
) -> TripCalls:
    """Return what serves trips and seat layouts."""
    trip_store = PostgresTripStore(database, clock)
    trips = Trips(
        store=trip_store,
        layouts=layout_store,
        events=TripEventMessages(clock=clock, ids=ids),
        clock=clock,
        ids=ids,
    )
    layouts = Layouts(store=layout_store, clock=clock, ids=ids)
    search = Search(
        store=trip_store,
        layouts=layout_store,
        taken=PostgresTakenSeats(database),
        clock=clock,
        chunk=settings.booking_search_chunk,
        chunks_max=settings.booking_search_chunks_max,
    )
    return TripCalls(trips=trips, layouts=layouts, search=search, clock=clock)


def _upkeep(settings: BookingSettings, database: Database, clock: Clock) -> Sequence[Background]:
    """Return what forgets old request ids, and holds that ended."""
    requests = Upkeep(
        store=PostgresRequestStore(database),
        clock=clock,
        days_kept=settings.booking_request_days_kept,
    )
    holds = Upkeep(
        store=PostgresEndedHolds(database), clock=clock, days_kept=settings.booking_hold_days_kept
    )
    return (requests.run, holds.run)


def _vault(settings: BookingSettings) -> PassengerVault:
    """Return what keeps travellers' names secret."""
    return PassengerVault(KeyRing.parse(settings.booking_passenger_keys.get_secret_value()))


def _ticket_keys(
    settings: BookingSettings, database: Database, *, clock: Clock, ids: IdSource
) -> TicketKeys:
    """Return what knows the keys that sign tickets."""
    return TicketKeys(
        store=PostgresTicketKeyStore(database, clock),
        seal=AesKeySeal.parse(settings.booking_ticket_key_secrets.get_secret_value()),
        clock=clock,
        ids=ids,
    )


def _tickets(
    database: Database,
    travellers: PostgresTravellers,
    *,
    keys: TicketKeys,
    clock: Clock,
    ids: IdSource,
) -> tuple[TicketCalls, ManifestCalls]:
    """Return what passengers and conductors' phones call."""
    trips = PostgresTripStore(database, clock)
    scans = Scans(
        trips=trips,
        store=PostgresBoardingStore(database, clock),
        keys=keys,
        travellers=travellers,
        events=TicketEventMessages(ids),
        clock=clock,
    )
    manifests = Manifests(
        trips=trips, store=PostgresManifestStore(database), travellers=travellers, clock=clock
    )
    tickets = Tickets(store=PostgresTicketStore(database), trips=trips, clock=clock)
    return (
        TicketCalls(tickets=tickets, scans=scans, keys=keys, clock=clock),
        ManifestCalls(manifests=manifests, scans=scans),
    )
