"""Reads shapes.txt: the ways that trips take, put in order and checked."""

import math
from array import array

from services.location.gtfs.archive import FeedFiles
from services.location.gtfs.calendars import OpenTable
from services.location.gtfs.faults import Findings
from services.location.gtfs.feed import UNITS_PER_DEGREE, Shapes
from services.location.gtfs.grouping import group
from services.location.gtfs.table import Table

_FILE = "shapes.txt"


def read_shapes(files: FeedFiles, findings: Findings, open_table: OpenTable) -> Shapes:
    """Return all shapes; none when the feed has no such file."""
    shapes = Shapes()
    if _FILE not in files:
        return shapes
    table = open_table(_FILE, ["shape_id", "shape_pt_lat", "shape_pt_lon", "shape_pt_sequence"])
    owners, sequences, lines = array("i"), array("i"), array("i")
    latitudes, longitudes, told = array("i"), array("i"), array("d")
    for line in table:
        shape_id = table.text("shape_id", required=True)
        latitude = table.number("shape_pt_lat", -90, 90)
        longitude = table.number("shape_pt_lon", -180, 180)
        sequence = table.whole("shape_pt_sequence")
        distance = read_distance(table)
        if not shape_id or latitude is None or longitude is None or sequence is None:
            continue
        if shape_id not in shapes.numbers:
            shapes.numbers[shape_id] = len(shapes.ids)
            shapes.ids.append(shape_id)
        owners.append(shapes.numbers[shape_id])
        sequences.append(sequence)
        lines.append(line)
        latitudes.append(round(latitude * UNITS_PER_DEGREE))
        longitudes.append(round(longitude * UNITS_PER_DEGREE))
        told.append(distance)
    shapes.starts, order = group(owners, sequences, len(shapes.ids))
    shapes.latitudes = array("i", (latitudes[at] for at in order))
    shapes.longitudes = array("i", (longitudes[at] for at in order))
    shapes.told = array("d", (told[at] for at in order))
    for number in range(len(shapes.ids)):
        _check(shapes, number, findings, lines=lines, sequences=sequences, order=order)
    return shapes


def read_distance(table: Table) -> float:
    """Return shape_dist_traveled of a row; nan when it is not told, or wrong."""
    if not table.raw("shape_dist_traveled"):
        return math.nan
    distance = table.number("shape_dist_traveled", 0, 1e9)
    return math.nan if distance is None else distance


def _check(
    shapes: Shapes,
    number: int,
    findings: Findings,
    *,
    lines: "array[int]",
    sequences: "array[int]",
    order: "array[int]",
) -> None:
    place = shapes.place(number)
    if len(place) < 2:
        what, mend = "the shape has one point and is left out", "give it two points at least"
        line = lines[order[place.start]]
        findings.warn(_FILE, line, "shape_id", shapes.ids[number], what=what, mend=mend)
    for at in place[1:]:
        line, sequence = lines[order[at]], sequences[order[at]]
        if sequence == sequences[order[at - 1]]:
            what = "an earlier row of the shape has this number"
            mend = "number the points of a shape upwards"
            findings.fault(_FILE, line, "shape_pt_sequence", sequence, what=what, mend=mend)
        # False when either is nan.
        if shapes.told[at] < shapes.told[at - 1]:
            what = "the distance falls along the shape"
            mend = "measure from the shape's first point, or clear the column"
            findings.fault(
                _FILE, line, "shape_dist_traveled", shapes.told[at], what=what, mend=mend
            )
