"""What tickets, scans and manifests need of the outside. Implemented in store/ and beside it."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.booking.domain.boarding import BoardingCounts, BoardingMark, BoardingState
from services.booking.domain.issuing import IssuedTicket
from services.booking.domain.passengers import Traveller
from services.booking.domain.scanning import CountedScan, MadeScan, Ticket
from services.booking.domain.tickets import PublishedKey
from services.booking.ports.requests import WriteRequest
from services.booking.ports.trips import NewEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptKey:
    """Is a key as it is kept: the private half sealed."""

    published: PublishedKey
    sealed_private_key: bytes = field(repr=False)
    resource_id: str


class ListedKey(NamedTuple):
    """Is a key as phones see it; `forget_time` is None while its tickets may come."""

    published: PublishedKey
    forget_time: datetime | None


class KeySeal(Protocol):
    """Encrypts private keys, so that PostgreSQL and its backups do not have them."""

    def seal(self, private_key: Ed25519PrivateKey, *, tenant_id: str) -> bytes:
        """Return the key encrypted, bound to the tenant."""
        ...

    def open(self, sealed: bytes, *, tenant_id: str, public_key: bytes) -> Ed25519PrivateKey:
        """Return the key. Raises KeySealBrokenError if it is not that of `public_key`."""
        ...


class TicketKeyStore(Protocol):
    """Keeps the keys that sign tickets."""

    async def keys(self, tenant_id: str) -> list[KeptKey]:
        """Return all keys of a tenant, the one that signs latest first."""
        ...

    async def begin(self, tenant_id: str, key: KeptKey) -> None:
        """Keep the first key of a tenant; does nothing if there is one by now."""
        ...

    async def rotate(self, key: KeptKey, request: WriteRequest) -> KeptKey:
        """Keep a key and end the others where it starts; return it, or what the request made."""
        ...

    async def listed(
        self, tenant_id: str, *, before: tuple[datetime, str] | None, most: int
    ) -> list[ListedKey]:
        """Return keys, newest first, from after the start and id of another on."""
        ...


class Position(NamedTuple):
    """Is a place in the order of revocations."""

    transaction_id: int
    revocation_number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """Says that a ticket cannot be used any more."""

    ticket_id: str
    trip_id: str
    revoke_time: datetime
    position: Position


class TicketStore(Protocol):
    """Keeps tickets."""

    async def find(self, tenant_id: str, ticket_id: str) -> Ticket | None:
        """Return a ticket of the tenant, or None."""
        ...

    async def revocations(
        self, tenant_id: str, trip_id: str, *, after: Position, now: datetime, most: int
    ) -> list[Revocation]:
        """Return what was revoked after a place, oldest first; of all trips without `trip_id`.

        Of all trips those alone that are not over.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CashTaking:
    """Is the fare of a booking that was taken when the first of its tickets was used."""

    booking_id: str
    ticket_id: str
    amount_minor: int
    currency_code: str


class BoardingTurn(Protocol):
    """Is one open transaction in which nobody else changes who is on board of a trip."""

    async def made_scans(self, scan_ids: Collection[str]) -> dict[str, MadeScan]:
        """Return those of these scans that came before."""
        ...

    async def tickets(self, ticket_ids: Collection[str]) -> dict[str, Ticket]:
        """Return these tickets of the tenant, of whatever trip, and the heirs of revoked ones."""
        ...

    async def keep_scans(self, made: Sequence[MadeScan], *, user_id: str, now: datetime) -> None:
        """Keep scans."""
        ...

    async def use(self, uses: Mapping[str, CountedScan]) -> None:
        """Write which scans of tickets count."""
        ...

    async def take_cash(self, scans: Sequence[CountedScan], *, user_id: str, now: datetime) -> None:
        """Record that what the bookings of these scans' tickets owe was taken; once a booking.

        Whoever of a booking gets on first pays for all of it. The scans are in use already.
        """
        ...

    async def takings(self, booking_ids: Collection[str]) -> dict[str, CashTaking]:
        """Return what was taken of these bookings."""
        ...

    async def booking_versions(self, booking_ids: Sequence[str]) -> dict[str, int]:
        """Count up the events of bookings by how often each is named; return what they were."""
        ...

    async def mark(self, marks: Sequence[BoardingMark], *, user_id: str) -> set[str]:
        """Keep marks that are later than those there; return passengers who are not on the trip."""
        ...

    async def claim(self, request: WriteRequest) -> bool:
        """Record a request; say whether it is new. Raises RequestIdReusedError."""
        ...

    async def count(
        self, *, stop_index: int | None, stop_time: datetime, unbooked_count: int | None
    ) -> tuple[BoardingCounts, bool]:
        """Count who is on board and keep it; say whether it is another count than before."""
        ...

    async def trip_version(self) -> int:
        """Count up the events of the trip; return the number."""
        ...

    async def keep_events(self, events: Sequence[NewEvent]) -> None:
        """Keep events."""
        ...


class BoardingStore(Protocol):
    """Keeps scans and who is on board."""

    def turn(self, tenant_id: str, trip_id: str) -> AbstractAsyncContextManager[BoardingTurn]:
        """Take the turn of a trip; it commits when the block ends."""
        ...


class ManifestLine(NamedTuple):
    """Is one passenger who is to travel: the good ticket, and whether the passenger is there."""

    ticket: Ticket
    boarding_state: BoardingState | None
    board_time: datetime | None
    cash_taken: bool


class StopLoad(NamedTuple):
    """Says how many get on and off at a stop, by their tickets."""

    stop_index: int
    pickup_count: int
    drop_off_count: int


class ManifestPage(NamedTuple):
    """Is a part of a manifest, with what is true of the whole trip."""

    seat_version: int
    lines: Sequence[ManifestLine]
    loads: Sequence[StopLoad]
    counts: BoardingCounts


class ManifestPlace(NamedTuple):
    """Is a place in the order of a manifest."""

    from_stop_index: int
    seat_number: str
    ticket_id: str


class ManifestStore(Protocol):
    """Reads who travels."""

    async def page(
        self,
        tenant_id: str,
        trip_id: str,
        *,
        from_stop_index: int | None,
        after: ManifestPlace | None,
        most: int,
        now: datetime,
    ) -> ManifestPage:
        """Return who travels by stop to get on, then seat."""
        ...


class Travellers(Protocol):
    """Knows what travellers told of themselves."""

    async def of(self, tenant_id: str, tickets: Sequence[IssuedTicket]) -> Mapping[str, Traveller]:
        """Return by their ids the passengers of these tickets."""
        ...


class TicketEvents(Protocol):
    """Says in events what happened to tickets."""

    def used(
        self, tenant_id: str, ticket: Ticket, use: CountedScan, *, version: int, now: datetime
    ) -> NewEvent:
        """Return the event of a ticket that was used."""
        ...

    def counted(self, tenant_id: str, counts: BoardingCounts, *, version: int) -> NewEvent:
        """Return the event of a trip's counts."""
        ...
