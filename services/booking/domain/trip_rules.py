"""Which trips there may be: how stops, times, prices and terms must fit together."""

from collections.abc import Collection, Iterator
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from services.booking.domain.trips import Trip
from services.shared.errors import FieldViolation

# A journey of 63 legs stays far below what the ledger takes.
LEG_PRICE_MAX_MINOR = 10**12


def trip_faults(trip: Trip, seat_class_codes: Collection[str]) -> list[FieldViolation]:
    """Return how the parts of a trip do not fit together, one fault for each.

    `seat_class_codes` are those of its layout.
    """
    faults = (*_stop_faults(trip), *_fare_faults(trip, seat_class_codes), *_term_faults(trip))
    return [FieldViolation(field=f"trip.{name}", description=what) for name, what in faults]


def is_time_zone(name: str) -> bool:
    """Say whether there is a time zone of this IANA name."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def _stop_faults(trip: Trip) -> Iterator[tuple[str, str]]:
    previous = trip.stops[0]
    for index, stop in enumerate(trip.stops):
        if stop.arrival_time > stop.departure_time:
            yield f"stops[{index}]", "the vehicle leaves before it arrives"
        if index and stop.arrival_time < previous.departure_time:
            yield f"stops[{index}]", f"it is reached before the vehicle leaves stop {index - 1}"
        if index and stop.stop_id == previous.stop_id:
            yield f"stops[{index}].stop_id", f"it is the same stop as stop {index - 1}"
        previous = stop
    gets_on = next((i for i, stop in enumerate(trip.stops) if not stop.no_pickup), None)
    if gets_on is None or all(stop.no_drop_off for stop in trip.stops[gets_on + 1 :]):
        yield "stops", "nobody could get on at one stop and off at a later one"
    if not is_time_zone(trip.time_zone):
        yield "time_zone", "there is no time zone of this name; name it as in Africa/Cairo"


def _fare_faults(trip: Trip, seat_class_codes: Collection[str]) -> Iterator[tuple[str, str]]:
    priced: set[str] = set()
    for index, fare in enumerate(trip.fares):
        code = fare.seat_class_code
        if code in priced:
            yield f"fares[{index}].seat_class_code", f"the class {code} comes twice"
        elif code not in seat_class_codes:
            yield f"fares[{index}].seat_class_code", f"the seat layout has no class {code}"
        priced.add(code)
        if len(fare.leg_prices_minor) != trip.leg_count:
            yield (
                f"fares[{index}].leg_prices",
                f"{len(fare.leg_prices_minor)} prices for {trip.leg_count} legs",
            )
        for leg, price in enumerate(fare.leg_prices_minor):
            if not 0 <= price <= LEG_PRICE_MAX_MINOR:
                yield (
                    f"fares[{index}].leg_prices[{leg}]",
                    f"a price is from 0 to {LEG_PRICE_MAX_MINOR} minor units",
                )
    for code in seat_class_codes:
        if code not in priced:
            yield "fares", f"the class {code} of the seat layout has no fare"


def _term_faults(trip: Trip) -> Iterator[tuple[str, str]]:
    terms = trip.terms
    if terms.open_time is not None and terms.open_time >= trip.stops[-2].departure_time:
        yield "sales_terms.open_time", "the sale would begin after the trip"
    for index, fee in enumerate(terms.cancellation_fees[1:], start=1):
        if fee.before_departure >= terms.cancellation_fees[index - 1].before_departure:
            yield (
                f"sales_terms.cancellation_fees[{index}].before_departure",
                "the lines go from the longest time before departure to the shortest",
            )
