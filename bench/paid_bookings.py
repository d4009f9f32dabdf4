"""Measures paid bookings: hold a seat, pay from the wallet, get the ticket; fsync on.

`python -m bench.paid_bookings --help` teaches it. The stack, its PostgreSQL and this generator
share the machine. Each booking is two calls of a passenger to one booking process, which asks the
ledger through Envoy; tokens and requests are made before the clock starts.
"""

import argparse
import asyncio
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import asyncpg
import grpc
import uvloop
from google.type import latlng_pb2, money_pb2
from rich.console import Console
from rich.table import Table

from bench.booking_calls import Booking, Request
from bench.meters import CpuReading, describe_machine, read_cpu
from bench.world import TokenMint
from services.stack.embedded import EmbeddedStack, StackOptions
from services.stack.environments import DEMO_TENANT_ID
from wayfare.booking.v1 import booking_pb2, hold_pb2, layout_pb2, trip_pb2
from wayfare.booking.v1 import booking_service_pb2 as pb
from wayfare.booking.v1.booking_service_pb2_grpc import BookingServiceStub
from wayfare.ledger.v1 import account_pb2, transfer_pb2
from wayfare.ledger.v1.ledger_service_pb2 import CreateTransfersRequest
from wayfare.ledger.v1.ledger_service_pb2_grpc import LedgerServiceStub

_AS_BOOKING = (("x-forwarded-client-cert", "By=x;URI=spiffe://wayfare/booking"),)
_SEATS, _STOPS = 50, 5
_FARE_UNITS, _LEG_UNITS = 40, 10
_BOOKINGS_PER_PASSENGER = 15
_TRIPS_PER_ADMIN = 500
_CALLS_AT_ONCE = 800
_PARTS = ("booking-1", "ledger-1", "postgres", "envoy", "valkey")
_UNPAID = "SELECT count(*) FROM booking.bookings WHERE next_time IS NOT NULL"
_SUMS = """
SELECT (SELECT count(*) FROM booking.bookings WHERE state = 'CONFIRMED' AND payment_state = 'PAID'),
  (SELECT count(*) FROM booking.seat_claims WHERE state = 'BOOKED'),
  (SELECT count(*) FROM booking.tickets WHERE revoke_time IS NULL)
"""


@dataclass(frozen=True, slots=True)
class Purchase:
    """Is one seat that a passenger will buy."""

    trip_id: str
    seat_number: str
    hold_headers: bytes
    booking_headers: bytes


class Shop:
    """Calls booking as passengers do, and the ledger to give them money."""

    def __init__(self, stack: EmbeddedStack) -> None:
        """Call the first process of each service of `stack`."""
        self._stack = stack
        self._calls = Booking(stack)
        self._channel = grpc.aio.insecure_channel(stack.services["booking-1"].listen)
        self._ledger = grpc.aio.insecure_channel(stack.services["ledger-1"].listen)
        self._mint = TokenMint(stack)

    async def connect(self, exits: AsyncExitStack) -> None:
        """Open the connections on which passengers call."""
        await self._calls.connect(exits, _CALLS_AT_ONCE)

    async def close(self) -> None:
        """Close the connections."""
        for channel in (self._channel, self._ledger):
            await channel.close()

    async def purchases(self, count: int) -> list[Purchase]:
        """Make trips with so many seats, and passengers with enough money for them."""
        trip_ids = await self._trips(-(-count // _SEATS))
        # Seats of all trips by turns: nobody books a bus seat by seat in a second.
        places = [(trip_id, str(seat + 1)) for seat in range(_SEATS) for trip_id in trip_ids]
        people = [str(uuid.uuid4()) for _ in range(-(-count // _BOOKINGS_PER_PASSENGER))]
        tokens = [self._mint.token(user_id, "PASSENGER") for user_id in people]
        headers = [
            tuple(self._calls.headers(method, token) for method in ("HoldSeats", "CreateBooking"))
            for token in tokens
        ]
        # By turns, so that nobody buys two seats at once.
        made = [
            Purchase(trip_id, seat_number, *headers[number % len(headers)])
            for number, (trip_id, seat_number) in enumerate(places[:count])
        ]
        await self._fund(people)
        return made

    async def buy(self, purchase: Purchase) -> float:
        """Hold the seat and pay for it; return the seconds that booking it took, without the hold.

        Raises if it is refused or not sold at once.
        """
        hold = hold_pb2.Hold.FromString(
            await self._calls.ask(
                Request(
                    purchase.hold_headers,
                    pb.HoldSeatsRequest(
                        trip_id=purchase.trip_id,
                        from_stop_id="0",
                        to_stop_id=str(_STOPS - 1),
                        seats=pb.SeatNumbers(seat_numbers=[purchase.seat_number]),
                        request_id=str(uuid.uuid4()),
                    ).SerializeToString(),
                )
            )
        )
        passenger = booking_pb2.Passenger(seat_number=purchase.seat_number, full_name="Nour Saleh")
        message = pb.CreateBookingRequest(
            hold_id=hold.hold_id,
            passengers=[passenger],
            payment_method=trip_pb2.PAYMENT_METHOD_WALLET,
            request_id=str(uuid.uuid4()),
        )
        request = Request(purchase.booking_headers, message.SerializeToString())
        began = time.perf_counter()
        answer = await self._calls.ask(request)
        took = time.perf_counter() - began
        booking = booking_pb2.Booking.FromString(answer)
        if booking.state != booking_pb2.BOOKING_STATE_CONFIRMED:
            raise RuntimeError(f"a seat was not sold at once: {booking.state}")
        return took

    async def check(self, count: int) -> None:
        """Wait until all is paid; raise if seats, tickets and money do not agree."""
        connection = await asyncpg.connect(self._stack.database_dsn("booking"))
        try:
            await connection.execute(
                "SELECT set_config('app.tenant_id', $1, false),"
                " set_config('app.role', 'SERVICE', false)",
                DEMO_TENANT_ID,
            )
            async with asyncio.timeout(60):
                while await connection.fetchval(_UNPAID):  # noqa: ASYNC110 - a database has no event
                    await asyncio.sleep(0.1)
            sums = tuple(await connection.fetchrow(_SUMS) or ())
        finally:
            await connection.close()
        if sums != (count, count * (_STOPS - 1), count):
            raise RuntimeError(f"{count} were sold, but paid, booked and ticketed are {sums}")

    def _as(self, user_id: str, role: str) -> Sequence[tuple[str, str]]:
        token = self._mint.token(user_id, role)
        return (("authorization", f"Bearer {token}"), ("x-forwarded-for", "10.0.0.1"))

    async def _trips(self, count: int) -> list[str]:
        stub: Any = BookingServiceStub(self._channel)
        layout = await stub.CreateSeatLayout(
            pb.CreateSeatLayoutRequest(seat_layout=_layout(), request_id=str(uuid.uuid4())),
            metadata=self._as(str(uuid.uuid4()), "ADMIN"),
        )
        trip_ids: list[str] = []
        metadata: Sequence[tuple[str, str]] = ()
        for number in range(count):
            if number % _TRIPS_PER_ADMIN == 0:
                metadata = self._as(str(uuid.uuid4()), "ADMIN")
            request = pb.CreateTripRequest(
                trip=_trip(layout.seat_layout_id), request_id=str(uuid.uuid4())
            )
            trip_ids.append((await stub.CreateTrip(request, metadata=metadata)).trip_id)
        return trip_ids

    async def _fund(self, people: Sequence[str]) -> None:
        stub: Any = LedgerServiceStub(self._ledger)
        amount = money_pb2.Money(currency_code="EGP", units=_FARE_UNITS * _BOOKINGS_PER_PASSENGER)
        clearing = account_pb2.AccountName(
            kind=account_pb2.ACCOUNT_KIND_GATEWAY_CLEARING, subject="KASHIER"
        )
        for start in range(0, len(people), 500):
            request = CreateTransfersRequest(tenant_id=DEMO_TENANT_ID, request_id=str(uuid.uuid4()))
            for user_id in people[start : start + 500]:
                transfer = request.transfers.add(transfer_id=str(uuid.uuid4()), kind="DEPOSIT")
                purse = account_pb2.AccountName(
                    kind=account_pb2.ACCOUNT_KIND_WALLET, subject=user_id
                )
                for account, side in (
                    (clearing, transfer_pb2.SIDE_DEBIT),
                    (purse, transfer_pb2.SIDE_CREDIT),
                ):
                    transfer.postings.add(account=account, side=side, amount=amount)
            answer = await stub.CreateTransfers(request, metadata=_AS_BOOKING, timeout=30)
            if answer.failures:
                raise RuntimeError(f"nobody has money: {answer.failures[0]}")


def _layout() -> layout_pb2.SeatLayout:
    seats = [
        layout_pb2.Seat(
            seat_number=str(number + 1),
            seat_class_code="STANDARD",
            row_index=number // 4,
            column_index=number % 4 + (number % 4 > 1),
        )
        for number in range(_SEATS)
    ]
    return layout_pb2.SeatLayout(
        display_name="Coach 50",
        seat_classes=[layout_pb2.SeatClass(seat_class_code="STANDARD", display_name="Standard")],
        decks=[layout_pb2.Deck(row_count=13, column_count=5, seats=seats)],
    )


def _trip(seat_layout_id: str) -> trip_pb2.Trip:
    price = money_pb2.Money(currency_code="EGP", units=_LEG_UNITS)
    trip = trip_pb2.Trip(
        display_name="Bench",
        seat_layout_id=seat_layout_id,
        fares=[trip_pb2.ClassFare(seat_class_code="STANDARD", leg_prices=[price] * (_STOPS - 1))],
        sales_terms=trip_pb2.SalesTerms(held_seat_max_count=50),
    )
    leaves = int(time.time()) + 24 * 3600
    for number in range(_STOPS):
        stop = trip.stops.add(stop_id=str(number), display_name=f"Stop {number}")
        stop.location.CopyFrom(latlng_pb2.LatLng(latitude=30 + number * 0.1, longitude=31))
        stop.scheduled_departure_time.seconds = leaves + number * 600
    return trip


async def closed_loop(shop: Shop, purchases: Sequence[Purchase], callers: int) -> list[float]:
    """Buy by so many passengers at once; return what each booking took, in seconds."""
    left = list(purchases)
    took: list[float] = []

    async def buy() -> None:
        while left:
            took.append(await shop.buy(left.pop()))

    await asyncio.gather(*(buy() for _ in range(callers)))
    return took


async def open_loop(shop: Shop, purchases: Sequence[Purchase], per_second: int) -> list[float]:
    """Buy so many a second, whether the last one has been sold or not."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    tasks = []
    for number, purchase in enumerate(purchases):
        late = began + number / per_second - loop.time()
        if late > 0:
            await asyncio.sleep(late)
        tasks.append(asyncio.create_task(shop.buy(purchase)))
    return list(await asyncio.gather(*tasks))


async def _row(
    table: Table,
    stack: EmbeddedStack,
    name: str,
    count: int,
    work: Callable[[], Awaitable[list[float]]],
) -> None:
    process_ids = {
        part: process.pid for part, process in stack.processes().items() if process.pid is not None
    }
    before, began = read_cpu(process_ids), time.perf_counter()
    own = time.process_time()
    took = sorted(await work())
    seconds = time.perf_counter() - began
    own = time.process_time() - own
    after = read_cpu(process_ids)
    parts = [f"{part} {_each(before, after, part, count)}" for part in _PARTS]
    table.add_row(
        name,
        f"{count / seconds:,.0f}",
        f"{took[len(took) // 2] * 1000:.1f}",
        f"{took[int(len(took) * 0.99)] * 1000:.1f}",
        ", ".join((*parts, f"generator {own / count * 1e6:.0f}")),
    )


def _each(before: CpuReading, after: CpuReading, part: str, count: int) -> str:
    return f"{(after.parts[part] - before.parts[part]) / count * 1e6:.0f}"


async def run(options: argparse.Namespace, console: Console) -> None:
    """Buy as fast as can be and at a steady rate, count what was sold, and print the figures."""
    machine = describe_machine()
    console.print("machine: " + ", ".join(f"{name} {value}" for name, value in machine.items()))
    table = Table("scenario", "bookings/s", "p50 ms", "p99 ms", "CPU µs each")
    settings = dict(text.split("=", 1) for text in options.set)
    stack_options = StackOptions(
        location_processes=1, settings={"booking": settings, "ledger": settings}
    )
    async with EmbeddedStack(options=stack_options) as stack, AsyncExitStack() as exits:
        shop = Shop(stack)
        try:
            await shop.connect(exits)
            first = await shop.purchases(options.count)
            await _row(
                table,
                stack,
                f"paid bookings, {options.callers} callers",
                len(first),
                partial(closed_loop, shop, first, options.callers),
            )
            # What is left to do of the first scenario is not the second one's.
            await shop.check(len(first))
            second = await shop.purchases(options.per_second * options.seconds)
            await _row(
                table,
                stack,
                f"paid bookings, {options.per_second}/s",
                len(second),
                partial(open_loop, shop, second, options.per_second),
            )
            await shop.check(len(first) + len(second))
        finally:
            await shop.close()
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(prog="python -m bench.paid_bookings", description=__doc__)
    parser.add_argument("--count", type=int, default=8_000, help="bookings of the first scenario")
    parser.add_argument("--callers", type=int, default=100, help="passengers at once")
    parser.add_argument("--per-second", type=int, default=400, help="bookings a second")
    parser.add_argument("--seconds", type=int, default=15, help="how long that goes on")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of booking and ledger",
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(parser.parse_args(arguments), Console(width=160)))


if __name__ == "__main__":
    main(sys.argv[1:])
