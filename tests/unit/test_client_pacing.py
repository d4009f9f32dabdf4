"""Which positions the Python client sends when they come faster than the server asked for."""

from datetime import UTC, datetime, timedelta

from wayfare.location.v1 import position_pb2
from wayfare_client import Pacing, make_position
from wayfare_client.pacing import PositionPacer

START = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)


def at(seconds: float) -> position_pb2.Position:
    return make_position(53.4, -2.9, capture_time=START + timedelta(seconds=seconds))


def pacer_of(interval_seconds: float, pacing: Pacing = Pacing.CONFLATE) -> PositionPacer:
    pacer = PositionPacer(pacing)
    pacer.min_interval_seconds = interval_seconds
    return pacer


def test_a_fix_a_second_becomes_one_position_per_interval() -> None:
    pacer = pacer_of(3.0)

    sent = [second for second in range(10) if pacer.offer(at(second)) is not None]

    assert sent == [0, 3, 6, 9]
    assert pacer.conflated_count == 6


def test_fixes_that_come_a_little_early_are_sent() -> None:
    pacer = pacer_of(3.0)

    assert [pacer.offer(at(moment)) is not None for moment in (0.0, 2.99, 5.9)] == [True] * 3


def test_the_newest_held_position_is_sent_when_none_follows() -> None:
    pacer = pacer_of(3.0)
    pacer.offer(at(0))
    pacer.offer(at(1))
    pacer.offer(at(2))

    assert pacer.hold_seconds() == 1.0
    assert pacer.release() == at(2)
    assert pacer.release() is None


def test_a_throttle_makes_positions_rarer_at_once() -> None:
    pacer = pacer_of(3.0)
    pacer.offer(at(0))
    pacer.min_interval_seconds = 10.0

    assert pacer.offer(at(3)) is None
    assert pacer.offer(at(10)) == at(10)


def test_the_last_position_before_a_status_is_sent_early_unless_the_server_would_refuse_it() -> (
    None
):
    pacer = pacer_of(3.0)
    pacer.offer(at(0))
    pacer.offer(at(1.5))
    assert pacer.release(early=True) == at(1.5)
    pacer.offer(at(2.0))

    assert pacer.release(early=True) is None
    assert pacer.conflated_count == 1


def test_an_older_position_is_not_held_back() -> None:
    pacer = pacer_of(3.0)
    pacer.offer(at(10))

    assert pacer.offer(at(5)) == at(5)


def test_replays_send_everything() -> None:
    pacer = pacer_of(3.0, Pacing.KEEP)

    assert all(pacer.offer(at(second / 10)) is not None for second in range(10))
    assert pacer.conflated_count == 0
