"""Shows tenants' fleets to their followers: what changed, twice a second. Called by FollowFleet.

One poll per tenant, however many follow. What changed is encoded once; a follower of the whole
fleet who reads in time gets the same bytes as all others.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog
from prometheus_client import Counter as Metric

from services.location.domain.positions import Fix
from services.location.ports.views import FleetRow, ViewStore
from services.shared.errors import DependencyUnavailableError
from services.shared.tasks import HeldTasks

_log = structlog.get_logger()
_SHOWN = Metric("wayfare_location_fleet_positions_total", "Positions put into fleet frames")
POLL_SECONDS = 0.5
# A follower who misses more than this begins again with a snapshot.
_DELTAS_MAX = 40


class FleetEncoder(Protocol):
    """Makes the bytes of frames."""

    def vehicle(self, row: FleetRow) -> bytes:
        """Return a vehicle as a part of a frame; frames are such parts, one after the other."""
        ...

    def frame(
        self,
        parts: Sequence[bytes],
        *,
        removed: Sequence[str],
        snapshot: bool,
        now_milliseconds: int,
        online_count: int,
        degraded: bool,
    ) -> bytes:
        """Return a frame."""
        ...

    def fix_of(self, payload: bytes) -> Fix | None:
        """Return the position in a payload."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetFilter:
    """Narrows a fleet: to the vehicles named, or to those for which `contains` holds; else all."""

    vehicle_ids: frozenset[str] | None = None
    contains: Callable[[Fix], bool] | None = None

    @property
    def is_open(self) -> bool:
        """Say whether all vehicles pass."""
        return self.vehicle_ids is None and self.contains is None


@dataclass(slots=True)
class _Vehicle:
    """Is a vehicle as it was heard of last, encoded."""

    row: FleetRow
    part: bytes
    fix: Fix | None = None


@dataclass(slots=True)
class _Delta:
    """Is what one poll brought. `frame` is made when the first follower needs it."""

    vehicles: dict[str, _Vehicle]
    removed: frozenset[str]
    now_milliseconds: int
    frame: bytes = b""


class FleetViewer:
    """Is one open FollowFleet: what waits to be written to it."""

    def __init__(self, fleet: "Fleet", narrow: FleetFilter, wake: Callable[[], None]) -> None:
        """Begin with a snapshot."""
        self._fleet = fleet
        self._narrow = narrow
        self._shown: set[str] = set()
        self._deltas: list[_Delta] = []
        self._snapshot_due = True
        self.wake = wake

    def put(self, delta: _Delta) -> None:
        """Queue what a poll brought."""
        if self._snapshot_due:
            return
        if len(self._deltas) >= _DELTAS_MAX:
            self._deltas.clear()
            self._snapshot_due = True
        else:
            self._deltas.append(delta)
        self.wake()

    def take(self) -> bytes | None:
        """Return the frame to write now, or None when nothing changed for this follower."""
        if self._snapshot_due:
            self._snapshot_due = False
            vehicles = self._passing(self._fleet.vehicles)
            self._shown = set(vehicles)
            return self._fleet.frame(list(vehicles.values()), snapshot=True)
        if not self._deltas:
            return None
        deltas, self._deltas = self._deltas, []
        if len(deltas) == 1 and self._narrow.is_open:
            return self._fleet.shared_frame(deltas[0])
        moved: dict[str, _Vehicle] = {}
        removed: set[str] = set()
        for delta in deltas:
            moved.update(delta.vehicles)
            removed = (removed | delta.removed) - delta.vehicles.keys()
        for vehicle_id in removed:
            moved.pop(vehicle_id, None)
        return self._narrowed(moved, removed)

    def _narrowed(self, moved: dict[str, _Vehicle], removed: set[str]) -> bytes | None:
        passing = self._passing(moved)
        if not self._narrow.is_open:
            left = {one for one in moved if one not in passing and one in self._shown}
            removed = (removed & self._shown) | left
            self._shown = (self._shown | passing.keys()) - removed
        if not passing and not removed:
            return None
        return self._fleet.frame(list(passing.values()), removed=sorted(removed))

    def heartbeat(self) -> bytes:
        """Return a frame that shows that the stream is alive."""
        return self._fleet.frame([])

    def _passing(self, vehicles: dict[str, _Vehicle]) -> dict[str, _Vehicle]:
        narrow = self._narrow
        if narrow.is_open:
            return {key: one for key, one in vehicles.items() if one.part}
        return {
            key: one
            for key, one in vehicles.items()
            if one.part
            and (narrow.vehicle_ids is None or key in narrow.vehicle_ids)
            and (narrow.contains is None or self._lies_in(one, narrow.contains))
        }

    def _lies_in(self, vehicle: _Vehicle, contains: Callable[[Fix], bool]) -> bool:
        fix = self._fleet.fix_of(vehicle)
        return fix is not None and contains(fix)


class Fleet:
    """Is a tenant's fleet as it is known in this process, while somebody follows it."""

    def __init__(self, tenant_id: str, *, views: ViewStore, encoder: FleetEncoder) -> None:
        """Know nothing yet."""
        self._tenant_id = tenant_id
        self._views = views
        self._encoder = encoder
        self._drivers: dict[str, FleetRow] = {}
        self._drivers_of: Counter[str] = Counter()
        self._since = [0] * views.bucket_count
        self._online_count = 0
        self._now_milliseconds = 0
        self._degraded = False
        self.vehicles: dict[str, _Vehicle] = {}
        self.viewers: set[FleetViewer] = set()
        self.loaded = asyncio.Event()

    async def run(self) -> None:
        """Poll until cancelled."""
        loop = asyncio.get_running_loop()
        poll_at = loop.time()
        while True:
            await self.poll()
            self.loaded.set()
            poll_at = max(poll_at + POLL_SECONDS, loop.time())
            await asyncio.sleep(poll_at - loop.time())

    async def poll(self) -> None:
        """Ask what changed, and queue it for the followers."""
        try:
            delta = await self._changes()
        except DependencyUnavailableError:
            self._set_degraded(True)
            return
        self._set_degraded(False)
        if delta.vehicles or delta.removed:
            for viewer in self.viewers:
                viewer.put(delta)
            _SHOWN.inc(len(delta.vehicles) * len(self.viewers))

    async def _changes(self) -> _Delta:
        changes = await asyncio.gather(
            *(
                self._views.fleet_change(self._tenant_id, bucket, since_milliseconds=since)
                for bucket, since in enumerate(self._since)
            )
        )
        moved: dict[str, _Vehicle] = {}
        removed: set[str] = set()
        for bucket, change in enumerate(changes):
            self._since[bucket] = change.now_milliseconds
            for row in change.rows:
                self._take(row, moved, removed)
        self._online_count = sum(change.online_count for change in changes)
        self._now_milliseconds = max(change.now_milliseconds for change in changes)
        if len(self._drivers) != self._online_count:
            await self._forget_the_gone(moved, removed)
        return _Delta(
            vehicles=moved,
            removed=frozenset(one for one in removed if not self._is_shown(one)),
            now_milliseconds=self._now_milliseconds,
        )

    def _is_shown(self, vehicle_id: str) -> bool:
        vehicle = self.vehicles.get(vehicle_id)
        return vehicle is not None and bool(vehicle.part)

    def _take(self, row: FleetRow, moved: dict[str, _Vehicle], removed: set[str]) -> None:
        before = self._drivers.get(row.driver_id)
        if before == row:
            return
        if before is not None and before.vehicle_id != row.vehicle_id:
            self._drop(row.driver_id, removed)
            before = None
        if before is None:
            self._drivers_of[row.vehicle_id] += 1
        self._drivers[row.driver_id] = row
        shown = self.vehicles.get(row.vehicle_id)
        if shown is not None and shown.row.heard_milliseconds > row.heard_milliseconds:
            # Another driver of the same vehicle was heard of later.
            return
        if shown is not None and _same(shown.row, row):
            shown.row = row
            return
        part = self._encoder.vehicle(row) if row.payload else b""
        vehicle = _Vehicle(row, part)
        self.vehicles[row.vehicle_id] = vehicle
        if part:
            moved[row.vehicle_id] = vehicle
        elif shown is not None and shown.part:
            removed.add(row.vehicle_id)

    def _drop(self, driver_id: str, removed: set[str]) -> None:
        row = self._drivers.pop(driver_id)
        self._drivers_of[row.vehicle_id] -= 1
        if self._drivers_of[row.vehicle_id] <= 0:
            del self._drivers_of[row.vehicle_id]
            if self.vehicles.pop(row.vehicle_id, None) is not None:
                removed.add(row.vehicle_id)

    async def _forget_the_gone(self, moved: dict[str, _Vehicle], removed: set[str]) -> None:
        """Compare with all who are online: some went offline, or were moved by hand."""
        changes = await asyncio.gather(
            *(
                self._views.fleet_change(self._tenant_id, bucket, since_milliseconds=0)
                for bucket in range(self._views.bucket_count)
            )
        )
        if any(change.cut_off for change in changes):
            _log.warning("fleet_cut_off", tenant_id=self._tenant_id)
            return
        rows = {row.driver_id: row for change in changes for row in change.rows}
        for driver_id in self._drivers.keys() - rows.keys():
            self._drop(driver_id, removed)
        for row in rows.values():
            self._take(row, moved, removed)
        for vehicle_id in removed:
            moved.pop(vehicle_id, None)

    def _set_degraded(self, degraded: bool) -> None:
        if degraded == self._degraded:
            return
        self._degraded = degraded
        empty = _Delta(vehicles={}, removed=frozenset(), now_milliseconds=self._now_milliseconds)
        empty.frame = self.frame([])
        for viewer in self.viewers:
            viewer.put(empty)

    def frame(
        self, vehicles: Sequence[_Vehicle], *, removed: Sequence[str] = (), snapshot: bool = False
    ) -> bytes:
        """Return a frame with some vehicles."""
        return self._encoder.frame(
            [vehicle.part for vehicle in vehicles],
            removed=removed,
            snapshot=snapshot,
            now_milliseconds=self._now_milliseconds,
            online_count=self._online_count,
            degraded=self._degraded,
        )

    def shared_frame(self, delta: _Delta) -> bytes:
        """Return the frame of a whole delta, made once for all who need it."""
        if not delta.frame:
            delta.frame = self.frame(list(delta.vehicles.values()), removed=sorted(delta.removed))
        return delta.frame

    def fix_of(self, vehicle: _Vehicle) -> Fix | None:
        """Return where a vehicle is; read from its payload when the first follower asks."""
        if vehicle.fix is None:
            vehicle.fix = self._encoder.fix_of(vehicle.row.payload)
        return vehicle.fix


def _same(one: FleetRow, other: FleetRow) -> bool:
    """Say whether two rows look the same to followers: only the time differs."""
    return (
        one.payload == other.payload and one.trip_id == other.trip_id and one.status == other.status
    )


class FleetHub:
    """Holds the fleets that are followed in this process."""

    def __init__(self, *, views: ViewStore, encoder: FleetEncoder) -> None:
        """Read from `views`."""
        self._views = views
        self._encoder = encoder
        self._fleets: dict[str, tuple[Fleet, asyncio.Task[None]]] = {}
        self._tasks = HeldTasks()

    async def run(self) -> None:
        """Hold the polls until cancelled."""
        await self._tasks.hold()

    async def attach(
        self, tenant_id: str, narrow: FleetFilter, wake: Callable[[], None]
    ) -> FleetViewer:
        """Return a follower of the tenant's fleet; detach it in the end."""
        known = self._fleets.get(tenant_id)
        if known is None:
            fleet = Fleet(tenant_id, views=self._views, encoder=self._encoder)
            known = fleet, self._tasks.start(fleet.run())
            self._fleets[tenant_id] = known
        fleet = known[0]
        viewer = FleetViewer(fleet, narrow, wake)
        fleet.viewers.add(viewer)
        try:
            await fleet.loaded.wait()
        except BaseException:
            self.detach(tenant_id, viewer)
            raise
        return viewer

    def detach(self, tenant_id: str, viewer: FleetViewer) -> None:
        """Forget a follower; a fleet that nobody follows is not polled."""
        fleet, task = self._fleets[tenant_id]
        fleet.viewers.discard(viewer)
        if not fleet.viewers:
            task.cancel()
            del self._fleets[tenant_id]
