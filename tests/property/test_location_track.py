"""The way of a trip: bounded, without jitter, as long as it is."""

import math

from hypothesis import given
from hypothesis import strategies as st

from services.location.domain.positions import Fix
from services.location.domain.track import POINTS_MOST, simplified, track_of
from tests.support.location_values import LATITUDE, LONGITUDE, METER

START = 1_772_366_400_000


def along(meters: list[float]) -> list[Fix]:
    return [
        Fix(LATITUDE + north * METER, LONGITUDE, START + number * 3000, 5.0)
        for number, north in enumerate(meters)
    ]


def test_a_straight_way_is_as_long_as_the_ellipsoid_says() -> None:
    # From 53.4084° to 53.4984° north along a meridian, by Vincenty's formulas: 10,016.02 m.
    fixes = [Fix(LATITUDE + step * 0.001, LONGITUDE, START + step) for step in range(91)]

    assert math.isclose(track_of(fixes).length_meters, 10_016.0, abs_tol=1.5)


def test_a_vehicle_that_stands_goes_nowhere() -> None:
    jitter = [(-1) ** number * (number % 5) for number in range(500)]

    assert track_of(along([float(meters) for meters in jitter])).length_meters == 0


def test_a_spike_adds_nothing_to_the_way() -> None:
    straight = [number * 20.0 for number in range(50)]
    spiked = [*straight[:25], 2_000.0, *straight[25:]]

    expected = track_of(along(straight)).length_meters
    assert math.isclose(track_of(along(spiked)).length_meters, expected, rel_tol=0.01)


@given(st.lists(st.floats(0, 50_000), max_size=1_500), st.integers(2, 100))
def test_a_way_keeps_its_ends_and_its_order_and_is_bounded(meters: list[float], most: int) -> None:
    fixes = along(meters)
    points = simplified(fixes, most)

    assert len(points) <= max(most, 2)
    assert [fix for fix in fixes if fix in set(points)] == points
    if fixes:
        assert (points[0], points[-1]) == (fixes[0], fixes[-1])
    assert len(track_of(fixes).points) <= POINTS_MOST
