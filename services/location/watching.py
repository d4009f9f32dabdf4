"""Wires what follows from accepted positions: alerts, presence, stops, geofences, history.

A part of app.py, which would be too long with it.
"""

from collections.abc import Sequence
from typing import Any

from services.location import view_messages
from services.location.operations.error_rates import ErrorRates
from services.location.operations.relay import OutboxRelay, PresenceSweep
from services.location.ports.live import Update
from services.location.ports.views import FreeDriver, ViewStore
from services.shared.clock import Clock
from services.shared.errors import DependencyUnavailableError
from services.shared.ids import Uuid7Source
from services.shared.rpc.process import Background


class Watching:
    """Holds what is told of accepted updates, and the background work that follows."""

    def __init__(self, *, views: ViewStore, clock: Clock, ids: Uuid7Source) -> None:
        """Wire everything together."""
        self.error_rates = ErrorRates(
            views=views,
            alert=lambda refused, decided: view_messages.error_rate(
                alert_id=ids.new_id(), refused=refused, decided=decided, now=clock.now()
            ),
        )
        relay = OutboxRelay(
            views=views,
            envelope=lambda change: view_messages.presence_envelope(change, event_id=ids.new_id()),
        )
        sweep = PresenceSweep(views=views)
        self.background: Sequence[Background] = (relay.run, sweep.run, self.error_rates.run)

    def accepted(self, updates: Sequence[Update]) -> None:
        """Take what the store accepted, a batch at a time."""
        self.error_rates.accepted(updates)


class NoLastKnown:
    """Knows nothing while live state is away."""

    async def free_drivers(self, _tenant_id: str, **_: Any) -> Sequence[FreeDriver]:
        """Raise DependencyUnavailableError."""
        raise DependencyUnavailableError("valkey")
