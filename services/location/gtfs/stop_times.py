"""Reads stop_times.txt: put in order, checked trip by trip, and blank times filled in.

By far the largest file: its rows are kept as numbers in arrays, about 40 bytes each.
"""

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from services.location.domain.positions import Fix, distance_meters
from services.location.gtfs.calendars import OpenTable
from services.location.gtfs.faults import Findings
from services.location.gtfs.feed import ABSENT, NO_DROP_OFF, NO_PICKUP, Stop, StopTimes
from services.location.gtfs.grouping import group
from services.location.gtfs.shapes import read_distance
from services.location.gtfs.table import Table

_FILE = "stop_times.txt"
# The usual values of pickup_type and drop_off_type, quickly recognised.
_OPEN = frozenset(("", "0"))
_REQUIRED = ("trip_id", "stop_id", "stop_sequence", "arrival_time", "departure_time")


@dataclass(slots=True)
class _Rows:
    """Is the file as it is written."""

    trips: "array[int]" = field(default_factory=lambda: array("i"))
    stops: "array[int]" = field(default_factory=lambda: array("i"))
    sequences: "array[int]" = field(default_factory=lambda: array("i"))
    arrivals: "array[int]" = field(default_factory=lambda: array("i"))
    departures: "array[int]" = field(default_factory=lambda: array("i"))
    told: "array[float]" = field(default_factory=lambda: array("f"))
    closed: "array[int]" = field(default_factory=lambda: array("b"))
    lines: "array[int]" = field(default_factory=lambda: array("i"))


def read_stop_times(
    findings: Findings,
    open_table: OpenTable,
    *,
    trips: Mapping[str, int],
    stops: Mapping[str, Stop],
    places: Mapping[str, int],
) -> StopTimes:
    """Return the calls of all trips in their order, each with its times."""
    table = open_table(_FILE, _REQUIRED)
    numbers = {stop_id: number for number, stop_id in enumerate(stops)}
    rows = _Rows()
    for _ in table:
        _read_row(table, rows, trips=trips, numbers=numbers, places=places)
    starts, order = group(rows.trips, rows.sequences, len(trips))
    stop_times = StopTimes(
        starts=starts,
        stops=array("i", (rows.stops[at] for at in order)),
        sequences=array("i", (rows.sequences[at] for at in order)),
        arrivals=array("i", (rows.arrivals[at] for at in order)),
        departures=array("i", (rows.departures[at] for at in order)),
        told=array("f", (rows.told[at] for at in order)),
        closed=array("b", (rows.closed[at] for at in order)),
    )
    lines = array("i", (rows.lines[at] for at in order))
    in_order = list(stops.values())
    for trip in range(len(trips)):
        place = stop_times.place(trip)
        if len(place) > 1:
            _check_trip(stop_times, place, lines, findings)
            _fill_blank_times(stop_times, place, in_order)
    return stop_times


def _read_row(
    table: Table,
    rows: _Rows,
    *,
    trips: Mapping[str, int],
    numbers: Mapping[str, int],
    places: Mapping[str, int],
) -> None:
    trip = trips.get(table.raw("trip_id"), ABSENT)
    if trip == ABSENT:
        table.known_id("trip_id", trips, "trips.txt")
    stop = numbers.get(table.raw("stop_id"), ABSENT)
    if stop == ABSENT and table.known_id("stop_id", places, "stops.txt") is not None:
        what = "vehicles cannot call at a place of this location_type, or its row is wrong"
        table.fault("stop_id", what, "name a stop or platform: location_type 0")
    sequence = table.whole("stop_sequence")
    arrival, departure = table.seconds("arrival_time"), table.seconds("departure_time")
    distance = read_distance(table)
    closed = _closed(table, "pickup_type", NO_PICKUP) | _closed(table, "drop_off_type", NO_DROP_OFF)
    if trip == ABSENT or stop == ABSENT or sequence is None:
        return
    if arrival is None or departure is None:
        return
    # One of the two alone stands for both.
    arrival = departure if arrival == ABSENT else arrival
    departure = arrival if departure == ABSENT else departure
    if departure < arrival:
        what = "the trip departs before it arrives"
        table.fault("departure_time", what, "swap the two times")
    rows.trips.append(trip)
    rows.stops.append(stop)
    rows.sequences.append(sequence)
    rows.arrivals.append(arrival)
    rows.departures.append(departure)
    rows.told.append(distance)
    rows.closed.append(closed)
    rows.lines.append(table.line)


def _closed(table: Table, column: str, flag: int) -> int:
    """Return the flag where nobody gets on, or off; to ask before (2, 3) is no obstacle."""
    if table.raw(column) in _OPEN:
        return 0
    return flag if table.whole(column, allowed=(0, 1, 2, 3)) == 1 else 0


def _check_trip(
    stop_times: StopTimes, place: range, lines: "array[int]", findings: Findings
) -> None:
    for at, which in ((place[0], "first"), (place[-1], "last")):
        if stop_times.arrivals[at] == ABSENT:
            what = f"the {which} stop of the trip has no time"
            findings.fault(_FILE, lines[at], "arrival_time", "", what=what, mend="fill it in")
    latest, furthest = ABSENT, -math.inf
    for at in place:
        sequence = stop_times.sequences[at]
        if at > place.start and sequence == stop_times.sequences[at - 1]:
            what = "an earlier row of the trip has this number"
            mend = "number the stops of a trip upwards"
            findings.fault(_FILE, lines[at], "stop_sequence", sequence, what=what, mend=mend)
        arrival = stop_times.arrivals[at]
        if arrival != ABSENT:
            if arrival < latest:
                what = "the trip arrives before it left the stop before"
                mend = "let times grow with stop_sequence; after midnight go on with 24:00:00"
                clock = f"{arrival // 3600:02d}:{arrival // 60 % 60:02d}:{arrival % 60:02d}"
                findings.fault(_FILE, lines[at], "arrival_time", clock, what=what, mend=mend)
            latest = stop_times.departures[at]
        told = stop_times.told[at]
        if told < furthest:
            what = "the distance falls along the trip"
            mend = "measure from the shape's first point, or clear the column"
            findings.fault(
                _FILE, lines[at], "shape_dist_traveled", f"{told:g}", what=what, mend=mend
            )
        furthest = furthest if math.isnan(told) else told


def _fill_blank_times(stop_times: StopTimes, place: range, stops: Sequence[Stop]) -> None:
    """Give stops between timed ones times by their share of the straight way."""
    timed = place.start
    for at in place[1:]:
        if stop_times.arrivals[at] == ABSENT:
            continue
        if at - timed > 1:
            begin, end = stop_times.departures[timed], stop_times.arrivals[at]
            ways = [
                _way(stops[stop_times.stops[one]], stops[stop_times.stops[one + 1]])
                for one in range(timed, at)
            ]
            total, gone = sum(ways) or 1.0, 0.0
            for blank, way in zip(range(timed + 1, at), ways, strict=False):
                gone += way
                seconds = round(begin + (end - begin) * gone / total)
                stop_times.arrivals[blank] = stop_times.departures[blank] = seconds
        timed = at


def _way(one: Stop, other: Stop) -> float:
    return distance_meters(
        Fix(one.latitude, one.longitude, 0), Fix(other.latitude, other.longitude, 0)
    )
