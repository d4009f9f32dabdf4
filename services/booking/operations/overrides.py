"""Changes seats by hand, and lists what was changed."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from services.booking.domain.overriding import BookedSeats, Override, OverrideAction, SeatOverride
from services.booking.operations.holds import derived_id, position_of
from services.booking.operations.paging import page_size_of, write_token
from services.booking.operations.seat_batcher import SeatBatcher
from services.booking.ports.requests import WriteRequest
from services.booking.ports.seats import OverrideStore

BookedSeatsFor = Callable[[str, str], Awaitable[BookedSeats]]
_PAGE_SIZE = 50
_PAGE_SIZE_MAX = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class OverrideWish:
    """Is what an ADMIN wants to be done to a seat, and why."""

    trip_id: str
    seat_number: str
    from_stop_id: str
    to_stop_id: str
    action: OverrideAction
    target_seat_number: str
    reason: str
    user_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OverridePage:
    """Is a page of what was changed, and the token of the next one; "" on the last."""

    overrides: Sequence[SeatOverride]
    next_page_token: str


class Overrides:
    """Changes seats against the rules of the sale, and keeps who did it and why."""

    def __init__(
        self, *, store: OverrideStore, batcher: SeatBatcher, bookings: BookedSeatsFor
    ) -> None:
        """Change bookings by what `bookings` makes for a tenant and a reason."""
        self._store = store
        self._batcher = batcher
        self._bookings = bookings

    async def override(self, wish: OverrideWish, request: WriteRequest) -> SeatOverride:
        """Change a seat. Raises the refusals of OverrideSeat."""
        change = Override(
            tenant_id=request.tenant_id,
            trip_id=wish.trip_id,
            override_id=derived_id(request),
            user_id=wish.user_id,
            seat_number=wish.seat_number,
            from_stop_id=wish.from_stop_id,
            to_stop_id=wish.to_stop_id,
            action=wish.action,
            target_seat_number=wish.target_seat_number,
            reason=wish.reason,
            request_id=request.request_id,
            body_hash=request.body_hash,
            bookings=await self._bookings(request.tenant_id, wish.reason),
        )
        made: SeatOverride = await self._batcher.do(change)
        return made

    async def page(
        self, tenant_id: str, *, trip_id: str, page_size: int, page_token: str
    ) -> OverridePage:
        """Return what was changed, newest first. Raises PageTokenInvalidError."""
        filters = ("seat_overrides", tenant_id, trip_id)
        before: tuple[datetime, str] | None = None
        if page_token:
            before = position_of(page_token, filters)
        most = page_size_of(page_size, default=_PAGE_SIZE, most=_PAGE_SIZE_MAX)
        overrides = await self._store.newest(
            tenant_id, trip_id=trip_id, before=before, most=most + 1
        )
        token = ""
        if len(overrides) > most:
            last = overrides[most - 1]
            token = write_token(filters, [last.create_time.isoformat(), last.override_id])
        return OverridePage(overrides=overrides[:most], next_page_token=token)
