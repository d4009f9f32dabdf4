"""Values of LocationService that are in order: trips, updates, positions, a clock."""

import time
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from services.location import convert
from services.location.domain.trips import TrackedTrip, TripStop
from services.location.ports.live import BOARDING, POSITION, STATUS, Publisher, Update
from wayfare.location.v1 import driver_stream_pb2, position_pb2, trip_pb2

TENANT = "0198c000-0000-7000-8000-000000000001"
OTHER_TENANT = "0198c000-0000-7000-8000-000000000002"
LATITUDE, LONGITUDE = 53.4084, -2.9916
# A meter to the north, in degrees of latitude.
METER = 1 / 111_195


class SettableClock:
    """Stands still until told to move."""

    def __init__(self) -> None:
        self.time = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()

    def pass_time(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


def new_id() -> str:
    """Return a UUID that nobody else has."""
    return str(uuid.uuid4())


def now_milliseconds() -> int:
    """Return the machine's time."""
    return int(time.time() * 1000)


def a_trip(**values: object) -> TrackedTrip:
    """Return a trip with a driver, a vehicle, a conductor, a follower and a stop."""
    trip = TrackedTrip(
        trip_id=new_id(),
        tenant_id=TENANT,
        driver_id=new_id(),
        vehicle_id="bus-14",
        follower_ids=frozenset({new_id()}),
        conductor_ids=frozenset({new_id()}),
        stops=(
            TripStop(
                stop_id="stop-1",
                display_name="Castle Street",
                latitude=LATITUDE,
                longitude=LONGITUDE,
                scheduled_arrival_time=datetime(2026, 3, 1, 12, tzinfo=UTC),
            ),
        ),
        expected_count=30,
        capacity_count=60,
    )
    return replace(trip, **values)  # type: ignore[arg-type]  # fields by name


def a_position(
    capture_milliseconds: int | None = None, *, meters_north: float = 0.0
) -> position_pb2.Position:
    """Return a position near Castle Street, captured now unless said otherwise."""
    position = position_pb2.Position(speed_meters_per_second=8.5, heading_degrees=90.0)
    position.location.latitude = LATITUDE + meters_north * METER
    position.location.longitude = LONGITUDE
    capture = now_milliseconds() if capture_milliseconds is None else capture_milliseconds
    position.capture_time.FromMilliseconds(capture)
    return position


def a_status(status: trip_pb2.TripStatus.ValueType) -> driver_stream_pb2.StatusReport:
    """Return a status report, captured now."""
    report = driver_stream_pb2.StatusReport(status=status)
    report.capture_time.GetCurrentTime()
    return report


def a_publisher(driver_id: str) -> Publisher:
    """Return a driver with a bus."""
    return Publisher(driver_id=driver_id, tenant_id=TENANT, vehicle_id="bus-14")


def position_update(
    driver_id: str, *, seq: int, capture: int, session: str = "", trip_id: str = ""
) -> Update:
    """Return an update as a driver's session submits it; its payload tells its capture time."""
    payload = convert.position_payload(a_position(capture))
    fix = convert.fix_of(a_position(capture))
    return Update(a_publisher(driver_id), session, seq, POSITION, trip_id, payload, fix)


def status_update(driver_id: str, *, seq: int, status: str, session: str, trip_id: str) -> Update:
    """Return a status update."""
    number = trip_pb2.TripStatus.Value(f"TRIP_STATUS_{status}")
    payload = convert.status_payload(a_status(number))
    return Update(a_publisher(driver_id), session, seq, STATUS, trip_id, payload, status=status)


def boarding_update(
    driver_id: str, *, seq: int, boarded_count: int, session: str, trip_id: str
) -> Update:
    """Return a count of passengers."""
    report = driver_stream_pb2.BoardingReport(boarded_count=boarded_count)
    payload = convert.boarding_payload(report, 30)
    return Update(a_publisher(driver_id), session, seq, BOARDING, trip_id, payload)


def capture_of(payload: bytes) -> int:
    """Return when the position in a payload was captured."""
    position = convert.position_of_payload(payload)
    assert position is not None, "there is no position"
    return convert.milliseconds_of(position.capture_time)
