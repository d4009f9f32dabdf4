"""Calls one booking process: trips by grpc.aio, what is measured by HTTP/2 by hand.

Used by booking.py and paid_bookings.py. Trips have 50 seats and 20 legs, for very many holds.
"""

import asyncio
import random
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import grpc
from google.protobuf.message import Message
from google.type import latlng_pb2, money_pb2

from bench.http2 import Connection, Stream, header_block
from bench.world import TokenMint
from services.stack.embedded import EmbeddedStack
from wayfare.booking.v1 import booking_service_pb2 as pb
from wayfare.booking.v1 import layout_pb2, seat_map_pb2, trip_pb2
from wayfare.booking.v1.booking_service_pb2_grpc import BookingServiceStub

_SERVICE = "/wayfare.booking.v1.BookingService/"
_SEATS, _STOPS = 50, 21
PLACES_PER_TRIP = _SEATS * (_STOPS - 1)
_STREAMS_PER_CONNECTION = 100
_HOLDS_PER_PASSENGER = 10
_CREATE_AT_ONCE = 16


class UnaryCall(Stream):
    """Is one call that is answered once."""

    __slots__ = ("_done", "answer")

    def __init__(self, connection: Connection, done: "asyncio.Future[bytes]") -> None:
        """Tell `done` what the answer is."""
        super().__init__(connection)
        self._done = done
        self.answer = b""

    def receive(self, message: bytes) -> None:
        """Take the answer."""
        self.answer = message

    def end(self, status: int | None) -> None:
        """Take the end: an error, unless the status is OK."""
        super().end(status)
        if self._done.done():
            return
        if self.status == 0:
            self._done.set_result(self.answer)
        else:
            self._done.set_exception(RuntimeError(f"a call was refused: status {self.status}"))


class SeatStream(Stream):
    """Is one watcher, who says when a version arrived."""

    __slots__ = ("_arrived", "opened")

    def __init__(self, connection: Connection, arrived: Callable[[int], None]) -> None:
        """Tell `arrived` the versions of changes."""
        super().__init__(connection)
        self._arrived = arrived
        self.opened = False

    def receive(self, message: bytes) -> None:
        """Take one update."""
        update = seat_map_pb2.SeatUpdate.FromString(message)
        self.opened = True
        if update.HasField("changes"):
            self._arrived(update.changes.seat_version)


@dataclass(frozen=True, slots=True)
class Request:
    """Is a call that is ready to be sent."""

    block: bytes
    message: bytes


class Booking:
    """Calls the first booking process of a stack."""

    def __init__(self, stack: EmbeddedStack) -> None:
        """Call the first process of `stack`."""
        self._address = stack.services["booking-1"].listen
        self.mint = TokenMint(stack)
        self._connections: list[Connection] = []
        self._open_count = 0
        self.random = random.Random(7)

    async def connect(self, exits: AsyncExitStack, streams: int) -> None:
        """Open connections for so many calls at once."""
        loop = asyncio.get_running_loop()
        for _ in range(0, streams, _STREAMS_PER_CONNECTION):
            if self._address.startswith("unix:"):
                path = self._address.removeprefix("unix:")
                connection = (await loop.create_unix_connection(Connection, path))[1]
            else:
                host, _, port = self._address.rpartition(":")
                connection = (await loop.create_connection(Connection, host, int(port)))[1]
            exits.callback(connection.close)
            self._connections.append(connection)

    def request(self, method: str, token: str, message: Message) -> Request:
        """Return a call that is ready to be sent."""
        return Request(self.headers(method, token), message.SerializeToString())

    def headers(self, method: str, token: str) -> bytes:
        """Return the headers of a method's calls by whom `token` speaks for."""
        return header_block(
            {
                ":method": "POST",
                ":scheme": "http",
                ":path": f"{_SERVICE}{method}",
                ":authority": "booking",
                "te": "trailers",
                "content-type": "application/grpc",
                "authorization": f"Bearer {token}",
                "x-forwarded-for": "10.0.0.1",
            }
        )

    async def call(self, request: Request) -> float:
        """Call and wait for the answer; return the seconds it took. Raises if refused."""
        began = time.perf_counter()
        await self.ask(request)
        return time.perf_counter() - began

    async def ask(self, request: Request) -> bytes:
        """Call and return the answer. Raises if refused."""
        done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        connection = self._next()
        self._start(connection, UnaryCall(connection, done), request)
        return await done

    def watch(self, request: Request, arrived: Callable[[int], None]) -> SeatStream:
        """Open a stream of a trip's seats."""
        connection = self._next()
        stream = SeatStream(connection, arrived)
        self._start(connection, stream, request)
        return stream

    def _next(self) -> Connection:
        self._open_count += 1
        return self._connections[self._open_count % len(self._connections)]

    def _start(self, connection: Connection, stream: Stream, request: Request) -> None:
        connection.open(stream, block=request.block, message=request.message, is_last=True)
        connection.flush()

    async def make_trips(self, count: int) -> list[str]:
        """Make trips of 50 seats and 20 legs; return their ids."""
        async with grpc.aio.insecure_channel(self._address) as channel:
            stub = BookingServiceStub(channel)
            layout = await stub.CreateSeatLayout(
                pb.CreateSeatLayoutRequest(seat_layout=_layout(), request_id=str(uuid.uuid4())),
                metadata=self._admin(),
            )
            trip = _trip(layout.seat_layout_id)
            turns = asyncio.Semaphore(_CREATE_AT_ONCE)

            async def make() -> str:
                async with turns:
                    request = pb.CreateTripRequest(trip=trip, request_id=str(uuid.uuid4()))
                    return (await stub.CreateTrip(request, metadata=self._admin())).trip_id

            return await asyncio.gather(*(make() for _ in range(count)))

    def _admin(self) -> list[tuple[str, str]]:
        token = self.mint.token(str(uuid.uuid4()), "ADMIN")
        return [("authorization", f"Bearer {token}"), ("x-forwarded-for", "10.0.0.1")]

    def holds(self, trip_ids: Sequence[str], count: int) -> list[Request]:
        """Return so many holds of one seat on one leg, all of which can be had."""
        return self._holds(
            trip_ids, self.random.sample(range(len(trip_ids) * PLACES_PER_TRIP), count)
        )

    def first_holds(
        self, trip_ids: Sequence[str], count: int
    ) -> tuple[list[Request], list[Request]]:
        """Return a hold on each trip, and `count` more on all of them; all can be had."""
        every = range(len(trip_ids) * PLACES_PER_TRIP)
        first = [
            start + self.random.randrange(PLACES_PER_TRIP) for start in every[::PLACES_PER_TRIP]
        ]
        places = self.random.sample(every, count + len(first))
        more = list(dict.fromkeys(places).keys() - set(first))[:count]
        self.random.shuffle(more)
        return self._holds(trip_ids, first), self._holds(trip_ids, more)

    def holds_of_new_seats(self, trip_id: str, count: int) -> list[Request]:
        """Return holds of so many seats of a trip, each of another seat."""
        legs = _STOPS - 1
        return self._holds([trip_id], [seat * legs for seat in range(min(count, _SEATS))])

    def _holds(self, trip_ids: Sequence[str], places: Sequence[int]) -> list[Request]:
        requests = []
        token = ""
        for number, place in enumerate(places):
            if number % _HOLDS_PER_PASSENGER == 0:
                token = self.mint.token(str(uuid.uuid4()), "PASSENGER")
            trip, place = divmod(place, PLACES_PER_TRIP)  # noqa: PLW2901 - taken apart
            seat, leg = divmod(place, _STOPS - 1)
            message = pb.HoldSeatsRequest(
                trip_id=trip_ids[trip],
                from_stop_id=str(leg),
                to_stop_id=str(leg + 1),
                seats=pb.SeatNumbers(seat_numbers=[str(seat + 1)]),
                request_id=str(uuid.uuid4()),
            )
            requests.append(self.request("HoldSeats", token, message))
        return requests


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
    trip = trip_pb2.Trip(
        display_name="Bench",
        seat_layout_id=seat_layout_id,
        fares=[
            trip_pb2.ClassFare(
                seat_class_code="STANDARD",
                leg_prices=[money_pb2.Money(currency_code="EGP", units=10)] * (_STOPS - 1),
            )
        ],
        sales_terms=trip_pb2.SalesTerms(held_seat_max_count=50),
    )
    leaves = int(time.time()) + 24 * 3600
    for number in range(_STOPS):
        stop = trip.stops.add(stop_id=str(number), display_name=f"Stop {number}")
        stop.location.CopyFrom(latlng_pb2.LatLng(latitude=30 + number * 0.1, longitude=31))
        stop.scheduled_departure_time.seconds = leaves + number * 600
    return trip
