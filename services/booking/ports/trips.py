"""What the operations of trips and seat layouts need of the outside. Implemented in store/."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import NamedTuple, Protocol

from services.booking.domain.layouts import SeatLayout
from services.booking.domain.trips import Journey, Trip
from services.booking.ports.requests import WriteRequest


class NewEvent(NamedTuple):
    """Is an event to be kept with the change that it tells of."""

    aggregate_type: str
    aggregate_id: str
    aggregate_version: int
    envelope: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TripChange:
    """Is a trip after a change, and the event that tells of it."""

    trip: Trip
    event: NewEvent


class LayoutStore(Protocol):
    """Keeps seat layouts."""

    async def create(self, layout: SeatLayout, request: WriteRequest) -> SeatLayout:
        """Keep a layout; return it, or what the request made before."""
        ...

    async def find(self, tenant_id: str, seat_layout_id: str) -> SeatLayout | None:
        """Return a layout of the tenant, or None."""
        ...

    async def newest(
        self, tenant_id: str, *, before: tuple[datetime, str] | None, most: int
    ) -> list[SeatLayout]:
        """Return layouts, newest first, from after the time and id of another on."""
        ...


class TripStore(Protocol):
    """Keeps trips."""

    async def create(self, trip: Trip, event: NewEvent, request: WriteRequest) -> Trip:
        """Keep a new trip and its event; return it, or what the request made before."""
        ...

    async def made_by(self, request: WriteRequest) -> Trip | None:
        """Return the trip that the same request made or changed before. For quick repeats."""
        ...

    async def change(
        self, trip_id: str, request: WriteRequest, decide: Callable[[Trip], TripChange | None]
    ) -> Trip:
        """Change a trip under its lock; return it, unchanged if the request came before.

        `decide` returns None for no change, and what it raises undoes all. Raises
        TripUnknownError, RequestIdReusedError.
        """
        ...

    async def find(self, tenant_id: str, trip_id: str) -> Trip | None:
        """Return a trip of the tenant, or None."""
        ...

    async def by_departure(self, listing: "TripListing", *, most: int) -> list[Trip]:
        """Return trips by when they leave their first stop."""
        ...

    async def journeys(self, search: "JourneySearch", *, most: int) -> list["FoundJourney"]:
        """Return journeys, earliest departure first, then earliest arrival, then by trip."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TripListing:
    """Says which trips to list: those that leave their first stop in [start, end)."""

    tenant_id: str
    start_time: datetime
    end_time: datetime
    now: datetime
    crew_id: str = ""
    status: str = ""
    after: tuple[datetime, str] | None = None


class Place(NamedTuple):
    """Is a point of the earth in degrees (WGS 84)."""

    latitude: float
    longitude: float


class JourneyCursor(NamedTuple):
    """Is the journey after which a list goes on."""

    departure_time: datetime
    arrival_time: datetime
    trip_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JourneySearch:
    """Says which journeys to find; each end is a stop's id or a place."""

    tenant_id: str
    origin: str | Place
    destination: str | Place
    radius_meters: float
    departure_date: date
    depart_after_time: datetime
    after: JourneyCursor | None = None


class FoundJourney(NamedTuple):
    """Is a journey that leads from the one end to the other."""

    trip: Trip
    journey: Journey
    from_distance_meters: float
    to_distance_meters: float


class TakenSeats(Protocol):
    """Knows which seats are taken."""

    async def taken(
        self, tenant_id: str, journeys: Mapping[str, Journey], *, now: datetime
    ) -> Mapping[str, Collection[str]]:
        """Return by trip the seats that are taken on a leg of its journey; absent: none.

        Asks once for all trips. What an expired hold had counts as free.
        """
        ...
