"""Brings a tenant's alerts to those who follow them. Called by FollowAlerts."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from services.location.errors import FollowerTooSlowError
from services.location.ports.views import KeptAlert, ViewStore
from services.shared.clock import Clock
from services.shared.errors import DependencyUnavailableError
from services.shared.tasks import HeldTasks

_POLL_SECONDS = 0.2
_READ_MOST = 200
_WAITING_MAX = 2_000
_FIRST_MOST = 100
_FIRST_MILLISECONDS = 3600 * 1000


class AlertViewer:
    """Is one open FollowAlerts: what waits to be written to it. Nothing is left out."""

    def __init__(self, wake: Callable[[], None]) -> None:
        """Begin with nothing to write."""
        self._waiting: deque[KeptAlert] = deque()
        self._last = (0, 0)
        self._wake = wake
        self.degraded = False
        self.too_slow = False

    def put(self, alerts: Sequence[KeptAlert]) -> None:
        """Queue alerts that are newer than the last one."""
        for alert in alerts:
            order = order_of(alert.token)
            if order <= self._last:
                continue
            if len(self._waiting) >= _WAITING_MAX:
                self.too_slow = True
                break
            self._last = order
            self._waiting.append(alert)
        self._wake()

    def set_degraded(self, degraded: bool) -> None:
        """Take that live state went away or came back."""
        self.degraded = degraded
        self._wake()

    def take(self) -> list[KeptAlert]:
        """Return what must be written now. Raises FollowerTooSlowError after the last of it."""
        alerts = list(self._waiting)
        self._waiting.clear()
        if self.too_slow and not alerts:
            raise FollowerTooSlowError("this follower reads too slowly; resume to go on")
        return alerts


def order_of(token: str) -> tuple[int, int]:
    """Return the place of an alert in the order of a tenant's alerts; (0, 0) for another's text."""
    milliseconds, _, number = token.partition("-")
    if not milliseconds.isdecimal() or not (number or "0").isdecimal():
        return (0, 0)
    return int(milliseconds), int(number or 0)


class AlertHub:
    """Polls the alerts of the tenants that are followed in this process."""

    def __init__(self, *, views: ViewStore, clock: Clock) -> None:
        """Read from `views`."""
        self._views = views
        self._clock = clock
        self._viewers: dict[str, set[AlertViewer]] = {}
        self._polls: dict[str, asyncio.Task[None]] = {}
        # Up to where the poll of a tenant has told its followers.
        self._told: dict[str, str] = {}
        self._tasks = HeldTasks()

    async def run(self) -> None:
        """Hold the polls until cancelled."""
        await self._tasks.hold()

    async def attach(self, tenant_id: str, token: str, wake: Callable[[], None]) -> AlertViewer:
        """Return a follower that gets all alerts after `token`, or those of the last hour."""
        alerts = await self._beginning(tenant_id, token)
        viewer = AlertViewer(wake)
        viewer.put(alerts)
        last = alerts[-1].token if alerts else token if order_of(token) > (0, 0) else "0-0"
        # A poll that runs may be farther by now: what lies between is read before joining it.
        while order_of(self._told.get(tenant_id, "")) > order_of(last):
            more = await self._all_after(tenant_id, last)
            if not more:
                break
            viewer.put(more)
            last = more[-1].token
        self._viewers.setdefault(tenant_id, set()).add(viewer)
        if tenant_id not in self._polls:
            self._told[tenant_id] = last
            self._polls[tenant_id] = self._tasks.start(self._poll(tenant_id))
        return viewer

    def detach(self, tenant_id: str, viewer: AlertViewer) -> None:
        """Forget a follower; a tenant whose alerts nobody follows is not polled."""
        viewers = self._viewers[tenant_id]
        viewers.discard(viewer)
        if not viewers:
            del self._viewers[tenant_id]
            self._polls.pop(tenant_id).cancel()
            del self._told[tenant_id]

    async def _beginning(self, tenant_id: str, token: str) -> Sequence[KeptAlert]:
        if order_of(token) > (0, 0):
            return await self._all_after(tenant_id, token)
        since = int(self._clock.now().timestamp() * 1000) - _FIRST_MILLISECONDS
        newest = await self._views.newest_alerts(tenant_id, most=_FIRST_MOST)
        return [alert for alert in newest if order_of(alert.token)[0] >= since]

    async def _all_after(self, tenant_id: str, token: str) -> Sequence[KeptAlert]:
        found: list[KeptAlert] = []
        while True:
            more = await self._views.alerts_after(tenant_id, token, most=_READ_MOST)
            found.extend(more)
            if len(more) < _READ_MOST:
                return found
            token = more[-1].token

    async def _poll(self, tenant_id: str) -> None:
        degraded = False
        while True:
            try:
                alerts = await self._all_after(tenant_id, self._told[tenant_id])
            except DependencyUnavailableError:
                if not degraded:
                    degraded = True
                    self._tell_degraded(tenant_id, degraded)
            else:
                if degraded:
                    degraded = False
                    self._tell_degraded(tenant_id, degraded)
                if alerts:
                    self._told[tenant_id] = alerts[-1].token
                    for viewer in self._viewers.get(tenant_id, ()):
                        viewer.put(alerts)
            await asyncio.sleep(_POLL_SECONDS)

    def _tell_degraded(self, tenant_id: str, degraded: bool) -> None:
        for viewer in self._viewers.get(tenant_id, ()):
            viewer.set_degraded(degraded)
