"""Protos to domain and back."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from google.protobuf.message import Message

from services.location import convert
from services.location.domain.positions import Fix
from services.location.domain.trips import TripStatus
from services.location.operations.driver_session import (
    Ack,
    Drain,
    Heartbeat,
    Rejected,
    Reply,
    Throttle,
)
from services.location.ports.live import TripState
from tests.support.location_values import a_position, a_status, a_trip
from wayfare.location.v1 import driver_stream_pb2, position_pb2, trip_pb2, trip_update_pb2

NOW = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
# Field 1000, a string, as a newer or dishonest phone might add.
UNKNOWN = b"\xc2\x3e\x06secret"


def with_unknown(message: Message) -> bytes:
    return message.SerializeToString() + UNKNOWN


def test_followers_get_a_position_as_it_was_sent() -> None:
    position = a_position()
    position.accuracy_meters = 4.5

    update = trip_update_pb2.TripUpdate.FromString(convert.position_payload(position))

    assert update.position == position
    assert update.WhichOneof("update") == "position"


def test_the_token_and_a_payload_make_one_message() -> None:
    payload = b"\x0a\x10" + b"0000abcd00000007" + convert.position_payload(a_position())

    update = trip_update_pb2.TripUpdate.FromString(payload)

    assert update.resume_token == "0000abcd00000007"
    assert update.HasField("position")


def test_unknown_fields_of_a_position_never_reach_followers() -> None:
    position = position_pb2.Position.FromString(with_unknown(a_position()))
    position.location.MergeFromString(UNKNOWN)
    position.capture_time.MergeFromString(UNKNOWN)

    assert b"secret" not in convert.position_payload(position)


def test_unknown_fields_of_a_status_never_reach_followers() -> None:
    report = a_status(trip_pb2.TRIP_STATUS_STARTED)
    report.capture_time.MergeFromString(UNKNOWN)
    report.MergeFromString(UNKNOWN)

    assert b"secret" not in convert.status_payload(report)


def test_a_position_of_any_size_is_encoded_right() -> None:
    position = a_position()
    position.capture_time.seconds = -(1 << 62)
    position.capture_time.nanos = -1
    position.accuracy_meters = 9999.0

    update = trip_update_pb2.TripUpdate.FromString(convert.position_payload(position))

    assert update.position == position


def test_a_fix_holds_degrees_and_milliseconds() -> None:
    position = a_position(1_772_366_400_123)

    assert convert.fix_of(position) == Fix(
        position.location.latitude,
        position.location.longitude,
        1_772_366_400_123,
        accuracy_meters=None,
        speed_meters_per_second=8.5,
        heading_degrees=90.0,
    )


def test_a_boarding_update_says_how_many_are_expected() -> None:
    report = driver_stream_pb2.BoardingReport(boarded_count=12)

    update = trip_update_pb2.TripUpdate.FromString(convert.boarding_payload(report, 30))

    assert (update.boarding.boarded_count, update.boarding.expected_count) == (12, 30)


@pytest.mark.parametrize("number", trip_pb2.TripStatus.values())
def test_every_status_is_known(number: int) -> None:
    name = trip_pb2.TripStatus.Name(number).removeprefix("TRIP_STATUS_")  # type: ignore[arg-type]

    assert convert.status_of(number).name == name


def test_an_unknown_status_is_unspecified() -> None:
    assert convert.status_of(99) is TripStatus.UNSPECIFIED


def test_a_trip_comes_back_as_it_went() -> None:
    trip = a_trip(start_time=NOW, stop_time=NOW)

    message = convert.trip_to_proto(trip)

    assert convert.trip_from_proto(message) == replace(trip, start_time=None, stop_time=None)
    assert message.start_time.ToDatetime(tzinfo=UTC) == NOW


def test_a_snapshot_says_all_that_is_known() -> None:
    trip, position = a_trip(), a_position()
    boarding = driver_stream_pb2.BoardingReport(boarded_count=3)
    state = TripState(
        epoch="0000abcd",
        version=17,
        status="PAUSED",
        boarding_payload=convert.boarding_payload(boarding, 30),
        tracked=True,
        position_payload=convert.position_payload(position),
        events=(),
    )

    update = trip_update_pb2.TripUpdate.FromString(
        convert.snapshot_of(trip, state, gap=True, degraded=True)
    )

    assert update.resume_token == "0000abcd00000011"
    snapshot = update.snapshot
    assert (snapshot.trip_id, snapshot.vehicle_id) == (trip.trip_id, trip.vehicle_id)
    assert snapshot.status == trip_pb2.TRIP_STATUS_PAUSED
    assert snapshot.position == position
    assert snapshot.boarding.boarded_count == 3
    assert (snapshot.gap, snapshot.degraded) == (True, True)


def test_a_snapshot_of_a_trip_that_is_not_known_yet_is_empty() -> None:
    state = TripState(
        epoch="00000000",
        version=0,
        status="",
        boarding_payload=b"",
        tracked=True,
        position_payload=b"",
        events=(),
    )

    update = trip_update_pb2.TripUpdate.FromString(
        convert.snapshot_of(a_trip(), state, gap=False, degraded=False)
    )

    assert not update.snapshot.HasField("position")
    assert not update.snapshot.HasField("boarding")
    assert update.snapshot.status == trip_pb2.TRIP_STATUS_UNSPECIFIED


def test_each_reply_to_a_driver_has_its_message() -> None:
    replies: dict[str, Reply] = {
        "ack": Ack(seq=9, rejected=[Rejected(8, "POSITION_TOO_OLD", "old")]),
        "throttle": Throttle(reason="OVERLOADED", degraded=True),
        "drain": Drain(reconnect_after_seconds=1.5, reason="SERVER_DRAINING"),
        "heartbeat": Heartbeat(),
    }
    messages = {
        name: convert.reply_to_proto(reply, now=NOW, interval_seconds=3.0)
        for name, reply in replies.items()
    }

    assert {name: message.WhichOneof("reply") for name, message in messages.items()} == {
        name: name for name in replies
    }
    assert messages["ack"].ack.rejected[0].reason == "POSITION_TOO_OLD"
    assert messages["throttle"].throttle.min_interval.ToTimedelta().total_seconds() == 3.0
    assert messages["drain"].drain.reconnect_after.ToTimedelta().total_seconds() == 1.5
    assert messages["heartbeat"].heartbeat.server_time.ToDatetime(tzinfo=UTC) == NOW


def test_only_ended_ends_a_trip() -> None:
    ending = [
        number
        for number in trip_pb2.TripStatus.values()
        if convert.ends_trip(convert.status_payload(a_status(number)))
    ]

    assert ending == [trip_pb2.TRIP_STATUS_ENDED]
