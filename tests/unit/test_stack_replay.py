"""Recorded traces: read, planned and counted."""

import gzip
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.stack.errors import StackError
from services.stack.replay.followers import grpc_web_frames
from services.stack.replay.record import RunRecord, percentile
from services.stack.replay.schedule import plan_replay, speed_for
from services.stack.replay.traces import Trace, read_traces
from wayfare.location.v1 import driver_stream_pb2, position_pb2, trip_update_pb2
from wayfare_client import make_position

pytestmark = pytest.mark.unit

START = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


def write_trace(folder: Path, text: str, name: str = "trace.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def recorded(tmp_path: Path, *seconds: int) -> Trace:
    rows = "\n".join(f"2026-01-26T15:{s // 60:02d}:{s % 60:02d}Z,53.4,-2.9" for s in seconds)
    return read_traces(write_trace(tmp_path, f"time,lat,lon\n{rows}\n"))[0]


def position_at(seconds: float) -> position_pb2.Position:
    return make_position(53.4, -2.9, capture_time=START + timedelta(seconds=seconds))


def delivered(position: position_pb2.Position) -> trip_update_pb2.TripUpdate:
    return trip_update_pb2.TripUpdate(position=position)


def test_the_demo_traces_are_sixteen_runs_of_eight_buses() -> None:
    project = Path(__file__).parents[2]

    traces = read_traces(project / "data" / "gps_liverpool_bus14" / "traces.csv.gz")

    assert len(traces) == 16
    assert len({trace.vehicle_id for trace in traces}) == 8
    assert sum(len(trace.points) for trace in traces) == 1533


def test_points_are_put_in_the_order_of_time(tmp_path: Path) -> None:
    trace = recorded(tmp_path, 30, 10, 20)

    assert [point.offset.total_seconds() for point in trace.points] == [0, 10, 20]


def test_a_file_without_trace_ids_is_one_trace_named_after_it(tmp_path: Path) -> None:
    path = write_trace(tmp_path, "time,lat,lon\n2026-01-26T15:00:00Z,1,2\n", "bus 7.csv")

    (trace,) = read_traces(path)

    assert trace.trace_id == "bus 7"
    assert trace.vehicle_id == "bus-7"


def test_gzipped_traces_are_read(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv.gz"
    path.write_bytes(gzip.compress(b"time,lat,lon,heading\n2026-01-26T15:00:00Z,1,2,360\n"))

    (trace,) = read_traces(path)

    assert trace.points[0].heading_degrees == 0.0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("time,lat,lon\n", "no positions"),
        ("time,lat,lon\nyesterday,1,2\n", "row 2"),
        ("time,lat,lon\n2026-01-26T15:00:00Z,north,2\n", "could not convert"),
        ("lat,lon\n1,2\n", "lacks columns: time"),
        ("time,lat,lon\n2026-01-26T15:00:00Z,1\n", "could not convert"),
    ],
)
def test_a_file_that_is_no_trace_is_refused_with_the_place(
    tmp_path: Path, text: str, says: str
) -> None:
    with pytest.raises(StackError, match=says):
        read_traces(write_trace(tmp_path, text))


def test_capture_times_keep_the_recorded_intervals_at_any_speed(tmp_path: Path) -> None:
    trace = recorded(tmp_path, 0, 20, 50)

    plan = list(plan_replay(trace, start=START, speed=10))

    assert [planned.send_after_seconds for planned in plan] == [0, 2, 5]
    captured = [planned.capture_time for planned in plan]
    assert [(later - captured[0]).total_seconds() for later in captured] == [0, 20, 50]


def test_the_last_position_is_captured_when_it_is_sent(tmp_path: Path) -> None:
    trace = recorded(tmp_path, 0, 20, 50)

    last = list(plan_replay(trace, start=START, speed=10))[-1]

    assert last.capture_time == START + timedelta(seconds=last.send_after_seconds)


def test_at_real_time_every_position_is_captured_when_it_is_sent(tmp_path: Path) -> None:
    trace = recorded(tmp_path, 0, 20, 50)

    for planned in plan_replay(trace, start=START, speed=1):
        assert planned.capture_time == START + timedelta(seconds=planned.send_after_seconds)


def test_positions_are_never_sent_closer_than_the_gap(tmp_path: Path) -> None:
    trace = recorded(tmp_path, 0, 1, 2, 60)

    plan = list(plan_replay(trace, start=START, speed=60, gap_seconds_min=0.5))

    assert [planned.send_after_seconds for planned in plan] == pytest.approx(
        [0, 0.5, 1, 1.967], abs=0.001
    )


def test_the_speed_is_the_least_that_fits_all_traces_into_the_time(tmp_path: Path) -> None:
    traces = [recorded(tmp_path, 0, 50), recorded(tmp_path, 0, 100)]

    assert speed_for(traces, seconds=20, gap_seconds_min=0.1) == pytest.approx(5, rel=0.001)
    assert speed_for(traces, seconds=1000, gap_seconds_min=0.1) == pytest.approx(1, rel=0.001)


def test_an_accepted_position_that_nobody_heard_is_lost() -> None:
    record = RunRecord(name="run")
    for seq in (1, 2):
        record.note_sent(position_at(seq), at=0.0)
        record.note_seq(position_at(seq), seq)
    record.note_update(delivered(position_at(1)), at=0.25)

    assert (record.sent_count, record.delivered_count, record.lost_count) == (2, 1, 1)
    assert record.latencies_seconds == [0.25]


def test_a_refused_position_is_not_lost() -> None:
    record = RunRecord(name="run")
    record.note_sent(position_at(1), at=0.0)
    record.note_seq(position_at(1), 7)
    record.note_refused(driver_stream_pb2.RejectedMessage(seq=7, reason="POSITION_TOO_OLD"))

    assert record.lost_count == 0
    assert record.refused_by_reason == {"POSITION_TOO_OLD": 1}


def test_a_position_in_the_snapshot_counts_as_delivered_once() -> None:
    record = RunRecord(name="run")
    record.note_sent(position_at(1), at=0.0)
    record.note_seq(position_at(1), 1)
    snapshot = trip_update_pb2.TripSnapshot(position=position_at(1))

    record.note_update(trip_update_pb2.TripUpdate(snapshot=snapshot), at=0.1)
    record.note_update(delivered(position_at(1)), at=0.9)

    assert record.delivered_count == 1
    assert record.latencies_seconds == [0.1]


def test_percentiles_are_of_the_nearest_rank() -> None:
    values = [float(value) for value in range(1, 101)]

    assert percentile(values, 0.50) == 50
    assert percentile(values, 0.99) == 99
    assert percentile([3.0], 0.99) == 3
    assert percentile([], 0.5) is None


async def test_grpc_web_frames_are_found_however_the_body_is_cut() -> None:
    body = b"\x00\x00\x00\x00\x03abc\x80\x00\x00\x00\x0fgrpc-status: 0\r\n"[:-1]

    async def single_bytes() -> AsyncIterator[bytes]:
        for value in body:
            yield bytes([value])

    frames = [frame async for frame in grpc_web_frames(single_bytes())]

    assert frames == [(0, b"abc"), (0x80, b"grpc-status: 0\r")]


async def test_a_grpc_web_frame_beyond_the_limit_is_refused() -> None:
    async def one_chunk() -> AsyncIterator[bytes]:
        yield b"\x00\x7f\xff\xff\xff"

    with pytest.raises(StackError, match="longer than allowed"):
        async for _ in grpc_web_frames(one_chunk()):
            pass
