"""Who is on board: states of passengers, and the counts that followers of a trip see."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum


class BoardingState(StrEnum):
    """Says whether a traveller got on."""

    BOARDED = "BOARDED"
    NO_SHOW = "NO_SHOW"
    ALIGHTED = "ALIGHTED"


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardingMark:
    """Says by hand whether one passenger got on."""

    passenger_id: str
    state: BoardingState
    mark_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardingCounts:
    """Says how many are on board of a trip."""

    trip_id: str
    boarded_count: int
    expected_count: int
    no_show_count: int
    unbooked_count: int
    stop_index: int
    count_time: datetime


def latest_marks(marks: Iterable[BoardingMark], *, now: datetime) -> list[BoardingMark]:
    """Return the latest mark of each passenger; one of the future counts as now."""
    latest: dict[str, BoardingMark] = {}
    for mark in marks:
        before = latest.get(mark.passenger_id)
        if before is None or mark.mark_time >= before.mark_time:
            latest[mark.passenger_id] = mark
    return [replace(mark, mark_time=min(mark.mark_time, now)) for mark in latest.values()]
