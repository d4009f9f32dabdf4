"""Wires bookings, their payment and what finishes them.

A part of app.py, which would be too long with it.
"""

import secrets
from collections.abc import Sequence
from datetime import timedelta

import grpc

from services.booking import consumers
from services.booking.booking_calls import BookingCalls
from services.booking.gateways import LedgerGateway
from services.booking.operations.bookings import Bookings, BookingTerms
from services.booking.operations.payment_worker import PaymentWorker
from services.booking.operations.payments import Payments
from services.booking.operations.seat_batcher import SeatBatcher
from services.booking.operations.telling import Teller
from services.booking.operations.ticket_keys import TicketKeys
from services.booking.ports.seats import SeatStore
from services.booking.ports.trips import TripStore
from services.booking.ports.vault import Vault
from services.booking.seat_messages import HappeningMessages
from services.booking.settings import BookingSettings
from services.booking.store.bookings import PostgresBookingStore
from services.shared.clock import Clock
from services.shared.events.consumer import EventConsumer
from services.shared.ids import IdSource
from services.shared.postgres import Database
from services.shared.rpc.process import Background
from services.shared.valkey import Valkey


class Selling:
    """Holds what sells seats, and the background work of it."""

    def __init__(
        self,
        *,
        settings: BookingSettings,
        database: Database,
        events: Valkey,
        trips: TripStore,
        seats: SeatStore,
        batcher: SeatBatcher,
        happenings: HappeningMessages,
        ledger: grpc.aio.Channel,
        keys: TicketKeys,
        vault: Vault,
        clock: Clock,
        ids: IdSource,
        service: str,
    ) -> None:
        """Wire everything together; `events` is a client for reads that wait."""
        store = PostgresBookingStore(database, event_of=happenings.event_of, clock=clock)
        gateway = LedgerGateway(
            ledger,
            clock=clock,
            new_id=ids.new_id,
            calls_at_once=settings.booking_ledger_calls,
            gather_seconds=settings.booking_gather_seconds,
        )
        teller = Teller(store=store, gather_seconds=settings.booking_gather_seconds)
        payments = Payments(
            store=store,
            batcher=batcher,
            teller=teller,
            ledger=gateway,
            keys=keys,
            clock=clock,
            ids=ids,
        )
        worker = PaymentWorker(
            payments=payments,
            store=store,
            clock=clock,
            idle_seconds=settings.booking_worker_seconds,
            at_once=settings.booking_sagas_at_once,
        )
        self.booking_calls = BookingCalls(
            bookings=Bookings(
                store=store,
                trips=trips,
                seats=seats,
                batcher=batcher,
                payments=payments,
                worker=worker,
                keys=keys,
                vault=vault,
                terms=BookingTerms(
                    fees=settings.cancellation_fees(),
                    pending_margin=timedelta(hours=settings.booking_pending_margin_hours),
                ),
                clock=clock,
                ids=ids,
                random_bits=secrets.randbits,
            )
        )
        self.background: Sequence[Background] = (
            gateway.run,
            teller.run,
            worker.run,
            worker.run_soon,
            _deposits(database, events, service).run,
        )


def _deposits(database: Database, events: Valkey, service: str) -> EventConsumer:
    """Return what takes the ledger's events of deposits."""
    return EventConsumer(
        consumer=consumers.CONSUMER,
        source=consumers.SOURCE,
        database=database,
        schema=service,
        valkey=events,
        handle=consumers.handle_deposits,
        wants=consumers.wants_deposit,
    )
