"""The position gate, whatever phones send."""

from dataclasses import dataclass, field
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from services.location.domain.positions import (
    Fix,
    PositionGate,
    PositionRules,
    Refusal,
    distance_meters,
)

NOW = 1_772_366_400_000
RULES = PositionRules(positions_per_minute=20)
fixes = st.lists(
    st.builds(
        Fix,
        st.floats(-90, 90),
        st.floats(-180, 180),
        st.integers(NOW - 90_000_000, NOW + 10_000),
    )
    # And some near each other, so that there is something to accept.
    | st.builds(Fix, st.floats(53.40, 53.41), st.just(-2.99), st.integers(NOW - 60_000, NOW)),
    max_size=40,
)


@dataclass
class Judged:
    accepted: list[Fix] = field(default_factory=list)
    refusals: list[Refusal | None] = field(default_factory=list)


def judge_all(sent: list[Fix], rules: PositionRules = RULES) -> Judged:
    gate, judged = PositionGate(rules), Judged()
    for fix in sent:
        refusal = gate.judge(fix, NOW)
        judged.refusals.append(refusal)
        if refusal is None:
            judged.accepted.append(fix)
    return judged


@given(fixes)
def test_accepted_positions_are_in_order_and_a_second_apart(sent: list[Fix]) -> None:
    captures = [fix.capture_milliseconds for fix in judge_all(sent).accepted]

    assert all(b - a >= 1000 for a, b in pairwise(captures))


@given(fixes)
def test_no_minute_holds_more_than_the_bucket_and_its_refill(sent: list[Fix]) -> None:
    captures = [fix.capture_milliseconds for fix in judge_all(sent).accepted]

    for first in captures:
        assert len([c for c in captures if first <= c < first + 60_000]) <= 2 * 20


@given(fixes)
def test_no_accepted_position_is_in_the_future_or_a_day_old(sent: list[Fix]) -> None:
    for fix in judge_all(sent).accepted:
        assert NOW - 86_400_000 <= fix.capture_milliseconds <= NOW + 5_000


@given(fixes)
def test_a_jump_is_accepted_only_after_two_refused_positions_right_before(sent: list[Fix]) -> None:
    judged = judge_all(sent)
    last: Fix | None = None
    refused_since: list[Fix] = []
    for fix, refusal in zip(sent, judged.refusals, strict=True):
        if refusal is Refusal.IMPLAUSIBLE:
            refused_since.append(fix)
        if refusal is not None:
            continue
        if last is not None and not _plausible(last, fix):
            before = {candidate.capture_milliseconds for candidate in refused_since}
            assert len(before) >= 2
        last, refused_since = fix, []


def _plausible(before: Fix, fix: Fix) -> bool:
    seconds = (fix.capture_milliseconds - before.capture_milliseconds) / 1000
    reach = seconds * RULES.speed_most_meters_per_second + RULES.fix_error_meters
    # A micrometer for the rounding of the cheap bound.
    return distance_meters(before, fix) <= reach + 1e-6


@given(st.floats(-80, 80), st.floats(-180, 180), st.floats(-80, 80), st.floats(-180, 180))
def test_a_distance_is_the_same_both_ways_and_at_most_half_the_earth(
    latitude: float, longitude: float, other_latitude: float, other_longitude: float
) -> None:
    one, other = Fix(latitude, longitude, 0), Fix(other_latitude, other_longitude, 0)

    assert distance_meters(one, other) == distance_meters(other, one)
    assert 0 <= distance_meters(one, other) <= 20_015_200
