"""A coach between Cairo and Hurghada that is sold, and money for who books. Used by tests/e2e."""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.type import latlng_pb2, money_pb2

from services.stack.environments import DEMO_TENANT_ID
from tests.support.e2e_edge import Edge
from tests.support.ledger_process import CLEARING, transfer, wallet
from wayfare.booking.v1 import booking_pb2, hold_pb2, layout_pb2, trip_pb2
from wayfare.booking.v1 import booking_service_pb2 as pb
from wayfare.ledger.v1 import ledger_service_pb2
from wayfare.ledger.v1.ledger_service_pb2_grpc import LedgerServiceStub
from wayfare_client import WayfareClient

ZONE = "Africa/Cairo"
ROWS = 10
COMFORT_ROWS = 3
# By letter; the aisle is column 2.
COLUMNS = {"A": 0, "B": 1, "C": 3, "D": 4}
ACCESSIBLE = ("4A", "4B")
BLOCKED = ("10D",)
STANDARD_MINOR, COMFORT_MINOR = 12_000, 18_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SoldTrip:
    """Is a trip from one stop to another with one between them; stop ids are its own."""

    trip_id: str
    from_stop_id: str
    to_stop_id: str
    departs: datetime

    @property
    def day(self) -> str:
        """Return the day of departure, as a form has it."""
        return self.departs.astimezone(ZoneInfo(ZONE)).date().isoformat()

    def address(self, edge: Edge) -> str:
        """Return the address of the page that shows its seats."""
        return (
            f"{edge.url}/app/seats.html?tenant={DEMO_TENANT_ID}&trip={self.trip_id}"
            f"&from={self.from_stop_id}&to={self.to_stop_id}"
        )


async def sell_trip(edge: Edge, *, hold_seconds: int = 600, currency_code: str = "EGP") -> SoldTrip:
    """Make a coach with a layout of its own that leaves in two days."""
    mark = uuid.uuid4().hex[:8]
    departs = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(days=2)
    async with edge.client(edge.mint.token("ADMIN")) as client:
        layout = await client.booking.CreateSeatLayout(
            pb.CreateSeatLayoutRequest(seat_layout=_layout(), request_id=str(uuid.uuid4()))
        )
        made = await client.booking.CreateTrip(
            pb.CreateTripRequest(
                trip=_trip(layout.seat_layout_id, mark, departs, hold_seconds, currency_code),
                request_id=str(uuid.uuid4()),
            )
        )
    return SoldTrip(
        trip_id=made.trip_id,
        from_stop_id=made.stops[0].stop_id,
        to_stop_id=made.stops[-1].stop_id,
        departs=departs,
    )


async def hold(edge: Edge, trip: SoldTrip, *seat_numbers: str) -> None:
    """Hold seats as somebody else does, with a phone."""
    async with edge.client(edge.mint.token("PASSENGER")) as client:
        await _hold(client, trip, seat_numbers)


async def book(edge: Edge, trip: SoldTrip, *seat_numbers: str) -> None:
    """Book seats as somebody else does, who pays in cash."""
    async with edge.client(edge.mint.token("PASSENGER")) as client:
        held = await _hold(client, trip, seat_numbers)
        booking = await client.booking.CreateBooking(
            pb.CreateBookingRequest(
                hold_id=held.hold_id,
                passengers=[
                    booking_pb2.Passenger(seat_number=number, full_name="Somebody Else")
                    for number in seat_numbers
                ],
                payment_method=trip_pb2.PAYMENT_METHOD_CASH,
                request_id=str(uuid.uuid4()),
            )
        )
    assert booking.state == booking_pb2.BOOKING_STATE_CONFIRMED


async def call_off(edge: Edge, trip: SoldTrip) -> None:
    """Cancel the trip, as the operator does."""
    async with edge.client(edge.mint.token("ADMIN")) as client:
        await client.booking.CancelTrip(
            pb.CancelTripRequest(
                trip_id=trip.trip_id, cancel_reason="Snow on the road", request_id=str(uuid.uuid4())
            )
        )


async def _hold(
    client: WayfareClient, trip: SoldTrip, seat_numbers: Sequence[str]
) -> hold_pb2.Hold:
    return await client.booking.HoldSeats(
        pb.HoldSeatsRequest(
            trip_id=trip.trip_id,
            from_stop_id=trip.from_stop_id,
            to_stop_id=trip.to_stop_id,
            seats=pb.SeatNumbers(seat_numbers=seat_numbers),
            request_id=str(uuid.uuid4()),
        )
    )


async def fill_wallet(edge: Edge, user_id: str, amount_minor: int) -> None:
    """Put money into a wallet, as if a gateway had paid it."""
    async with edge.mesh_channel("booking") as mesh:
        answer = await LedgerServiceStub(mesh).CreateTransfers(
            ledger_service_pb2.CreateTransfersRequest(
                tenant_id=DEMO_TENANT_ID,
                transfers=[transfer(CLEARING, wallet(user_id), amount_minor)],
                request_id=str(uuid.uuid4()),
            ),
            timeout=10,
        )
    assert not answer.failures


def _layout() -> layout_pb2.SeatLayout:
    fixtures = [
        layout_pb2.Fixture(kind=layout_pb2.FIXTURE_KIND_DRIVER),
        layout_pb2.Fixture(kind=layout_pb2.FIXTURE_KIND_DOOR, column_index=4),
        layout_pb2.Fixture(
            kind=layout_pb2.FIXTURE_KIND_AISLE, row_index=1, column_index=2, row_count=ROWS
        ),
        layout_pb2.Fixture(
            kind=layout_pb2.FIXTURE_KIND_TOILET,
            row_index=COMFORT_ROWS + 3,
            column_index=3,
            column_count=2,
        ),
    ]
    deck = layout_pb2.Deck(
        row_count=ROWS + 1, column_count=5, seats=list(_seats()), fixtures=fixtures
    )
    return layout_pb2.SeatLayout(
        display_name="Coach 38",
        seat_classes=[
            layout_pb2.SeatClass(seat_class_code="STANDARD", display_name="Standard"),
            layout_pb2.SeatClass(seat_class_code="COMFORT", display_name="Comfort"),
        ],
        decks=[deck],
    )


def _seats() -> Iterator[layout_pb2.Seat]:
    for row in range(1, ROWS + 1):
        for letter, column in COLUMNS.items():
            number = f"{row}{letter}"
            if row == COMFORT_ROWS + 3 and column > 2:
                continue
            yield layout_pb2.Seat(
                seat_number=number,
                seat_class_code="COMFORT" if row <= COMFORT_ROWS else "STANDARD",
                row_index=row,
                column_index=column,
                window=letter in "AD",
                aisle=letter in "BC",
                accessible=number in ACCESSIBLE,
                blocked=number in BLOCKED,
            )


def _trip(
    layout_id: str, mark: str, departs: datetime, hold_seconds: int, currency_code: str
) -> trip_pb2.Trip:
    places = (
        ("cairo", "Cairo, Ramses", 30.0626, 31.2497, timedelta()),
        ("sokhna", "Ain Sokhna", 29.6006, 32.3168, timedelta(hours=2, minutes=15)),
        ("hurghada", "Hurghada", 27.2579, 33.8116, timedelta(hours=6, minutes=45)),
    )
    fares = {"STANDARD": STANDARD_MINOR, "COMFORT": COMFORT_MINOR}
    fees = [
        trip_pb2.CancellationFee(before_departure=Duration(seconds=0), fee_basis_points=2_500),
    ]
    return trip_pb2.Trip(
        display_name="X25 Cairo – Hurghada",
        seat_layout_id=layout_id,
        time_zone=ZONE,
        stops=[
            trip_pb2.TripStop(
                stop_id=f"{stop_id}-{mark}",
                display_name=name,
                location=latlng_pb2.LatLng(latitude=latitude, longitude=longitude),
                scheduled_departure_time=_timestamp(departs + after),
                platform="Bay 7" if stop_id == "cairo" else "",
            )
            for stop_id, name, latitude, longitude, after in places
        ],
        fares=[
            trip_pb2.ClassFare(
                seat_class_code=code, leg_prices=[_money(minor // 2, currency_code)] * 2
            )
            for code, minor in fares.items()
        ],
        sales_terms=trip_pb2.SalesTerms(
            cancellation_fees=fees, hold_duration=Duration(seconds=hold_seconds)
        ),
    )


def _money(minor: int, currency_code: str) -> money_pb2.Money:
    units, rest = divmod(minor, 100)
    return money_pb2.Money(currency_code=currency_code, units=units, nanos=rest * 10_000_000)


def _timestamp(moment: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(moment)
    return message
