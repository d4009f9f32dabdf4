"""Holds what operations need of the store of past positions and of ended trips' ways."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.location.domain.positions import Fix
from services.location.domain.track import Track
from services.location.ports.views import FreeDriver


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """Is one position as history keeps it. Times are milliseconds since 1970."""

    tenant_id: str
    vehicle_id: str
    driver_id: str
    trip_id: str
    fix: Fix
    receive_milliseconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LatestRow:
    """Is where a driver was last. `payload` is a TripUpdate with the position."""

    tenant_id: str
    driver_id: str
    vehicle_id: str
    vehicle_class: int
    trip_id: str
    fix: Fix
    receive_milliseconds: int
    payload: bytes


class HistoryRefusedError(Exception):
    """Says that the store is there and will never take what it was given."""


class HistoryStore(Protocol):
    """Keeps the past. Every method raises DependencyUnavailableError when it is away.

    `write` and `write_latest` raise HistoryRefusedError when trying again is of no use.
    """

    async def write(self, tenant_id: str, rows: Sequence[HistoryRow]) -> None:
        """Keep positions of one tenant; those that are kept already stay as they are."""
        ...

    async def write_latest(self, tenant_id: str, rows: Sequence[LatestRow]) -> None:
        """Keep where drivers of one tenant are, unless something newer is kept."""
        ...

    async def write_offline(self, tenant_id: str, gone: Mapping[str, datetime]) -> None:
        """Keep when drivers of one tenant said that they are gone, by their ids."""
        ...

    async def latest_of_vehicle(self, tenant_id: str, vehicle_id: str) -> LatestRow | None:
        """Return where the vehicle was last, or None."""
        ...

    async def free_drivers(
        self,
        tenant_id: str,
        *,
        latitude: float,
        longitude: float,
        radius_meters: float,
        vehicle_classes: Sequence[int],
        most: int,
        oldest_capture_milliseconds: int,
    ) -> Sequence[FreeDriver]:
        """Return the free drivers around a point, as ViewStore.free_drivers does."""
        ...

    async def page(
        self,
        tenant_id: str,
        vehicle_id: str,
        *,
        start: datetime,
        end: datetime,
        most: int,
    ) -> Sequence[HistoryRow]:
        """Return a vehicle's positions captured from `start` to before `end`, the newest first."""
        ...

    async def fixes_of_trip(self, tenant_id: str, trip_id: str) -> Sequence[Fix]:
        """Return a trip's positions, the oldest first."""
        ...

    async def track(self, tenant_id: str, trip_id: str) -> Track | None:
        """Return the kept way of an ended trip, or None."""
        ...

    async def keep_track(self, tenant_id: str, trip_id: str, track: Track) -> None:
        """Keep the way of an ended trip; what is kept already stays."""
        ...

    async def make_partitions(self, first_day: datetime, day_count: int) -> int:
        """Make room for the positions of some days; return how many partitions are new."""
        ...

    async def drop_before(self, day: datetime) -> int:
        """Forget positions captured before a day; return how many partitions went."""
        ...
