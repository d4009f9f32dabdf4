"""What passengers and phones read of tickets: one ticket, and what was revoked."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.booking.domain.scanning import Ticket
from services.booking.domain.trips import Trip
from services.booking.errors.lists import PageTokenInvalidError
from services.booking.errors.tickets import NotTheTripCrewError, TicketNotYoursError
from services.booking.operations.crew import Attendant, trip_of
from services.booking.operations.paging import page_size_of, read_token, write_token
from services.booking.ports.tickets import Position, Revocation, TicketStore
from services.booking.ports.trips import TripStore
from services.shared.clock import Clock

REVOCATIONS_DEFAULT = 500
REVOCATIONS_MAX = 5_000
_FIRST = Position(0, 0)
_ID_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownTicket:
    """Is a ticket with the trip that it is for."""

    ticket: Ticket
    trip: Trip


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationPage:
    """Is a page of revocations; `sync_token` goes on after it."""

    revocations: Sequence[Revocation]
    next_page_token: str
    sync_token: str


class Tickets:
    """Reads tickets."""

    def __init__(self, *, store: TicketStore, trips: TripStore, clock: Clock) -> None:
        """Take where they are kept."""
        self._store = store
        self._trips = trips
        self._clock = clock

    async def get(self, attendant: Attendant, ticket_id: str) -> ShownTicket:
        """Return a ticket of one's own, any for staff. Raises TicketNotYoursError."""
        ticket = await self._store.find(attendant.tenant_id, ticket_id)
        if ticket is None or not (attendant.is_staff or ticket.issued.user_id == attendant.user_id):
            raise TicketNotYoursError(ticket_id)
        trip = await self._trips.find(attendant.tenant_id, ticket.issued.trip_id)
        if trip is None:
            raise TicketNotYoursError(ticket_id)
        return ShownTicket(ticket=ticket, trip=trip)

    async def revocations(
        self,
        attendant: Attendant,
        trip_id: str,
        *,
        sync_token: str,
        page_size: int,
        page_token: str,
    ) -> RevocationPage:
        """Return what was revoked, oldest first, from a token on; of all trips without `trip_id`.

        Raises NotTheTripCrewError, PageTokenInvalidError.
        """
        if not attendant.is_staff:
            # Crew names its trip.
            if not trip_id:
                raise NotTheTripCrewError(trip_id)
            await trip_of(self._trips, attendant, trip_id)
        filters = ("ListTicketRevocations", attendant.tenant_id, trip_id)
        after = _FIRST
        if page_token:
            after = _position(page_token, filters, field="page_token")
        elif sync_token:
            after = _position(sync_token, filters, field="sync_token")
        size = page_size_of(page_size, default=REVOCATIONS_DEFAULT, most=REVOCATIONS_MAX)
        found = await self._store.revocations(
            attendant.tenant_id, trip_id, after=after, now=self._clock.now(), most=size + 1
        )
        shown = found[:size]
        last = shown[-1].position if shown else after
        token = write_token(filters, [str(part) for part in last])
        return RevocationPage(
            revocations=shown,
            next_page_token=token if len(found) > size else "",
            sync_token=token,
        )


def _position(text: str, filters: Sequence[str], *, field: str) -> Position:
    try:
        numbers = [int(part) for part in read_token(text, filters, 2)]
    except (PageTokenInvalidError, ValueError) as error:
        raise PageTokenInvalidError(field) from error
    if not all(0 <= number <= _ID_MAX for number in numbers):
        raise PageTokenInvalidError(field)
    return Position(*numbers)
