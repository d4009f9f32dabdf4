"""Wires what follows from accepted positions: alerts, presence, stops, geofences, history.

A part of app.py, which would be too long with it.
"""

from collections.abc import Sequence

from services.location import view_messages, watch_messages
from services.location.operations.error_rates import ErrorRates
from services.location.operations.open_observers import OpenObservers, TenantFences
from services.location.operations.recorder import Recorder
from services.location.operations.relay import OutboxRelay, PresenceSweep
from services.location.operations.watch import Watch
from services.location.ports.live import Update
from services.location.settings import LocationSettings
from services.location.stores import Stores
from services.shared.clock import Clock
from services.shared.ids import Uuid7Source
from services.shared.rpc.process import Background


class Watching:
    """Holds what is told of accepted updates, and the background work that follows."""

    def __init__(
        self,
        *,
        stores: Stores,
        settings: LocationSettings,
        clock: Clock,
        ids: Uuid7Source,
    ) -> None:
        """Wire everything together."""
        self.recorder = Recorder(
            history=stores.history,
            clock=clock,
            waiting_max=settings.location_history_waiting_max,
            days_kept=settings.location_history_days,
        )
        fences = TenantFences(stores.geofences)
        observers = OpenObservers(
            trips=stores.trips,
            timetables=stores.timetables,
            fences=fences,
            encode_event=watch_messages.stop_progress,
            encode_expectations=watch_messages.expectations,
            encode_transition=watch_messages.transition,
        )
        self.watch = Watch(
            live=stores.live,
            open_trip=observers.of_trip,
            open_driver=observers.of_driver,
            clock=clock,
            watched_max=settings.location_watched_max,
        )
        self.error_rates = ErrorRates(
            views=stores.views,
            alert=lambda refused, decided: view_messages.error_rate(
                alert_id=ids.new_id(), refused=refused, decided=decided, now=clock.now()
            ),
        )
        relay = OutboxRelay(
            views=stores.views,
            envelope=lambda change: view_messages.presence_envelope(change, event_id=ids.new_id()),
        )
        sweep = PresenceSweep(views=stores.views)
        self.background: Sequence[Background] = (
            relay.run,
            sweep.run,
            self.error_rates.run,
            self.recorder.run,
            self.watch.run,
            fences.run,
        )

    def accepted(self, updates: Sequence[Update]) -> None:
        """Take what the store accepted, a batch at a time."""
        self.error_rates.accepted(updates)
        self.recorder.accepted(updates)
        self.watch.accepted(updates)
