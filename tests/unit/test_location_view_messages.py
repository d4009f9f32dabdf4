"""What people see of drivers, encoded."""

import pytest
from google.protobuf.duration_pb2 import Duration

from services.location import convert, view_messages
from services.location.domain.nearby import Hit
from services.location.operations.nearby import Found
from services.location.ports.views import FreeDriver
from tests.support.location_values import a_position
from wayfare.location.v1 import fleet_pb2, location_service_pb2, position_pb2, trip_update_pb2


def a_long_position() -> position_pb2.Position:
    """Make one that needs more than the 127 bytes that most keep within."""
    position = a_position()
    position.capture_time.seconds = -(1 << 62)
    position.capture_time.nanos = -(1 << 30)
    position.accuracy_meters = position.heading_degrees = 1.5
    position.location.MergeFromString(b"\xc2\x3e\x50" + b"x" * 0x50)
    return position


def with_token(position: position_pb2.Position) -> bytes:
    update = trip_update_pb2.TripUpdate(resume_token="0000abcd00000007", position=position)
    return update.SerializeToString()


@pytest.mark.parametrize(
    ("position", "payload"),
    [
        (a_position(), convert.position_payload(a_position())),
        (a_position(), with_token(a_position())),
        (
            a_long_position(),
            trip_update_pb2.TripUpdate(position=a_long_position()).SerializeToString(),
        ),
    ],
    ids=["as it is kept", "with a token", "a long one"],
)
def test_a_driver_is_shown_where_they_are_and_not_who_they_are(
    position: position_pb2.Position, payload: bytes
) -> None:
    driver = FreeDriver("0198c000-0000-7000-8000-000000000001", 2, 7, payload)
    answer = location_service_pb2.ListNearbyDriversResponse()

    view_messages.add_nearby(answer, [Found(driver, Hit(812.345, 61_250, "key"))], b"k" * 16)

    (shown,) = answer.drivers
    handle = shown.driver_handle
    assert len(handle) == 16
    assert handle not in driver.driver_id
    assert shown == fleet_pb2.NearbyDriver(
        driver_handle=handle,
        vehicle_class=2,  # type: ignore[arg-type]
        position=position,
        distance_meters=812.3,
        position_age=Duration(seconds=61, nanos=250_000_000),
    )


def test_a_driver_has_another_name_in_every_answer() -> None:
    driver = FreeDriver("driver", 0, 7, convert.position_payload(a_position()))
    found = [Found(driver, Hit(1.0, 0, "key"))]
    answer = fleet_pb2.NearbyFrame()

    view_messages.add_nearby(answer, found, b"k" * 16)
    view_messages.add_nearby(answer, found, b"k" * 16)
    view_messages.add_nearby(answer, found, b"l" * 16)

    first, again, another = [one.driver_handle for one in answer.drivers]
    assert first == again != another
