"""The quick check of positions never lets pass what the contract refuses."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.location import convert
from services.location.quick_check import valid_fix
from services.shared.errors import RequestInvalidError
from services.shared.rpc.validation import check_message
from wayfare.location.v1 import driver_stream_pb2

# Around each bound, and what no bound expects.
_EDGES = [-180.0, -90.0, -0.0, 0.0, 90.0, 150.0, 180.0, 360.0, 10_000.0, math.nan, math.inf]
_numbers = st.one_of(
    st.sampled_from(_EDGES),
    st.sampled_from(_EDGES).map(lambda edge: math.nextafter(edge, math.inf)),
    st.sampled_from(_EDGES).map(lambda edge: math.nextafter(edge, -math.inf)),
    st.floats(-400, 400, width=32),
    st.floats(),
)
_floats = _numbers.filter(lambda number: not math.isfinite(number) or abs(number) < 3e38)


@st.composite
def driver_messages(draw: st.DrawFn) -> driver_stream_pb2.DriverMessage:
    message = driver_stream_pb2.DriverMessage(
        seq=draw(st.one_of(st.integers(-2, 2), st.integers((1 << 52) - 1, (1 << 52) + 1)))
    )
    kind = draw(st.sampled_from(["position", "status", "none"]))
    if kind == "status":
        message.status.SetInParent()
    if kind != "position":
        return message
    position = message.position
    position.SetInParent()
    if draw(st.booleans()):
        position.location.latitude = draw(_numbers)
        position.location.longitude = draw(_numbers)
    if draw(st.booleans()):
        position.capture_time.seconds = draw(st.integers(-62135596800, 253402300799))
        position.capture_time.nanos = draw(st.integers(0, 999_999_999))
    for field in ("speed_meters_per_second", "heading_degrees", "accuracy_meters"):
        if draw(st.booleans()):
            setattr(position, field, draw(_floats))
    return message


@given(driver_messages())
def test_what_the_quick_check_lets_pass_keeps_every_rule_of_the_contract(
    message: driver_stream_pb2.DriverMessage,
) -> None:
    fix = valid_fix(message)
    if fix is not None:
        check_message(message)
        assert fix == convert.fix_of(message.position)


def test_an_ordinary_position_takes_the_quick_way() -> None:
    message = driver_stream_pb2.DriverMessage(seq=7)
    message.position.location.latitude = 53.4
    message.position.location.longitude = -2.9
    message.position.capture_time.GetCurrentTime()

    assert valid_fix(message) is not None


@pytest.mark.parametrize("latitude", [90.000001, -91.0, math.nan, math.inf])
def test_an_impossible_latitude_is_left_to_the_contract(latitude: float) -> None:
    message = driver_stream_pb2.DriverMessage(seq=7)
    message.position.location.latitude = latitude
    message.position.capture_time.GetCurrentTime()

    assert valid_fix(message) is None
    with pytest.raises(RequestInvalidError):
        check_message(message)
