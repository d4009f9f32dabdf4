"""Encodes what the watch tells followers: stop progress, ETAs, geofence transitions. Pure."""

from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from services.location.domain.eta import StopExpectation
from services.location.domain.stop_progress import StopEvent
from services.location.operations.observers import Transition
from wayfare.location.v1 import fleet_pb2, geofence_pb2, trip_update_pb2

_LATER_STOPS_MAX = 20


def stop_progress(event: StopEvent) -> bytes:
    """Return a TripUpdate without its token."""
    return trip_update_pb2.TripUpdate(
        stop_progress=trip_update_pb2.StopProgress(
            stop_id=event.stop_id,
            stop_index=event.stop_index,
            kind=trip_update_pb2.StopProgressKind.Value(f"STOP_PROGRESS_KIND_{event.kind}"),
            distance_meters=round(event.distance_meters, 1),
            capture_time=_timestamp(event.capture_milliseconds),
        )
    ).SerializeToString()


def expectations(stops: Sequence[StopExpectation]) -> bytes:
    """Return a TripUpdate without its token: the next stop, and those after it."""
    encoded = [
        trip_update_pb2.StopEta(
            stop_id=stop.stop_id,
            stop_index=stop.stop_index,
            expected_arrival_time=_timestamp(stop.expected_milliseconds),
            earliest_arrival_time=_timestamp(stop.earliest_milliseconds),
            distance_meters=round(stop.distance_meters, 1),
        )
        for stop in stops[: _LATER_STOPS_MAX + 1]
    ]
    return trip_update_pb2.TripUpdate(eta=encoded[0], later_stops=encoded[1:]).SerializeToString()


def transition(told: Transition) -> bytes:
    """Return an AlertUpdate without its token."""
    kinds = geofence_pb2.GeofenceTransitionKind
    return fleet_pb2.AlertUpdate(
        geofence_transition=geofence_pb2.GeofenceTransition(
            geofence_id=told.geofence.geofence_id,
            display_name=told.geofence.display_name,
            geofence_kind=told.geofence.kind,  # type: ignore[arg-type]
            kind=kinds.Value(f"GEOFENCE_TRANSITION_KIND_{told.kind}"),
            vehicle_id=told.vehicle_id,
            trip_id=told.trip_id,
            capture_time=_timestamp(told.capture_milliseconds),
        )
    ).SerializeToString()


def _timestamp(milliseconds: int) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromMilliseconds(milliseconds)
    return timestamp
