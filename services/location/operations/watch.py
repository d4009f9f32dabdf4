"""Watches what accepted positions mean: stops reached, arrivals expected, geofences crossed.

Fed by the batcher, a batch at a time. What is known of a trip's stops, or of a driver's geofences,
is kept in this process while its driver sends here, and written by compare-and-set together with
what followers are told of it: whichever process writes, each event is told once and in order.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog
from prometheus_client import Counter, Gauge

from services.location.domain.positions import Fix
from services.location.domain.trips import TripStatus
from services.location.ports.live import POSITION, STATUS, LiveStore, Publisher, Update, WatchState
from services.shared.clock import Clock
from services.shared.errors import DependencyUnavailableError
from services.shared.tasks import HeldTasks

_log = structlog.get_logger()
_TOLD = Counter("wayfare_location_watch_told_total", "What followers were told", ["kind"])
_WATCHED = Gauge("wayfare_location_watched", "Trips and drivers that are watched")
_CONFLICTS = Counter(
    "wayfare_location_watch_conflicts_total", "Times that another process had written before"
)
# Fixes that are gone through again when another process wrote in between; observers ignore those
# that are not newer than the state.
_RECENT_FIXES = 32
_FORGET_SECONDS = 180.0
_RETRY_SECONDS = 1.0
_STALE_SECONDS = 5.0
# How soon a new geofence is noticed, and a trip whose stops could not be read.
_LOOK_AGAIN_SECONDS = 10.0
# A trip that has no stops may be given some at another process; it is asked for ever more rarely.
_LOOK_AGAIN_TRIP_SECONDS = 60.0
_LOOK_AGAIN_MOST_SECONDS = 600.0
# What a trip is may have changed at another process; until then its stops need not be read again.
_OPEN_ANEW_SECONDS = 60.0
_WRITES_AT_ONCE = 16

Told = tuple[str, bytes]
"""Is what followers are told: the kind of tick, and the payload."""


class Observer(Protocol):
    """Decides what the fixes of one trip, or of one driver, mean. Holds the state in between.

    `trip_id` is the trip on which the next fix was captured, empty for free driving.
    """

    trip_id: str

    def observe(self, fix: Fix, now_milliseconds: int) -> Sequence[Told]:
        """Take the next fix; return what is to be told. Ignores fixes that it saw before."""
        ...

    def finish(self, capture_milliseconds: int) -> Sequence[Told]:
        """Take that the trip has ended; return what is to be told."""
        ...

    def save(self) -> bytes:
        """Return the state."""
        ...

    def restore(self, state: bytes) -> None:
        """Go on from a state that `save` returned, maybe elsewhere; empty is the beginning."""
        ...


Open = Callable[[Publisher, str], Awaitable[Observer | None]]
"""Makes the observer of a trip, or without a trip that of a driver; None: nothing to observe."""


@dataclass(slots=True)
class _Watched:
    """Is a trip or a driver that is watched. Without an observer it is not looked at."""

    publisher: Publisher
    trip_id: str
    observer: Observer | None
    known: WatchState
    told: list[Told]
    recent: deque[Fix]
    heard_at: float
    loading: bool = True
    queued: bool = False
    look_again_at: float = 0.0
    look_again_seconds: float = _LOOK_AGAIN_TRIP_SECONDS
    open_anew_at: float = 0.0
    on_trip: str = ""


class Watch:
    """Observes every trip and driver whose positions are accepted here."""

    def __init__(
        self,
        *,
        live: LiveStore,
        open_trip: Open,
        open_driver: Open,
        clock: Clock,
        watched_max: int,
    ) -> None:
        """Write to `live`; hold at most `watched_max`, of which the oldest go first."""
        self._live = live
        self._open = {True: open_trip, False: open_driver}
        self._clock = clock
        self._watched_max = watched_max
        self._watched: OrderedDict[tuple[str, str], _Watched] = OrderedDict()
        self._work: asyncio.Queue[_Watched] = asyncio.Queue()

    def __len__(self) -> int:
        """Count the trips and drivers that are watched."""
        return len(self._watched)

    def accepted(self, updates: Sequence[Update]) -> None:
        """Take what the store accepted, in order. Only looks and queues; the work is `run`'s."""
        now = self._clock.monotonic()
        now_milliseconds = int(self._clock.now().timestamp() * 1000)
        for update in updates:
            if update.kind == STATUS and update.status == TripStatus.ENDED:
                self._finish(update, now_milliseconds)
            if update.kind != POSITION or update.fix is None:
                continue
            if update.trip_id:
                self._observe(update.publisher, update.trip_id, update.fix, now, now_milliseconds)
            self._observe(
                update.publisher, "", update.fix, now, now_milliseconds, on_trip=update.trip_id
            )

    def _finish(self, update: Update, now_milliseconds: int) -> None:
        watched = self._watched.get((update.publisher.driver_id, update.trip_id))
        if watched is None or watched.observer is None:
            return
        watched.told += watched.observer.finish(now_milliseconds)
        if watched.told and not watched.queued:
            self._queue(watched)

    def _observe(
        self,
        publisher: Publisher,
        trip_id: str,
        fix: Fix,
        now: float,
        now_milliseconds: int,
        *,
        on_trip: str = "",
    ) -> None:
        key = (publisher.driver_id, trip_id)
        watched = self._watched.get(key)
        if watched is None:
            watched = self._begin(key, publisher, trip_id)
        elif now - watched.heard_at > _STALE_SECONDS and not (watched.loading or watched.queued):
            # The driver may have sent to another process meanwhile, which knows more now.
            watched.loading = True
            watched.recent.clear()
            self._queue(watched)
        watched.heard_at = now
        watched.on_trip = trip_id or on_trip
        if watched.loading:
            watched.recent.append(fix)
            return
        if watched.observer is None:
            if now >= watched.look_again_at:
                watched.loading = True
                self._queue(watched)
            return
        watched.recent.append(fix)
        watched.observer.trip_id = watched.on_trip
        watched.told += watched.observer.observe(fix, now_milliseconds)
        if watched.told and not watched.queued:
            self._queue(watched)

    def _begin(self, key: tuple[str, str], publisher: Publisher, trip_id: str) -> _Watched:
        watched = _Watched(
            publisher=publisher,
            trip_id=trip_id,
            observer=None,
            known=WatchState(version=0, state=b""),
            told=[],
            recent=deque(maxlen=_RECENT_FIXES),
            heard_at=0.0,
        )
        self._watched[key] = watched
        if len(self._watched) > self._watched_max:
            self._watched.popitem(last=False)
        self._queue(watched)
        return watched

    def _queue(self, watched: _Watched) -> None:
        watched.queued = True
        self._work.put_nowait(watched)

    def forget(self, trip_id: str) -> None:
        """Look anew at what a trip is: its stops or its driver changed."""
        for key in [key for key in self._watched if key[1] == trip_id]:
            del self._watched[key]

    async def run(self) -> None:
        """Load and write until cancelled."""
        workers = [self._work_off] * _WRITES_AT_ONCE
        await HeldTasks().hold(self._forget_the_silent, *workers)

    async def _work_off(self) -> None:
        while True:
            watched = await self._work.get()
            try:
                await (self._load(watched) if watched.loading else self._write(watched))
            except DependencyUnavailableError:
                if watched.loading:
                    watched.loading, watched.queued = False, False
                    continue
                # What was seen in the outage is told when it is over.
                asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._queue, watched)
                continue
            watched.queued = bool(watched.told)
            if watched.queued:
                self._work.put_nowait(watched)

    async def _load(self, watched: _Watched) -> None:
        now = self._clock.monotonic()
        watched.look_again_at = now + _LOOK_AGAIN_SECONDS
        observer = watched.observer
        if observer is None or now >= watched.open_anew_at:
            open_observer = self._open[bool(watched.trip_id)]
            observer = await open_observer(watched.publisher, watched.trip_id)
            watched.open_anew_at = now + _OPEN_ANEW_SECONDS
            watched.observer = observer
        if observer is None and watched.trip_id:
            watched.look_again_at = now + watched.look_again_seconds
            longer = 2 * watched.look_again_seconds
            watched.look_again_seconds = min(_LOOK_AGAIN_MOST_SECONDS, longer)
        if observer is not None:
            watched.known = await self._live.watched(watched.publisher, watched.trip_id)
            observer.restore(watched.known.state)
            self._go_through_recent(watched, observer)
        watched.loading = False

    async def _write(self, watched: _Watched) -> None:
        observer = watched.observer
        if observer is None:
            return
        told, watched.told = watched.told, []
        state = observer.save()
        try:
            newer = await self._live.watch(
                watched.publisher, watched.trip_id, known=watched.known, state=state, told=told
            )
        except DependencyUnavailableError:
            watched.told = told + watched.told
            raise
        if newer is None:
            watched.known = WatchState(version=watched.known.version + 1, state=state)
            for kind, _ in told:
                _TOLD.labels(kind).inc()
            return
        # Another process wrote: go on from what it knows, with the fixes that came since here.
        _CONFLICTS.inc()
        watched.known = newer
        watched.told = []
        observer.restore(newer.state)
        self._go_through_recent(watched, observer)

    def _go_through_recent(self, watched: _Watched, observer: Observer) -> None:
        now_milliseconds = int(self._clock.now().timestamp() * 1000)
        observer.trip_id = watched.on_trip
        for fix in list(watched.recent):
            watched.told += observer.observe(fix, now_milliseconds)

    async def _forget_the_silent(self) -> None:
        while True:
            await asyncio.sleep(_FORGET_SECONDS / 6)
            oldest = self._clock.monotonic() - _FORGET_SECONDS
            silent = [
                key
                for key, watched in self._watched.items()
                if watched.heard_at < oldest and not watched.queued
            ]
            for key in silent:
                del self._watched[key]
            _WATCHED.set(len(self._watched))
