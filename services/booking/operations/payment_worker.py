"""Looks for sagas that rest and trips that are over, whichever process began them."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import structlog
from prometheus_client import Gauge

from services.booking.domain.booking import Happening, Step
from services.booking.domain.bookings import Booking, Tell
from services.booking.operations.payments import Payments, retry_delay
from services.booking.ports.bookings import BookingStore
from services.shared.clock import Clock
from services.shared.errors import DependencyUnavailableError, OverloadedError

_log = structlog.get_logger()
_UNDER_WAY = Gauge("wayfare_booking_sagas_under_way", "Sagas that this process works on")
_AWAY = (DependencyUnavailableError, OverloadedError)
_SOON_MOST = 10_000
_LEASE = timedelta(seconds=15)
_TRIPS_MOST = 20


class PaymentWorker:
    """Looks for sagas that rest, whoever began them; any number of processes may."""

    def __init__(
        self,
        *,
        payments: Payments,
        store: BookingStore,
        clock: Clock,
        idle_seconds: float,
        at_once: int,
    ) -> None:
        """Look every `idle_seconds`; work on `at_once` sagas at a time."""
        self._payments = payments
        self._store = store
        self._clock = clock
        self._idle_seconds = idle_seconds
        self._at_once = at_once
        self._soon: asyncio.Queue[Booking] = asyncio.Queue(_SOON_MOST)

    def soon(self, booking: Booking) -> None:
        """Go on with a booking without waiting until it is due."""
        if booking.saga.step not in (Step.REST, Step.AWAIT) and not self._soon.full():
            self._soon.put_nowait(booking)

    async def run_soon(self) -> None:
        """Go on with those that were just moved, many at a time, until cancelled."""
        while True:
            bookings = [await self._soon.get()]
            while not self._soon.empty() and len(bookings) < self._at_once:
                bookings.append(self._soon.get_nowait())
            await self._finish_all(bookings)

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            try:
                worked = await self.work()
            except _AWAY as error:
                _log.warning("sagas_wait", error=error.reason)
                worked = 0
            if worked < self._at_once:
                await asyncio.sleep(self._idle_seconds)

    async def work(self) -> int:
        """Take one round; return how many bookings were looked at."""
        await self._tell_of_cash()
        ended = await self._close_trips()
        now = self._clock.now()
        due = await self._store.take_due(now=now, lease_until=now + _LEASE, most=self._at_once)
        by_tenant: dict[str, list[str]] = {}
        for one in due:
            by_tenant.setdefault(one.tenant_id, []).append(one.booking_id)
        for tenant_id, booking_ids in by_tenant.items():
            found = await self._store.find_many(tenant_id, booking_ids)
            await self._finish_all(list(found.values()))
        return len(due) + ended

    async def _finish_all(self, bookings: Sequence[Booking]) -> None:
        _UNDER_WAY.set(len(bookings))
        await asyncio.gather(*(self._finish(booking) for booking in bookings))
        _UNDER_WAY.set(0)

    async def _finish(self, booking: Booking) -> None:
        try:
            await self._payments.finish(booking)
        except _AWAY as error:
            _log.warning("saga_waits", booking_id=booking.booking_id, error=error.reason)
            await self._put_off(booking)
        except Exception as error:  # noqa: BLE001 - a fault with one booking is not the others'
            _log.error("saga_failed", booking_id=booking.booking_id, exc_info=error)
            await self._put_off(booking)

    async def _put_off(self, booking: Booking) -> None:
        until = self._clock.now() + retry_delay(booking.try_count)
        try:
            await self._store.put_off(booking.tenant_id, booking.booking_id, until=until)
        except _AWAY:
            # It is due again when its lease ends.
            return

    async def _tell_of_cash(self) -> None:
        by_tenant: dict[str, list[str]] = {}
        for one in await self._store.cash_takings(most=self._at_once):
            by_tenant.setdefault(one.tenant_id, []).append(one.booking_id)
        for tenant_id, booking_ids in by_tenant.items():
            told = await self._store.tell(
                tenant_id,
                [
                    Tell(booking_id=one, happening=Happening.CASH_TAKEN)
                    for one in sorted(booking_ids)
                ],
            )
            await self._store.cash_told(tenant_id, booking_ids, self._clock.now())
            for booking in told.values():
                self.soon(booking)

    async def _close_trips(self) -> int:
        """Look after the bookings of trips that are over or called off."""
        now = self._clock.now()
        closed = 0
        for trip in await self._store.ended_trips(now=now, most=_TRIPS_MOST):
            if trip.cancelled:
                live = await self._store.live_of_trip(
                    trip.tenant_id, trip.trip_id, most=self._at_once
                )
                cancelled = await asyncio.gather(
                    *(self._payments.cancel_with_trip(one) for one in live),
                    return_exceptions=True,
                )
                for one in cancelled:
                    if isinstance(one, Booking):
                        self.soon(one)
                if live:
                    closed += len(live)
                    continue
            closed += await self._store.close_trip(trip.tenant_id, trip.trip_id, now=now)
        return closed
