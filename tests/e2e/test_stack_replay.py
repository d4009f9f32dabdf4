"""Recorded buses through the whole stack, each followed over another protocol elsewhere."""

from pathlib import Path

import pytest

from services.stack.embedded import EmbeddedStack
from services.stack.replay.access import access_to_stack
from services.stack.replay.fleet import PROTOCOLS, FleetReplay, Pace
from services.stack.replay.traces import read_traces

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

TRACES = Path(__file__).parents[2] / "data" / "gps_liverpool_bus14" / "traces.csv.gz"


async def test_every_accepted_position_reaches_followers_on_another_process(
    stack: EmbeddedStack,
) -> None:
    shortest = sorted(read_traces(TRACES), key=lambda trace: len(trace.points))[:3]
    access = access_to_stack(stack)
    fleet = FleetReplay(access, shortest)

    await fleet.prepare(with_followers=True)
    await fleet.drive(Pace(speed=1000, gap_seconds_min=0.25))

    records = [run.record for run in fleet.runs]
    assert [record.protocol for record in records] == list(PROTOCOLS)
    assert all(record.driver_instance != record.follower_instance for record in records)
    assert [record.follower_error for record in records] == [""] * 3
    assert [record.undecided_count for record in records] == [0] * 3
    assert sum(record.refused_by_reason.total() for record in records) == 0
    assert sum(record.lost_count for record in records) == 0
    assert sum(record.delivered_count for record in records) == 64
