"""What changes of seats need of the outside. Implemented in store/."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from services.booking.domain.layouts import SeatLayout
from services.booking.domain.overriding import SeatOverride
from services.booking.domain.seats import Hold, TripSeats
from services.booking.domain.trips import Trip
from services.booking.domain.turns import TripTurn, WantedChange
from services.booking.ports.trips import NewEvent


class SeatBatchConflictError(Exception):
    """Says that what a batch was decided on is not what is there: decide again."""


class LockedTrip(NamedTuple):
    """Is what a locked trip says of itself.

    Of another `update_time` it has changed, of another `batch_count` its seats or holds have.
    """

    seat_version: int
    event_version: int
    batch_count: int
    update_time: datetime


class TakenTurns(NamedTuple):
    """Is what a batch begins with.

    The trips that are locked, by user the holds that keep seats, and by caller, method and
    request_id the body hash and the resource of calls that came before.
    """

    trips: dict[str, LockedTrip]
    live_hold_counts: dict[str, int]
    requests: dict[tuple[str, str, str], tuple[bytes, str]]


class SeatBatch(Protocol):
    """Is one open transaction in which changes of one tenant's seats are decided and recorded."""

    async def take_turns(
        self, wanted: Sequence[WantedChange], *, now: datetime, skip_locked: bool
    ) -> TakenTurns:
        """Lock the trips in the order of their ids until the end, those that there are.

        Others who count the holds of the same users wait from now on. With `skip_locked`, only
        trips that nobody has locked, and no more than that.
        """
        ...

    async def trips(self, trip_ids: Collection[str]) -> dict[str, tuple[Trip, SeatLayout]]:
        """Return locked trips with their layouts."""
        ...

    async def seats(self, versions: Mapping[str, int]) -> dict[str, TripSeats]:
        """Return who has the seats of locked trips, whose versions these are."""
        ...

    async def holds(self, hold_ids: Collection[str]) -> dict[str, Hold]:
        """Return these holds, whatever became of them, as far as there are any."""
        ...

    async def parts(self, wanted: Sequence[tuple[WantedChange, TripTurn]]) -> dict[str, Any]:
        """Return what the parts of the store read for these changes, by their names."""
        ...

    async def record(self, turns: Sequence[TripTurn], events: Sequence[NewEvent]) -> None:
        """Write what was changed. Raises SeatBatchConflictError; the transaction is over then."""
        ...


class SeatStore(Protocol):
    """Keeps who has which seat."""

    def batch(self, tenant_id: str) -> AbstractAsyncContextManager[SeatBatch]:
        """Open a transaction; it commits when the block ends."""
        ...

    async def find_hold(self, tenant_id: str, hold_id: str) -> Hold | None:
        """Return a hold of the tenant, or None.

        Whose it is, of which trip and which seats is for good; its state, its times and its booking
        may be older ones: a batch tells those as they are.
        """
        ...

    async def live_holds(
        self,
        tenant_id: str,
        user_id: str,
        *,
        trip_id: str,
        before: tuple[datetime, str] | None,
        now: datetime,
        most: int,
    ) -> list[Hold]:
        """Return a user's holds that keep seats, newest first; `trip_id` may be empty."""
        ...

    async def overdue(self, *, now: datetime, most: int) -> dict[str, list[str]]:
        """Return by tenant the trips with holds whose time is over, the longest over first."""
        ...


class OverrideStore(Protocol):
    """Lists what was changed by hand."""

    async def newest(
        self, tenant_id: str, *, trip_id: str, before: tuple[datetime, str] | None, most: int
    ) -> list[SeatOverride]:
        """Return overrides, newest first; `trip_id` may be empty."""
        ...
