"""Who travels on a trip, for those who look after them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import structlog

from services.booking.domain.passengers import Traveller
from services.booking.domain.trips import Trip
from services.booking.errors.lists import PageTokenInvalidError
from services.booking.errors.trips import StopNotOnTripError
from services.booking.operations.crew import Attendant, check_manifest_time, trip_of
from services.booking.operations.paging import page_size_of, read_token, write_token
from services.booking.ports.tickets import (
    ManifestPage,
    ManifestPlace,
    ManifestStore,
    Travellers,
)
from services.booking.ports.trips import TripStore
from services.shared.clock import Clock
from services.shared.ids import is_uuid

_log = structlog.get_logger()
PAGE_SIZE_DEFAULT = 500
PAGE_SIZE_MAX = 1_000
_STOP_INDEX_MAX = 63


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownManifest:
    """Is a page of a manifest with the names of the travellers, by passenger id."""

    page: ManifestPage
    travellers: Mapping[str, Traveller]
    read_time: datetime
    next_page_token: str


class Manifests:
    """Reads manifests, and logs who did."""

    def __init__(
        self, *, trips: TripStore, store: ManifestStore, travellers: Travellers, clock: Clock
    ) -> None:
        """Take where travellers are kept."""
        self._trips = trips
        self._store = store
        self._travellers = travellers
        self._clock = clock

    async def page(
        self,
        attendant: Attendant,
        trip_id: str,
        *,
        from_stop_id: str,
        page_size: int,
        page_token: str,
    ) -> ShownManifest:
        """Return who travels.

        Raises NotTheTripCrewError, StopNotOnTripError, PageTokenInvalidError.
        """
        now = self._clock.now()
        trip = await trip_of(self._trips, attendant, trip_id)
        check_manifest_time(trip, attendant, now)
        filters = ("GetManifest", attendant.tenant_id, trip_id, from_stop_id)
        size = page_size_of(page_size, default=PAGE_SIZE_DEFAULT, most=PAGE_SIZE_MAX)
        page = await self._store.page(
            attendant.tenant_id,
            trip_id,
            from_stop_index=_stop_index(trip, from_stop_id) if from_stop_id else None,
            after=_place(page_token, filters) if page_token else None,
            most=size + 1,
            now=now,
        )
        token = ""
        if len(page.lines) > size:
            page = page._replace(lines=page.lines[:size])
            last = page.lines[-1].ticket.issued
            token = write_token(
                filters, (str(last.from_stop_index), last.seat_number, last.ticket_id)
            )
        travellers = await self._travellers.of(
            attendant.tenant_id, [line.ticket.issued for line in page.lines]
        )
        _log.info(
            "manifest_read",
            trip_id=trip_id,
            user_id=attendant.user_id,
            passenger_count=len(page.lines),
        )
        return ShownManifest(page=page, travellers=travellers, read_time=now, next_page_token=token)


def _stop_index(trip: Trip, stop_id: str) -> int:
    for index, stop in enumerate(trip.stops):
        if stop.stop_id == stop_id:
            return index
    raise StopNotOnTripError(trip.trip_id, from_stop_id=stop_id, to_stop_id="")


def _place(text: str, filters: tuple[str, ...]) -> ManifestPlace:
    stop, seat_number, ticket_id = read_token(text, filters, 3)
    if not stop.isdecimal() or int(stop) > _STOP_INDEX_MAX or not is_uuid(ticket_id):
        raise PageTokenInvalidError
    return ManifestPlace(int(stop), seat_number, ticket_id)
