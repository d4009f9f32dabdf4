"""Brings bookings to their end: takes one step of a saga after the other, in whichever process.

Each step may be taken twice: what the ledger is asked for has ids that follow from the booking, and
what it answers is told to the row as it is then. A process that dies between two steps leaves the
row due, and another one goes on.
"""

import random
from datetime import timedelta

import structlog
from prometheus_client import Counter

from services.booking.domain import charges
from services.booking.domain.booking import (
    BookingState,
    CancellationCause,
    Happening,
    PaymentState,
    Step,
)
from services.booking.domain.booking_changes import Cancelling, Ending, Sale
from services.booking.domain.bookings import Booking, Checkout, Tell
from services.booking.domain.charges import Charge, ChargePhase, OpenedDeposit
from services.booking.domain.trips import PaymentMethod
from services.booking.operations.seat_batcher import SeatBatcher
from services.booking.operations.telling import Teller
from services.booking.operations.ticket_keys import TicketKeys
from services.booking.ports.bookings import BookingStore
from services.booking.ports.ledger import Ledger
from services.shared.clock import Clock
from services.shared.errors import DependencyUnavailableError, OverloadedError
from services.shared.ids import IdSource

_log = structlog.get_logger()
_STEPS = Counter("wayfare_booking_saga_steps_total", "Steps of sagas taken", ["step", "outcome"])
_STEPS_MOST = 8
_RETRY_FIRST = timedelta(seconds=0.5)
_RETRY_LONGEST = timedelta(seconds=60)
# What was reserved by a call that is still on its way is there after this, or never.
_RESERVE_LASTS = timedelta(seconds=20)
_AWAY = (DependencyUnavailableError, OverloadedError)
_GONE = ("PENDING_EXPIRED", "PENDING_ALREADY_RESOLVED", "TRANSFER_UNKNOWN")
_SOON_MOST = 10_000


class Payments:
    """Takes the steps of sagas."""

    def __init__(
        self,
        *,
        store: BookingStore,
        batcher: SeatBatcher,
        teller: Teller,
        ledger: Ledger,
        keys: TicketKeys,
        clock: Clock,
        ids: IdSource,
    ) -> None:
        """Work on the bookings of `store`; money moves by `ledger`, seats by `batcher`."""
        self._store = store
        self._batcher = batcher
        self._teller = teller
        self._ledger = ledger
        self._keys = keys
        self._clock = clock
        self._ids = ids

    async def settle(self, booking: Booking) -> Booking:
        """Take steps until the booking has its seats, or waits, or has ended.

        Raises DependencyUnavailableError or OverloadedError when a step cannot be taken now; the
        worker goes on with it later.
        """
        for _ in range(_STEPS_MOST):
            if booking.state is not BookingState.PENDING_PAYMENT or booking.saga.step is Step.AWAIT:
                break
            before = booking
            booking = await self.take_step(booking)
            if booking == before:
                break
        return booking

    async def finish(self, booking: Booking) -> Booking:
        """Take steps until the booking rests or waits."""
        for _ in range(_STEPS_MOST):
            before = booking
            booking = await self.take_step(booking)
            if booking.saga.step in (Step.REST, Step.AWAIT) or booking.saga == before.saga:
                break
        return booking

    async def take_step(self, booking: Booking) -> Booking:
        """Take one step and return the booking after it."""
        step = booking.saga.step
        try:
            after = await self._step(booking)
        except _AWAY:
            _STEPS.labels(step, "away").inc()
            raise
        _STEPS.labels(step, "taken").inc()
        return after

    async def _step(self, booking: Booking) -> Booking:
        now = self._clock.now()
        if booking.is_overdue(now):
            return await self._end(booking, Happening.TIME_OVER)
        if booking.hears_of_deposit:
            return await self._hear_of_deposit(booking)
        match booking.saga.step:
            case Step.DEPOSIT:
                return await self._open_deposit(booking)
            case Step.RESERVE:
                return await self._reserve(booking)
            case Step.POST:
                return await self._post(booking)
            case Step.VOID:
                return await self._void(booking)
            case Step.REFUND:
                return await self._refund(booking)
            case Step.REST | Step.AWAIT:
                return await self._lapse(booking)

    async def _hear_of_deposit(self, booking: Booking) -> Booking:
        if booking.deposit_state == "SUCCEEDED":
            return await self._tell(booking, Happening.MONEY_ARRIVED, at_step=False)
        return await self._end(booking, Happening.MONEY_DECLINED, "GATEWAY_DECLINED")

    async def _open_deposit(self, booking: Booking) -> Booking:
        opened = await self._ledger.open_deposit(
            charges.WantedDeposit(
                tenant_id=booking.tenant_id,
                user_id=booking.user_id,
                gateway=booking.gateway,
                amount_minor=booking.saga.amount_minor,
                currency_code=booking.currency_code,
                reference=charges.reference_of(booking.booking_id),
                return_url=booking.return_url,
                request_id=charges.deposit_request_id(booking.booking_id),
                expire_time=booking.expire_time,
            )
        )
        if not isinstance(opened, OpenedDeposit):
            return await self._end(booking, Happening.DEPOSIT_REFUSED, opened)
        checkout = Checkout(
            deposit_id=opened.deposit_id,
            checkout_url=opened.checkout_url,
            form_fields=opened.form_fields,
        )
        return await self._tell(booking, Happening.DEPOSIT_OPENED, checkout=checkout)

    async def _reserve(self, booking: Booking) -> Booking:
        cash = booking.saga.method is PaymentMethod.CASH
        refused = await self._ledger.charge(
            Charge(
                phase=ChargePhase.RESERVE,
                tenant_id=booking.tenant_id,
                transfer_id=charges.pending_id(booking.booking_id, booking.saga.attempt),
                user_id="" if cash else booking.user_id,
                amount_minor=booking.saga.amount_minor,
                currency_code=booking.currency_code,
                reference=charges.reference_of(booking.booking_id),
                timeout_seconds=None if cash else booking.pending_seconds,
            )
        )
        if refused:
            return await self._end(booking, Happening.RESERVE_REFUSED, refused)
        if booking.state in (BookingState.CONFIRMED, BookingState.CANCELLED):
            return await self._tell(booking, Happening.RESERVED)
        signer = await self._keys.signer(booking.tenant_id)
        sale = Sale(
            tenant_id=booking.tenant_id,
            trip_id=booking.trip_id,
            hold_ids=(booking.hold_id,),
            booking_id=booking.booking_id,
            signer=signer,
            ticket_ids=[self._ids.new_id() for _ in booking.seats],
        )
        sold: Booking = await self._batcher.do(sale)
        return sold

    async def _post(self, booking: Booking) -> Booking:
        refused = await self._resolve(booking, ChargePhase.POST)
        if not refused:
            return await self._tell(booking, Happening.POSTED)
        if refused in _GONE:
            _log.error("pending_gone", booking_id=booking.booking_id, reason=refused)
            return await self._tell(booking, Happening.PENDING_GONE)
        return await self._put_off(booking, refused)

    async def _void(self, booking: Booking) -> Booking:
        refused = await self._resolve(booking, ChargePhase.VOID)
        if refused == "TRANSFER_UNKNOWN" and booking.try_count <= 1:
            # Whoever asked to reserve it may still be heard.
            until = self._clock.now() + _RESERVE_LASTS
            await self._store.put_off(booking.tenant_id, booking.booking_id, until=until)
            return booking
        if not refused or refused in _GONE:
            return await self._tell(booking, Happening.VOIDED)
        return await self._put_off(booking, refused)

    async def _resolve(self, booking: Booking, phase: ChargePhase) -> str:
        attempt = booking.saga.attempt
        named = charges.posting_id if phase is ChargePhase.POST else charges.voiding_id
        return await self._ledger.charge(
            Charge(
                phase=phase,
                tenant_id=booking.tenant_id,
                transfer_id=named(booking.booking_id, attempt),
                pending_id=charges.pending_id(booking.booking_id, attempt),
            )
        )

    async def _refund(self, booking: Booking) -> Booking:
        refused = await self._ledger.refund(
            charges.Refund(
                tenant_id=booking.tenant_id,
                transfer_id=charges.posting_id(booking.booking_id, booking.saga.attempt),
                amount_minor=booking.saga.refund_minor,
                currency_code=booking.currency_code,
                request_id=charges.refund_id(booking.booking_id),
            )
        )
        if refused:
            _log.error("refund_refused", booking_id=booking.booking_id, reason=refused)
            return await self._put_off(booking, refused)
        return await self._tell(booking, Happening.REFUNDED)

    async def _lapse(self, booking: Booking) -> Booking:
        """Look at a booking that rested until now."""
        if booking.saga.payment_state is PaymentState.DUE_ON_BOARD:
            return await self._tell(booking, Happening.CASH_NOT_TAKEN)
        if booking.saga.step is Step.REST:
            await self._store.put_off(booking.tenant_id, booking.booking_id, until=None)
        return booking

    async def cancel_with_trip(self, booking: Booking) -> Booking:
        """Cancel the booking of a trip that was called off."""
        cancelling = Cancelling(
            tenant_id=booking.tenant_id,
            trip_id=booking.trip_id,
            hold_ids=(booking.hold_id,),
            booking_id=booking.booking_id,
            user_id="",
            cause=CancellationCause.TRIP,
            reason="",
        )
        cancelled: Booking = await self._batcher.do(cancelling)
        return cancelled

    async def _end(
        self, booking: Booking, happening: Happening, failure_reason: str = ""
    ) -> Booking:
        refusal = happening is Happening.RESERVE_REFUSED
        ending = Ending(
            tenant_id=booking.tenant_id,
            trip_id=booking.trip_id,
            hold_ids=(booking.hold_id,),
            booking_id=booking.booking_id,
            happening=happening,
            failure_reason=failure_reason,
            attempt=booking.saga.attempt if refusal else None,
        )
        ended: Booking = await self._batcher.do(ending)
        return ended

    async def _tell(
        self,
        booking: Booking,
        happening: Happening,
        *,
        at_step: bool = True,
        checkout: Checkout | None = None,
    ) -> Booking:
        tell = Tell(
            booking_id=booking.booking_id,
            happening=happening,
            step=booking.saga.step if at_step else None,
            attempt=booking.saga.attempt,
            checkout=checkout,
        )
        return await self._teller.tell(booking.tenant_id, tell) or booking

    async def _put_off(self, booking: Booking, refused: str) -> Booking:
        """Try again later, and say why."""
        until = self._clock.now() + retry_delay(booking.try_count)
        await self._store.put_off(
            booking.tenant_id, booking.booking_id, until=until, failure_reason=refused
        )
        return booking


def retry_delay(try_count: int) -> timedelta:
    """Return how long to wait after so many tries: backoff with jitter."""
    longest = min(_RETRY_LONGEST, _RETRY_FIRST * 2 ** min(try_count, 10))
    return timedelta(
        seconds=longest.total_seconds() * random.uniform(0.5, 1)  # noqa: S311 - jitter, no secret
    )
