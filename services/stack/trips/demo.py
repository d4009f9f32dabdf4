"""Made-up trips to try booking on: coaches between Cairo and the Red Sea, today and tomorrow."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import NamedTuple

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.type import latlng_pb2

from services.stack.trips.fares import FareRule
from wayfare.booking.v1 import layout_pb2, trip_pb2

TIME_ZONE = "Africa/Cairo"
FROM_STOP, TO_STOP = "cairo-ramses", "hurghada"
_EVERY = timedelta(hours=3)
_FIRST_LEAD = timedelta(minutes=30)
_DWELL = timedelta(minutes=5)


class _Place(NamedTuple):
    stop_id: str
    display_name: str
    latitude: float
    longitude: float
    minutes: int
    kilometers: int


_LINE = (
    _Place(FROM_STOP, "Cairo, Ramses", 30.0626, 31.2497, 0, 0),
    _Place("nasr-city", "Cairo, Nasr City", 30.0566, 31.3301, 30, 10),
    _Place("ain-sokhna", "Ain Sokhna", 29.6006, 32.3168, 135, 140),
    _Place("ras-gharib", "Ras Gharib", 28.3597, 33.0776, 285, 330),
    _Place(TO_STOP, "Hurghada", 27.2579, 33.8116, 405, 465),
)


def demo_trips(
    layout: layout_pb2.SeatLayout, fare_rule: FareRule, *, now: datetime, days: int
) -> list[trip_pb2.Trip]:
    """Return trips both ways every three hours of the day, from half an hour from now on."""
    there, back = list(_LINE), _reversed(_LINE)
    return [
        trip
        for departs in _departures(now, days)
        for trip in (
            _trip("X25 Cairo – Hurghada", there, departs, layout, fare_rule),
            _trip("X25 Hurghada – Cairo", back, departs + timedelta(hours=1), layout, fare_rule),
        )
    ]


def _departures(now: datetime, days: int) -> Iterator[datetime]:
    """Yield the same times of the day however often it is asked, so that no trip comes twice."""
    departs = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    end = now + timedelta(days=days)
    while departs < end:
        if departs >= now + _FIRST_LEAD:
            yield departs
        departs += _EVERY


def _reversed(line: Sequence[_Place]) -> list[_Place]:
    whole = line[-1]
    return [
        place._replace(
            minutes=whole.minutes - place.minutes, kilometers=whole.kilometers - place.kilometers
        )
        for place in reversed(line)
    ]


def _trip(
    name: str,
    line: Sequence[_Place],
    departs: datetime,
    layout: layout_pb2.SeatLayout,
    fare_rule: FareRule,
) -> trip_pb2.Trip:
    meters = [(after.kilometers - before.kilometers) * 1_000.0 for before, after in pairwise(line)]
    return trip_pb2.Trip(
        display_name=name,
        seat_layout_id=layout.seat_layout_id,
        stops=[_stop(place, departs, whole=line[-1].minutes) for place in line],
        fares=fare_rule.fares([one.seat_class_code for one in layout.seat_classes], meters),
        time_zone=TIME_ZONE,
        sales_terms=trip_pb2.SalesTerms(
            cancellation_fees=[
                trip_pb2.CancellationFee(
                    before_departure=Duration(seconds=hours * 3_600), fee_basis_points=points
                )
                for hours, points in ((24, 0), (2, 2_500), (0, 5_000))
            ]
        ),
    )


def _stop(place: _Place, departs: datetime, *, whole: int) -> trip_pb2.TripStop:
    arrives = departs + timedelta(minutes=place.minutes)
    waits = _DWELL if 0 < place.minutes < whole else timedelta(0)
    return trip_pb2.TripStop(
        stop_id=place.stop_id,
        display_name=place.display_name,
        location=latlng_pb2.LatLng(latitude=place.latitude, longitude=place.longitude),
        scheduled_arrival_time=_timestamp(arrives),
        scheduled_departure_time=_timestamp(arrives + waits),
    )


def _timestamp(moment: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(moment)
    return message
