"""The rules by which a position is live, who may follow, and distances."""

from dataclasses import replace

import pytest

from services.location.domain.positions import (
    DAY_MILLISECONDS,
    Fix,
    PositionGate,
    PositionRules,
    Refusal,
    distance_meters,
)
from services.location.domain.trips import STATUS_MOVES, TripStatus, may_follow
from tests.support.location_values import LATITUDE, LONGITUDE, METER, OTHER_TENANT, TENANT, a_trip

NOW = 1_772_366_400_000
NO_CAP = PositionRules(positions_per_minute=600)


def fix_at(seconds: float, meters_north: float = 0.0) -> Fix:
    return Fix(LATITUDE + meters_north * METER, LONGITUDE, NOW + int(seconds * 1000))


def judged(gate: PositionGate, *fixes: Fix) -> list[Refusal | None]:
    """Judge each fix a moment after it was captured."""
    return [gate.judge(fix, fix.capture_milliseconds + 50) for fix in fixes]


def test_the_first_position_is_live() -> None:
    assert PositionGate(NO_CAP).judge(fix_at(0), NOW) is None


@pytest.mark.parametrize(("ahead", "refusal"), [(5.0, None), (5.001, Refusal.IN_FUTURE)])
def test_a_position_may_be_five_seconds_ahead(ahead: float, refusal: Refusal | None) -> None:
    assert PositionGate(NO_CAP).judge(fix_at(ahead), NOW) is refusal


@pytest.mark.parametrize(("extra", "refusal"), [(0, None), (1, Refusal.TOO_OLD)])
def test_a_position_may_be_a_day_old(extra: int, refusal: Refusal | None) -> None:
    assert PositionGate(NO_CAP).judge(fix_at(0), NOW + DAY_MILLISECONDS + extra) is refusal


@pytest.mark.parametrize("seconds", [0, -1, -3600])
def test_a_position_that_is_not_newer_than_the_last_is_too_old(seconds: float) -> None:
    gate = PositionGate(NO_CAP)
    judged(gate, fix_at(0))

    assert gate.judge(fix_at(seconds), NOW) is Refusal.TOO_OLD


def test_a_position_is_judged_by_the_last_live_one_of_an_earlier_stream() -> None:
    gate = PositionGate(NO_CAP, last=None, last_capture_milliseconds=NOW)

    assert judged(gate, fix_at(0), fix_at(-5), fix_at(1)) == [
        Refusal.TOO_OLD,
        Refusal.TOO_OLD,
        None,
    ]


def test_two_positions_within_a_second_are_too_frequent() -> None:
    gate = PositionGate(NO_CAP)

    assert judged(gate, fix_at(0), fix_at(0.999), fix_at(1.0)) == [
        None,
        Refusal.TOO_FREQUENT,
        None,
    ]


def test_more_than_the_cap_per_minute_is_too_frequent() -> None:
    gate = PositionGate(PositionRules(positions_per_minute=3))

    refusals = judged(gate, *(fix_at(second) for second in range(5)))

    assert refusals == [None, None, None, Refusal.TOO_FREQUENT, Refusal.TOO_FREQUENT]


def test_the_cap_refills_with_capture_time() -> None:
    gate = PositionGate(PositionRules(positions_per_minute=3))
    judged(gate, *(fix_at(second) for second in range(4)))

    assert judged(gate, fix_at(25), fix_at(27)) == [None, Refusal.TOO_FREQUENT]


def test_a_jump_that_needs_more_than_70_meters_per_second_is_implausible() -> None:
    gate = PositionGate(NO_CAP)

    # 70 m/s for 3 s and 100 m for the fixes' error are 310 m.
    assert judged(gate, fix_at(0), fix_at(3, 320)) == [None, Refusal.IMPLAUSIBLE]


def test_the_fixes_error_is_granted() -> None:
    assert judged(PositionGate(NO_CAP), fix_at(0), fix_at(3, 300)) == [None, None]


def test_a_jump_is_believed_with_the_second_position_that_confirms_it() -> None:
    gate = PositionGate(NO_CAP)
    there = [fix_at(3, 20_000), fix_at(6, 20_050), fix_at(9, 20_100), fix_at(12, 20_150)]

    assert judged(gate, fix_at(0), *there) == [
        None,
        Refusal.IMPLAUSIBLE,
        Refusal.IMPLAUSIBLE,
        None,
        None,
    ]


def test_one_bad_fix_changes_nothing() -> None:
    gate = PositionGate(NO_CAP)

    assert judged(gate, fix_at(0), fix_at(3, 20_000), fix_at(6, 40)) == [
        None,
        Refusal.IMPLAUSIBLE,
        None,
    ]


def test_a_candidate_is_forgotten_when_the_vehicle_is_where_it_was() -> None:
    gate = PositionGate(NO_CAP)
    judged(gate, fix_at(0), fix_at(3, 20_000), fix_at(6, 20_000), fix_at(9, 0))

    assert judged(gate, fix_at(12, 20_000), fix_at(15, 20_000)) == [Refusal.IMPLAUSIBLE] * 2


def test_a_bad_fix_that_is_sent_three_times_does_not_confirm_itself() -> None:
    gate = PositionGate(NO_CAP)
    bad = fix_at(3, 20_000)

    assert judged(gate, fix_at(0), bad, bad, bad) == [None, *[Refusal.IMPLAUSIBLE] * 3]


def test_wild_jumps_do_not_confirm_each_other() -> None:
    gate = PositionGate(NO_CAP)
    wild = [fix_at(3 * n, 20_000 * (n % 2 + 1) * (-1) ** n) for n in range(1, 9)]

    assert judged(gate, fix_at(0), *wild) == [None, *[Refusal.IMPLAUSIBLE] * 8]


@pytest.mark.parametrize(
    ("one", "other", "meters"),
    [
        # Liverpool Lime Street and Manchester Piccadilly; Greenwich and Paris; once around half.
        ((53.4077, -2.9773), (53.4774, -2.2309), 49_967),
        ((51.4779, 0.0), (48.8566, 2.3522), 334_950),
        ((0.0, 0.0), (0.0, 180.0), 20_015_115),
        ((0.0, 179.9999), (0.0, -179.9999), 22.24),
        ((90.0, 0.0), (90.0, 120.0), 0.0),
    ],
)
def test_a_distance_is_right_within_half_a_percent(
    one: tuple[float, float], other: tuple[float, float], meters: float
) -> None:
    measured = distance_meters(Fix(*one, 0), Fix(*other, 0))

    assert measured == pytest.approx(meters, rel=0.005, abs=0.01)


@pytest.mark.parametrize(
    ("who", "role", "tenant_id", "allowed"),
    [
        ("driver", "DRIVER", TENANT, True),
        ("conductor", "CONDUCTOR", TENANT, True),
        ("follower", "PASSENGER", TENANT, True),
        ("stranger", "PASSENGER", TENANT, False),
        ("stranger", "DRIVER", TENANT, False),
        ("stranger", "CONDUCTOR", TENANT, False),
        ("stranger", "BUSINESS", TENANT, True),
        ("stranger", "ADMIN", TENANT, True),
        ("stranger", "", TENANT, False),
        ("driver", "DRIVER", OTHER_TENANT, False),
        ("follower", "PASSENGER", OTHER_TENANT, False),
        ("stranger", "BUSINESS", OTHER_TENANT, False),
        ("stranger", "ADMIN", OTHER_TENANT, False),
    ],
)
def test_a_trip_is_followed_by_its_people_and_its_tenants_staff(
    who: str, role: str, tenant_id: str, allowed: bool
) -> None:
    people = {"driver": "d", "conductor": "c", "follower": "f", "stranger": "s"}
    trip = replace(
        a_trip(), driver_id="d", conductor_ids=frozenset("c"), follower_ids=frozenset("f")
    )

    assert may_follow(trip, tenant_id=tenant_id, user_id=people[who], role=role) is allowed


def test_nothing_comes_after_ended_and_anything_comes_before() -> None:
    said = set(TripStatus) - {TripStatus.UNSPECIFIED}

    assert STATUS_MOVES.keys() == set(TripStatus)
    assert STATUS_MOVES[TripStatus.ENDED] == frozenset()
    assert all(STATUS_MOVES[status] == said for status in set(TripStatus) - {TripStatus.ENDED})
