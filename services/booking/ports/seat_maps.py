"""What seat maps need of the outside. Implemented in store/."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from services.booking.domain.layouts import SeatLayout
from services.booking.domain.seat_maps import Masks, SeatStates
from services.booking.domain.trips import Trip


class TripHead(NamedTuple):
    """Is how far a trip is: its seats' version, and when all else of it changed last."""

    seat_version: int
    update_time: datetime


class CachedSeats(NamedTuple):
    """Is what the cache knows of a trip's seats, and when that was true."""

    version: int
    masks: dict[str, Masks]
    read_time: datetime


class SeatMapStore(Protocol):
    """Reads seats and what happened to them; all of it is committed."""

    async def trip(self, tenant_id: str, trip_id: str) -> tuple[Trip, SeatLayout] | None:
        """Return a trip of the tenant with its layout, or None."""
        ...

    async def states(self, tenant_id: str, layout: SeatLayout, trip_id: str) -> SeatStates:
        """Return the states of a trip's seats, all of one version."""
        ...

    async def heads(self, tenant_id: str, trip_ids: Collection[str]) -> dict[str, TripHead]:
        """Return how far these trips are."""
        ...

    async def envelopes_after(
        self, tenant_id: str, trip_id: str, version: int, *, most: int
    ) -> Sequence[bytes]:
        """Return the events of a trip's seats after a version, in order."""
        ...


class SeatCache(Protocol):
    """Keeps the states of trips' seats for a second. Raises DependencyUnavailableError."""

    async def get(self, trip_id: str) -> CachedSeats | None:
        """Return what is cached, or None."""
        ...

    async def put(self, trip_id: str, seats: CachedSeats) -> None:
        """Cache it, unless a newer version is cached."""
        ...


class EventTail(Protocol):
    """Reads what the service publishes, from now on. Raises DependencyUnavailableError."""

    @property
    def groups(self) -> Sequence[Sequence[int]]:
        """Return the partitions that can be read together."""
        ...

    async def ends(self, partitions: Sequence[int]) -> dict[int, bytes]:
        """Return where these partitions end now."""
        ...

    async def read(self, positions: dict[int, bytes], *, seconds: float) -> list[bytes]:
        """Wait for what comes after `positions`, at most so long; moves them along."""
        ...

    async def ping(self) -> None:
        """Return if Valkey answers."""
        ...
