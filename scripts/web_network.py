"""Writes the lines and stops that the web map draws: those of a GTFS feed, and the ways of traces.

    python scripts/web_network.py OUTPUT.json FEED.zip [TRACES.csv.gz ...]

Lines are simplified to some 5 meters and each way is drawn once, so that a phone loads it quickly.
"""

import csv
import gzip
import io
import json
import sys
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shapely import LineString

_SIMPLIFIED_DEGREES = 0.00005
_PLACES = 5
_PLAIN_COLOR = "4a6fa5"
_TRACE_COLOR = "8a6d3b"

Feature = dict[str, Any]


def main(output: str, feed: str, *traces: str) -> None:
    """Write the network of a feed and of traces."""
    lines, stops = network_of(Path(feed))
    for trace in traces:
        lines.extend(lines_of_traces(Path(trace)))
    network = {"lines": _collection(lines), "stops": _collection(stops)}
    Path(output).write_text(json.dumps(network, separators=(",", ":")), encoding="utf-8")


def network_of(feed: Path) -> tuple[list[Feature], list[Feature]]:
    """Return the lines and the stops of a GTFS feed."""
    with zipfile.ZipFile(feed) as archive:
        routes = {row["route_id"]: row for row in _rows(archive, "routes.txt")}
        route_of_shape = {
            row["shape_id"]: row["route_id"]
            for row in _rows(archive, "trips.txt")
            if row.get("shape_id")
        }
        points: dict[str, list[tuple[int, float, float]]] = defaultdict(list)
        for row in _rows(archive, "shapes.txt"):
            place = float(row["shape_pt_lon"]), float(row["shape_pt_lat"])
            points[row["shape_id"]].append((int(row["shape_pt_sequence"]), *place))
        stops = [
            _feature(
                "Point",
                [round(float(row["stop_lon"]), _PLACES), round(float(row["stop_lat"]), _PLACES)],
                {"stopId": row["stop_id"], "name": row["stop_name"]},
            )
            for row in _rows(archive, "stops.txt")
        ]
    lines = []
    for shape_id, route_id in sorted(route_of_shape.items()):
        places = [(longitude, latitude) for _, longitude, latitude in sorted(points[shape_id])]
        if len(places) > 1:
            route = routes[route_id]
            name = route["route_short_name"] or route["route_long_name"]
            lines.append(_line(places, name, route.get("route_color") or _PLAIN_COLOR))
    return lines, stops


def lines_of_traces(traces: Path) -> list[Feature]:
    """Return the way of every trace."""
    places: dict[str, list[tuple[float, float]]] = defaultdict(list)
    routes: dict[str, str] = {}
    with gzip.open(traces, "rt", encoding="utf-8") as rows:
        for row in csv.DictReader(rows):
            places[row["trace_id"]].append((float(row["lon"]), float(row["lat"])))
            routes[row["trace_id"]] = row["route"]
    return [
        _line(way, routes[trace], _TRACE_COLOR) for trace, way in places.items() if len(way) > 1
    ]


def _rows(archive: zipfile.ZipFile, name: str) -> Iterator[dict[str, str]]:
    with archive.open(name) as raw:
        yield from csv.DictReader(io.TextIOWrapper(raw, "utf-8-sig"))


def _line(places: list[tuple[float, float]], name: str, color: str) -> Feature:
    simple = LineString(places).simplify(_SIMPLIFIED_DEGREES)
    rounded = [[round(x, _PLACES), round(y, _PLACES)] for x, y in simple.coords]
    return _feature("LineString", rounded, {"name": name, "color": f"#{color}"})


def _feature(kind: str, coordinates: list[Any], properties: dict[str, str]) -> Feature:
    geometry = {"type": kind, "coordinates": coordinates}
    return {"type": "Feature", "properties": properties, "geometry": geometry}


def _collection(features: list[Feature]) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": features}


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
