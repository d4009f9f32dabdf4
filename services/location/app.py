"""Wires LocationService together. The only place that knows all its rooms."""

import random
from collections.abc import Sequence
from contextlib import AsyncExitStack

from services.location import booking_events, convert, feed_messages, view_messages
from services.location.driver_stream import DriverStreams
from services.location.feeds import FeedCalls
from services.location.follow_stream import FollowStreams
from services.location.geofence_calls import GeofenceCalls
from services.location.history_calls import HistoryCalls
from services.location.nearby_calls import NearbyCalls
from services.location.operations.alerts import AlertHub
from services.location.operations.batcher import UpdateBatcher
from services.location.operations.driver_session import DriverSession
from services.location.operations.feeds import Feeds
from services.location.operations.fleet import FleetHub
from services.location.operations.follow_hub import FollowHub
from services.location.operations.follower import Follower
from services.location.operations.nearby import Nearby
from services.location.operations.reports import Reports
from services.location.operations.ring import Ring
from services.location.operations.tracking import Tracking
from services.location.operations.tracks import Tracks
from services.location.servicer import LocationServicer
from services.location.settings import LocationSettings
from services.location.store.live import ValkeyLiveStore
from services.location.stores import Stores, open_stores
from services.location.view_streams import ViewStreams
from services.location.watching import Watching
from services.shared.clock import Clock, SystemClock
from services.shared.events.consumer import EventConsumer
from services.shared.health import Dependency
from services.shared.ids import Uuid7Source
from services.shared.logs import configure_logging
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
from services.shared.valkey import open_valkey
from wayfare.identity.v1 import identity_service_pb2
from wayfare.location.v1 import location_service_pb2, location_service_pb2_grpc

SERVICE_NAME = "location"
_EVENTS_WAIT_SECONDS = 3.0


async def build(stack: AsyncExitStack) -> tuple[RpcServer, Sequence[Background]]:
    """Build what this process is told to be; what is opened is closed by `stack`."""
    settings = LocationSettings()
    configure_logging(
        log_format=settings.log_format, level=settings.log_level, instance=settings.instance
    )
    clock = SystemClock()
    api_keys = _api_keys(stack, settings, clock)
    return await wire(stack, settings, clock=clock, api_keys=api_keys)


async def wire(
    stack: AsyncExitStack, settings: LocationSettings, *, clock: Clock, api_keys: ApiKeyVerifier
) -> tuple[RpcServer, Sequence[Background]]:
    """Return the server and its background work; what is opened is closed by `stack`."""
    stores = await open_stores(stack, settings, clock)
    live, ids = stores.live, Uuid7Source(clock)
    tracking = Tracking(
        live=live,
        trips=stores.trips,
        timetables=stores.timetables,
        followed_trips_max=settings.location_followed_trips_max,
    )
    watching = Watching(stores=stores, settings=settings, clock=clock, ids=ids)
    driver_streams, batcher = _driver_streams(settings, clock, live, tracking, ids, watching)
    follow_streams, hub = _follow_streams(settings, clock, live, tracking)
    nearby = Nearby(
        views=stores.views,
        last_known=stores.history,
        fix_of=view_messages.place_of_payload,
        clock=clock,
    )
    view_streams = _view_streams(settings, clock, stores, nearby)
    servicer = LocationServicer(
        settings=settings,
        clock=clock,
        live=live,
        tracking=tracking,
        reports=Reports(
            live=live,
            batcher=batcher,
            last_known=stores.history,
            on_late=watching.recorder.late,
        ),
        driver_streams=driver_streams,
        follow_streams=follow_streams,
        view_streams=view_streams,
        nearby_calls=NearbyCalls(nearby),
        history_calls=HistoryCalls(
            history=stores.history,
            tracks=Tracks(stores.history),
            tracking=tracking,
            clock=clock,
        ),
        geofence_calls=GeofenceCalls(stores.geofences, clock),
        feeds=_feeds(stores),
        on_offline=watching.recorder.went_offline,
    )
    rpc = _server(stack, settings, clock, ids, stores, api_keys)
    location_service_pb2_grpc.add_LocationServiceServicer_to_server(servicer, rpc.server)
    rpc.on_drain(driver_streams.drain_all)
    rpc.on_drain(follow_streams.drain_all)
    rpc.on_drain(view_streams.drain_all)
    background = [
        batcher.run,
        hub.run,
        driver_streams.heartbeats.run,
        driver_streams.acknowledgements.run,
        follow_streams.ring.run,
        stores.trips.sweep_requests,
        view_streams.fleets.run,
        view_streams.alerts.run,
        *watching.background,
        _booking_events(stack, settings, stores).run,
    ]
    return rpc, background


def _booking_events(
    stack: AsyncExitStack, settings: LocationSettings, stores: Stores
) -> EventConsumer:
    # A client of its own: each partition's reader holds a connection while it waits.
    valkey = open_valkey(
        settings.valkey_url.get_secret_value(),
        cluster=settings.valkey_cluster,
        timeout_seconds=_EVENTS_WAIT_SECONDS,
    )
    stack.push_async_callback(valkey.aclose)
    events = booking_events.BookingEvents(
        live=stores.live, trips=stores.trips, timetables=stores.timetables
    )
    return EventConsumer(
        consumer=booking_events.CONSUMER,
        source=booking_events.SOURCE,
        database=stores.database,
        schema=SERVICE_NAME,
        valkey=valkey,
        handle=events.handle,
        wants=booking_events.wants_trip,
    )


def _view_streams(
    settings: LocationSettings, clock: Clock, stores: Stores, nearby: Nearby
) -> ViewStreams:
    return ViewStreams(
        fleets=FleetHub(views=stores.views, encoder=view_messages.FleetMessages()),
        alerts=AlertHub(views=stores.views, clock=clock),
        nearby=nearby,
        clock=clock,
        settings=settings,
        random=random.random,
    )


def _feeds(stores: Stores) -> FeedCalls:
    return FeedCalls(
        Feeds(
            live=stores.live,
            views=stores.views,
            timetables=stores.timetables,
            encode=feed_messages.encode,
            trip_of_alert=feed_messages.trip_of_alert,
        )
    )


def _server(
    stack: AsyncExitStack,
    settings: LocationSettings,
    clock: Clock,
    ids: Uuid7Source,
    stores: Stores,
    api_keys: ApiKeyVerifier,
) -> RpcServer:
    rate_limiter = ValkeyRateLimiter(
        settings.valkey_url.get_secret_value(), cluster=settings.valkey_cluster, clock=clock
    )
    stack.push_async_callback(rate_limiter.close)
    tokens = TokenVerifier(JwksFile(settings.jwks_file, clock), clock)
    return RpcServer(
        service_name=SERVICE_NAME,
        settings=settings,
        authenticator=Authenticator(tokens, api_keys),
        rate_limiter=rate_limiter,
        clock=clock,
        ids=ids,
        services=[location_service_pb2.DESCRIPTOR.services_by_name["LocationService"]],
        # Live positions go on without PostgreSQL, and streams stay open without Valkey.
        dependencies=[
            Dependency(name="valkey", check=stores.live.ping, required=False),
            Dependency(name="postgresql", check=stores.database.ping, required=False),
        ],
        raw_methods=("StreamDriver", "FollowTrip", "FollowFleet", "FollowNearby", "FollowAlerts"),
        early_methods=("ListNearbyDrivers",),
    )


def _api_keys(stack: AsyncExitStack, settings: LocationSettings, clock: Clock) -> ApiKeyVerifier:
    identity = identity_service_pb2.DESCRIPTOR.services_by_name["IdentityService"]
    channel = mesh_channel(settings, SERVICE_NAME, [identity])
    stack.push_async_callback(channel.close)
    return IdentityApiKeyVerifier(channel, clock)


def _driver_streams(
    settings: LocationSettings,
    clock: Clock,
    live: ValkeyLiveStore,
    tracking: Tracking,
    ids: Uuid7Source,
    watching: Watching,
) -> tuple[DriverStreams, UpdateBatcher]:
    batcher = UpdateBatcher(
        live=live,
        tick_seconds=settings.location_tick_seconds,
        pending_max=settings.location_pending_max,
        on_degraded=lambda degraded: streams.tell_degraded(degraded),  # noqa: PLW0108 - not there yet
        on_accepted=watching.accepted,
    )
    heartbeats: Ring[DriverSession] = Ring(
        # Twice per heartbeat, so that no silence is longer than one.
        period_seconds=settings.location_heartbeat_seconds / 2,
        visit=lambda session: streams.visit(session),  # noqa: PLW0108 - not there yet
        clock=clock,
    )
    acknowledgements: Ring[DriverSession] = Ring(
        period_seconds=settings.location_ack_seconds,
        visit=lambda session: streams.acknowledge(session),  # noqa: PLW0108 - not there yet
        clock=clock,
    )
    streams = DriverStreams(
        live=live,
        tracking=tracking,
        batcher=batcher,
        clock=clock,
        settings=settings,
        random=random.random,
        heartbeats=heartbeats,
        acknowledgements=acknowledgements,
        ids=ids,
        on_refused=watching.error_rates.refused,
    )
    return streams, batcher


def _follow_streams(
    settings: LocationSettings, clock: Clock, live: ValkeyLiveStore, tracking: Tracking
) -> tuple[FollowStreams, FollowHub]:
    hub = FollowHub(
        many_followers=settings.location_many_followers,
        many_followers_seconds=settings.location_many_followers_seconds,
        live=live,
        events_max=settings.location_follower_events_max,
        ends_trip=convert.ends_trip,
    )
    ring: Ring[Follower] = Ring(
        # Twice per heartbeat, so that no silence is longer than one.
        period_seconds=settings.location_heartbeat_seconds / 2,
        visit=lambda follower: streams.visit(follower),  # noqa: PLW0108 - not there yet
        clock=clock,
    )
    streams = FollowStreams(
        live=live,
        tracking=tracking,
        hub=hub,
        clock=clock,
        settings=settings,
        random=random.random,
        ring=ring,
    )
    return streams, hub
