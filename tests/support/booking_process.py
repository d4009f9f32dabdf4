"""BookingService in the test's own process, wired as in production, on a Unix socket."""

import asyncio
import base64
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import grpc
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.type import latlng_pb2, money_pb2
from pydantic import SecretStr

from services.booking.app import wire
from services.booking.settings import BookingSettings
from services.shared.clock import Clock, SystemClock
from services.shared.rpc.process import serve
from services.shared.rpc.server import RpcServer
from tests.support.identity_process import Refusal, refusal_of
from tests.support.location_process import OneApiKey
from tests.support.location_tokens import TokenMint
from tests.support.location_values import TENANT, new_id
from tests.support.waiting import until
from wayfare.booking.v1 import booking_service_pb2, events_pb2, layout_pb2, trip_pb2
from wayfare.booking.v1.booking_service_pb2_grpc import BookingServiceStub
from wayfare.event.v1.envelope_pb2 import Envelope

Metadata = Sequence[tuple[str, str]]
pb = booking_service_pb2
CURRENCY = "EGP"
TICKET_KEY_SECRET = base64.b64encode(bytes(32)).decode()
PASSENGER_KEYS = "k1:" + base64.b64encode(bytes(range(32))).decode()
STOPS = ("A", "B", "C", "D")


def money(amount_minor: int, currency_code: str = CURRENCY) -> money_pb2.Money:
    """Return an amount of a currency with two decimals."""
    units, minor = divmod(amount_minor, 100)
    return money_pb2.Money(currency_code=currency_code, units=units, nanos=minor * 10_000_000)


def timestamp(moment: datetime) -> Timestamp:
    """Return a moment as the contract has it."""
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def layout(rows: int = 10, letters: str = "AB CD", **values: Any) -> layout_pb2.SeatLayout:
    """Return a layout of one deck: 1A 1B, aisle, 1C 1D, and so on; row 1 is FIRST, and blocked

    or accessible are the seats that `blocked` and `accessible` name.
    """
    blocked = set(values.pop("blocked", ()))
    accessible = set(values.pop("accessible", ()))
    first_rows = values.pop("first_rows", 1)
    seats = [
        layout_pb2.Seat(
            seat_number=f"{row + 1}{letter}",
            seat_class_code="FIRST" if row < first_rows else "STANDARD",
            row_index=row,
            column_index=column,
            window=column in {0, len(letters) - 1},
            blocked=f"{row + 1}{letter}" in blocked,
            accessible=f"{row + 1}{letter}" in accessible,
        )
        for row in range(rows)
        for column, letter in enumerate(letters)
        if letter != " "
    ]
    deck = layout_pb2.Deck(row_count=rows, column_count=len(letters), seats=seats)
    return layout_pb2.SeatLayout(
        **{
            "display_name": f"Coach {len(seats)}",
            "seat_classes": [
                layout_pb2.SeatClass(seat_class_code="FIRST", display_name="First"),
                layout_pb2.SeatClass(seat_class_code="STANDARD", display_name="Standard"),
            ],
            "decks": [deck],
            **values,
        }
    )


def stop(index: int, stop_id: str, leaves: datetime, **values: Any) -> trip_pb2.TripStop:
    """Return a stop of a made-up line along a meridian, 20 km from stop to stop."""
    return trip_pb2.TripStop(
        **{
            "stop_id": stop_id,
            "display_name": f"Stop {stop_id}",
            "location": latlng_pb2.LatLng(latitude=30 + index * 0.18, longitude=31.2),
            "scheduled_departure_time": timestamp(leaves),
            **values,
        }
    )


def trip(layout_id: str, **values: Any) -> trip_pb2.Trip:
    """Return a trip that leaves `departs` (in two hours by default), half an hour to each stop.

    A leg costs 10.00 in STANDARD and 25.00 in FIRST.
    """
    stop_ids: Sequence[str] = values.pop("stop_ids", STOPS)
    departs: datetime = values.pop("departs", datetime.now(UTC) + timedelta(hours=2))
    step: timedelta = values.pop("step", timedelta(minutes=30))
    legs = len(stop_ids) - 1
    return trip_pb2.Trip(
        **{
            "display_name": "X25",
            "seat_layout_id": layout_id,
            "stops": [
                stop(index, stop_id, departs + index * step)
                for index, stop_id in enumerate(stop_ids)
            ],
            "fares": [
                trip_pb2.ClassFare(seat_class_code="FIRST", leg_prices=[money(2_500)] * legs),
                trip_pb2.ClassFare(seat_class_code="STANDARD", leg_prices=[money(1_000)] * legs),
            ],
            **values,
        }
    )


@dataclass
class BookingProcess:
    """A running service and ways to call it."""

    rpc: RpcServer
    settings: BookingSettings
    channel: grpc.aio.Channel
    mint: TokenMint

    def bearer(self, role: str, user_id: str = "", **values: Any) -> Metadata:
        token = self.mint.token(role, user_id=user_id, **values)
        return (("authorization", f"Bearer {token}"), ("x-forwarded-for", "10.0.0.1"))

    @property
    def admin(self) -> Metadata:
        """Return the metadata of a new administrator, whose rate limits are fresh."""
        return self.bearer("ADMIN", new_id())

    @property
    def passenger(self) -> Metadata:
        """Return the metadata of a new passenger."""
        return self.bearer("PASSENGER", new_id())

    async def call(self, method: str, request: Message, metadata: Metadata | None = None) -> Any:
        """Call, as an administrator by default."""
        stub = BookingServiceStub(self.channel)
        return await getattr(stub, method)(request, metadata=metadata or self.admin, timeout=30)

    async def refused(
        self, method: str, request: Message, metadata: Metadata | None = None
    ) -> Refusal:
        try:
            answer = await self.call(method, request, metadata)
        except grpc.aio.AioRpcError as error:
            return refusal_of(error)
        raise AssertionError(f"{method} was not refused but answered {answer}")

    async def layout(self, **values: Any) -> layout_pb2.SeatLayout:
        """Make a layout, see `layout`."""
        request = pb.CreateSeatLayoutRequest(seat_layout=layout(**values), request_id=new_id())
        made: layout_pb2.SeatLayout = await self.call("CreateSeatLayout", request)
        return made

    async def trip(self, layout_id: str = "", **values: Any) -> trip_pb2.Trip:
        """Make a trip, see `trip`; with a layout of its own if none is named."""
        layout_id = layout_id or (await self.layout()).seat_layout_id
        request = pb.CreateTripRequest(trip=trip(layout_id, **values), request_id=new_id())
        made: trip_pb2.Trip = await self.call("CreateTrip", request)
        return made

    async def events(self, aggregate_type: str, aggregate_id: str) -> list[Message]:
        """Return what was told of an aggregate, in order."""
        dsn = self.settings.database_url.get_secret_value()
        connection = await asyncpg.connect(dsn)
        try:
            await connection.execute(
                "SELECT set_config('app.tenant_id', $1, false),"
                " set_config('app.role', 'SERVICE', false)",
                TENANT,
            )
            rows = await connection.fetch(
                "SELECT aggregate_version, envelope FROM booking.events"
                " WHERE aggregate_type = $1 AND aggregate_id = $2 ORDER BY aggregate_version",
                aggregate_type,
                aggregate_id,
            )
        finally:
            await connection.close()
        assert [row[0] for row in rows] == list(range(1, len(rows) + 1))
        return list(_payloads(row[1] for row in rows))


def _payloads(envelopes: Iterable[bytes]) -> Iterable[Message]:
    for data in envelopes:
        payload = Envelope.FromString(data).payload
        message = getattr(events_pb2, payload.TypeName().rpartition(".")[2])()
        assert payload.Unpack(message)
        yield message


@asynccontextmanager
async def running_booking(
    folder: Path,
    *,
    dsn: str,
    valkey_url: str,
    mint: TokenMint,
    clock: Clock | None = None,
    ledger: grpc.aio.Channel | None = None,
    **values: Any,
) -> AsyncIterator[BookingProcess]:
    """Run the service until the block ends; it serves when the block begins.

    Without a channel to a ledger, that is away.
    """
    jwks = folder / f"{uuid.uuid4().hex[:8]}.json"
    mint.write_jwks(jwks)
    settings = BookingSettings(
        **{
            "listen": f"unix:{folder}/{uuid.uuid4().hex[:8]}.sock",
            "database_url": SecretStr(dsn),
            "valkey_url": SecretStr(valkey_url),
            "jwks_file": jwks,
            "drain_seconds": 2.0,
            "booking_ticket_key_secrets": SecretStr(TICKET_KEY_SECRET),
            "booking_passenger_keys": SecretStr(PASSENGER_KEYS),
            **values,
        }
    )
    async with AsyncExitStack() as stack:
        nobody = grpc.aio.insecure_channel(f"unix:{folder}/no-ledger.sock")
        stack.push_async_callback(nobody.close)
        rpc, background = await wire(
            stack,
            settings,
            clock=clock or SystemClock(),
            api_keys=OneApiKey(),
            ledger=ledger or nobody,
        )
        stop_event = asyncio.Event()
        serving = asyncio.create_task(serve(rpc, background, stop_event))
        channel = grpc.aio.insecure_channel(settings.listen)
        try:
            await until(lambda: serving.done() or len(rpc.monitor.answers) == 2)
            yield BookingProcess(rpc, settings, channel, mint)
        finally:
            await channel.close()
            stop_event.set()
            await serving
