"""Encodes what followers of fleets, of nearby drivers and of alerts get. Pure."""

import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from services.location import convert
from services.location.domain.positions import Fix
from services.location.domain.trips import TripStatus
from services.location.operations.fleet import FleetFilter
from services.location.operations.follower import Drained
from services.location.operations.nearby import Found
from services.location.operations.relay import PresenceChange
from services.location.ports.views import FleetRow
from services.shared.rpc.timestamps import timestamp_of
from wayfare.event.v1 import envelope_pb2
from wayfare.location.v1 import events_pb2, fleet_pb2, location_service_pb2, trip_update_pb2
from wayfare.type.v1 import geo_pb2

_STATUS_NUMBERS = {
    "": 0,
    TripStatus.STARTED.value: 1,
    TripStatus.PAUSED.value: 2,
    TripStatus.ENDED.value: 3,
    TripStatus.EMERGENCY.value: 4,
}
_POSITION_TAG = 0x1A


class FleetMessages:
    """Makes the bytes of fleet frames. Implements operations.fleet.FleetEncoder."""

    def vehicle(self, row: FleetRow) -> bytes:
        """Return field 1 of a FleetFrame.

        By hand where the payload is as this version writes it: building the message would read and
        copy each position again. TripUpdate.position is field 3, FleetVehicle.position field 4.
        """
        payload = row.payload
        if not _is_position_alone(payload):
            return self._vehicle_by_message(row)
        vehicle = row.vehicle_id.encode()
        trip = row.trip_id.encode()
        body = b"\x0a" + bytes((len(vehicle),)) + vehicle
        if trip:
            body += b"\x12" + bytes((len(trip),)) + trip
        if row.status:
            body += b"\x18" + bytes((_STATUS_NUMBERS[row.status],))
        body += b"\x22" + payload[1:]
        if row.vehicle_class:
            body += b"\x28" + bytes((row.vehicle_class,))
        return _part(body)

    def _vehicle_by_message(self, row: FleetRow) -> bytes:
        vehicle = fleet_pb2.FleetVehicle(
            vehicle_id=row.vehicle_id,
            trip_id=row.trip_id,
            status=_STATUS_NUMBERS[row.status],  # type: ignore[arg-type]
            position=convert.position_of_payload(row.payload),
            vehicle_class=row.vehicle_class,  # type: ignore[arg-type]
        )
        return _part(vehicle.SerializeToString())

    def frame(
        self,
        parts: Sequence[bytes],
        *,
        removed: Sequence[str],
        snapshot: bool,
        now_milliseconds: int,
        online_count: int,
        degraded: bool,
    ) -> bytes:
        """Return a FleetFrame."""
        frame = fleet_pb2.FleetFrame(
            removed_vehicle_ids=removed,
            snapshot=snapshot,
            resume_token=str(now_milliseconds),
            server_time=_timestamp(now_milliseconds),
            online_count=online_count,
            degraded=degraded,
        )
        return b"".join(parts) + frame.SerializeToString()

    def fix_of(self, payload: bytes) -> Fix | None:
        """Return the position in a payload."""
        return fix_of_payload(payload)


def _is_position_alone(payload: bytes) -> bool:
    """Say whether the payload is as this version writes it: a TripUpdate's position, no more."""
    return len(payload) > 1 and payload[0] == _POSITION_TAG and payload[1] == len(payload) - 2


def _part(body: bytes) -> bytes:
    if len(body) < 128:
        return b"\x0a" + bytes((len(body),)) + body
    return b"\x0a" + bytes((len(body) & 0x7F | 0x80, len(body) >> 7)) + body


def fix_of_payload(payload: bytes) -> Fix | None:
    """Return where and when, or None when the payload is empty."""
    position = convert.position_of_payload(payload)
    return None if position is None else convert.fix_of(position)


def place_of_payload(payload: bytes) -> Fix | None:
    """Return where and when, without what else the phone told, or None when it is empty."""
    if not payload:
        return None
    position = trip_update_pb2.TripUpdate.FromString(payload).position
    location = position.location
    when = convert.milliseconds_of(position.capture_time)
    return Fix(location.latitude, location.longitude, when)


def fleet_filter(request: location_service_pb2.FollowFleetRequest) -> FleetFilter:
    """Return by what a follower narrows the fleet."""
    if request.HasField("vehicles"):
        return FleetFilter(vehicle_ids=frozenset(request.vehicles.vehicle_ids))
    if request.HasField("viewport"):
        return FleetFilter(contains=_within(request.viewport))
    return FleetFilter()


def _within(viewport: geo_pb2.Viewport) -> Callable[[Fix], bool]:
    south, north = viewport.southwest.latitude, viewport.northeast.latitude
    west, east = viewport.southwest.longitude, viewport.northeast.longitude

    def contains(fix: Fix) -> bool:
        if not south <= fix.latitude <= north:
            return False
        if west <= east:
            return west <= fix.longitude <= east
        # Across the antimeridian.
        return fix.longitude >= west or fix.longitude <= east

    return contains


def fleet_drain(drained: Drained) -> bytes:
    """Return the notice to open a new stream."""
    return fleet_pb2.FleetFrame(drain=_drain(drained)).SerializeToString()


def add_nearby(
    answer: location_service_pb2.ListNearbyDriversResponse | fleet_pb2.NearbyFrame,
    found: Sequence[Found],
    handle_key: bytes,
) -> None:
    """Add drivers as people see them who look for a ride; `handle_key` hides who they are.

    The position goes from the payload into its place, without messages of its own that would be
    copied: it is field 3 of a NearbyDriver as of a TripUpdate.
    """
    for driver, hit in found:
        shown = answer.drivers.add()
        if _is_position_alone(driver.payload):
            shown.MergeFromString(driver.payload)
        else:
            shown.position.CopyFrom(trip_update_pb2.TripUpdate.FromString(driver.payload).position)
        digest = hashlib.blake2b(driver.driver_id.encode(), digest_size=8, key=handle_key)
        shown.driver_handle = digest.hexdigest()
        shown.vehicle_class = driver.vehicle_class  # type: ignore[assignment]
        shown.distance_meters = round(hit.distance_meters, 1)
        seconds, milliseconds = divmod(hit.age_milliseconds, 1000)
        age = shown.position_age
        age.seconds, age.nanos = seconds, milliseconds * 1_000_000


def nearby_frame(
    found: Sequence[Found], handle_key: bytes, *, degraded: bool, now: datetime
) -> fleet_pb2.NearbyFrame:
    """Return all drivers near a point."""
    frame = fleet_pb2.NearbyFrame(
        degraded=degraded,
        server_time=timestamp_of(now),
        resume_token=str(int(now.timestamp() * 1000)),
    )
    add_nearby(frame, found, handle_key)
    return frame


def nearby_drain(drained: Drained) -> bytes:
    """Return the notice to open a new stream."""
    return fleet_pb2.NearbyFrame(drain=_drain(drained)).SerializeToString()


def with_alert_token(token: str, payload: bytes) -> bytes:
    """Return an AlertUpdate with its token. Fields of a message may be put together."""
    return fleet_pb2.AlertUpdate(resume_token=token).SerializeToString() + payload


def alert_heartbeat(now: datetime, *, degraded: bool) -> bytes:
    """Return a heartbeat for followers of alerts."""
    heartbeat = trip_update_pb2.TripHeartbeat(server_time=timestamp_of(now), degraded=degraded)
    return fleet_pb2.AlertUpdate(heartbeat=heartbeat).SerializeToString()


def alert_drain(drained: Drained) -> bytes:
    """Return the notice to open a new stream."""
    return fleet_pb2.AlertUpdate(drain=_drain(drained)).SerializeToString()


def emergency(
    *, alert_id: str, trip_id: str, vehicle_id: str, payload: bytes, raised: Timestamp
) -> bytes:
    """Return an AlertUpdate without its token: a driver calls for help."""
    alert = fleet_pb2.Alert(
        alert_id=alert_id,
        kind=fleet_pb2.ALERT_KIND_EMERGENCY,
        trip_id=trip_id,
        vehicle_id=vehicle_id,
        position=convert.position_of_payload(payload),
        raise_time=raised,
        summary=f"the driver of vehicle {vehicle_id} calls for help",
    )
    return fleet_pb2.AlertUpdate(alert=alert).SerializeToString()


def error_rate(*, alert_id: str, refused: int, decided: int, now: datetime) -> bytes:
    """Return an AlertUpdate without its token: more is refused than should be."""
    alert = fleet_pb2.Alert(
        alert_id=alert_id,
        kind=fleet_pb2.ALERT_KIND_ERROR_RATE,
        raise_time=timestamp_of(now),
        summary=f"{refused} of {decided} messages of drivers were refused within a minute",
    )
    return fleet_pb2.AlertUpdate(alert=alert).SerializeToString()


def presence_envelope(change: PresenceChange, *, event_id: str) -> bytes:
    """Return the domain event of a driver who came online or went offline."""
    event: events_pb2.DriverOnline | events_pb2.DriverOffline
    when = _timestamp(change.time_milliseconds)
    if change.online:
        event = events_pb2.DriverOnline(
            driver_id=change.driver_id,
            vehicle_id=change.vehicle_id,
            vehicle_class=change.vehicle_class,  # type: ignore[arg-type]
            online_time=when,
        )
    else:
        event = events_pb2.DriverOffline(
            driver_id=change.driver_id,
            vehicle_id=change.vehicle_id,
            last_heard_time=when,
            explicit=change.explicit,
        )
    envelope = envelope_pb2.Envelope(
        event_id=event_id,
        tenant_id=change.tenant_id,
        aggregate_type="driver",
        aggregate_id=change.driver_id,
        aggregate_version=change.number,
        occur_time=when,
    )
    envelope.payload.Pack(event)
    return envelope.SerializeToString()


def _drain(drained: Drained) -> trip_update_pb2.StreamDrain:
    seconds, reason = drained
    drain = trip_update_pb2.StreamDrain(reason=reason)
    drain.reconnect_after.FromMilliseconds(int(seconds * 1000))
    return drain


def _timestamp(milliseconds: int) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromMilliseconds(milliseconds)
    return timestamp
