"""Makes, changes, calls off, finds and lists trips."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from services.booking.domain.trip_rules import trip_faults
from services.booking.domain.trips import Trip, TripStatus
from services.booking.errors.lists import PageTokenInvalidError
from services.booking.errors.trips import (
    SearchTooWideError,
    SeatLayoutUnknownError,
    TripCancelledError,
    TripDepartedError,
    TripInvalidError,
    TripStopsFixedError,
    TripUnknownError,
)
from services.booking.operations.paging import page_size_of, read_token, write_token
from services.booking.ports.requests import WriteRequest
from services.booking.ports.trips import LayoutStore, NewEvent, TripChange, TripListing, TripStore
from services.shared.clock import Clock
from services.shared.errors import FieldViolation
from services.shared.ids import IdSource, is_uuid

_PAGE_SIZE = 50
_PAGE_SIZE_MAX = 200
_DAYS_MAX = 31
_BACK = timedelta(hours=12)
_AHEAD = timedelta(days=7)


class TripEvents(Protocol):
    """Makes the events of a trip, as the contract has them."""

    def scheduled(self, tenant_id: str, trip: Trip, *, capacity_count: int) -> NewEvent:
        """Return the event of a trip that was made."""
        ...

    def updated(
        self, tenant_id: str, trip: Trip, *, capacity_count: int, changed_paths: Sequence[str]
    ) -> NewEvent:
        """Return the event of a trip that was changed; the trip is the one after it."""
        ...

    def cancelled(self, tenant_id: str, trip: Trip) -> NewEvent:
        """Return the event of a trip that was called off."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TripDraft:
    """Is a trip as somebody wants it, and what was found wrong with it while it was read."""

    trip: Trip
    faults: Sequence[FieldViolation] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TripUpdate:
    """Is a trip as it shall be, and the names of what differs."""

    draft: TripDraft
    changed_paths: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TripQuery:
    """Says which trips a caller wants to see; times that are None have defaults."""

    tenant_id: str
    crew_id: str
    status: str
    start_time: datetime | None
    end_time: datetime | None
    page_size: int
    page_token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TripPage:
    """Is one page of trips."""

    trips: Sequence[Trip]
    next_page_token: str


class Trips:
    """Makes and changes trips."""

    def __init__(
        self,
        *,
        store: TripStore,
        layouts: LayoutStore,
        events: TripEvents,
        clock: Clock,
        ids: IdSource,
    ) -> None:
        """Take where trips and layouts are kept, and how their events are made."""
        self._store = store
        self._layouts = layouts
        self._events = events
        self._clock = clock
        self._ids = ids

    async def create(self, draft: TripDraft, request: WriteRequest) -> Trip:
        """Make a trip, once per request.

        Raises SeatLayoutUnknownError, TripInvalidError or TripDepartedError.
        """
        made = await self._store.made_by(request)
        if made is not None:
            return made
        layout_id = draft.trip.seat_layout_id
        layout = await self._layouts.find(request.tenant_id, layout_id)
        if layout is None:
            raise SeatLayoutUnknownError(layout_id)
        _check(draft, [one.seat_class_code for one in layout.seat_classes])
        now = self._clock.now()
        last_departure = draft.trip.stops[-2].departure_time
        if now >= last_departure:
            raise TripDepartedError("", departure_time=last_departure)
        trip = replace(
            draft.trip,
            trip_id=self._ids.new_id(),
            vehicle_class=layout.vehicle_class,
            event_version=1,
            create_time=now,
            update_time=now,
        )
        event = self._events.scheduled(request.tenant_id, trip, capacity_count=layout.seat_count)
        return await self._store.create(trip, event, request)

    async def update(
        self, trip_id: str, merge: Callable[[Trip], TripUpdate], request: WriteRequest
    ) -> Trip:
        """Change a trip to what `merge` makes of it.

        Raises TripUnknownError, TripCancelledError, TripDepartedError, TripStopsFixedError or
        TripInvalidError.
        """
        known = await self.get(request.tenant_id, trip_id)
        layout = await self._layouts.find(request.tenant_id, known.seat_layout_id)
        if layout is None:
            raise SeatLayoutUnknownError(known.seat_layout_id)
        now = self._clock.now()

        def decide(trip: Trip) -> TripChange | None:
            _check_changeable(trip, now)
            update = merge(trip)
            after = update.draft.trip
            if [one.stop_id for one in after.stops] != [one.stop_id for one in trip.stops]:
                raise TripStopsFixedError(trip_id)
            _check(update.draft, [one.seat_class_code for one in layout.seat_classes])
            if not update.changed_paths:
                return None
            after = replace(after, event_version=trip.event_version + 1, update_time=now)
            event = self._events.updated(
                request.tenant_id,
                after,
                capacity_count=layout.seat_count,
                changed_paths=update.changed_paths,
            )
            return TripChange(trip=after, event=event)

        return await self._store.change(trip_id, request, decide)

    async def cancel(self, trip_id: str, reason: str, request: WriteRequest) -> Trip:
        """Call a trip off; one that was called off stays as it is.

        Its seats are not sold from then on. Who holds or booked some is looked after by the
        followers of the event. Raises TripUnknownError or TripDepartedError.
        """
        now = self._clock.now()

        def decide(trip: Trip) -> TripChange | None:
            status = trip.status(now)
            if status is TripStatus.CANCELLED:
                return None
            if status is TripStatus.COMPLETED:
                raise TripDepartedError(trip_id, departure_time=trip.stops[-1].arrival_time)
            after = replace(
                trip,
                cancel_time=now,
                cancel_reason=reason,
                event_version=trip.event_version + 1,
                update_time=now,
            )
            return TripChange(trip=after, event=self._events.cancelled(request.tenant_id, after))

        return await self._store.change(trip_id, request, decide)

    async def get(self, tenant_id: str, trip_id: str) -> Trip:
        """Return a trip. Raises TripUnknownError."""
        trip = await self._store.find(tenant_id, trip_id)
        if trip is None:
            raise TripUnknownError(trip_id)
        return trip

    async def page(self, query: TripQuery) -> TripPage:
        """Return a page of trips by departure.

        Raises SearchTooWideError or PageTokenInvalidError.
        """
        now = self._clock.now()
        size = page_size_of(query.page_size, default=_PAGE_SIZE, most=_PAGE_SIZE_MAX)
        filters = (
            *("trips", query.tenant_id, query.crew_id, query.status),
            *(
                moment.isoformat() if moment else ""
                for moment in (query.start_time, query.end_time)
            ),
        )
        start, after = query.start_time or now - _BACK, None
        if query.page_token:
            # Defaults move with the clock: what the first page began at stays.
            start, departure_time, trip_id = _position(query.page_token, filters)
            after = (departure_time, trip_id)
        end = query.end_time or start + _AHEAD
        if end - start > timedelta(days=_DAYS_MAX):
            raise SearchTooWideError(max_days=_DAYS_MAX)
        trips = await self._store.by_departure(
            TripListing(
                tenant_id=query.tenant_id,
                start_time=start,
                end_time=end,
                now=now,
                crew_id=query.crew_id,
                status=query.status,
                after=after,
            ),
            most=size + 1,
        )
        token = ""
        if len(trips) > size:
            trips = trips[:size]
            last = trips[-1]
            position = (
                start.isoformat(),
                last.stops[0].departure_time.isoformat(),
                last.trip_id,
            )
            token = write_token(filters, position)
        return TripPage(trips=trips, next_page_token=token)


def _check(draft: TripDraft, seat_class_codes: Sequence[str]) -> None:
    faults = [*draft.faults, *trip_faults(draft.trip, seat_class_codes)]
    if faults:
        raise TripInvalidError(faults)


def _check_changeable(trip: Trip, now: datetime) -> None:
    status = trip.status(now)
    if status is TripStatus.CANCELLED:
        raise TripCancelledError(trip.trip_id)
    if status is TripStatus.COMPLETED:
        raise TripDepartedError(trip.trip_id, departure_time=trip.stops[-1].arrival_time)


def _position(page_token: str, filters: Sequence[str]) -> tuple[datetime, datetime, str]:
    start, departure, trip_id = read_token(page_token, filters, 3)
    try:
        moments = datetime.fromisoformat(start), datetime.fromisoformat(departure)
    except ValueError as error:
        raise PageTokenInvalidError from error
    if not is_uuid(trip_id) or any(moment.tzinfo is None for moment in moments):
        raise PageTokenInvalidError
    return (*moments, trip_id)
