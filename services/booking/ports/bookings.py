"""What bookings and their saga need of the store. Implemented in store/bookings.py."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from services.booking.domain.bookings import Booking, Tell
from services.booking.domain.passengers import SealedPassenger


class BookingReader(NamedTuple):
    """Is who reads: a person sees their own bookings, staff all of the tenant's."""

    tenant_id: str
    user_id: str
    role: str


class BookingListing(NamedTuple):
    """Says which bookings are listed; what is empty does not narrow."""

    user_id: str
    trip_id: str
    state: str
    booking_code: str
    before: tuple[datetime, str] | None


class BookingDetails(NamedTuple):
    """Is what is known of those who travel on some bookings.

    `boarding` says by passenger whether they got on; `used` are the bookings with which anybody
    did.
    """

    passengers: Sequence[SealedPassenger]
    boarding: Mapping[str, str]
    used: frozenset[str]


class DueBooking(NamedTuple):
    """Is a booking whose saga is to be looked at."""

    tenant_id: str
    booking_id: str


class EndedTrip(NamedTuple):
    """Is a trip that is over or called off, and whose bookings were not looked after yet."""

    tenant_id: str
    trip_id: str
    cancelled: bool


class BookingStore(Protocol):
    """Keeps bookings. Every method raises DependencyUnavailableError when it is away."""

    async def find(self, reader: BookingReader, booking_id: str) -> Booking | None:
        """Return a booking that the reader may see, or None."""
        ...

    async def find_many(self, tenant_id: str, booking_ids: Sequence[str]) -> dict[str, Booking]:
        """Return these bookings of a tenant by id."""
        ...

    async def listed(
        self, reader: BookingReader, listing: BookingListing, *, most: int
    ) -> list[Booking]:
        """Return bookings, newest first."""
        ...

    async def details(self, tenant_id: str, booking_ids: Sequence[str]) -> BookingDetails:
        """Return what is known of those who travel on these bookings."""
        ...

    async def tell(self, tenant_id: str, tells: Sequence[Tell]) -> dict[str, Booking]:
        """Tell bookings what happened, in one transaction; return them as they are then."""
        ...

    async def take_due(
        self, *, now: datetime, lease_until: datetime, most: int
    ) -> list[DueBooking]:
        """Take bookings that are due, so that no other process does before `lease_until`."""
        ...

    async def put_off(
        self, tenant_id: str, booking_id: str, *, until: datetime | None, failure_reason: str = ""
    ) -> None:
        """Look at a booking again later, or no more; "" leaves its failure reason as it is."""
        ...

    async def cash_takings(self, *, most: int) -> list[DueBooking]:
        """Return the bookings whose fare was taken on board and is not told to them yet."""
        ...

    async def cash_told(self, tenant_id: str, booking_ids: Sequence[str], now: datetime) -> None:
        """Remember that bookings know of their fare."""
        ...

    async def ended_trips(self, *, now: datetime, most: int) -> list[EndedTrip]:
        """Return trips that are over or called off and were not looked after."""
        ...

    async def live_of_trip(self, tenant_id: str, trip_id: str, *, most: int) -> list[Booking]:
        """Return the bookings of a trip that keep seats."""
        ...

    async def close_trip(self, tenant_id: str, trip_id: str, *, now: datetime) -> int:
        """Say for whoever was carried that the trip has ended, once; return how many."""
        ...
