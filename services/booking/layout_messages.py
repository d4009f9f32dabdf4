"""Pure conversion of seat layouts between the contract and the domain."""

from services.booking.domain.layouts import Deck, Fixture, Seat, SeatClass, SeatLayout
from services.shared.rpc.timestamps import timestamp_of
from wayfare.booking.v1 import layout_pb2
from wayfare.type.v1 import vehicle_pb2

_CLASS_PREFIX = "VEHICLE_CLASS_"
_FIXTURE_PREFIX = "FIXTURE_KIND_"


def vehicle_class_number(name: str) -> vehicle_pb2.VehicleClass.ValueType:
    """Return a vehicle's class as the contract has it; "" is unspecified."""
    return vehicle_pb2.VehicleClass.Value(_CLASS_PREFIX + (name or "UNSPECIFIED"))


def layout_of(message: layout_pb2.SeatLayout) -> SeatLayout:
    """Return a layout without an id, to be made."""
    number = message.vehicle_class or vehicle_pb2.VEHICLE_CLASS_BUS
    return SeatLayout(
        seat_layout_id="",
        display_name=message.display_name,
        vehicle_class=vehicle_pb2.VehicleClass.Name(number).removeprefix(_CLASS_PREFIX),
        seat_classes=tuple(
            SeatClass(seat_class_code=one.seat_class_code, display_name=one.display_name)
            for one in message.seat_classes
        ),
        decks=tuple(map(_deck, message.decks)),
    )


def _deck(message: layout_pb2.Deck) -> Deck:
    return Deck(
        display_name=message.display_name,
        row_count=message.row_count,
        column_count=message.column_count,
        seats=tuple(map(_seat, message.seats)),
        fixtures=tuple(
            Fixture(
                kind=layout_pb2.FixtureKind.Name(one.kind).removeprefix(_FIXTURE_PREFIX),
                row_index=one.row_index,
                column_index=one.column_index,
                row_count=one.row_count or 1,
                column_count=one.column_count or 1,
            )
            for one in message.fixtures
        ),
    )


def _seat(message: layout_pb2.Seat) -> Seat:
    return Seat(
        seat_number=message.seat_number,
        seat_class_code=message.seat_class_code,
        row_index=message.row_index,
        column_index=message.column_index,
        x_ratio=message.x_ratio if message.HasField("x_ratio") else None,
        y_ratio=message.y_ratio if message.HasField("y_ratio") else None,
        window=message.window,
        aisle=message.aisle,
        rear_facing=message.rear_facing,
        accessible=message.accessible,
        blocked=message.blocked,
    )


def layout_message(layout: SeatLayout) -> layout_pb2.SeatLayout:
    """Return a layout as the contract has it."""
    return layout_pb2.SeatLayout(
        seat_layout_id=layout.seat_layout_id,
        display_name=layout.display_name,
        vehicle_class=vehicle_class_number(layout.vehicle_class),
        seat_classes=[
            layout_pb2.SeatClass(seat_class_code=one.seat_class_code, display_name=one.display_name)
            for one in layout.seat_classes
        ],
        decks=map(_deck_message, layout.decks),
        seat_count=layout.seat_count,
        create_time=timestamp_of(layout.create_time),
    )


def _deck_message(deck: Deck) -> layout_pb2.Deck:
    return layout_pb2.Deck(
        display_name=deck.display_name,
        row_count=deck.row_count,
        column_count=deck.column_count,
        seats=map(seat_message, deck.seats),
        fixtures=[
            layout_pb2.Fixture(
                kind=layout_pb2.FixtureKind.Value(_FIXTURE_PREFIX + one.kind),
                row_index=one.row_index,
                column_index=one.column_index,
                row_count=one.row_count,
                column_count=one.column_count,
            )
            for one in deck.fixtures
        ],
    )


def seat_message(seat: Seat) -> layout_pb2.Seat:
    """Return a seat as the contract has it."""
    return layout_pb2.Seat(
        seat_number=seat.seat_number,
        seat_class_code=seat.seat_class_code,
        row_index=seat.row_index,
        column_index=seat.column_index,
        x_ratio=seat.x_ratio,
        y_ratio=seat.y_ratio,
        window=seat.window,
        aisle=seat.aisle,
        rear_facing=seat.rear_facing,
        accessible=seat.accessible,
        blocked=seat.blocked,
    )
