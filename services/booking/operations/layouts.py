"""Makes, finds and lists seat layouts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from services.booking.domain.layouts import SeatLayout, layout_faults
from services.booking.errors.lists import PageTokenInvalidError
from services.booking.errors.trips import SeatLayoutInvalidError, SeatLayoutUnknownError
from services.booking.operations.paging import page_size_of, read_token, write_token
from services.booking.ports.requests import WriteRequest
from services.booking.ports.trips import LayoutStore
from services.shared.clock import Clock
from services.shared.ids import IdSource, is_uuid

_PAGE_SIZE = 50
_PAGE_SIZE_MAX = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutPage:
    """Is one page of layouts."""

    layouts: Sequence[SeatLayout]
    next_page_token: str


class Layouts:
    """Makes and finds seat layouts."""

    def __init__(self, *, store: LayoutStore, clock: Clock, ids: IdSource) -> None:
        """Take where they are kept."""
        self._store = store
        self._clock = clock
        self._ids = ids

    async def create(self, draft: SeatLayout, request: WriteRequest) -> SeatLayout:
        """Make a layout, once per request. Raises SeatLayoutInvalidError."""
        faults = layout_faults(draft)
        if faults:
            raise SeatLayoutInvalidError(faults)
        layout = replace(draft, seat_layout_id=self._ids.new_id(), create_time=self._clock.now())
        return await self._store.create(layout, request)

    async def get(self, tenant_id: str, seat_layout_id: str) -> SeatLayout:
        """Return a layout. Raises SeatLayoutUnknownError."""
        layout = await self._store.find(tenant_id, seat_layout_id)
        if layout is None:
            raise SeatLayoutUnknownError(seat_layout_id)
        return layout

    async def page(self, tenant_id: str, *, page_size: int, page_token: str) -> LayoutPage:
        """Return a page of layouts, newest first. Raises PageTokenInvalidError."""
        size = page_size_of(page_size, default=_PAGE_SIZE, most=_PAGE_SIZE_MAX)
        filters = ("seat_layouts", tenant_id)
        before = _position(page_token, filters) if page_token else None
        layouts = await self._store.newest(tenant_id, before=before, most=size + 1)
        token = ""
        if len(layouts) > size:
            layouts = layouts[:size]
            last = layouts[-1]
            moment = last.create_time.isoformat() if last.create_time else ""
            token = write_token(filters, (moment, last.seat_layout_id))
        return LayoutPage(layouts=layouts, next_page_token=token)


def _position(page_token: str, filters: Sequence[str]) -> tuple[datetime, str]:
    moment, layout_id = read_token(page_token, filters, 2)
    try:
        parsed = datetime.fromisoformat(moment)
    except ValueError as error:
        raise PageTokenInvalidError from error
    if parsed.tzinfo is None or not is_uuid(layout_id):
        raise PageTokenInvalidError
    return parsed, layout_id
