"""Holds seats, extends and releases holds, and ends those whose time is over."""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog
from prometheus_client import Counter

from services.booking.domain.holding import BestAvailable, Extension, NewHold, Release
from services.booking.domain.seats import Hold
from services.booking.domain.turns import RequestKey
from services.booking.errors.holds import HoldNotYoursError
from services.booking.errors.lists import PageTokenInvalidError
from services.booking.operations.paging import page_size_of, read_token, write_token
from services.booking.operations.seat_batcher import SeatBatcher
from services.booking.ports.requests import WriteRequest
from services.booking.ports.seats import SeatStore
from services.shared.clock import Clock
from services.shared.errors import DependencyUnavailableError
from services.shared.ids import is_uuid

_log = structlog.get_logger()
_ENDED = Counter("wayfare_booking_holds_swept_total", "Holds that were ended by the sweep")
_PAGE_SIZE = 20
_PAGE_SIZE_MAX = 100
_OVERDUE_MOST = 500
# Trips of a batch of the sweep: others wait for none of them for long.
_TRIPS_AT_ONCE = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldWish:
    """Is which seats of which journey somebody wants to hold: named ones, or the best."""

    trip_id: str
    from_stop_id: str
    to_stop_id: str
    seat_numbers: Sequence[str]
    best: BestAvailable | None
    replaced_hold_id: str
    user_id: str
    staff: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldPage:
    """Is a page of holds, and the token of the next one; "" on the last."""

    holds: Sequence[Hold]
    next_page_token: str


class Holds:
    """Keeps seats for users for a while."""

    def __init__(
        self,
        *,
        store: SeatStore,
        batcher: SeatBatcher,
        clock: Clock,
        holds_max: int,
        extensions_max: int,
    ) -> None:
        """Let one user have `holds_max` holds at once, and extend each `extensions_max` times."""
        self._store = store
        self._batcher = batcher
        self._clock = clock
        self._holds_max = holds_max
        self.extensions_max = extensions_max

    async def hold(self, wish: HoldWish, request: WriteRequest) -> Hold:
        """Hold seats: all or none. Raises the refusals of HoldSeats."""
        hold_id = derived_id(request)
        change = NewHold(
            tenant_id=request.tenant_id,
            trip_id=wish.trip_id,
            hold_ids=(wish.replaced_hold_id,) if wish.replaced_hold_id else (),
            new_hold_ids=(hold_id,),
            limited_user_id=wish.user_id,
            hold_id=hold_id,
            user_id=wish.user_id,
            staff=wish.staff,
            from_stop_id=wish.from_stop_id,
            to_stop_id=wish.to_stop_id,
            seat_numbers=wish.seat_numbers,
            best=wish.best,
            replaced_hold_id=wish.replaced_hold_id,
            holds_max=self._holds_max,
            request_id=request.request_id,
            body_hash=request.body_hash,
        )
        made: Hold = await self._batcher.do(change)
        return made

    async def extend(self, hold_id: str, user_id: str, request: WriteRequest) -> Hold:
        """Let a hold last longer. Raises the refusals of ExtendHold."""
        change = Extension(
            tenant_id=request.tenant_id,
            trip_id=await self._trip_of(request.tenant_id, hold_id, user_id),
            hold_ids=(hold_id,),
            request=request_key(request),
            hold_id=hold_id,
            user_id=user_id,
            extensions_max=self.extensions_max,
        )
        extended: Hold = await self._batcher.do(change)
        return extended

    async def release(self, hold_id: str, user_id: str, request: WriteRequest) -> Hold:
        """Free the seats of a hold. Raises the refusals of ReleaseHold."""
        change = Release(
            tenant_id=request.tenant_id,
            trip_id=await self._trip_of(request.tenant_id, hold_id, user_id),
            hold_ids=(hold_id,),
            request=request_key(request),
            hold_id=hold_id,
            user_id=user_id,
        )
        released: Hold = await self._batcher.do(change)
        return released

    async def page(
        self, tenant_id: str, user_id: str, *, trip_id: str, page_size: int, page_token: str
    ) -> HoldPage:
        """Return a user's holds that keep seats, newest first. Raises PageTokenInvalidError."""
        filters = ("holds", tenant_id, user_id, trip_id)
        before = position_of(page_token, filters) if page_token else None
        most = page_size_of(page_size, default=_PAGE_SIZE, most=_PAGE_SIZE_MAX)
        holds = await self._store.live_holds(
            tenant_id,
            user_id,
            trip_id=trip_id,
            before=before,
            now=self._clock.now(),
            most=most + 1,
        )
        token = ""
        if len(holds) > most:
            last = holds[most - 1]
            token = write_token(filters, [last.create_time.isoformat(), last.hold_id])
        return HoldPage(holds=holds[:most], next_page_token=token)

    async def _trip_of(self, tenant_id: str, hold_id: str, user_id: str) -> str:
        """Return the trip of the user's hold. Raises HoldNotYoursError if there is none."""
        hold = await self._store.find_hold(tenant_id, hold_id)
        if hold is None or hold.user_id != user_id:
            raise HoldNotYoursError(hold_id)
        return hold.trip_id


class HoldSweep:
    """Ends holds whose time is over, and so tells who watches. Any number of processes may."""

    def __init__(
        self, *, store: SeatStore, batcher: SeatBatcher, clock: Clock, sweep_seconds: float
    ) -> None:
        """Look every `sweep_seconds`."""
        self._store = store
        self._batcher = batcher
        self._clock = clock
        self._sweep_seconds = sweep_seconds

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            ended = 0
            try:
                ended = await self.sweep()
            except DependencyUnavailableError as error:
                _log.warning("holds_wait_to_expire", dependency=error.dependency)
            if ended < _OVERDUE_MOST:
                await asyncio.sleep(self._sweep_seconds)

    async def sweep(self) -> int:
        """End what has run out, of some trips at a time; return how many holds."""
        found = await self._store.overdue(now=self._clock.now(), most=_OVERDUE_MOST)
        ended = 0
        for tenant_id, trip_ids in found.items():
            for start in range(0, len(trip_ids), _TRIPS_AT_ONCE):
                some = trip_ids[start : start + _TRIPS_AT_ONCE]
                ended += await self._batcher.sweep(tenant_id, some)
        _ENDED.inc(ended)
        return ended


def derived_id(request: WriteRequest) -> str:
    """Return the id of what a call makes: the same call makes the same."""
    words = (request.method, request.tenant_id, request.caller_id, request.request_id)
    digest = hashlib.blake2b("\n".join(words).encode(), digest_size=16).hexdigest()
    # Version 8 is what RFC 9562 leaves to the maker.
    return f"{digest[:8]}-{digest[8:12]}-8{digest[13:16]}-8{digest[17:20]}-{digest[20:]}"


def request_key(request: WriteRequest) -> RequestKey:
    """Return what makes a repeated call known to the batch."""
    return RequestKey(request.caller_id, request.method, request.request_id, request.body_hash)


def position_of(page_token: str, filters: Sequence[str]) -> tuple[datetime, str]:
    """Return time and id after which a page begins. Raises PageTokenInvalidError."""
    moment, hold_id = read_token(page_token, filters, 2)
    try:
        create_time = datetime.fromisoformat(moment)
    except ValueError as error:
        raise PageTokenInvalidError from error
    if not is_uuid(hold_id):
        raise PageTokenInvalidError
    return create_time, hold_id
