"""Searches journeys: what leads from one place to another on a day, with prices and free seats."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime

from services.booking.domain.layouts import SeatLayout
from services.booking.errors.lists import PageTokenInvalidError
from services.booking.errors.trips import SeatLayoutUnknownError
from services.booking.operations.paging import page_size_of, read_token, write_token
from services.booking.ports.trips import (
    FoundJourney,
    JourneyCursor,
    JourneySearch,
    LayoutStore,
    Place,
    TakenSeats,
    TripStore,
)
from services.shared.clock import Clock
from services.shared.ids import is_uuid

RADIUS_METERS = 2_000.0
_PAGE_SIZE = 20
_PAGE_SIZE_MAX = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchQuery:
    """Says what a traveller wants; an end of the journey is a stop's id or a place."""

    tenant_id: str
    origin: str | Place
    destination: str | Place
    radius_meters: float
    departure_date: date
    depart_after_time: datetime | None
    passenger_count: int
    seat_class_code: str
    only_available: bool
    accessible: bool
    page_size: int
    page_token: str

    @property
    def filters(self) -> tuple[str, ...]:
        """Return what a page token is bound to."""
        after = self.depart_after_time.isoformat() if self.depart_after_time else ""
        words = (
            *(self.tenant_id, self.origin, self.destination, self.radius_meters),
            *(self.departure_date, after, self.passenger_count, self.seat_class_code),
            *(self.only_available, self.accessible),
        )
        return ("journeys", *map(str, words))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassSeats:
    """Is what is left of a class on a journey, and what a seat costs in minor units."""

    seat_class_code: str
    display_name: str
    price_minor: int
    free_count: int
    free_accessible_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TripOption:
    """Is a journey that can be made. `sale_change_time` is when the sale begins, or ends."""

    found: FoundJourney
    classes: Sequence[ClassSeats]
    on_sale: bool
    sale_change_time: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPage:
    """Is one page of journeys."""

    options: Sequence[TripOption]
    next_page_token: str


class Search:
    """Finds journeys."""

    def __init__(
        self,
        *,
        store: TripStore,
        layouts: LayoutStore,
        taken: TakenSeats,
        clock: Clock,
        chunk: int,
        chunks_max: int,
    ) -> None:
        """Take where trips and layouts are kept, and who knows which seats are taken.

        While trips are left out, `chunk` of them are looked at together, and at most `chunks_max`
        times for a page.
        """
        self._chunk = chunk
        self._chunks_max = chunks_max
        self._store = store
        self._layouts = layouts
        self._taken = taken
        self._clock = clock

    async def page(self, query: SearchQuery) -> SearchPage:
        """Return a page of journeys, earliest departure first. Raises PageTokenInvalidError.

        Where very many in a row are full, a page may be short and still lead to the next.
        """
        now = self._clock.now()
        size = page_size_of(query.page_size, default=_PAGE_SIZE, most=_PAGE_SIZE_MAX)
        narrowed = query.only_available or bool(query.seat_class_code)
        search = JourneySearch(
            tenant_id=query.tenant_id,
            origin=query.origin,
            destination=query.destination,
            radius_meters=query.radius_meters or RADIUS_METERS,
            departure_date=query.departure_date,
            depart_after_time=max(now, query.depart_after_time or now),
            after=_position(query) if query.page_token else None,
        )
        options: list[TripOption] = []
        most = max(size + 1, self._chunk) if narrowed else size + 1
        for _ in range(self._chunks_max):
            found = await self._store.journeys(search, most=most)
            options += [
                option
                for option in await self._options(query.tenant_id, found, now)
                if _fits(option, query)
            ]
            if len(options) > size:
                token = _token(query, _cursor(options[size - 1].found))
                return SearchPage(options=options[:size], next_page_token=token)
            if len(found) < most:
                return SearchPage(options=options, next_page_token="")
            search = replace(search, after=_cursor(found[-1]))
        token = _token(query, search.after) if search.after else ""
        return SearchPage(options=options, next_page_token=token)

    async def _options(
        self, tenant_id: str, found: Sequence[FoundJourney], now: datetime
    ) -> list[TripOption]:
        if not found:
            return []
        journeys = {one.trip.trip_id: one.journey for one in found}
        taken = await self._taken.taken(tenant_id, journeys, now=now)
        options = []
        for one in found:
            layout = await self._layouts.find(tenant_id, one.trip.seat_layout_id)
            if layout is None:
                raise SeatLayoutUnknownError(one.trip.seat_layout_id)
            options.append(_option(one, layout, taken.get(one.trip.trip_id, ()), now))
        return options


def _option(
    found: FoundJourney, layout: SeatLayout, taken: Collection[str], now: datetime
) -> TripOption:
    trip, journey = found.trip, found.journey
    free = [seat for number, seat in layout.sellable_seats.items() if number not in taken]
    opens = trip.terms.open_time
    change = opens if opens is not None and now < opens else trip.close_time(journey)
    return TripOption(
        found=found,
        classes=[
            ClassSeats(
                seat_class_code=one.seat_class_code,
                display_name=one.display_name,
                price_minor=trip.price_minor(one.seat_class_code, journey),
                free_count=sum(seat.seat_class_code == one.seat_class_code for seat in free),
                free_accessible_count=sum(
                    seat.seat_class_code == one.seat_class_code and seat.accessible for seat in free
                ),
            )
            for one in layout.seat_classes
        ],
        on_sale=trip.is_on_sale(journey, now),
        sale_change_time=change if change > now else None,
    )


def _fits(option: TripOption, query: SearchQuery) -> bool:
    classes = [one for one in option.classes if query.seat_class_code in {"", one.seat_class_code}]
    if not query.only_available:
        return bool(classes)
    free = sum(one.free_accessible_count if query.accessible else one.free_count for one in classes)
    return option.on_sale and free >= max(1, query.passenger_count)


def _cursor(found: FoundJourney) -> JourneyCursor:
    trip, journey = found.trip, found.journey
    return JourneyCursor(
        trip.departure_time(journey), trip.stops[journey.to_index].arrival_time, trip.trip_id
    )


def _token(query: SearchQuery, last: JourneyCursor) -> str:
    departure, arrival, trip_id = last
    return write_token(query.filters, (departure.isoformat(), arrival.isoformat(), trip_id))


def _position(query: SearchQuery) -> JourneyCursor:
    departure, arrival, trip_id = read_token(query.page_token, query.filters, 3)
    try:
        moments = datetime.fromisoformat(departure), datetime.fromisoformat(arrival)
    except ValueError as error:
        raise PageTokenInvalidError from error
    if not is_uuid(trip_id) or any(moment.tzinfo is None for moment in moments):
        raise PageTokenInvalidError
    return JourneyCursor(*moments, trip_id)
