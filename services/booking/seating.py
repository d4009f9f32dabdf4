"""Wires seats, holds, seat maps and who watches them.

A part of app.py, which would be too long with it.
"""

import random
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack

from services.booking import seat_messages
from services.booking.hold_calls import HoldCalls
from services.booking.operations.holds import Holds, HoldSweep
from services.booking.operations.overrides import BookedSeatsFor, Overrides
from services.booking.operations.seat_batcher import SeatBatcher
from services.booking.operations.seat_hub import SeatHub
from services.booking.operations.seat_maps import SeatMaps
from services.booking.override_calls import OverrideCalls
from services.booking.ports.trips import LayoutStore, TripStore
from services.booking.seat_map_calls import SeatMapCalls
from services.booking.seat_messages import Convert, HappeningMessages
from services.booking.settings import BookingSettings
from services.booking.store.event_tail import ValkeyEventTail
from services.booking.store.seat_batch import StorePart
from services.booking.store.seat_cache import ValkeySeatCache
from services.booking.store.seat_maps import PostgresSeatMapStore
from services.booking.store.seat_overrides import PostgresOverrideStore, SeatOverridePart
from services.booking.store.seats import PostgresSeatStore
from services.shared.clock import Clock
from services.shared.ids import IdSource
from services.shared.postgres import Database
from services.shared.rpc.process import Background
from services.shared.valkey import Valkey, open_valkey


class Seating:
    """Holds what changes and shows who has which seat, and the background work of it."""

    def __init__(
        self,
        *,
        settings: BookingSettings,
        database: Database,
        valkey: Valkey,
        tail: Valkey,
        trips: TripStore,
        layouts: LayoutStore,
        clock: Clock,
        ids: IdSource,
        service: str,
        bookings: BookedSeatsFor,
        parts: Sequence[StorePart] = (),
        conversions: Mapping[type, Convert] | None = None,
    ) -> None:
        """Wire everything together.

        `parts` read and write other tables in the transactions that change seats, and `conversions`
        make the events that their changes tell. `tail` is a client for reads that wait.
        """
        self.store = store = PostgresSeatStore(database, layouts, [SeatOverridePart(), *parts])
        self.happenings = HappeningMessages(ids, conversions or {})
        self.batcher = SeatBatcher(
            store=store,
            event_of=self.happenings.event_of,
            clock=clock,
            batch_max=settings.booking_batch_max,
            waiting_max=settings.booking_waiting_max,
            committers=settings.booking_committers,
            gather_seconds=settings.booking_gather_seconds,
        )
        maps = PostgresSeatMapStore(database, trips, layouts)
        hub = SeatHub(
            store=maps,
            tail=ValkeyEventTail(tail, service, cluster=settings.valkey_cluster),
            read=seat_messages.told_of,
            encode=seat_messages.changes_update,
            clock=clock,
            watcher_changes_max=settings.booking_watcher_changes_max,
        )
        self.hold_calls = HoldCalls(
            holds=Holds(
                store=store,
                batcher=self.batcher,
                clock=clock,
                holds_max=settings.booking_holds_max,
                extensions_max=settings.booking_hold_extensions_max,
            ),
            clock=clock,
            degraded=lambda: hub.degraded,
        )
        self.seat_map_calls = SeatMapCalls(
            maps=SeatMaps(store=maps, cache=ValkeySeatCache(valkey), clock=clock),
            hub=hub,
            clock=clock,
            random=random.random,
            heartbeat_seconds=settings.booking_heartbeat_seconds,
        )
        overrides = PostgresOverrideStore(database)
        self.override_calls = OverrideCalls(
            Overrides(store=overrides, batcher=self.batcher, bookings=bookings)
        )
        sweep = HoldSweep(
            store=store,
            batcher=self.batcher,
            clock=clock,
            sweep_seconds=settings.booking_sweep_seconds,
        )
        self.background: Sequence[Background] = (self.batcher.run, hub.run, sweep.run)


def open_tail(stack: AsyncExitStack, settings: BookingSettings) -> Valkey:
    """Return a client for reads that wait; it is closed by `stack`."""
    tail = open_valkey(settings.valkey_url.get_secret_value(), cluster=settings.valkey_cluster)
    stack.push_async_callback(tail.aclose)
    return tail
