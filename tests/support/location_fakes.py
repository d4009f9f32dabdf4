"""LocationService's ports in memory. The contract suite holds them and the real stores alike."""

import asyncio
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from services.location.domain.trips import TrackedTrip
from services.location.ports.live import (
    ACCEPTED,
    ALERT,
    DUPLICATE,
    ETA,
    MISSING,
    OLD,
    POSITION,
    REPLACED,
    STATUS,
    SUPERSEDED,
    TRIP_ENDED,
    TRIP_MOVED,
    TRIP_OVER,
    DriverState,
    Publisher,
    SessionGrant,
    Tick,
    TripState,
    Update,
    WatchState,
)
from services.location.store.keys import bucket_of
from services.shared.errors import DependencyUnavailableError, RequestIdReusedError

BUCKETS = 4
_LIVE_SECONDS = 30.0


@dataclass
class _Driver:
    session: int = 0
    seq: int = 0
    capture: int = 0
    received: int = 0
    vehicle_id: str = ""
    trip_id: str = ""
    tenant_id: str = ""
    live: bytes = b""
    live_until: float = 0.0


@dataclass
class _Trip:
    epoch: str
    driver_id: str
    version: int = 0
    status: str = ""
    boarding: bytes = b""
    eta: bytes = b""
    tracked: bool = True
    events: list[bytes] = field(default_factory=list)


class MemoryLiveStore:
    """Is LiveStore in memory; `away` makes it answer nothing."""

    def __init__(self) -> None:
        self.away = False
        self.applied: list[list[Update]] = []
        self._drivers: dict[str, _Driver] = {}
        self._trips: dict[tuple[int, str], _Trip] = {}
        self._records: dict[str, TrackedTrip] = {}
        self._vehicles: dict[tuple[str, str], str] = {}
        self.alerts: list[bytes] = []
        self._watched: dict[tuple[str, str], WatchState] = {}
        self._follows: dict[str, set[str]] = {}
        self._answers: dict[str, tuple[bytes, bytes]] = {}
        self._ticks: dict[int, list[Tick]] = {bucket: [] for bucket in range(BUCKETS)}
        self._tick_count = 0
        self._written = asyncio.Condition()

    def _answer(self) -> None:
        if self.away:
            raise DependencyUnavailableError("valkey")

    async def ping(self) -> None:
        self._answer()

    def bucket_of(self, driver_id: str) -> int:
        return bucket_of(driver_id, BUCKETS)

    async def open_session(
        self,
        *,
        driver_id: str,
        tenant_id: str,
        vehicle_id: str,
        trip_id: str,
        resume_seq: int | None,
        vehicle_class: int = 0,
    ) -> SessionGrant:
        self._answer()
        known = driver_id in self._drivers
        driver = self._drivers.setdefault(driver_id, _Driver())
        driver.session = max(driver.session + 1, int(time.time() * 1000))
        if resume_seq is None:
            driver.seq = 0
        elif not known:
            driver.seq = resume_seq
        return self._grant(driver, driver_id, tenant_id, vehicle_id, trip_id)

    async def join_session(
        self,
        *,
        driver_id: str,
        tenant_id: str,
        vehicle_id: str,
        trip_id: str,
        vehicle_class: int = 0,
    ) -> SessionGrant:
        self._answer()
        known = self._drivers.get(driver_id)
        if known is not None and not trip_id:
            # A report without a trip says nothing of the trip that an open stream drives.
            vehicle_id, trip_id = known.vehicle_id, known.trip_id
        driver = known or _Driver(session=int(time.time() * 1000))
        self._drivers[driver_id] = driver
        return self._grant(driver, driver_id, tenant_id, vehicle_id, trip_id)

    def _grant(
        self, driver: _Driver, driver_id: str, tenant_id: str, vehicle_id: str, trip_id: str
    ) -> SessionGrant:
        driver.vehicle_id, driver.trip_id, driver.tenant_id = vehicle_id, trip_id, tenant_id
        self._vehicles[tenant_id, vehicle_id] = driver_id
        status = self._ensure_trip(driver_id, trip_id).status if trip_id else ""
        return SessionGrant(
            session=str(driver.session),
            seq=driver.seq,
            capture_milliseconds=driver.capture,
            live_payload=_live(driver),
            trip_status=status,
        )

    def _ensure_trip(self, driver_id: str, trip_id: str) -> _Trip:
        key = (self.bucket_of(driver_id), trip_id)
        trip = self._trips.setdefault(key, _Trip(secrets.token_hex(4), driver_id))
        trip.driver_id = driver_id
        return trip

    async def apply(self, bucket: int, updates: Sequence[Update]) -> str:
        self._answer()
        self.applied.append(list(updates))
        fields: list[bytes] = []
        verdicts = ""
        for update in updates:
            verdict, payload = self._apply_one(bucket, update)
            verdicts += verdict
            if payload:
                fields += [f"{update.kind}{update.trip_id}".encode(), payload]
        if fields:
            await self._write_tick(bucket, fields)
        return verdicts

    def _apply_one(self, bucket: int, update: Update) -> tuple[str, bytes]:
        driver = self._drivers.get(update.publisher.driver_id)
        if driver is None:
            return MISSING, b""
        if update.session:
            if str(driver.session) != update.session:
                return SUPERSEDED, b""
            if update.seq <= driver.seq:
                return DUPLICATE, b""
        trip = self._trips.get((bucket, update.trip_id))
        if update.trip_id:
            if trip is None:
                return MISSING, b""
            if trip.driver_id != update.publisher.driver_id:
                return REPLACED, b""
        driver.seq = update.seq if update.session else driver.seq
        if trip is not None and (trip.status == "ENDED" or not trip.tracked):
            return TRIP_OVER, b""
        if update.kind != POSITION:
            return ACCEPTED, _write_event(trip, update)
        assert update.fix is not None
        if update.fix.capture_milliseconds <= driver.capture:
            return OLD, b""
        driver.capture, driver.live = update.fix.capture_milliseconds, update.payload
        driver.received = int(time.time() * 1000)
        driver.live_until = time.monotonic() + _LIVE_SECONDS
        return ACCEPTED, b"" if trip is None else _with_token(trip, update.payload)

    async def _write_tick(self, bucket: int, fields: Sequence[bytes]) -> None:
        self._tick_count += 1
        async with self._written:
            self._ticks[bucket].append(Tick(stream_id=b"%d-0" % self._tick_count, fields=fields))
            self._written.notify_all()

    async def track(self, trip: TrackedTrip) -> None:
        self._answer()
        before = self._records.get(trip.trip_id)
        kept = self._ensure_trip(trip.driver_id, trip.trip_id)
        if before is not None:
            bucket = self.bucket_of(before.driver_id)
            if bucket != self.bucket_of(trip.driver_id):
                moved = self._trips.pop((bucket, trip.trip_id))
                kept.status, kept.boarding = moved.status, moved.boarding
                await self._write_tick(bucket, [f"{TRIP_MOVED}{trip.trip_id}".encode(), b""])
        self._records[trip.trip_id] = trip

    async def untrack(self, trip: TrackedTrip) -> None:
        await self.track(trip)
        self._ensure_trip(trip.driver_id, trip.trip_id).tracked = False
        bucket = self.bucket_of(trip.driver_id)
        await self._write_tick(bucket, [f"{TRIP_ENDED}{trip.trip_id}".encode(), b""])

    async def tracked_trip(self, trip_id: str) -> TrackedTrip | None:
        self._answer()
        trip = self._records.get(trip_id)
        if trip is None:
            return None
        empty: frozenset[str] = frozenset()
        return replace(trip, stops=(), follower_ids=empty, conductor_ids=empty)

    async def is_follower(self, trip_id: str, user_id: str) -> bool:
        self._answer()
        trip = self._records.get(trip_id)
        return trip is not None and user_id in trip.follower_ids | trip.conductor_ids

    async def snapshot(self, trip: TrackedTrip, *, with_events: bool) -> TripState:
        self._answer()
        kept = self._trips.get((self.bucket_of(trip.driver_id), trip.trip_id))
        driver = self._drivers.get(trip.driver_id)
        on_trip = driver is not None and driver.trip_id == trip.trip_id
        return TripState(
            epoch=kept.epoch if kept else "00000000",
            version=kept.version if kept else 0,
            status=kept.status if kept else "",
            boarding_payload=kept.boarding if kept else b"",
            tracked=kept is None or kept.tracked,
            position_payload=_live(driver) if driver and on_trip else b"",
            events=list(kept.events) if kept and with_events else [],
            eta_payload=kept.eta if kept else b"",
        )

    async def vehicle_state(self, tenant_id: str, vehicle_id: str) -> DriverState | None:
        self._answer()
        driver = self._drivers.get(self._vehicles.get((tenant_id, vehicle_id), ""))
        if driver is None or (driver.tenant_id, driver.vehicle_id) != (tenant_id, vehicle_id):
            return None
        return DriverState(
            vehicle_id=vehicle_id,
            trip_id=driver.trip_id,
            tenant_id=tenant_id,
            capture_milliseconds=driver.capture,
            received_milliseconds=driver.received,
            position_payload=_live(driver),
        )

    async def watch(
        self,
        publisher: Publisher,
        trip_id: str,
        *,
        known: WatchState,
        state: bytes,
        told: Sequence[tuple[str, bytes]],
    ) -> WatchState | None:
        self._answer()
        key = (publisher.driver_id, trip_id)
        kept = self._watched.get(key, WatchState(version=0, state=b""))
        if kept.version != known.version:
            return kept
        self._watched[key] = WatchState(version=kept.version + 1, state=state)
        bucket = self.bucket_of(publisher.driver_id)
        trip = self._trips.get((bucket, trip_id))
        fields: list[bytes] = []
        for kind, payload in told:
            if kind == ALERT:
                self.alerts.append(payload)
            elif trip is not None:
                encoded = _with_token(trip, payload)
                if kind == ETA:
                    trip.eta = payload
                else:
                    trip.events.append(encoded)
                fields += [f"{kind}{trip_id}".encode(), encoded]
        if fields:
            await self._write_tick(bucket, fields)
        return None

    async def watched(self, publisher: Publisher, trip_id: str) -> WatchState:
        self._answer()
        key = (publisher.driver_id, trip_id)
        return self._watched.get(key, WatchState(version=0, state=b""))

    async def set_presence(
        self,
        *,
        driver_id: str,
        tenant_id: str,
        vehicle_id: str,
        online: bool,
        vehicle_class: int = 0,
    ) -> None:
        self._answer()
        if online:
            self._vehicles[tenant_id, vehicle_id] = driver_id
        elif driver_id in self._drivers:
            self._drivers[driver_id].live = b""

    async def follow(self, user_id: str, trip_id: str, *, trips_max: int) -> bool:
        self._answer()
        followed = self._follows.setdefault(user_id, set())
        if trip_id not in followed and len(followed) >= trips_max:
            return False
        followed.add(trip_id)
        return True

    async def unfollow(self, user_id: str, trip_id: str) -> None:
        self._answer()
        self._follows.get(user_id, set()).discard(trip_id)

    async def replay_answer(self, request_id: str, body_hash: bytes) -> bytes | None:
        self._answer()
        kept = self._answers.get(request_id)
        if kept is None:
            return None
        if kept[0] != body_hash:
            raise RequestIdReusedError(request_id.rpartition(":")[2])
        return kept[1]

    async def keep_answer(self, request_id: str, body_hash: bytes, answer: bytes) -> None:
        self._answer()
        self._answers.setdefault(request_id, (body_hash, answer))

    async def last_tick_id(self, bucket: int) -> bytes:
        self._answer()
        return self._ticks[bucket][-1].stream_id if self._ticks[bucket] else b"0-0"

    async def first_tick_id(self, bucket: int) -> bytes:
        self._answer()
        return self._ticks[bucket][0].stream_id if self._ticks[bucket] else b"0-0"

    def forget_ticks(self, bucket: int) -> None:
        """Drop all but the newest tick, as the cap of the stream does."""
        del self._ticks[bucket][:-1]

    async def read_ticks(self, bucket: int, after: bytes) -> Sequence[Tick]:
        self._answer()
        number = int(after.partition(b"-")[0])

        def newer() -> list[Tick]:
            return [
                tick
                for tick in self._ticks[bucket]
                if int(tick.stream_id.partition(b"-")[0]) > number
            ]

        try:
            async with asyncio.timeout(0.05), self._written:
                await self._written.wait_for(lambda: bool(newer()))
        except TimeoutError:
            self._answer()
        return newer()


def _live(driver: _Driver) -> bytes:
    return driver.live if time.monotonic() < driver.live_until else b""


def _with_token(trip: _Trip, payload: bytes) -> bytes:
    trip.version += 1
    return b"\x0a\x10" + f"{trip.epoch}{trip.version:08x}".encode() + payload


def _write_event(trip: _Trip | None, update: Update) -> bytes:
    if trip is None:
        return b""
    if update.kind == STATUS:
        trip.status = update.status
    else:
        trip.boarding = update.payload
    encoded = _with_token(trip, update.payload)
    trip.events.append(encoded)
    return encoded
