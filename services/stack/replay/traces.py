"""Read recorded traces: CSV, plain or gzipped, one row per position.

Columns: `time` (ISO 8601), `lat`, `lon`; `trace_id`, `vehicle_id` and `heading` if there are any.
"""

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from services.stack.errors import StackError

_TRACES_MAX = 2000
_NEEDED_COLUMNS = {"time", "lat", "lon"}
_NOT_IN_VEHICLE_ID = re.compile(r"[^A-Za-z0-9._:-]")


@dataclass(frozen=True, slots=True, kw_only=True)
class TracePoint:
    """One recorded position; `offset` is the time since the trace began."""

    offset: timedelta
    latitude: float
    longitude: float
    heading_degrees: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One recorded run of one vehicle, its points in the order of time."""

    trace_id: str
    vehicle_id: str
    points: tuple[TracePoint, ...]

    @property
    def duration(self) -> timedelta:
        """Return the time from the first point to the last."""
        return self.points[-1].offset


def read_traces(path: Path) -> list[Trace]:
    """Read every trace of a file, in the order in which they begin in it.

    Raises:
        StackError: the file cannot be read or a row makes no sense; says which.
    """
    rows: dict[str, list[tuple[datetime, Mapping[str, str]]]] = {}
    for number, row in _rows(path):
        try:
            moment = datetime.fromisoformat(row["time"])
            aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
            rows.setdefault(row.get("trace_id") or path.stem, []).append((aware, row))
        except ValueError as error:
            raise StackError(f"{path}, row {number}: {error}") from error
    if not rows:
        raise StackError(f"{path} holds no positions.")
    if len(rows) > _TRACES_MAX:
        raise StackError(f"{path} holds {len(rows)} traces; at most {_TRACES_MAX} run at once.")
    return [_trace(path, trace_id, timed) for trace_id, timed in rows.items()]


def _trace(path: Path, trace_id: str, timed: list[tuple[datetime, Mapping[str, str]]]) -> Trace:
    timed.sort(key=lambda item: item[0])
    begin, first = timed[0]
    try:
        points = tuple(
            TracePoint(
                offset=moment - begin,
                latitude=float(row["lat"]),
                longitude=float(row["lon"]),
                heading_degrees=float(row["heading"]) % 360 if row.get("heading") else None,
            )
            for moment, row in timed
        )
    except ValueError as error:
        raise StackError(f"{path}, trace {trace_id}: {error}") from error
    vehicle_id = _NOT_IN_VEHICLE_ID.sub("-", first.get("vehicle_id") or trace_id)[:64]
    return Trace(trace_id=trace_id, vehicle_id=vehicle_id, points=points)


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise StackError(f"{path} cannot be read: {error}") from error
    reader = csv.DictReader(io.StringIO(text), restval="")
    missing = _NEEDED_COLUMNS - set(reader.fieldnames or ())
    if missing:
        raise StackError(f"{path} lacks columns: {', '.join(sorted(missing))}.")
    yield from enumerate(reader, start=2)
