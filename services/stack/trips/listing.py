"""Shows trips in a terminal of any width. Called by `wayfare trips list`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from decimal import Decimal
from zoneinfo import ZoneInfo

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from services.shared.money import minor_units_exponent, money_from_proto
from wayfare.booking.v1 import trip_pb2

_WIDTH_MAX = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    leaves: str
    name: str
    from_stop: str
    to_stop: str
    price: str
    status: str
    trip_id: str


def print_listing(console: Console, trips: Sequence[trip_pb2.Trip]) -> None:
    """Print trips as a table, or one below the other where the table would be cut.

    Another program that reads the output gets the table, whatever its width: a line for each trip.
    """
    lines = [_line(trip) for trip in trips]
    table = _table(lines)
    whole = console.measure(table, options=console.options.update(max_width=_WIDTH_MAX)).maximum
    if whole <= console.width or not console.is_terminal:
        Console(file=console.file, width=whole, highlight=False).print(table)
        return
    for line in lines:
        console.print(f"{line.leaves}  {line.name}")
        console.print(f"  {line.from_stop} → {line.to_stop}")
        console.print(f"  {line.price}, {line.status}")
        # An id that is broken over two lines cannot be copied.
        console.print(f"  {line.trip_id}", soft_wrap=True)


def _table(lines: Sequence[_Line]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("leaves", "trip", "from", "to", "price", "status", "id"):
        table.add_column(heading, no_wrap=True)
    for line in lines:
        table.add_row(
            line.leaves,
            line.name,
            line.from_stop,
            line.to_stop,
            line.price,
            line.status,
            line.trip_id,
        )
    return table


def _line(trip: trip_pb2.Trip) -> _Line:
    first, last = trip.stops[0], trip.stops[-1]
    zone = ZoneInfo(trip.time_zone)
    leaves = first.scheduled_departure_time.ToDatetime(UTC).astimezone(zone)
    unit = trip.fares[0].leg_prices[0].currency_code
    prices = [
        sum(money_from_proto(price).amount_minor for price in fare.leg_prices)
        for fare in trip.fares
    ]
    exponent = minor_units_exponent(unit)
    status = trip_pb2.TripStatus.Name(trip.status).removeprefix("TRIP_STATUS_")
    return _Line(
        leaves=f"{leaves:%Y-%m-%d %H:%M}",
        name=escape(trip.display_name),
        from_stop=escape(first.display_name),
        to_stop=escape(last.display_name),
        price=f"from {Decimal(min(prices)).scaleb(-exponent):.{exponent}f} {unit}",
        status=status.lower(),
        trip_id=trip.trip_id,
    )
