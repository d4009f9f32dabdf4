"""Makes, shows, lists and cancels bookings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from services.booking.domain import charges
from services.booking.domain.booking import BookingState, CancellationCause, Step
from services.booking.domain.booking_changes import Beginning, Cancelling
from services.booking.domain.bookings import Booking, code_of
from services.booking.domain.fees import CancellationTerms, terms_at
from services.booking.domain.passengers import SealedPassenger, SealedTo, Traveller
from services.booking.domain.seats import Hold
from services.booking.domain.trips import CancellationFee, Journey, PaymentMethod, Trip
from services.booking.domain.turns import RequestKey
from services.booking.errors.bookings import (
    BookingNotYoursError,
    PaymentFailedError,
    PaymentMethodNotAllowedError,
    RoleNotAllowedError,
)
from services.booking.errors.holds import HoldNotYoursError
from services.booking.errors.lists import PageTokenInvalidError
from services.booking.operations.paging import page_size_of, read_token, write_token
from services.booking.operations.payment_worker import PaymentWorker
from services.booking.operations.payments import Payments
from services.booking.operations.seat_batcher import SeatBatcher
from services.booking.operations.ticket_keys import TicketKeys
from services.booking.ports.bookings import BookingListing, BookingReader, BookingStore
from services.booking.ports.requests import WriteRequest
from services.booking.ports.seats import SeatStore
from services.booking.ports.trips import TripStore
from services.booking.ports.vault import Vault
from services.shared.clock import Clock
from services.shared.errors import DependencyUnavailableError, OverloadedError
from services.shared.ids import IdSource, is_uuid

_PAGE_SIZE = 20
_PAGE_SIZE_MAX = 100
_STAFF = ("ADMIN", "BUSINESS")
_CODE_BITS = 40
# The gateway is not one of the operator's, or does not take the currency.
_NO_SUCH_WAY = ("GATEWAY_NOT_CONFIGURED", "CURRENCY_MISMATCH")


@dataclass(frozen=True, slots=True, kw_only=True)
class BookingWish:
    """Is what somebody wants to book: a hold, who travels by seat, and how it is paid."""

    hold_id: str
    travellers: Sequence[tuple[str, Traveller]] = field(repr=False)
    method: PaymentMethod
    gateway: str
    return_url: str
    allow_other_seats: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownBooking:
    """Is a booking as its owner and the operator's staff see it."""

    booking: Booking
    trip: Trip
    travellers: Mapping[str, Traveller]
    boarding: Mapping[str, str]
    offer: CancellationTerms | None
    now: datetime
    degraded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BookingPage:
    """Is a page of bookings, and the token of the next one; "" on the last."""

    bookings: Sequence[ShownBooking]
    next_page_token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BookingTerms:
    """States what bookings have in common: the operator's own fee table, and how long money waits.

    The margin is what the ledger keeps reserved money for beyond the time to pay: longer than any
    outage that the saga shall outlive.
    """

    fees: Sequence[CancellationFee]
    pending_margin: timedelta


class Bookings:
    """Sells what holds keep."""

    def __init__(
        self,
        *,
        store: BookingStore,
        trips: TripStore,
        seats: SeatStore,
        batcher: SeatBatcher,
        payments: Payments,
        worker: PaymentWorker,
        keys: TicketKeys,
        vault: Vault,
        terms: BookingTerms,
        clock: Clock,
        ids: IdSource,
        random_bits: Callable[[int], int],
    ) -> None:
        """Take the parts; `random_bits` makes the names that people know bookings by."""
        self._store = store
        self._trips = trips
        self._seats = seats
        self._batcher = batcher
        self._payments = payments
        self._worker = worker
        self._keys = keys
        self._vault = vault
        self._terms = terms
        self._clock = clock
        self._ids = ids
        self._random_bits = random_bits

    async def create(self, wish: BookingWish, user_id: str, request: WriteRequest) -> ShownBooking:
        """Book and pay what a hold keeps. Raises the refusals of CreateBooking."""
        hold = await self._seats.find_hold(request.tenant_id, wish.hold_id)
        if hold is None or hold.user_id != user_id:
            raise HoldNotYoursError(wish.hold_id)
        booking_id = charges.derived_id(wish.hold_id, "booking")
        trips: list[Trip] = []
        beginning = Beginning(
            tenant_id=request.tenant_id,
            trip_id=hold.trip_id,
            hold_ids=(wish.hold_id,),
            request=_key_of(request),
            booking_id=booking_id,
            hold_id=wish.hold_id,
            user_id=user_id,
            booking_code=code_of(self._random_bits(_CODE_BITS)),
            method=wish.method,
            gateway=wish.gateway,
            return_url=wish.return_url,
            allow_other_seats=wish.allow_other_seats,
            passengers=self._sealed(wish, request.tenant_id, booking_id),
            operator_fees=self._terms.fees,
            pending_margin_seconds=int(self._terms.pending_margin.total_seconds()),
            signer=await self._keys.signer(request.tenant_id),
            ticket_ids=[self._ids.new_id() for _ in wish.travellers],
            saw=trips.append,
        )
        booking: Booking = await self._batcher.do(beginning)
        degraded = False
        try:
            booking = await self._payments.settle(booking)
        except (DependencyUnavailableError, OverloadedError):
            # The worker goes on with it.
            degraded = True
        if booking.state is BookingState.PAYMENT_FAILED:
            self._worker.soon(booking)
            if booking.failure_reason in _NO_SUCH_WAY:
                raise PaymentMethodNotAllowedError(booking.trip_id, payment_method=wish.method)
            raise PaymentFailedError(booking.booking_id, ledger_reason=booking.failure_reason)
        if not degraded:
            self._worker.soon(booking)
        now = self._clock.now()
        return ShownBooking(
            booking=booking,
            trip=trips[-1],
            travellers=_travellers_of(booking, hold, wish),
            boarding={},
            offer=_offer(booking, trips[-1], now),
            now=now,
            degraded=degraded,
        )

    async def get(self, reader: BookingReader, booking_id: str) -> ShownBooking:
        """Return a booking. Raises BookingNotYoursError."""
        booking = await self._store.find(reader, booking_id)
        if booking is None:
            raise BookingNotYoursError(booking_id)
        return await self._shown(booking)

    async def cancel(
        self,
        reader: BookingReader,
        booking_id: str,
        request: WriteRequest,
        *,
        reason: str,
        max_fee_minor: int | None,
    ) -> ShownBooking:
        """Cancel a booking. Raises the refusals of CancelBooking."""
        found = await self._store.find(reader, booking_id)
        if found is None:
            raise BookingNotYoursError(booking_id)
        staff = reader.role in _STAFF and found.user_id != reader.user_id
        cancelling = Cancelling(
            tenant_id=request.tenant_id,
            trip_id=found.trip_id,
            hold_ids=(found.hold_id,),
            request=_key_of(request),
            booking_id=booking_id,
            user_id="" if staff else reader.user_id,
            cause=CancellationCause.OPERATOR if staff else CancellationCause.PASSENGER,
            reason=reason,
            max_fee_minor=max_fee_minor,
        )
        booking: Booking = await self._batcher.do(cancelling)
        self._worker.soon(booking)
        return await self._shown(booking)

    async def page(
        self,
        reader: BookingReader,
        *,
        user_id: str,
        trip_id: str,
        state: str,
        booking_code: str,
        page_size: int,
        page_token: str,
    ) -> BookingPage:
        """Return a page of bookings, newest first.

        Raises RoleNotAllowedError or PageTokenInvalidError.
        """
        if reader.role not in _STAFF:
            if user_id not in ("", reader.user_id):
                raise RoleNotAllowedError(reader.role)
            user_id = reader.user_id
        size = page_size_of(page_size, default=_PAGE_SIZE, most=_PAGE_SIZE_MAX)
        filters = ("bookings", reader.tenant_id, user_id, trip_id, state, booking_code)
        listing = BookingListing(
            user_id=user_id,
            trip_id=trip_id,
            state=state,
            booking_code=booking_code,
            before=_position(page_token, filters) if page_token else None,
        )
        found = await self._store.listed(reader, listing, most=size + 1)
        token = ""
        if len(found) > size:
            found = found[:size]
            last = found[-1]
            token = write_token(filters, (last.create_time.isoformat(), last.booking_id))
        return BookingPage(bookings=await self._shown_all(found), next_page_token=token)

    def _sealed(
        self, wish: BookingWish, tenant_id: str, booking_id: str
    ) -> list[tuple[str, SealedPassenger]]:
        sealed = []
        for seat_number, traveller in wish.travellers:
            passenger_id = self._ids.new_id()
            to = SealedTo(tenant_id, booking_id, passenger_id)
            text = self._vault.seal(traveller, to)
            sealed.append((seat_number, SealedPassenger(passenger_id, booking_id, text)))
        return sealed

    async def _shown(self, booking: Booking, *, degraded: bool = False) -> ShownBooking:
        (shown,) = await self._shown_all([booking], degraded=degraded)
        return shown

    async def _shown_all(
        self, bookings: Sequence[Booking], *, degraded: bool = False
    ) -> list[ShownBooking]:
        if not bookings:
            return []
        tenant_id, now = bookings[0].tenant_id, self._clock.now()
        ids = [booking.booking_id for booking in bookings]
        known = await self._store.details(tenant_id, ids)
        trips: dict[str, Trip] = {}
        shown = []
        for booking in bookings:
            trip = trips.get(booking.trip_id) or await self._trips.find(tenant_id, booking.trip_id)
            if trip is None:
                raise BookingNotYoursError(booking.booking_id)
            trips[booking.trip_id] = trip
            travellers = {
                one.passenger_id: self._vault.open(
                    one.sealed, SealedTo(tenant_id, booking.booking_id, one.passenger_id)
                )
                for one in known.passengers
                if one.booking_id == booking.booking_id
            }
            offer = None
            if booking.booking_id not in known.used:
                offer = _offer(booking, trip, now)
            shown.append(
                ShownBooking(
                    booking=booking,
                    trip=trip,
                    travellers=travellers,
                    boarding=known.boarding,
                    offer=offer,
                    now=now,
                    degraded=degraded or _waits_for_ledger(booking),
                )
            )
        return shown


def _travellers_of(booking: Booking, hold: Hold, wish: BookingWish) -> dict[str, Traveller]:
    """Return who travels by passenger: a booking's seats are in the order of its hold's."""
    told = dict(wish.travellers)
    return {
        seat.passenger_id: told[held.seat_number]
        for seat, held in zip(booking.seats, hold.seats, strict=True)
    }


def _offer(booking: Booking, trip: Trip, now: datetime) -> CancellationTerms | None:
    departure_time = trip.departure_time(Journey(booking.from_stop_index, booking.to_stop_index))
    return terms_at(booking.fees, booking.saga, departure_time=departure_time, now=now)


def _waits_for_ledger(booking: Booking) -> bool:
    """Say whether a step was tried and could not be taken."""
    return booking.try_count > 1 and booking.saga.step not in (Step.REST, Step.AWAIT)


def _key_of(request: WriteRequest) -> RequestKey:
    return RequestKey(request.caller_id, request.method, request.request_id, request.body_hash)


def _position(page_token: str, filters: Sequence[str]) -> tuple[datetime, str]:
    moment, booking_id = read_token(page_token, filters, 2)
    try:
        create_time = datetime.fromisoformat(moment)
    except ValueError as error:
        raise PageTokenInvalidError from error
    if create_time.tzinfo is None or not is_uuid(booking_id):
        raise PageTokenInvalidError
    return create_time, booking_id
