"""Converts between protos and domain. Pure."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, date, datetime

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.type import date_pb2

from services.location.domain.positions import Fix
from services.location.domain.trips import TrackedTrip, TripStatus, TripStop
from services.location.operations.driver_session import Ack, Drain, Heartbeat, Reply, Throttle
from services.location.operations.follower import Drained
from services.location.ports.live import TripState
from services.shared.errors import FieldViolation, RequestInvalidError
from services.shared.rpc.timestamps import timestamp_of
from wayfare.location.v1 import driver_stream_pb2, position_pb2, trip_pb2, trip_update_pb2

_STATUS_NAMES = {
    trip_pb2.TRIP_STATUS_STARTED: TripStatus.STARTED,
    trip_pb2.TRIP_STATUS_PAUSED: TripStatus.PAUSED,
    trip_pb2.TRIP_STATUS_ENDED: TripStatus.ENDED,
    trip_pb2.TRIP_STATUS_EMERGENCY: TripStatus.EMERGENCY,
}
_STATUS_NUMBERS = {name: number for number, name in _STATUS_NAMES.items()}


def milliseconds_of(timestamp: Timestamp) -> int:
    """Return milliseconds since 1970."""
    return timestamp.seconds * 1000 + timestamp.nanos // 1_000_000


def fix_of(position: position_pb2.Position) -> Fix:
    """Return where and when."""
    location = position.location
    has = position.HasField
    return Fix(
        location.latitude,
        location.longitude,
        milliseconds_of(position.capture_time),
        position.accuracy_meters if has("accuracy_meters") else None,
        position.speed_meters_per_second if has("speed_meters_per_second") else None,
        position.heading_degrees if has("heading_degrees") else None,
    )


def position_payload(position: position_pb2.Position) -> bytes:
    """Return what followers get.

    A TripUpdate without its token, with nothing that we do not know.
    """
    position.DiscardUnknownFields()
    body = position.SerializeToString()
    # Field 3 by hand: building the message around it would copy the position again, for every
    # position.
    # A position has less than 128 bytes, so that its length is one byte.
    if len(body) < 128:
        return b"\x1a" + bytes((len(body),)) + body
    return trip_update_pb2.TripUpdate(position=position).SerializeToString()


def status_payload(report: driver_stream_pb2.StatusReport) -> bytes:
    """Return what followers get of a status report, with nothing that we do not know."""
    report.DiscardUnknownFields()
    change = trip_update_pb2.TripStatusChange(
        status=report.status, capture_time=report.capture_time
    )
    return trip_update_pb2.TripUpdate(status=change).SerializeToString()


def boarding_payload(report: driver_stream_pb2.BoardingReport, expected_count: int) -> bytes:
    """Return what followers get of a count of passengers."""
    change = trip_update_pb2.BoardingChange(
        boarded_count=report.boarded_count, expected_count=expected_count
    )
    return trip_update_pb2.TripUpdate(boarding=change).SerializeToString()


def status_of(number: int) -> TripStatus:
    """Return the domain's status; an unknown number is unspecified."""
    return _STATUS_NAMES.get(number, TripStatus.UNSPECIFIED)  # type: ignore[call-overload,no-any-return]


def position_of_payload(payload: bytes) -> position_pb2.Position | None:
    """Return the position in a payload, or None when it is empty."""
    if not payload:
        return None
    return trip_update_pb2.TripUpdate.FromString(payload).position


def snapshot_of(trip: TrackedTrip, state: TripState, *, gap: bool, degraded: bool) -> bytes:
    """Return the first message to a new follower, encoded."""
    snapshot = trip_update_pb2.TripSnapshot(
        trip_id=trip.trip_id,
        vehicle_id=trip.vehicle_id,
        status=_STATUS_NUMBERS.get(TripStatus(state.status), trip_pb2.TRIP_STATUS_UNSPECIFIED),
        gap=gap,
        degraded=degraded,
    )
    position = position_of_payload(state.position_payload)
    if position is not None:
        snapshot.position.CopyFrom(position)
    if state.boarding_payload:
        boarding = trip_update_pb2.TripUpdate.FromString(state.boarding_payload).boarding
        snapshot.boarding.CopyFrom(boarding)
    if state.eta_payload:
        expected = trip_update_pb2.TripUpdate.FromString(state.eta_payload)
        snapshot.next_stop.CopyFrom(expected.eta)
        snapshot.later_stops.extend(expected.later_stops)
    token = f"{state.epoch}{state.version:08x}"
    return trip_update_pb2.TripUpdate(resume_token=token, snapshot=snapshot).SerializeToString()


def ends_trip(payload: bytes) -> bool:
    """Say whether an encoded status change is the trip's last."""
    status = trip_update_pb2.TripUpdate.FromString(payload).status.status
    return status == trip_pb2.TRIP_STATUS_ENDED


def with_token(payload: bytes, state: TripState) -> bytes:
    """Return a payload with the token of the state from which it was read."""
    token = f"{state.epoch}{state.version:08x}".encode()
    return b"\x0a\x10" + token + payload


def trip_heartbeat(now: datetime, *, degraded: bool) -> bytes:
    """Return a heartbeat for followers, encoded."""
    heartbeat = trip_update_pb2.TripHeartbeat(server_time=timestamp_of(now), degraded=degraded)
    return trip_update_pb2.TripUpdate(heartbeat=heartbeat).SerializeToString()


def trip_drain(drained: Drained) -> bytes:
    """Return a drain notice for followers, encoded."""
    seconds, reason = drained
    drain = trip_update_pb2.StreamDrain(reason=reason)
    drain.reconnect_after.FromMilliseconds(int(seconds * 1000))
    return trip_update_pb2.TripUpdate(drain=drain).SerializeToString()


def reply_to_proto(
    reply: Reply, *, now: datetime, interval_seconds: float
) -> driver_stream_pb2.DriverReply:
    """Return what is said to a driver."""
    message = driver_stream_pb2.DriverReply()
    if isinstance(reply, Ack):
        message.ack.seq = reply.seq
        for rejected in reply.rejected:
            message.ack.rejected.add(
                seq=rejected.seq, reason=rejected.reason, detail=rejected.detail
            )
    elif isinstance(reply, Throttle):
        message.throttle.min_interval.FromMilliseconds(int(interval_seconds * 1000))
        message.throttle.reason = reply.reason
        message.throttle.degraded = reply.degraded
    elif isinstance(reply, Drain):
        message.drain.reconnect_after.FromMilliseconds(int(reply.reconnect_after_seconds * 1000))
        message.drain.reason = reply.reason
    elif isinstance(reply, Heartbeat):
        message.heartbeat.server_time.FromDatetime(now)
    return message


def trip_from_proto(trip: trip_pb2.TrackedTrip) -> TrackedTrip:
    """Return the trip without its output-only fields."""
    return TrackedTrip(
        trip_id=trip.trip_id,
        tenant_id=trip.tenant_id,
        driver_id=trip.driver_id,
        vehicle_id=trip.vehicle_id,
        follower_ids=frozenset(trip.follower_ids),
        conductor_ids=frozenset(trip.conductor_ids),
        stops=tuple(_stop_from_proto(stop) for stop in trip.stops),
        expected_count=trip.expected_count,
        timetable_trip_id=trip.timetable_trip_id,
        service_date=_date_of(trip),
        capacity_count=trip.capacity_count,
    )


def _date_of(trip: trip_pb2.TrackedTrip) -> date | None:
    if not trip.HasField("service_date"):
        return None
    try:
        return date(trip.service_date.year, trip.service_date.month, trip.service_date.day)
    except ValueError:
        raise RequestInvalidError(
            "trip.service_date: must be a day of the calendar",
            fields=[
                FieldViolation(
                    field="trip.service_date", description="must be a day of the calendar", rule=""
                )
            ],
        ) from None


def trip_to_proto(trip: TrackedTrip) -> trip_pb2.TrackedTrip:
    """Return the trip for services."""
    message = trip_pb2.TrackedTrip(
        trip_id=trip.trip_id,
        tenant_id=trip.tenant_id,
        driver_id=trip.driver_id,
        vehicle_id=trip.vehicle_id,
        follower_ids=sorted(trip.follower_ids),
        conductor_ids=sorted(trip.conductor_ids),
        stops=_stops_to_proto(trip.stops),
        expected_count=trip.expected_count,
        start_time=timestamp_of(trip.start_time),
        stop_time=timestamp_of(trip.stop_time),
        timetable_trip_id=trip.timetable_trip_id,
        capacity_count=trip.capacity_count,
    )
    if trip.service_date is not None:
        day = trip.service_date
        message.service_date.CopyFrom(date_pb2.Date(year=day.year, month=day.month, day=day.day))
    return message


def hash_of(request: Message) -> bytes:
    """Return 32 bytes that stand for a request's body: the same for the same fields."""
    return hashlib.sha256(request.SerializeToString(deterministic=True)).digest()


def _stop_from_proto(stop: trip_pb2.TripStop) -> TripStop:
    return TripStop(
        stop_id=stop.stop_id,
        display_name=stop.display_name,
        latitude=stop.location.latitude,
        longitude=stop.location.longitude,
        scheduled_arrival_time=_time(stop, "scheduled_arrival_time"),
        scheduled_departure_time=_time(stop, "scheduled_departure_time"),
    )


def _time(stop: trip_pb2.TripStop, field: str) -> datetime | None:
    if not stop.HasField(field):  # type: ignore[arg-type]
        return None
    timestamp: Timestamp = getattr(stop, field)
    return timestamp.ToDatetime(tzinfo=UTC)


def _stops_to_proto(stops: Sequence[TripStop]) -> list[trip_pb2.TripStop]:
    messages = []
    for stop in stops:
        message = trip_pb2.TripStop(
            stop_id=stop.stop_id,
            display_name=stop.display_name,
            scheduled_arrival_time=timestamp_of(stop.scheduled_arrival_time),
            scheduled_departure_time=timestamp_of(stop.scheduled_departure_time),
        )
        message.location.latitude = stop.latitude
        message.location.longitude = stop.longitude
        messages.append(message)
    return messages
