"""Shows a part of a trip as tickets and bookings have it. Pure."""

from datetime import datetime

from services.booking.domain.trips import Trip
from services.booking.trip_messages import status_number, stop_message
from wayfare.booking.v1 import booking_pb2


def journey_message(
    trip: Trip, *, from_stop_index: int, to_stop_index: int, now: datetime
) -> booking_pb2.Journey:
    """Return the journey with the trip's times as they are now."""
    return booking_pb2.Journey(
        trip_display_name=trip.display_name,
        trip_status=status_number(trip.status(now)),
        from_stop=stop_message(trip.stops[from_stop_index]),
        to_stop=stop_message(trip.stops[to_stop_index]),
        from_stop_index=from_stop_index,
        to_stop_index=to_stop_index,
        time_zone=trip.time_zone,
    )
