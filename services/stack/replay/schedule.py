"""When a recorded position is sent again, and as captured when.

The server judges positions by their capture times alone: intervals and speeds between them stay as
they were recorded, whatever the speed of the replay, and so stay plausible. A fast replay therefore
begins in the past and reaches the present with its last position; at speed 1 every position is
captured when it is sent.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.stack.replay.traces import Trace, TracePoint

_SPEED_MAX = 10_000.0
_HALVINGS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedPosition:
    """A recorded position, when to send it after the start, and its capture time."""

    point: TracePoint
    send_after_seconds: float
    capture_time: datetime


def plan_replay(
    trace: Trace, *, start: datetime, speed: float, gap_seconds_min: float = 0.0
) -> Iterator[PlannedPosition]:
    """Plan a trace that begins to be sent at `start`, `speed` times as fast as it was recorded.

    `gap_seconds_min` keeps positions apart that would follow one another faster than that when
    sent.
    """
    send_after = _send_times(trace, speed=speed, gap_seconds_min=gap_seconds_min)
    last_sent = start + timedelta(seconds=send_after[-1])
    for point, seconds in zip(trace.points, send_after, strict=True):
        yield PlannedPosition(
            point=point,
            send_after_seconds=seconds,
            capture_time=last_sent - (trace.duration - point.offset),
        )


def speed_for(traces: Sequence[Trace], *, seconds: float, gap_seconds_min: float) -> float:
    """Return the least speed, at least 1, at which all traces are sent within some seconds.

    Where the gap alone takes longer, no speed is enough and the highest is returned.
    """
    slow, fast = 1.0, _SPEED_MAX
    for _ in range(_HALVINGS):
        middle = (slow * fast) ** 0.5
        longest = max(
            _send_times(trace, speed=middle, gap_seconds_min=gap_seconds_min)[-1]
            for trace in traces
        )
        slow, fast = (slow, middle) if longest <= seconds else (middle, fast)
    return fast


def _send_times(trace: Trace, *, speed: float, gap_seconds_min: float) -> list[float]:
    times = [0.0]
    for earlier, later in zip(trace.points, trace.points[1:], strict=False):
        recorded = (later.offset - earlier.offset).total_seconds()
        times.append(times[-1] + max(recorded / speed, gap_seconds_min))
    return times
