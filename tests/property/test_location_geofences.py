"""Geofences: each crossing is told once, whatever single fixes say."""

import math
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from services.location.domain.geofences import (
    OUTSIDE,
    Circle,
    FenceEvent,
    FenceIndex,
    Geofence,
    observe,
    signed_distance,
)
from services.location.domain.positions import Fix
from tests.support.location_values import LATITUDE, LONGITUDE, METER, TENANT

START = 1_772_366_400_000
EAST = METER / math.cos(math.radians(LATITUDE))
ENTERED, EXITED, DWELLED = FenceEvent.ENTERED, FenceEvent.EXITED, FenceEvent.DWELLED


def place(north: float, east: float) -> tuple[float, float]:
    return LATITUDE + north * METER, LONGITUDE + east * EAST


def circle(radius: float = 100.0, **values: object) -> Geofence:
    latitude, longitude = place(0, 0)
    return Geofence(
        geofence_id="circle",
        tenant_id=TENANT,
        display_name="Airport",
        kind=1,
        circle=Circle(latitude=latitude, longitude=longitude, radius_meters=radius),
        **values,  # type: ignore[arg-type]
    )


def square(side: float = 200.0, **values: object) -> Geofence:
    half = side / 2
    corners = [(-half, -half), (-half, half), (half, half), (half, -half)]
    return Geofence(
        geofence_id="square",
        tenant_id=TENANT,
        display_name="Zone",
        kind=2,
        corners=tuple(place(*corner) for corner in corners),
        **values,  # type: ignore[arg-type]
    )


def way(*easts: float, seconds: float = 3.0, accuracy: float | None = 4.0) -> list[Fix]:
    """Return fixes along a line from west to east through the middle."""
    return [
        Fix(*place(0, east), START + int(number * seconds * 1000), accuracy)
        for number, east in enumerate(easts)
    ]


def told(fence: Geofence, fixes: list[Fix]) -> list[tuple[FenceEvent, int]]:
    """Return what happened, and after how many seconds."""
    known, events = OUTSIDE, []
    last: Fix | None = None
    believed: Fix | None = None
    for fix in fixes:
        known, now = observe(fence, known, believed, last, fix)
        events += [(kind, (capture - START) // 1000) for kind, capture in now]
        believed, last = last, fix
    return events


def kinds(fence: Geofence, fixes: list[Fix]) -> list[FenceEvent]:
    return [kind for kind, _ in told(fence, fixes)]


def test_entering_and_leaving_take_two_fixes_and_tell_the_first() -> None:
    fixes = way(-300, -150, -50, 0, 50, 150, 200, 250)
    for fence in (circle(), square()):
        assert told(fence, fixes) == [(ENTERED, 6), (EXITED, 15)]


def test_a_single_fix_on_the_other_side_is_not_believed() -> None:
    assert kinds(circle(), way(-300, -250, 0, -250, -300)) == []
    assert kinds(circle(), way(-300, 0, 10, 400, 10, 0)) == [ENTERED]


def test_a_vehicle_at_the_border_does_not_go_in_and_out() -> None:
    fixes = way(-300, *([-95, -110] * 20), accuracy=None)
    assert kinds(circle(), [*fixes[:1], *way(-300, 0, 0)[1:], *fixes[3:]]) == [ENTERED]


def test_a_fix_whose_error_reaches_over_the_border_counts_half() -> None:
    assert kinds(circle(), way(-300, -90, -90, accuracy=20.0)) == []
    assert kinds(circle(), way(-300, -90, -90, -90, -90, accuracy=20.0)) == [ENTERED]


def test_a_fix_worse_than_the_limit_is_ignored() -> None:
    assert kinds(circle(accuracy_limit_meters=50.0), way(-300, 0, 0, 0, accuracy=51.0)) == []


def test_a_way_through_between_two_fixes_is_seen_once_the_next_confirms_it() -> None:
    for fence in (circle(), square()):
        assert kinds(fence, way(-400, -200, 200, 400, 500)) == [ENTERED, EXITED]


def test_a_spike_beyond_an_area_is_no_way_through_it() -> None:
    for fence in (circle(), square()):
        assert kinds(fence, way(-400, -200, 200, -190, -180)) == []


def test_staying_is_told_once() -> None:
    fence = circle(dwell_seconds=10.0)
    assert told(fence, way(-300, 0, 0, 0, 0, 0, 0, 0)) == [(ENTERED, 3), (DWELLED, 15)]


@given(
    st.lists(st.tuples(st.floats(-500, 500), st.floats(-500, 500)), max_size=60),
    st.sampled_from([circle(), square(), circle(20.0), square(30.0, confirmation_count=3)]),
)
def test_entering_and_leaving_alternate(places: list[tuple[float, float]], fence: Geofence) -> None:
    fixes = [Fix(*place(*one), START + number * 3000, 5.0) for number, one in enumerate(places)]
    seen = kinds(fence, fixes)

    assert all(one is not other for one, other in pairwise(seen))
    assert not seen or seen[0] is ENTERED


@given(st.floats(-3000, 3000), st.floats(-3000, 3000))
def test_the_index_finds_every_area_that_a_fix_lies_in(north: float, east: float) -> None:
    fences = [circle(2_500.0), square(4_000.0), square(100_000.0)]
    fix = Fix(*place(north, east), START)
    near = FenceIndex([*fences]).near(fix)

    inside = [fence for fence in fences if signed_distance(fence, fix) <= 0]
    assert all(fence in near for fence in inside)
