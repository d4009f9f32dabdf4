"""Encodes GTFS-Realtime feeds by the official bindings (gtfs.org/realtime, version 2.0). Pure."""

from google.transit import gtfs_realtime_pb2

from services.location import convert
from services.location.domain.timetable import TripPlan
from services.location.operations.feeds import FeedAlert, FeedContent, FeedKind, FeedVehicle
from services.location.ports.views import KeptAlert
from wayfare.location.v1 import fleet_pb2, position_pb2, trip_update_pb2

_VERSION = "2.0"
_ALERT_SECONDS = 3600
_FULL_SHARE, _FEW_SHARE, _MANY_SHARE = 1.0, 0.75, 0.25
_Occupancy = gtfs_realtime_pb2.VehiclePosition


def encode(content: FeedContent, stamp: int) -> bytes:
    """Return a FeedMessage with `stamp` in its header, in seconds since 1970."""
    feed = gtfs_realtime_pb2.FeedMessage()
    feed.header.gtfs_realtime_version = _VERSION
    feed.header.incrementality = gtfs_realtime_pb2.FeedHeader.FULL_DATASET
    feed.header.timestamp = stamp
    if content.kind is FeedKind.ALERTS:
        for alert in content.alerts:
            _add_alert(feed, alert)
    elif content.kind is FeedKind.TRIP_UPDATES:
        for vehicle in content.vehicles:
            _add_trip_update(feed, vehicle, content.stamp)
    else:
        for vehicle in content.vehicles:
            _add_position(feed, vehicle, content.stamp)
    return feed.SerializeToString(deterministic=True)


def _add_position(feed: gtfs_realtime_pb2.FeedMessage, vehicle: FeedVehicle, stamp: int) -> None:
    position = convert.position_of_payload(vehicle.row.payload)
    if position is None:
        return
    entity = feed.entity.add(id=vehicle.row.vehicle_id)
    shown = entity.vehicle
    shown.vehicle.id = vehicle.row.vehicle_id
    shown.vehicle.label = vehicle.row.vehicle_id
    shown.position.latitude = position.location.latitude
    shown.position.longitude = position.location.longitude
    if position.HasField("heading_degrees"):
        shown.position.bearing = position.heading_degrees
    if position.HasField("speed_meters_per_second"):
        shown.position.speed = position.speed_meters_per_second
    shown.timestamp = _moment(position, stamp)
    if vehicle.plan is not None:
        _describe(shown.trip, vehicle.plan)
    _add_next_stop(shown, vehicle)
    _add_occupancy(shown, vehicle)


def _moment(position: position_pb2.Position, stamp: int) -> int:
    # A phone's clock may be some seconds ahead; a feed may not (validator's E012).
    return min(position.capture_time.seconds, stamp)


def _describe(trip: gtfs_realtime_pb2.TripDescriptor, plan: TripPlan) -> None:
    trip.trip_id = plan.timetable_trip_id
    trip.route_id = plan.route_id
    trip.start_date = plan.start_date
    trip.start_time = plan.start_time
    trip.schedule_relationship = gtfs_realtime_pb2.TripDescriptor.SCHEDULED
    if plan.direction_id is not None:
        trip.direction_id = plan.direction_id


def _expected(vehicle: FeedVehicle) -> list[trip_update_pb2.StopEta]:
    if vehicle.state is None or not vehicle.state.eta_payload:
        return []
    update = trip_update_pb2.TripUpdate.FromString(vehicle.state.eta_payload)
    stops = vehicle.plan.stops if vehicle.plan else ()
    # A trip may be tracked with stops of its own, which the timetable does not know.
    return [
        stop
        for stop in (update.eta, *update.later_stops)
        if stop.stop_index < len(stops) and stops[stop.stop_index].stop_id == stop.stop_id
    ]


def _add_next_stop(shown: gtfs_realtime_pb2.VehiclePosition, vehicle: FeedVehicle) -> None:
    expected = _expected(vehicle)
    if vehicle.plan is None or not expected:
        return
    stop = vehicle.plan.stops[expected[0].stop_index]
    shown.stop_id = stop.stop_id
    shown.current_stop_sequence = stop.stop_sequence
    shown.current_status = gtfs_realtime_pb2.VehiclePosition.IN_TRANSIT_TO


def _add_occupancy(shown: gtfs_realtime_pb2.VehiclePosition, vehicle: FeedVehicle) -> None:
    if vehicle.trip is None or vehicle.state is None or not vehicle.state.boarding_payload:
        return
    capacity = vehicle.trip.capacity_count
    if not capacity:
        return
    boarding = trip_update_pb2.TripUpdate.FromString(vehicle.state.boarding_payload).boarding
    share = boarding.boarded_count / capacity
    shown.occupancy_percentage = round(100 * share)
    if boarding.boarded_count == 0:
        shown.occupancy_status = _Occupancy.EMPTY
    elif share < _MANY_SHARE:
        shown.occupancy_status = _Occupancy.MANY_SEATS_AVAILABLE
    elif share < _FEW_SHARE:
        shown.occupancy_status = _Occupancy.FEW_SEATS_AVAILABLE
    elif share < _FULL_SHARE:
        shown.occupancy_status = _Occupancy.STANDING_ROOM_ONLY
    else:
        shown.occupancy_status = _Occupancy.FULL


def _add_trip_update(feed: gtfs_realtime_pb2.FeedMessage, vehicle: FeedVehicle, stamp: int) -> None:
    expected = _expected(vehicle)
    plan, trip = vehicle.plan, vehicle.trip
    position = convert.position_of_payload(vehicle.row.payload)
    if plan is None or trip is None or position is None or not expected:
        return
    entity = feed.entity.add(id=trip.trip_id)
    update = entity.trip_update
    _describe(update.trip, plan)
    update.vehicle.id = vehicle.row.vehicle_id
    update.vehicle.label = vehicle.row.vehicle_id
    update.timestamp = _moment(position, stamp)
    before = 0
    for stop in expected:
        planned = plan.stops[stop.stop_index]
        told = update.stop_time_update.add(
            stop_sequence=planned.stop_sequence,
            stop_id=planned.stop_id,
            schedule_relationship=gtfs_realtime_pb2.TripUpdate.StopTimeUpdate.SCHEDULED,
        )
        # Stops that lie close together: no two at one second (validator's E022).
        before = max(before + 1, stop.expected_arrival_time.seconds)
        told.arrival.time = before
        early = stop.expected_arrival_time.seconds - stop.earliest_arrival_time.seconds
        # Half the width of an interval of 95 %, roughly: P10 lies 1.28 deviations below.
        told.arrival.uncertainty = round(1.5 * early)


def trip_of_alert(kept: KeptAlert) -> str:
    """Return the trip that an alert for passengers is about, or empty text.

    What concerns the operator's own machines or areas is not for timetables.
    """
    alert = fleet_pb2.AlertUpdate.FromString(kept.payload).alert
    return alert.trip_id if alert.kind == fleet_pb2.ALERT_KIND_EMERGENCY else ""


def _add_alert(feed: gtfs_realtime_pb2.FeedMessage, told: FeedAlert) -> None:
    alert = fleet_pb2.AlertUpdate.FromString(told.kept.payload).alert
    entity = feed.entity.add(id=alert.alert_id)
    begin = alert.raise_time.seconds
    entity.alert.active_period.add(start=begin, end=begin + _ALERT_SECONDS)
    # Passengers learn that the trip may not go on, and nothing of why.
    entity.alert.cause = gtfs_realtime_pb2.Alert.UNKNOWN_CAUSE
    entity.alert.effect = gtfs_realtime_pb2.Alert.SIGNIFICANT_DELAYS
    _describe(entity.alert.informed_entity.add().trip, told.plan)
    text = f"{told.plan.route_short_name or told.plan.route_id}: this trip is held up"
    entity.alert.header_text.translation.add(text=text, language="en")
