"""Positions and moments in the form of the contract. Driver sessions and tools make them here."""

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp
from google.type import latlng_pb2

from wayfare.location.v1 import position_pb2


def timestamp(moment: datetime) -> Timestamp:
    """Convert an aware moment.

    Raises:
        ValueError: the moment has no time zone, so that nobody knows when it is.
    """
    if moment.tzinfo is None:
        raise ValueError("the moment needs a time zone")
    converted = Timestamp()
    converted.FromDatetime(moment)
    return converted


def make_position(
    latitude: float,
    longitude: float,
    *,
    capture_time: datetime,
    speed_meters_per_second: float | None = None,
    heading_degrees: float | None = None,
    accuracy_meters: float | None = None,
) -> position_pb2.Position:
    """Make a position from WGS 84 degrees; what is None is unknown."""
    return position_pb2.Position(
        location=latlng_pb2.LatLng(latitude=latitude, longitude=longitude),
        speed_meters_per_second=speed_meters_per_second,
        heading_degrees=heading_degrees,
        accuracy_meters=accuracy_meters,
        capture_time=timestamp(capture_time),
    )
