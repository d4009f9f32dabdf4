"""Holds what operations need of the store of live state."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from services.location.domain.positions import Fix
from services.location.domain.trips import TrackedTrip


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionGrant:
    """Is what the store knows of a driver whose session begins."""

    session: str
    seq: int
    capture_milliseconds: int
    live_payload: bytes
    trip_status: str


@dataclass(slots=True, kw_only=True)
class Publisher:
    """Is who sends updates: a driver with a vehicle. One object per session.

    `vehicle_class` is a number of the contract's VehicleClass, 0 when unknown.
    """

    driver_id: str
    tenant_id: str
    vehicle_id: str
    vehicle_class: int = 0


@dataclass(slots=True)
class Update:
    """Is one message of a driver on its way to the store.

    `payload` is a TripUpdate without its token. `status` and `alert_payload` (an Alert for the
    tenant's staff, told in the same step) belong to status reports, `fix` to positions.
    """

    publisher: Publisher
    session: str
    seq: int
    kind: str
    trip_id: str
    payload: bytes
    fix: Fix | None = None
    status: str = ""
    alert_payload: bytes = b""


TICKS_READ_MOST = 200
"""Is how many ticks one reading returns at most; as many mean that the reader lags."""

POSITION, STATUS, BOARDING = "p", "s", "b"
"""Are the kinds of updates."""

STOP_PROGRESS, ETA = "g", "e"
"""Are the kinds of ticks that `watch` writes. ETAs may be conflated."""

ALERT = "a"
"""Is the kind of what `watch` writes for the followers of alerts."""

TRIP_ENDED, TRIP_MOVED = "x", "r"
"""Are the kinds of ticks that the store writes by itself."""

ACCEPTED, DUPLICATE, OLD, SUPERSEDED, MISSING, TRIP_OVER, REPLACED = (
    "A",
    "D",
    "O",
    "S",
    "M",
    "N",
    "R",
)
"""Are the verdicts of the store, one letter each; `functions.lua` says what they mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TripState:
    """Is the live state of a trip: what a new follower is told. Payloads are TripUpdate bytes."""

    epoch: str
    version: int
    status: str
    boarding_payload: bytes
    tracked: bool
    position_payload: bytes
    events: Sequence[bytes]
    eta_payload: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchState:
    """Is what a process wrote last of a trip's stops, or of a driver's geofences."""

    version: int
    state: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverState:
    """Is the newest that is known of a driver."""

    vehicle_id: str
    trip_id: str
    tenant_id: str
    capture_milliseconds: int
    received_milliseconds: int
    position_payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Is what one tick of some server wrote for followers.

    Alternating names (kind and trip id) and payloads.
    """

    stream_id: bytes
    fields: Sequence[bytes]


class LiveStore(Protocol):
    """Keeps what is hot. Every method raises DependencyUnavailableError when it is away."""

    def bucket_of(self, driver_id: str) -> int:
        """Return the bucket in which everything of a driver, and of the driver's trip, is kept."""
        ...

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
        """Begin a session that fences off older ones of the same driver."""
        ...

    async def join_session(
        self,
        *,
        driver_id: str,
        tenant_id: str,
        vehicle_id: str,
        trip_id: str,
        vehicle_class: int = 0,
    ) -> SessionGrant:
        """Return what is known of a driver who reports without a stream; fences nobody off."""
        ...

    async def apply(self, bucket: int, updates: Sequence[Update]) -> str:
        """Decide and write `updates` in one atomic step; return a verdict for each."""
        ...

    async def track(self, trip: TrackedTrip) -> None:
        """Make the trip known."""
        ...

    async def untrack(self, trip: TrackedTrip) -> None:
        """Mark the trip as over and end its followers' streams."""
        ...

    async def tracked_trip(self, trip_id: str) -> TrackedTrip | None:
        """Return the trip, without its stops and followers, or None when it is not known here."""
        ...

    async def is_follower(self, trip_id: str, user_id: str) -> bool:
        """Say whether the user is among the trip's followers or conductors."""
        ...

    async def snapshot(self, trip: TrackedTrip, *, with_events: bool) -> TripState:
        """Return the live state of the trip, read in one atomic step."""
        ...

    async def vehicle_state(self, tenant_id: str, vehicle_id: str) -> DriverState | None:
        """Return the newest that is known of a vehicle's driver, or None."""
        ...

    async def watch(
        self,
        publisher: Publisher,
        trip_id: str,
        *,
        known: WatchState,
        state: bytes,
        told: Sequence[tuple[str, bytes]],
    ) -> WatchState | None:
        """Keep what is known of a trip's stops, or without a trip of a driver's geofences.

        `told` (kind and payload) reaches followers in the same step. Returns None, or what another
        process wrote since `known`: then nothing was written.
        """
        ...

    async def watched(self, publisher: Publisher, trip_id: str) -> WatchState:
        """Return what `watch` kept."""
        ...

    async def set_presence(
        self,
        *,
        driver_id: str,
        tenant_id: str,
        vehicle_id: str,
        online: bool,
        vehicle_class: int = 0,
    ) -> None:
        """Set whether the driver is online."""
        ...

    async def follow(self, user_id: str, trip_id: str, *, trips_max: int) -> bool:
        """Count one more followed trip of a user; say False when it is one too many.

        Lasts 600 seconds.
        """
        ...

    async def unfollow(self, user_id: str, trip_id: str) -> None:
        """Count the trip no more."""
        ...

    async def replay_answer(self, request_id: str, body_hash: bytes) -> bytes | None:
        """Return the answer that a request got before, or None. Raises RequestIdReusedError."""
        ...

    async def keep_answer(self, request_id: str, body_hash: bytes, answer: bytes) -> None:
        """Keep the answer of a request for a day."""
        ...

    async def last_tick_id(self, bucket: int) -> bytes:
        """Return the id of the bucket's last tick."""
        ...

    async def read_ticks(self, bucket: int, after: bytes) -> Sequence[Tick]:
        """Wait a while for ticks after `after` and return them; empty when there were none."""
        ...

    async def first_tick_id(self, bucket: int) -> bytes:
        """Return the id of the oldest tick that is kept."""
        ...
