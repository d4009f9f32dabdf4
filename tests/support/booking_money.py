"""BookingService and LedgerService in the test's own process, and passengers with money."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import grpc
from google.protobuf.message import Message

from services.shared.clock import SystemClock
from tests.support.booking_process import BookingProcess, running_booking
from tests.support.identity_process import Refusal, refusal_of
from tests.support.ledger_process import BOOKING, LedgerProcess, minor, running_ledger
from tests.support.location_tokens import TokenMint
from tests.support.location_values import TENANT, new_id
from tests.support.stack_fixtures import TestDatabase
from wayfare.booking.v1 import booking_pb2, hold_pb2, trip_pb2
from wayfare.booking.v1 import booking_service_pb2 as pb
from wayfare.ledger.v1.ledger_service_pb2 import GetBalanceRequest

WALLET = trip_pb2.PAYMENT_METHOD_WALLET
CASH = trip_pb2.PAYMENT_METHOD_CASH
GATEWAY = trip_pb2.PAYMENT_METHOD_GATEWAY
PENDING = booking_pb2.BOOKING_STATE_PENDING_PAYMENT
CONFIRMED = booking_pb2.BOOKING_STATE_CONFIRMED
CANCELLED = booking_pb2.BOOKING_STATE_CANCELLED
EXPIRED = booking_pb2.BOOKING_STATE_EXPIRED
PAID = booking_pb2.PAYMENT_STATE_PAID
ENDED = (
    CANCELLED,
    EXPIRED,
    booking_pb2.BOOKING_STATE_PAYMENT_FAILED,
    booking_pb2.BOOKING_STATE_CANCELLED_NO_SEAT,
    booking_pb2.BOOKING_STATE_PAYMENT_RETURNED,
)
LEG_MINOR = 1_000


class LedgerLine(grpc.aio.UnaryUnaryClientInterceptor):
    """Calls the ledger as booking does over the mesh; may be cut, and lose calls or answers.

    With `cut_after` so many calls go through, and no more.
    """

    def __init__(self) -> None:
        self.cut = False
        self.cut_after: int | None = None
        self.lose_answers = False
        self.calls: list[str] = []

    async def intercept_unary_unary(
        self, continuation: Callable[..., Awaitable[Any]], details: Any, request: Any
    ) -> Any:
        method = details.method
        self.calls.append((method.decode() if isinstance(method, bytes) else method)[-15:])
        if self.cut or self.cut_after == 0:
            raise _away()
        if self.cut_after is not None:
            self.cut_after -= 1
        metadata = grpc.aio.Metadata(*(details.metadata or ()), *BOOKING)
        call = await continuation(details._replace(metadata=metadata), request)
        if self.lose_answers:
            await call
            raise _away()
        return call


def _away() -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(
        grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "cut"
    )


class AheadClock(SystemClock):
    """Is as much ahead of the machine's clock as a test says."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def now(self) -> datetime:
        return super().now() + self.ahead


@dataclass
class Shop:
    """A booking process, the ledger that it is pointed at, and people who buy."""

    booking: BookingProcess
    ledger: LedgerProcess
    line: LedgerLine
    clock: AheadClock
    database: TestDatabase
    others: list[BookingProcess] = field(default_factory=list)
    _connection: "asyncpg.Connection[Any] | None" = None

    def seconds_pass(self, seconds: float) -> None:
        """Let the clock of booking go on; the ledger's does not."""
        self.clock.ahead += timedelta(seconds=seconds)

    async def passenger(self, amount_minor: int = 10_000) -> str:
        """Return a new passenger with so much in the wallet."""
        return await self.ledger.person(amount_minor)

    async def trip(self, **values: Any) -> trip_pb2.Trip:
        """Make a trip, see booking_process.trip."""
        return await self.booking.trip(**values)

    async def call(
        self, method: str, request: Message, user_id: str, role: str = "PASSENGER", at: int = 0
    ) -> Any:
        """Call a process as somebody."""
        process = [self.booking, *self.others][at]
        return await process.call(method, request, process.bearer(role, user_id))

    async def hold(
        self, trip: trip_pb2.Trip, user_id: str, *seats: str, at: int = 0, **stops: str
    ) -> hold_pb2.Hold:
        request = pb.HoldSeatsRequest(
            trip_id=trip.trip_id,
            from_stop_id=stops.get("from_stop", "A"),
            to_stop_id=stops.get("to_stop", "D"),
            seats=pb.SeatNumbers(seat_numbers=seats),
            request_id=new_id(),
        )
        held: hold_pb2.Hold = await self.call("HoldSeats", request, user_id, at=at)
        return held

    async def book(
        self, hold: hold_pb2.Hold, user_id: str, method: int = WALLET, at: int = 0, **values: Any
    ) -> booking_pb2.Booking:
        """Book what a hold keeps."""
        made: booking_pb2.Booking = await self.call(
            "CreateBooking", booking_request(hold, method, **values), user_id, at=at
        )
        return made

    async def buy(
        self, trip: trip_pb2.Trip, user_id: str, *seats: str, method: int = WALLET, **values: Any
    ) -> booking_pb2.Booking:
        """Hold seats and book them."""
        return await self.book(await self.hold(trip, user_id, *seats), user_id, method, **values)

    async def refused(
        self, method: str, request: Message, user_id: str, role: str = "PASSENGER"
    ) -> Refusal:
        try:
            answer = await self.call(method, request, user_id, role)
        except grpc.aio.AioRpcError as error:
            return refusal_of(error)
        raise AssertionError(f"{method} was not refused but answered {answer}")

    async def get(self, booking_id: str, at: int = 0) -> booking_pb2.Booking:
        """Return a booking, as the operator sees it."""
        request = pb.GetBookingRequest(booking_id=booking_id)
        found: booking_pb2.Booking = await self.call("GetBooking", request, new_id(), "ADMIN", at)
        return found

    async def until(
        self, booking_id: str, is_so: Callable[[booking_pb2.Booking], bool]
    ) -> booking_pb2.Booking:
        """Wait until a booking is as wanted, and return it."""
        async with asyncio.timeout(20):
            while not is_so(found := await self.get(booking_id)):
                await asyncio.sleep(0.02)
        return found

    async def until_state(self, booking_id: str, state: int) -> booking_pb2.Booking:
        return await self.until(booking_id, lambda one: one.state == state)

    async def until_payment(self, booking_id: str, state: int) -> booking_pb2.Booking:
        return await self.until(booking_id, lambda one: one.payment.state == state)

    async def cancel(
        self, booking_id: str, user_id: str, role: str = "PASSENGER", **values: Any
    ) -> booking_pb2.Booking:
        request = pb.CancelBookingRequest(booking_id=booking_id, request_id=new_id(), **values)
        cancelled: booking_pb2.Booking = await self.call("CancelBooking", request, user_id, role)
        return cancelled

    async def money_of(self, user_id: str) -> tuple[int, int]:
        """Return what is posted to somebody's wallet, and what is pending out of it."""
        request = GetBalanceRequest(user_id=user_id, tenant_id=TENANT)
        wallets = (await self.ledger.call("GetBalance", request)).wallets
        posted = sum(minor(one.posted) for one in wallets)
        return posted, sum(minor(one.pending_out) for one in wallets)

    async def rows(self, query: str, *values: Any) -> list[Any]:
        """Ask the booking schema, as the service's own work."""
        if self._connection is None:
            dsn = self.booking.settings.database_url.get_secret_value()
            self._connection = await asyncpg.connect(dsn)
            await self._connection.execute(
                "SELECT set_config('app.tenant_id', $1, false),"
                " set_config('app.role', 'SERVICE', false)",
                TENANT,
            )
        return list(await self._connection.fetch(query, *values))

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()

    async def claims(self, trip_id: str) -> dict[str, tuple[str, str]]:
        """Return by seat its state and owner, where the same on all its legs."""
        rows = await self.rows(
            "SELECT seat_number, state, owner_id::text FROM booking.seat_claims WHERE trip_id = $1",
            trip_id,
        )
        return {row[0]: (row[1], row[2]) for row in rows}


def booking_request(
    hold: hold_pb2.Hold, method: int = WALLET, **values: Any
) -> pb.CreateBookingRequest:
    """Return the request that books a hold, with a passenger for each seat."""
    return pb.CreateBookingRequest(
        **{
            "hold_id": hold.hold_id,
            "passengers": [
                booking_pb2.Passenger(
                    seat_number=seat.seat_number,
                    full_name=f"Nour {seat.seat_number}",
                    document_kind=booking_pb2.DOCUMENT_KIND_PASSPORT,
                    document_number="A1234567",
                )
                for seat in hold.seats
            ],
            "payment_method": method,
            "gateway": "KASHIER" if method == GATEWAY else "",
            "request_id": new_id(),
            **values,
        }
    )


@asynccontextmanager
async def running_shop(
    folder: Path,
    *,
    database: TestDatabase,
    valkey_url: str,
    processes: int = 1,
    ledger_values: dict[str, Any] | None = None,
    **values: Any,
) -> AsyncIterator[Shop]:
    """Run ledger and booking until the block ends."""
    mint, line, clock = TokenMint(), LedgerLine(), AheadClock()
    async with AsyncExitStack() as stack:
        ledger = await stack.enter_async_context(
            running_ledger(
                folder,
                dsn=database.dsn_for("ledger"),
                valkey_url=valkey_url,
                mint=mint,
                **(ledger_values or {}),
            )
        )
        channel = grpc.aio.insecure_channel(ledger.settings.listen, interceptors=[line])
        stack.push_async_callback(channel.close)
        running: Sequence[BookingProcess] = [
            await stack.enter_async_context(
                running_booking(
                    folder,
                    dsn=database.dsn_for("booking"),
                    valkey_url=valkey_url,
                    mint=mint,
                    ledger=channel,
                    clock=clock,
                    instance=f"booking-{number}",
                    **{
                        "booking_worker_seconds": 0.05,
                        "booking_sweep_seconds": 0.05,
                        **values,
                    },
                )
            )
            for number in range(processes)
        ]
        shop = Shop(running[0], ledger, line, clock, database, list(running[1:]))
        stack.push_async_callback(shop.close)
        yield shop
