"""Pure conversion of searches between the contract and the domain."""

from datetime import date, datetime

from google.type import latlng_pb2

from services.booking import convert
from services.booking.domain.trips import PaymentMethod
from services.booking.layout_messages import vehicle_class_number
from services.booking.operations.search import ClassSeats, SearchQuery, TripOption
from services.booking.ports.trips import Place
from services.booking.trip_messages import payment_method_number, status_number, stop_message
from services.shared.rpc.timestamps import timestamp_of
from wayfare.booking.v1 import booking_service_pb2 as pb
from wayfare.booking.v1 import trip_pb2


def query_of(request: pb.SearchTripsRequest, tenant_id: str) -> SearchQuery:
    """Return what is searched. Raises RequestInvalidError for a day that there is not."""
    day = request.departure_date
    try:
        departure_date = date(day.year, day.month, day.day)
    except ValueError:
        raise convert.invalid("departure_date", "there is no such day") from None
    has_after = request.HasField("depart_after_time")
    after = convert.moment_of(request.depart_after_time, "depart_after_time") if has_after else None
    from_place = request.WhichOneof("origin") == "from_location"
    to_place = request.WhichOneof("destination") == "to_location"
    return SearchQuery(
        tenant_id=tenant_id,
        origin=_place(request.from_location) if from_place else request.from_stop_id,
        destination=_place(request.to_location) if to_place else request.to_stop_id,
        radius_meters=request.radius_meters,
        departure_date=departure_date,
        depart_after_time=after,
        passenger_count=request.passenger_count,
        seat_class_code=request.seat_class_code,
        only_available=request.only_available,
        accessible=request.accessible,
        page_size=request.page_size,
        page_token=request.page_token,
    )


def _place(location: latlng_pb2.LatLng) -> Place:
    return Place(location.latitude, location.longitude)


def option_message(option: TripOption, now: datetime, *, accessible: bool) -> trip_pb2.TripOption:
    """Return a journey as the contract has it; `accessible` counts accessible seats alone."""
    found = option.found
    trip, journey = found.trip, found.journey
    from_stop, to_stop = trip.stops[journey.from_index], trip.stops[journey.to_index]
    travel = to_stop.arrival_time - from_stop.departure_time
    return trip_pb2.TripOption(
        trip_id=trip.trip_id,
        display_name=trip.display_name,
        status=status_number(trip.status(now)),
        from_stop=stop_message(from_stop),
        to_stop=stop_message(to_stop),
        from_stop_index=journey.from_index,
        to_stop_index=journey.to_index,
        travel_duration=convert.duration_message(travel),
        from_distance_meters=found.from_distance_meters,
        to_distance_meters=found.to_distance_meters,
        classes=[
            _class_message(one, trip.currency_code, accessible=accessible) for one in option.classes
        ],
        on_sale=option.on_sale,
        sale_change_time=timestamp_of(option.sale_change_time),
        time_zone=trip.time_zone,
        vehicle_class=vehicle_class_number(trip.vehicle_class),
        payment_methods=[
            payment_method_number(method) for method in PaymentMethod if trip.terms.allows(method)
        ],
    )


def _class_message(
    one: ClassSeats, currency_code: str, *, accessible: bool
) -> trip_pb2.ClassAvailability:
    free = one.free_accessible_count if accessible else one.free_count
    return trip_pb2.ClassAvailability(
        seat_class_code=one.seat_class_code,
        display_name=one.display_name,
        price=convert.money_message(one.price_minor, currency_code),
        free_seat_count=free,
        free_accessible_seat_count=one.free_accessible_count,
    )
