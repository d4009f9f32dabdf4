"""Trips of a feed on one day, straight from its files: for simulators, which import nothing."""

from collections.abc import Iterator
from datetime import date
from zoneinfo import ZoneInfo

from services.location.domain.timetable import TimetableStop, TimetableTrip, TripPlan, plan_trip
from services.location.gtfs.feed import ABSENT, NO_DROP_OFF, NO_PICKUP, Feed
from services.location.gtfs.patterns import PatternFinder


def plans_of_day(
    feed: Feed, service_date: date, *, from_seconds: int, until_seconds: int
) -> Iterator[TripPlan]:
    """Yield the trips that depart first within a part of the service day, in that order."""
    patterns = PatternFinder(feed)
    running = {
        service.service_id for service in feed.services.values() if service.runs_on(service_date)
    }
    departures = [
        (patterns.start_seconds(number), feed.trips[number].trip_id, number)
        for number in feed.used_trips()
        if feed.trips[number].service_id in running
    ]
    for seconds, _, number in sorted(departures):
        if from_seconds <= seconds < until_seconds:
            trip = _trip(feed, patterns, number)
            yield plan_trip(trip, service_date=service_date, time_zone=ZoneInfo(feed.time_zone))


def _trip(feed: Feed, patterns: PatternFinder, number: int) -> TimetableTrip:
    trip, pattern = feed.trips[number], patterns.pattern(number)
    start = patterns.start_seconds(number)
    place = feed.stop_times.place(number)
    distances = pattern.distances or [None] * len(pattern.stops)
    calls = zip(
        pattern.stops,
        pattern.sequences,
        pattern.arrivals,
        pattern.departures,
        distances,
        feed.stop_times.closed[place.start : place.stop],
        strict=True,
    )
    return TimetableTrip(
        timetable_trip_id=trip.trip_id,
        route_id=trip.route_id,
        route_short_name=feed.routes[trip.route_id].short_name,
        short_name=trip.short_name,
        headsign=trip.headsign,
        direction_id=None if trip.direction_id == ABSENT else trip.direction_id,
        stops=tuple(
            TimetableStop(
                stop_id=feed.stops[stop].stop_id,
                stop_sequence=sequence,
                display_name=feed.stops[stop].display_name,
                latitude=feed.stops[stop].latitude,
                longitude=feed.stops[stop].longitude,
                arrival_seconds=start + arrival,
                departure_seconds=start + departure,
                distance_meters=distance,
                no_pickup=bool(closed & NO_PICKUP),
                no_drop_off=bool(closed & NO_DROP_OFF),
            )
            for stop, sequence, arrival, departure, distance, closed in calls
        ),
        shape=feed.shapes.points(trip.shape) if trip.shape != ABSENT else (),
    )
