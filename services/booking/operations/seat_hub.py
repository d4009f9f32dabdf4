"""Brings changes of seats to everybody in this process who watches them, each change once.

Reads the service's own events from Valkey once for all watchers. What is missing there (a version
that does not follow, the time before, an outage) is read from the event store in PostgreSQL, which
has everything; while Valkey is away all watched trips are, once a second.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import structlog
from prometheus_client import Counter, Gauge

from services.booking.domain.layouts import SeatLayout
from services.booking.domain.seat_maps import JourneyStates, SeatStates, ToldChanges
from services.booking.domain.seats import SeatState, legs_between
from services.booking.domain.trips import Journey, Trip
from services.booking.errors.trips import TripUnknownError
from services.booking.operations.seat_watcher import SeatWatcher
from services.booking.ports.seat_maps import EventTail, SeatMapStore
from services.shared.clock import Clock
from services.shared.errors import DependencyUnavailableError
from services.shared.tasks import HeldTasks

_log = structlog.get_logger()
_WATCHERS = Gauge("wayfare_booking_watchers_open", "Open WatchSeats")
_FILLED = Counter("wayfare_booking_watch_gaps_total", "Gaps that were read from the event store")
_READ_SECONDS = 1.0
_AWAY_SECONDS = 1.0
# How often what is watched is compared with PostgreSQL although Valkey is there.
_COMPARE_SECONDS = 5.0
_READ_MOST = 500
_RESUME_MOST = 2_000


@dataclass(frozen=True, slots=True)
class Told:
    """Is one event of interest: `changes` of a trip's seats, or None: the trip itself changed."""

    tenant_id: str
    trip_id: str
    changes: ToldChanges | None


Read = Callable[[bytes], Told | None]
Encode = Callable[[ToldChanges, Sequence[tuple[str, SeatState]], int], bytes]


@dataclass(slots=True, eq=False)
class _View:
    """Is all who watch the same journey of a trip."""

    states: JourneyStates
    watchers: set[SeatWatcher] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class WatchedTrip:
    """Is a trip that somebody in this process watches."""

    tenant_id: str
    trip: Trip
    layout: SeatLayout
    states: SeatStates
    views: dict[int, _View] = field(default_factory=dict)
    is_filling: bool = False
    fill_again: bool = False


class SeatHub:
    """Knows what is watched, and tells those who watch."""

    def __init__(
        self,
        *,
        store: SeatMapStore,
        tail: EventTail,
        read: Read,
        encode: Encode,
        clock: Clock,
        watcher_changes_max: int,
    ) -> None:
        """Watch `store` and `tail`; `read` and `encode` know the contract.

        A watcher for whom more than `watcher_changes_max` changes wait gets a new snapshot.
        """
        self._store = store
        self._tail = tail
        self._read = read
        self._encode = encode
        self._clock = clock
        self._watcher_changes_max = watcher_changes_max
        self._watched: dict[tuple[str, str], WatchedTrip] = {}
        self._loading: dict[tuple[str, str], asyncio.Future[WatchedTrip]] = {}
        self._early: dict[tuple[str, str], list[ToldChanges]] = {}
        self._away: set[int] = set()
        self._woken = asyncio.Event()
        self._tasks = HeldTasks()

    @property
    def degraded(self) -> bool:
        """Say whether Valkey is away: changes come up to a second late, none is lost."""
        return bool(self._away)

    async def run(self) -> None:
        """Read and tell until cancelled."""
        await self._tasks.hold(
            *[
                partial(self._follow, number, partitions)
                for number, partitions in enumerate(self._tail.groups)
            ]
        )

    async def watched(self, tenant_id: str, trip_id: str) -> WatchedTrip:
        """Return a trip that is followed from now on, if a watcher is attached at once.

        Raises TripUnknownError.
        """
        key = (tenant_id, trip_id)
        while key not in self._watched:
            loading = self._loading.get(key)
            if loading is None:
                return await self._load(key)
            # Somebody else loads it; if they fail, or leave before we are here, we try.
            await asyncio.wait([loading])
        return self._watched[key]

    def attach(self, watched: WatchedTrip, journey: Journey) -> SeatWatcher:
        """Return a new watcher, who gets what comes after the trip's version now."""
        self._watched.setdefault((watched.tenant_id, watched.trip.trip_id), watched)
        legs = legs_between(*journey)
        view = watched.views.get(legs)
        if view is None:
            view = watched.views[legs] = _View(JourneyStates(watched.states, legs))
        watcher = SeatWatcher(journey, most=self._watcher_changes_max)
        watcher.version = watched.states.version
        view.watchers.add(watcher)
        _WATCHERS.inc()
        self._woken.set()
        return watcher

    def detach(self, watched: WatchedTrip, watcher: SeatWatcher) -> None:
        """Forget a watcher, and a trip that nobody watches any more."""
        legs = legs_between(*watcher.journey)
        view = watched.views[legs]
        view.watchers.discard(watcher)
        _WATCHERS.dec()
        if not view.watchers:
            del watched.views[legs]
        self.release(watched)

    def release(self, watched: WatchedTrip) -> None:
        """Forget a trip that nobody watches; called by who asked for it and did not attach."""
        key = (watched.tenant_id, watched.trip.trip_id)
        if not watched.views and self._watched.get(key) is watched:
            del self._watched[key]

    async def since(
        self, watched: WatchedTrip, journey: Journey, *, after: int, states: SeatStates
    ) -> list[bytes] | None:
        """Return the changes of a journey after a version until that of `states`.

        None if they are not known, or too many.
        """
        until = states.version
        if not 0 <= until - after <= _RESUME_MOST:
            return None
        told: list[ToldChanges] = []
        while len(told) < until - after:
            page = await self._told_after(watched, after + len(told))
            told += [one for one in page if one.seat_version <= until]
            if not page:
                break
        if [one.seat_version for one in told] != list(range(after + 1, until + 1)):
            return None
        states = states.rewound(told)
        view = JourneyStates(states, legs_between(*journey))
        payloads = []
        for one in told:
            states.apply(one)
            different = view.follow(states, one.changes)
            if different:
                payloads.append(self._encode(one, different, view.free_count))
        return payloads

    async def catch_up(self, watched: WatchedTrip) -> None:
        """Read what is missing of a trip from the event store, and tell it."""
        if watched.is_filling:
            watched.fill_again = True
            return
        watched.is_filling = True
        try:
            while True:
                watched.fill_again = False
                page = await self._told_after(watched, watched.states.version)
                for told in page:
                    self._deliver(watched, told)
                if len(page) < _READ_MOST and not watched.fill_again:
                    break
        finally:
            watched.is_filling = False
        _FILLED.inc()

    async def _load(self, key: tuple[str, str]) -> WatchedTrip:
        loading: asyncio.Future[WatchedTrip] = asyncio.get_running_loop().create_future()
        self._loading[key] = loading
        self._early[key] = []
        try:
            found = await self._store.trip(*key)
            if found is None:
                raise TripUnknownError(key[1])
            trip, layout = found
            states = await self._store.states(key[0], layout, trip.trip_id)
            watched = WatchedTrip(key[0], trip, layout, states)
            self._watched[key] = watched
            for told in self._early[key]:
                self._deliver(watched, told)
            return watched
        finally:
            del self._loading[key], self._early[key]
            loading.cancel()

    async def _follow(self, group: int, partitions: Sequence[int]) -> None:
        """Read some partitions until cancelled, and see to gaps."""
        while True:
            try:
                if not self._watched:
                    await self._tail.ping()
                    self._away.discard(group)
                    await self._rest()
                    continue
                await self._read_on(group, partitions)
            except DependencyUnavailableError as error:
                self._away.add(group)
                _log.warning("seats_watched_without_valkey", dependency=error.dependency)
                await _quietly(self._compare())
                await asyncio.sleep(_AWAY_SECONDS)

    async def _read_on(self, group: int, partitions: Sequence[int]) -> None:
        positions = await self._tail.ends(partitions)
        await self._compare()
        self._away.discard(group)
        compare_at = self._clock.monotonic() + _COMPARE_SECONDS
        while self._watched:
            for envelope in await self._tail.read(positions, seconds=_READ_SECONDS):
                self._take(envelope)
            if self._clock.monotonic() >= compare_at:
                await self._compare()
                compare_at = self._clock.monotonic() + _COMPARE_SECONDS

    def _take(self, envelope: bytes) -> None:
        told = self._read(envelope)
        if told is None:
            return
        key = (told.tenant_id, told.trip_id)
        watched = self._watched.get(key)
        if watched is None:
            if told.changes is not None and key in self._early:
                self._early[key].append(told.changes)
        elif told.changes is None:
            self._start(self._reload(watched))
        elif not self._deliver(watched, told.changes):
            self._start(self.catch_up(watched))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        _ = self._tasks.start(_quietly(work))

    def _deliver(self, watched: WatchedTrip, told: ToldChanges) -> bool:
        """Tell a change if it is the next one; return False if one before it is missing."""
        states = watched.states
        if told.seat_version <= states.version:
            return True
        if told.seat_version != states.version + 1:
            return False
        states.apply(told)
        for view in watched.views.values():
            different = view.states.follow(states, told.changes)
            if different:
                payload = self._encode(told, different, view.states.free_count)
                for watcher in view.watchers:
                    watcher.put(told.seat_version, payload)
        return True

    async def _compare(self) -> None:
        """Compare what is watched with PostgreSQL, and read what is missing."""
        tenants: dict[str, list[WatchedTrip]] = {}
        for watched in self._watched.values():
            tenants.setdefault(watched.tenant_id, []).append(watched)
        for tenant_id, trips in tenants.items():
            heads = await self._store.heads(tenant_id, [one.trip.trip_id for one in trips])
            for watched in trips:
                head = heads.get(watched.trip.trip_id)
                if head is None:
                    continue
                if head.seat_version > watched.states.version:
                    await self.catch_up(watched)
                if head.update_time != watched.trip.update_time:
                    await self._reload(watched)

    async def _reload(self, watched: WatchedTrip) -> None:
        """Read a trip anew, and let its watchers look whether they are still served."""
        found = await self._store.trip(watched.tenant_id, watched.trip.trip_id)
        if found is None:
            return
        watched.trip = found[0]
        for view in watched.views.values():
            for watcher in view.watchers:
                watcher.wake()

    async def _told_after(self, watched: WatchedTrip, version: int) -> list[ToldChanges]:
        envelopes = await self._store.envelopes_after(
            watched.tenant_id, watched.trip.trip_id, version, most=_READ_MOST
        )
        told = [self._read(envelope) for envelope in envelopes]
        return [one.changes for one in told if one is not None and one.changes is not None]

    async def _rest(self) -> None:
        """Sleep until somebody watches, at most a second."""
        self._woken.clear()
        if not self._watched:
            timer = asyncio.get_running_loop().call_later(_AWAY_SECONDS, self._woken.set)
            try:
                await self._woken.wait()
            finally:
                timer.cancel()


async def _quietly(work: Coroutine[Any, Any, None]) -> None:
    """Do what is tried again anyway; PostgreSQL may be away."""
    try:
        await work
    except DependencyUnavailableError as error:
        _log.warning("watched_seats_not_read", dependency=error.dependency)
