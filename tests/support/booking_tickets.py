"""Bookings with tickets on a trip, made in the store as a confirmed booking makes them."""

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from services.booking.domain.issuing import IssuedTicket, TicketedBooking, TicketedSeat, issue
from services.booking.domain.passengers import SealedTo, Traveller
from services.booking.domain.tickets import qr_text
from services.booking.operations.ticket_keys import TicketKeys
from services.booking.passenger_vault import KeyRing, PassengerVault
from services.booking.store import tickets as ticket_rows
from services.booking.store.ticket_keys import PostgresTicketKeyStore
from services.booking.ticket_key_seal import AesKeySeal
from services.shared.clock import SystemClock
from services.shared.ids import Uuid7Source
from services.shared.postgres import Database, Session, open_database
from tests.support.booking_process import CURRENCY, BookingProcess, timestamp
from tests.support.location_values import TENANT, new_id
from wayfare.booking.v1 import booking_service_pb2 as pb
from wayfare.booking.v1 import ticket_pb2, trip_pb2

BOARD, CHECK = ticket_pb2.SCAN_KIND_BOARD, ticket_pb2.SCAN_KIND_CHECK
PRICE_MINOR = 3_000
_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_BOOK = """
INSERT INTO booking.bookings (booking_id, tenant_id, booking_code, trip_id, user_id, state,
  payment_method, payment_state, step, currency_code, amount_minor, seats, passenger_count,
  from_stop_index, to_stop_index, fees, gateway, return_url, allow_other_seats, pending_seconds,
  expire_time, create_time, confirm_time, event_version, hold_id)
VALUES ($1, $2, $3, $4, $5, 'CONFIRMED', $6, $7, 'REST', $8, $9, $15, $10, $11, $12, '', '', '',
  false, 600, $13, $13, $13, 0, $14)
"""


def _code() -> str:
    """Return a booking code."""
    return "".join(secrets.choice(_DIGITS) for _ in range(8))


@dataclass
class Bus:
    """A trip with its crew, and the box office that books seats on it."""

    process: BookingProcess
    database: Database
    keys: TicketKeys
    vault: PassengerVault
    trip: trip_pb2.Trip
    conductor_id: str
    driver_id: str

    @property
    def trip_id(self) -> str:
        return self.trip.trip_id

    @property
    def conductor(self) -> Any:
        return self.process.bearer("CONDUCTOR", self.conductor_id)

    async def book(
        self,
        *seats: str,
        from_stop: int = 0,
        to_stop: int = 3,
        pays_cash: bool = False,
        user_id: str = "",
        trip_id: str = "",
        names: Sequence[str] = (),
    ) -> list[IssuedTicket]:
        """Book seats for one user; return the tickets."""
        booking_id = new_id()
        booking = TicketedBooking(
            booking_id=booking_id,
            booking_code=_code(),
            trip_id=trip_id or self.trip_id,
            user_id=user_id or new_id(),
            from_stop_index=from_stop,
            to_stop_index=to_stop,
            currency_code=CURRENCY,
            pays_cash=pays_cash,
            end_time=datetime.now(UTC) + timedelta(hours=4),
        )
        wanted = [
            TicketedSeat(
                ticket_id=new_id(),
                passenger_id=new_id(),
                seat_number=seat,
                price_minor=PRICE_MINOR,
            )
            for seat in seats
        ]
        issued = issue(await self.keys.signer(TENANT), booking, wanted)
        named = [*names, *["Amira Hassan"] * (len(seats) - len(names))]
        async with self.database.transaction(Session(tenant_id=TENANT, role="SERVICE")) as rows:
            await rows.execute(
                _BOOK,
                booking_id,
                TENANT,
                booking.booking_code,
                booking.trip_id,
                booking.user_id,
                "CASH" if pays_cash else "WALLET",
                "DUE_ON_BOARD" if pays_cash else "PAID",
                CURRENCY,
                PRICE_MINOR * len(seats),
                len(seats),
                from_stop,
                to_stop,
                datetime.now(UTC),
                new_id(),
                " ".join(
                    f"{seat.seat_number}/STANDARD/{PRICE_MINOR}/{seat.passenger_id}/{seat.ticket_id}"
                    for seat in wanted
                ),
            )
            for seat, name in zip(wanted, named, strict=True):
                traveller = Traveller(
                    full_name=name, document_kind="PASSPORT", document_number="A1234567"
                )
                await rows.execute(
                    "INSERT INTO booking.passengers (passenger_id, booking_id, tenant_id, sealed)"
                    " VALUES ($1, $2, $3, $4)",
                    seat.passenger_id,
                    booking_id,
                    TENANT,
                    self.vault.seal(traveller, SealedTo(TENANT, booking_id, seat.passenger_id)),
                )
            await ticket_rows.insert(rows, TENANT, issued)
        return list(issued)

    async def revoke(self, *tickets: IssuedTicket) -> list[str]:
        """Take tickets back; return those that were good."""
        async with self.database.transaction(Session(tenant_id=TENANT, role="SERVICE")) as rows:
            return await ticket_rows.revoke(
                rows, [ticket.ticket_id for ticket in tickets], now=datetime.now(UTC)
            )

    async def verify(
        self,
        ticket: IssuedTicket | str,
        *,
        device_id: str = "phone-1",
        metadata: Any = None,
        process: BookingProcess | None = None,
        **values: Any,
    ) -> ticket_pb2.ScanResult:
        """Scan online at the first stop, as the trip's conductor by default."""
        request = pb.VerifyTicketRequest(
            trip_id=self.trip_id, device_id=device_id, scan=scan(ticket, **values)
        )
        answer: ticket_pb2.ScanResult = await (process or self.process).call(
            "VerifyTicket", request, metadata or self.conductor
        )
        return answer

    async def report(
        self,
        *scans: ticket_pb2.Scan,
        device_id: str = "phone-1",
        request_id: str = "",
        metadata: Any = None,
    ) -> pb.ReportScansResponse:
        """Report scans, as the trip's conductor."""
        request = pb.ReportScansRequest(
            trip_id=self.trip_id,
            scans=scans,
            device_id=device_id,
            request_id=request_id or new_id(),
        )
        answer: pb.ReportScansResponse = await self.process.call(
            "ReportScans", request, metadata or self.conductor
        )
        return answer


def scan(
    ticket: IssuedTicket | str,
    *,
    kind: ticket_pb2.ScanKind.ValueType = BOARD,
    stop_index: int = 0,
    at: datetime | None = None,
    **values: Any,
) -> ticket_pb2.Scan:
    """Return a scan of a ticket's QR code; `at` a time it was made offline and accepted."""
    text = ticket if isinstance(ticket, str) else qr_text(ticket.code)
    made = ticket_pb2.Scan(
        **{
            "scan_id": new_id(),
            "ticket": text,
            "kind": kind,
            "stop_index": stop_index,
            **values,
        }
    )
    if at is not None:
        made.scan_time.CopyFrom(timestamp(at))
        made.accepted_offline = True
    return made


@asynccontextmanager
async def bus_of(process: BookingProcess, **values: Any) -> AsyncIterator[Bus]:
    """Return a trip with driver and conductor; `values` are those of the trip."""
    conductor_id, driver_id = new_id(), new_id()
    trip = await process.trip(
        **{"driver_id": driver_id, "conductor_ids": [conductor_id], "vehicle_id": "BUS-1", **values}
    )
    settings, clock = process.settings, SystemClock()
    database = await open_database(settings.database_url.get_secret_value(), pool_size=2)
    keys = TicketKeys(
        store=PostgresTicketKeyStore(database, clock),
        seal=AesKeySeal.parse(settings.booking_ticket_key_secrets.get_secret_value()),
        clock=clock,
        ids=Uuid7Source(clock),
    )
    vault = PassengerVault(KeyRing.parse(settings.booking_passenger_keys.get_secret_value()))
    try:
        yield Bus(process, database, keys, vault, trip, conductor_id, driver_id)
    finally:
        await database.close()
