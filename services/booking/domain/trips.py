"""Scheduled trips: stops, legs, prices, crew and terms, and how far a trip is by the clock.

Leg i leads from stop i to stop i + 1; who travels from stop a to stop b has the legs a to b - 1.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from services.booking.errors.trips import (
    StopNotOnTripError,
    TripCancelledError,
    TripDepartedError,
    TripNotOnSaleError,
)

HOLD_DURATION_DEFAULT = timedelta(minutes=10)
PAYMENT_DURATION_DEFAULT = timedelta(minutes=5)
HELD_SEATS_DEFAULT = 6
HELD_SEATS_MAX = 50


class TripStatus(StrEnum):
    """Says how far a trip is, by its timetable."""

    SCHEDULED = "SCHEDULED"
    DEPARTED = "DEPARTED"
    COMPLETED = "COMPLETED"
    CANCELLED = "CANCELLED"


class PaymentMethod(StrEnum):
    """Says how a passenger pays."""

    WALLET = "WALLET"
    CASH = "CASH"
    GATEWAY = "GATEWAY"


class Journey(NamedTuple):
    """Is a part of a trip that a passenger travels: the legs from_index to to_index - 1."""

    from_index: int
    to_index: int

    @property
    def legs(self) -> range:
        """Return the indexes of its legs."""
        return range(self.from_index, self.to_index)


@dataclass(frozen=True, slots=True, kw_only=True)
class TripStop:
    """Is one stop of a trip; a stop with one time only arrives and departs at it."""

    stop_id: str
    display_name: str
    latitude: float
    longitude: float
    arrival_time: datetime
    departure_time: datetime
    no_pickup: bool = False
    no_drop_off: bool = False
    platform: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassFare:
    """Is what each leg costs in seats of a class, in minor units of the trip's currency."""

    seat_class_code: str
    leg_prices_minor: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CancellationFee:
    """Is one line of a fee table: the share kept until so long before departure."""

    before_departure: timedelta
    fee_basis_points: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SalesTerms:
    """States how seats are sold. No payment methods mean every one; no fees the operator's own."""

    open_time: datetime | None = None
    close_before_departure: timedelta = timedelta(0)
    hold_duration: timedelta = HOLD_DURATION_DEFAULT
    payment_duration: timedelta = PAYMENT_DURATION_DEFAULT
    held_seat_max_count: int = HELD_SEATS_DEFAULT
    payment_methods: tuple[PaymentMethod, ...] = ()
    cancellation_fees: tuple[CancellationFee, ...] = ()

    def allows(self, method: PaymentMethod) -> bool:
        """Say whether one may pay like this."""
        return not self.payment_methods or method in self.payment_methods


@dataclass(frozen=True, slots=True, kw_only=True)
class Trip:
    """Is one run of one vehicle. Times are aware of their zone; `trip_id` is "" until it is made.

    `seat_version` counts the changes of its seats, `event_version` its own events.
    """

    trip_id: str = ""
    display_name: str
    seat_layout_id: str
    vehicle_class: str = ""
    stops: tuple[TripStop, ...]
    currency_code: str
    fares: tuple[ClassFare, ...]
    vehicle_id: str = ""
    driver_id: str = ""
    conductor_ids: tuple[str, ...] = ()
    terms: SalesTerms
    time_zone: str = "UTC"
    timetable_trip_id: str = ""
    service_date: date | None = None
    seat_version: int = 0
    event_version: int = 0
    cancel_reason: str = ""
    cancel_time: datetime | None = None
    create_time: datetime | None = None
    update_time: datetime | None = None

    @property
    def leg_count(self) -> int:
        """Return how many legs there are."""
        return len(self.stops) - 1

    @property
    def crew_ids(self) -> frozenset[str]:
        """Return driver and conductors."""
        return frozenset(one for one in (self.driver_id, *self.conductor_ids) if one)

    def status(self, now: datetime) -> TripStatus:
        """Return how far the trip is."""
        if self.cancel_time is not None:
            return TripStatus.CANCELLED
        if now >= self.stops[-1].arrival_time:
            return TripStatus.COMPLETED
        departed = now >= self.stops[0].departure_time
        return TripStatus.DEPARTED if departed else TripStatus.SCHEDULED

    def journey(self, from_stop_id: str, to_stop_id: str) -> Journey:
        """Return the legs between two stops, "" for the first and the last of the trip.

        Of a stop that comes twice it is the first one after which the journey can be made.
        Raises StopNotOnTripError if there is none, or nobody may get on or off there.
        """
        last = len(self.stops) - 1
        for start, stop in enumerate(self.stops[:last]):
            named = stop.stop_id == from_stop_id if from_stop_id else start == 0
            if not named or stop.no_pickup:
                continue
            for end in range(start + 1, last + 1):
                off = self.stops[end]
                if (off.stop_id == to_stop_id if to_stop_id else end == last) and (
                    not off.no_drop_off
                ):
                    return Journey(start, end)
        raise StopNotOnTripError(self.trip_id, from_stop_id=from_stop_id, to_stop_id=to_stop_id)

    def price_minor(self, seat_class_code: str, journey: Journey) -> int:
        """Return what one seat of a class costs. Raises KeyError for a class without a fare."""
        for fare in self.fares:
            if fare.seat_class_code == seat_class_code:
                return sum(fare.leg_prices_minor[journey.from_index : journey.to_index])
        raise KeyError(seat_class_code)

    def departure_time(self, journey: Journey) -> datetime:
        """Return when the vehicle leaves the passenger's own stop."""
        return self.stops[journey.from_index].departure_time

    def close_time(self, journey: Journey) -> datetime:
        """Return when the sale ends at the passenger's own stop."""
        return self.departure_time(journey) - self.terms.close_before_departure

    def is_on_sale(self, journey: Journey, now: datetime) -> bool:
        """Say whether seats are sold now."""
        opened = self.terms.open_time is None or now >= self.terms.open_time
        return self.cancel_time is None and opened and now < self.close_time(journey)

    def check_on_sale(self, journey: Journey, now: datetime) -> None:
        """Raise TripCancelledError, TripDepartedError or TripNotOnSaleError if none are sold."""
        if self.cancel_time is not None:
            raise TripCancelledError(self.trip_id)
        if now >= self.departure_time(journey):
            raise TripDepartedError(self.trip_id, departure_time=self.departure_time(journey))
        if not self.is_on_sale(journey, now):
            raise TripNotOnSaleError(
                self.trip_id, open_time=self.terms.open_time, close_time=self.close_time(journey)
            )
