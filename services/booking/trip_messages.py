"""Pure conversion of trips between the contract and the domain."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from google.type import date_pb2, latlng_pb2

from services.booking import convert
from services.booking.domain.trips import (
    HELD_SEATS_DEFAULT,
    HOLD_DURATION_DEFAULT,
    PAYMENT_DURATION_DEFAULT,
    CancellationFee,
    ClassFare,
    PaymentMethod,
    SalesTerms,
    Trip,
    TripStatus,
    TripStop,
)
from services.booking.layout_messages import vehicle_class_number
from services.booking.operations.trips import TripDraft, TripUpdate
from services.booking.ports.trips import NewEvent
from services.shared.clock import Clock
from services.shared.errors import FieldViolation, RequestInvalidError
from services.shared.ids import IdSource
from services.shared.money import MoneyInvalidError, money_from_proto
from services.shared.rpc.timestamps import timestamp_of
from services.shared.rpc.validation import check_message
from wayfare.booking.v1 import events_pb2, trip_pb2

_METHOD_PREFIX = "PAYMENT_METHOD_"
_STATUS_PREFIX = "TRIP_STATUS_"
_NO_DATE = date_pb2.Date()


def trip_draft(message: trip_pb2.Trip) -> TripDraft:
    """Return a trip to be made. Raises RequestInvalidError for times outside of the calendar."""
    faults: list[FieldViolation] = []
    currency_code, fares = _fares(message.fares, faults)
    trip = Trip(
        display_name=message.display_name,
        seat_layout_id=message.seat_layout_id.lower(),
        stops=tuple(_stop(index, one) for index, one in enumerate(message.stops)),
        currency_code=currency_code,
        fares=fares,
        vehicle_id=message.vehicle_id,
        driver_id=message.driver_id.lower(),
        conductor_ids=tuple(one.lower() for one in message.conductor_ids),
        terms=_terms(message.sales_terms),
        time_zone=message.time_zone or "UTC",
        timetable_trip_id=message.timetable_trip_id,
        service_date=_date(message.service_date, faults),
    )
    return TripDraft(trip=trip, faults=faults)


def merged(trip: Trip, changes: trip_pb2.Trip, update_mask: FieldMask) -> TripUpdate:
    """Return a trip with what the mask names taken from `changes`.

    Raises RequestInvalidError if it broke a rule of the contract then.
    """
    before = trip_message(trip, status=None, with_crew=True)
    after = trip_pb2.Trip()
    after.CopyFrom(before)
    for path in update_mask.paths:
        _take(after, changes, path.split("."))
    try:
        check_message(after)
    except RequestInvalidError as error:
        fields = [replace(one, field=f"trip.{one.field}") for one in error.fields]
        raise RequestInvalidError(f"trip.{error.message}", fields=fields) from None
    draft = trip_draft(after)
    content = replace(
        draft.trip,
        trip_id=trip.trip_id,
        vehicle_class=trip.vehicle_class,
        seat_version=trip.seat_version,
        event_version=trip.event_version,
        create_time=trip.create_time,
        update_time=trip.update_time,
    )
    new = trip_message(content, status=None, with_crew=True)
    paths = [path for path in update_mask.paths if _value(before, path) != _value(new, path)]
    return TripUpdate(draft=TripDraft(trip=content, faults=draft.faults), changed_paths=paths)


def _take(target: trip_pb2.Trip, source: trip_pb2.Trip, path: Sequence[str]) -> None:
    """Set what the path names to what it is in `source`; absent stays absent."""
    inner_target, inner_source = target, source
    for name in path[:-1]:
        inner_target, inner_source = getattr(inner_target, name), getattr(inner_source, name)
    name = path[-1]
    inner_target.ClearField(name)  # type: ignore[arg-type]  # a path that the contract allows
    for field, value in inner_source.ListFields():
        if field.name == name:
            _set(inner_target, name, value)


def _set(target: object, name: str, value: object) -> None:
    current = getattr(target, name)
    if hasattr(current, "MergeFrom"):
        current.MergeFrom(value)
    else:
        setattr(target, name, value)


def _value(message: trip_pb2.Trip, path: str) -> object:
    value: Any = message
    for name in path.split("."):
        value = getattr(value, name)
    return list(value) if isinstance(value, Sequence) else value


def _fares(
    messages: Iterable[trip_pb2.ClassFare], faults: list[FieldViolation]
) -> tuple[str, tuple[ClassFare, ...]]:
    codes: dict[str, str] = {}
    fares = []
    for index, message in enumerate(messages):
        prices = []
        for leg, money in enumerate(message.leg_prices):
            field = f"trip.fares[{index}].leg_prices[{leg}]"
            try:
                amount = money_from_proto(money)
            except MoneyInvalidError as error:
                faults.append(FieldViolation(field=field, description=error.message))
                continue
            codes.setdefault(amount.currency_code, field)
            prices.append(amount.amount_minor)
        fares.append(
            ClassFare(seat_class_code=message.seat_class_code, leg_prices_minor=tuple(prices))
        )
    first, *others = codes or {"XXX": ""}
    faults += [
        FieldViolation(field=codes[code], description=f"the prices are in {first} and in {code}")
        for code in others
    ]
    return first, tuple(fares)


def _stop(index: int, message: trip_pb2.TripStop) -> TripStop:
    arrives = message.HasField("scheduled_arrival_time")
    departs = message.HasField("scheduled_departure_time")
    arrival = message.scheduled_arrival_time if arrives else message.scheduled_departure_time
    departure = message.scheduled_departure_time if departs else message.scheduled_arrival_time
    name = f"trip.stops[{index}]"
    return TripStop(
        stop_id=message.stop_id,
        display_name=message.display_name,
        latitude=message.location.latitude,
        longitude=message.location.longitude,
        arrival_time=convert.moment_of(arrival, f"{name}.scheduled_arrival_time"),
        departure_time=convert.moment_of(departure, f"{name}.scheduled_departure_time"),
        no_pickup=message.no_pickup,
        no_drop_off=message.no_drop_off,
        platform=message.platform,
    )


def _terms(message: trip_pb2.SalesTerms) -> SalesTerms:
    opens = message.HasField("open_time")
    holds, pays = message.HasField("hold_duration"), message.HasField("payment_duration")
    return SalesTerms(
        open_time=convert.moment_of(message.open_time, "trip.sales_terms.open_time")
        if opens
        else None,
        close_before_departure=message.close_before_departure.ToTimedelta(),
        hold_duration=message.hold_duration.ToTimedelta() if holds else HOLD_DURATION_DEFAULT,
        payment_duration=message.payment_duration.ToTimedelta()
        if pays
        else PAYMENT_DURATION_DEFAULT,
        held_seat_max_count=message.held_seat_max_count or HELD_SEATS_DEFAULT,
        payment_methods=tuple(map(payment_method, message.payment_methods)),
        cancellation_fees=tuple(
            CancellationFee(
                before_departure=one.before_departure.ToTimedelta(),
                fee_basis_points=one.fee_basis_points,
            )
            for one in message.cancellation_fees
        ),
    )


def payment_method(number: trip_pb2.PaymentMethod.ValueType) -> PaymentMethod:
    """Return how a passenger pays."""
    return PaymentMethod(trip_pb2.PaymentMethod.Name(number).removeprefix(_METHOD_PREFIX))


def payment_method_number(method: PaymentMethod) -> trip_pb2.PaymentMethod.ValueType:
    """Return how a passenger pays as the contract has it."""
    return trip_pb2.PaymentMethod.Value(_METHOD_PREFIX + method)


def status_of(number: trip_pb2.TripStatus.ValueType) -> str:
    """Return the status that a filter names, "" for any."""
    return trip_pb2.TripStatus.Name(number).removeprefix(_STATUS_PREFIX) if number else ""


def status_number(status: TripStatus) -> trip_pb2.TripStatus.ValueType:
    """Return how far a trip is as the contract has it."""
    return trip_pb2.TripStatus.Value(_STATUS_PREFIX + status)


def _date(message: date_pb2.Date, faults: list[FieldViolation]) -> date | None:
    if message == _NO_DATE:
        return None
    try:
        return date(message.year, message.month, message.day)
    except ValueError:
        fault = FieldViolation(field="trip.service_date", description="there is no such day")
        faults.append(fault)
        return None


def trip_message(trip: Trip, *, status: TripStatus | None, with_crew: bool) -> trip_pb2.Trip:
    """Return a trip as the contract has it; passengers do not see its crew."""
    day = trip.service_date
    return trip_pb2.Trip(
        trip_id=trip.trip_id,
        display_name=trip.display_name,
        status=status_number(status) if status else trip_pb2.TRIP_STATUS_UNSPECIFIED,
        seat_layout_id=trip.seat_layout_id,
        stops=map(stop_message, trip.stops),
        fares=[
            trip_pb2.ClassFare(
                seat_class_code=fare.seat_class_code,
                leg_prices=[
                    convert.money_message(price, trip.currency_code)
                    for price in fare.leg_prices_minor
                ],
            )
            for fare in trip.fares
        ],
        vehicle_id=trip.vehicle_id,
        driver_id=trip.driver_id if with_crew else "",
        conductor_ids=trip.conductor_ids if with_crew else (),
        sales_terms=_terms_message(trip.terms),
        time_zone=trip.time_zone,
        timetable_trip_id=trip.timetable_trip_id,
        service_date=date_pb2.Date(year=day.year, month=day.month, day=day.day) if day else None,
        vehicle_class=vehicle_class_number(trip.vehicle_class),
        seat_version=trip.seat_version,
        cancel_reason=trip.cancel_reason,
        create_time=timestamp_of(trip.create_time),
        update_time=timestamp_of(trip.update_time),
    )


def stop_message(stop: TripStop) -> trip_pb2.TripStop:
    """Return a stop as the contract has it."""
    return trip_pb2.TripStop(
        stop_id=stop.stop_id,
        display_name=stop.display_name,
        location=latlng_pb2.LatLng(latitude=stop.latitude, longitude=stop.longitude),
        scheduled_arrival_time=timestamp_of(stop.arrival_time),
        scheduled_departure_time=timestamp_of(stop.departure_time),
        no_pickup=stop.no_pickup,
        no_drop_off=stop.no_drop_off,
        platform=stop.platform,
    )


def _terms_message(terms: SalesTerms) -> trip_pb2.SalesTerms:
    return trip_pb2.SalesTerms(
        open_time=timestamp_of(terms.open_time),
        close_before_departure=convert.duration_message(terms.close_before_departure),
        hold_duration=convert.duration_message(terms.hold_duration),
        payment_duration=convert.duration_message(terms.payment_duration),
        held_seat_max_count=terms.held_seat_max_count,
        payment_methods=map(payment_method_number, terms.payment_methods),
        cancellation_fees=[
            trip_pb2.CancellationFee(
                before_departure=convert.duration_message(fee.before_departure),
                fee_basis_points=fee.fee_basis_points,
            )
            for fee in terms.cancellation_fees
        ],
    )


class TripEventMessages:
    """Makes the events of a trip. Implements operations.trips.TripEvents."""

    def __init__(self, *, clock: Clock, ids: IdSource) -> None:
        """Take ids of events from `ids`."""
        self._clock = clock
        self._ids = ids

    def scheduled(self, tenant_id: str, trip: Trip, *, capacity_count: int) -> NewEvent:
        """Return the event of a trip that was made."""
        payload = events_pb2.TripScheduled(trip=self._message(trip), capacity_count=capacity_count)
        return self._event(tenant_id, trip, payload)

    def updated(
        self, tenant_id: str, trip: Trip, *, capacity_count: int, changed_paths: Sequence[str]
    ) -> NewEvent:
        """Return the event of a trip that was changed; the trip is the one after it."""
        payload = events_pb2.TripUpdated(
            trip=self._message(trip), capacity_count=capacity_count, changed_paths=changed_paths
        )
        return self._event(tenant_id, trip, payload)

    def cancelled(self, tenant_id: str, trip: Trip) -> NewEvent:
        """Return the event of a trip that was called off."""
        payload = events_pb2.TripCancelled(
            trip_id=trip.trip_id,
            cancel_reason=trip.cancel_reason,
            cancel_time=timestamp_of(trip.cancel_time),
        )
        return self._event(tenant_id, trip, payload)

    def _message(self, trip: Trip) -> trip_pb2.Trip:
        return trip_message(trip, status=trip.status(self._clock.now()), with_crew=True)

    def _event(
        self,
        tenant_id: str,
        trip: Trip,
        payload: events_pb2.TripScheduled | events_pb2.TripUpdated | events_pb2.TripCancelled,
    ) -> NewEvent:
        return convert.new_event(
            payload,
            event_id=self._ids.new_id(),
            tenant_id=tenant_id,
            aggregate_type="trip",
            aggregate_id=trip.trip_id,
            aggregate_version=trip.event_version,
            occur_time=trip.update_time or self._clock.now(),
        )
