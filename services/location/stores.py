"""Opens every store of LocationService. A part of app.py, which would be too long with it."""

from contextlib import AsyncExitStack
from dataclasses import dataclass

from services.location.settings import LocationSettings
from services.location.store.geofences import PostgresGeofenceStore
from services.location.store.history import PostgresHistoryStore
from services.location.store.live import READ_BLOCK_MILLISECONDS, ValkeyLiveStore
from services.location.store.timetables import PostgresTimetableStore
from services.location.store.trips import PostgresTripStore
from services.location.store.views import ValkeyViewStore
from services.shared.clock import Clock
from services.shared.postgres import Database, open_database
from services.shared.valkey import CONNECTIONS_MAX, open_valkey


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """Holds the stores of one process."""

    database: Database
    live: ValkeyLiveStore
    views: ValkeyViewStore
    trips: PostgresTripStore
    timetables: PostgresTimetableStore
    history: PostgresHistoryStore
    geofences: PostgresGeofenceStore


async def open_stores(stack: AsyncExitStack, settings: LocationSettings, clock: Clock) -> Stores:
    """Return the stores; what is opened is closed by `stack`."""
    database = await open_database(
        settings.database_url.get_secret_value(), pool_size=settings.database_pool_size
    )
    stack.push_async_callback(database.close)
    live = _open_live(stack, settings, clock)
    return Stores(
        database=database,
        live=live,
        views=ValkeyViewStore(
            live.client,
            bucket_count=settings.location_bucket_count,
            live_seconds=settings.location_live_seconds,
        ),
        trips=PostgresTripStore(database, clock),
        timetables=PostgresTimetableStore(database),
        history=PostgresHistoryStore(database),
        geofences=PostgresGeofenceStore(database),
    )


def _open_live(stack: AsyncExitStack, settings: LocationSettings, clock: Clock) -> ValkeyLiveStore:
    url, cluster = settings.valkey_url.get_secret_value(), settings.valkey_cluster
    client = open_valkey(url, cluster=cluster)
    reader = open_valkey(
        url,
        cluster=cluster,
        timeout_seconds=READ_BLOCK_MILLISECONDS / 1000 + 2,
        # Each bucket's reader holds one while it waits.
        connections_max=settings.location_bucket_count + CONNECTIONS_MAX,
    )
    stack.push_async_callback(client.aclose)
    stack.push_async_callback(reader.aclose)
    return ValkeyLiveStore(
        client,
        reader=reader,
        bucket_count=settings.location_bucket_count,
        live_seconds=settings.location_live_seconds,
        updates_kept=settings.location_updates_kept,
        clock=clock,
    )
