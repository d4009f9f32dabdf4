"""Booking processes that end between any two steps, on one database with the real ledger."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc

from services.booking.booking_messages import CONVERSIONS
from services.booking.consumers import handle_deposits
from services.booking.domain.booking_overrides import BookedSeatsByHand
from services.booking.domain.bookings import Booking
from services.booking.domain.passengers import Traveller
from services.booking.domain.trips import PaymentMethod
from services.booking.gateways import LedgerGateway
from services.booking.operations.bookings import Bookings, BookingTerms, BookingWish
from services.booking.operations.payment_worker import PaymentWorker
from services.booking.operations.payments import Payments
from services.booking.operations.telling import Teller
from services.booking.operations.ticket_keys import TicketKeys
from services.booking.passenger_vault import KeyRing, PassengerVault
from services.booking.ports.bookings import BookingReader
from services.booking.ports.requests import WriteRequest
from services.booking.seating import Seating
from services.booking.store.booking_part import BookingPart
from services.booking.store.bookings import PostgresBookingStore
from services.booking.store.layouts import PostgresLayoutStore
from services.booking.store.ticket_keys import PostgresTicketKeyStore
from services.booking.store.trips import PostgresTripStore
from services.booking.ticket_key_seal import AesKeySeal
from services.shared.ids import Uuid7Source
from services.shared.postgres import Database, Session, open_database
from services.shared.tasks import cancel_all
from services.shared.valkey import open_valkey
from tests.support.booking_money import Shop
from tests.support.booking_process import PASSENGER_KEYS, TICKET_KEY_SECRET
from tests.support.deposit_cuts import Cut, CutError, CutParts
from tests.support.ledger_process import money
from tests.support.location_values import TENANT, new_id
from wayfare.booking.v1 import hold_pb2
from wayfare.event.v1.envelope_pb2 import Envelope
from wayfare.ledger.v1 import deposit_pb2, events_pb2

_HASH = bytes(32)
_ROUNDS_MOST = 40


@dataclass
class Parts:
    """Is what outlives a process: the database, and calls that are on their way."""

    shop: Shop
    database: Database
    store: PostgresBookingStore
    seating: Seating
    teller: Teller
    gateway: LedgerGateway
    keys: TicketKeys
    trips: PostgresTripStore

    def process(self, cut: Cut | None = None) -> "Process":
        """Return a new process, which ends where `cut` says."""

        def part(whole: Any) -> Any:
            return whole if cut is None else CutParts(whole, cut)

        clock = self.shop.clock
        ids = Uuid7Source(clock)
        payments = Payments(
            store=part(self.store),
            batcher=part(self.seating.batcher),
            teller=part(self.teller),
            ledger=part(self.gateway),
            keys=self.keys,
            clock=clock,
            ids=ids,
        )
        worker = PaymentWorker(
            payments=payments, store=part(self.store), clock=clock, idle_seconds=1, at_once=50
        )
        bookings = Bookings(
            store=part(self.store),
            trips=self.trips,
            seats=self.seating.store,
            batcher=part(self.seating.batcher),
            payments=payments,
            worker=worker,
            keys=self.keys,
            vault=PassengerVault(KeyRing.parse(PASSENGER_KEYS)),
            terms=BookingTerms(fees=(), pending_margin=timedelta(hours=1)),
            clock=clock,
            ids=ids,
            random_bits=secrets.randbits,
        )
        return Process(self, payments, worker, bookings)

    async def heal(self) -> None:
        """Let another process work until nothing is due any more."""
        worker = self.process().worker
        for _ in range(_ROUNDS_MOST):
            await worker.work()
            self.shop.seconds_pass(30)
            rows = await self.shop.rows(
                "SELECT 1 FROM booking.bookings WHERE next_time IS NOT NULL"
            )
            if not rows:
                return
        raise AssertionError("something never comes to rest")

    async def sweep(self, trip_id: str) -> None:
        """End the holds of a trip whose time is over."""
        await self.seating.batcher.sweep(TENANT, [trip_id])

    async def money_comes(self, booking_id: str, user_id: str, amount_minor: int) -> None:
        """Let a deposit's money into the wallet, and tell of it as the ledger's event does."""
        await self.told(booking_id, user_id, amount_minor, deposit_pb2.DEPOSIT_STATE_SUCCEEDED)

    async def told(self, booking_id: str, user_id: str, amount_minor: int, state: Any) -> None:
        event = Envelope(event_id=new_id(), tenant_id=TENANT, aggregate_type="deposit")
        deposit = deposit_pb2.Deposit(
            deposit_id=new_id(),
            user_id=user_id,
            amount=money(amount_minor),
            state=state,
            reference=f"booking/{booking_id}",
        )
        event.payload.Pack(events_pb2.DepositChanged(deposit=deposit))
        async with self.database.transaction(Session(role="SWEEPER")) as connection:
            await handle_deposits(connection, [event])

    async def booking(self, hold: hold_pb2.Hold) -> Booking | None:
        """Return the booking of a hold as it is kept, or None."""
        rows = await self.shop.rows(
            "SELECT booking_id::text FROM booking.bookings WHERE hold_id = $1", hold.hold_id
        )
        if not rows:
            return None
        found = await self.store.find_many(TENANT, [rows[0][0]])
        return found[rows[0][0]]


@dataclass
class Process:
    """Is the operations of one process."""

    parts: Parts
    payments: Payments
    worker: PaymentWorker
    bookings: Bookings

    async def book(
        self, hold: hold_pb2.Hold, user_id: str, method: PaymentMethod, **values: Any
    ) -> Booking | None:
        """Book a hold; None if the process ends before it answers."""
        wish = BookingWish(
            hold_id=hold.hold_id,
            travellers=[(seat.seat_number, Traveller(full_name="Nour")) for seat in hold.seats],
            method=method,
            gateway="KASHIER" if method is PaymentMethod.GATEWAY else "",
            return_url="",
            allow_other_seats=values.get("allow_other_seats", False),
        )
        try:
            return (await self.bookings.create(wish, user_id, _request(user_id))).booking
        except CutError:
            return None

    async def cancel(self, booking: Booking) -> None:
        """Cancel a booking as its owner."""
        reader = BookingReader(TENANT, booking.user_id, "PASSENGER")
        try:
            await self.bookings.cancel(
                reader,
                booking.booking_id,
                _request(booking.user_id, "CancelBooking"),
                reason="",
                max_fee_minor=None,
            )
        except CutError:
            return

    async def work(self) -> None:
        """Take a round of the worker, as far as the process lives."""
        try:
            await self.worker.work()
        except CutError:
            return


def _request(user_id: str, method: str = "CreateBooking") -> WriteRequest:
    return WriteRequest(
        tenant_id=TENANT,
        caller_id=user_id,
        method=method,
        request_id=new_id(),
        body_hash=_HASH,
    )


@asynccontextmanager
async def running_parts(shop: Shop, channel: grpc.aio.Channel) -> AsyncIterator[Parts]:
    """Run what outlives processes until the block ends; no worker of the shop's own runs."""
    clock, settings = shop.clock, shop.booking.settings
    ids = Uuid7Source(clock)
    async with AsyncExitStack() as stack:
        database = await open_database(settings.database_url.get_secret_value(), pool_size=8)
        stack.push_async_callback(database.close)
        valkey = open_valkey(settings.valkey_url.get_secret_value(), cluster=False)
        stack.push_async_callback(valkey.aclose)
        layouts, trips = PostgresLayoutStore(database, clock), PostgresTripStore(database, clock)
        keys = TicketKeys(
            store=PostgresTicketKeyStore(database, clock),
            seal=AesKeySeal.parse(TICKET_KEY_SECRET),
            clock=clock,
            ids=ids,
        )

        async def by_hand(tenant_id: str, reason: str) -> BookedSeatsByHand:
            signer = await keys.signer(tenant_id)
            return BookedSeatsByHand(signer=signer, reason=reason, ticket_id=ids.new_id())

        seating = Seating(
            settings=settings,
            database=database,
            valkey=valkey,
            tail=valkey,
            trips=trips,
            layouts=layouts,
            clock=clock,
            ids=ids,
            service="booking",
            bookings=by_hand,
            parts=[BookingPart()],
            conversions=CONVERSIONS,
        )
        store = PostgresBookingStore(database, event_of=seating.happenings.event_of, clock=clock)
        teller = Teller(store=store, gather_seconds=0.0)
        gateway = LedgerGateway(
            channel, clock=clock, new_id=ids.new_id, calls_at_once=2, gather_seconds=0.0
        )
        tasks = [
            asyncio.create_task(work()) for work in (seating.batcher.run, teller.run, gateway.run)
        ]
        try:
            yield Parts(shop, database, store, seating, teller, gateway, keys, trips)
        finally:
            await cancel_all(tasks)
