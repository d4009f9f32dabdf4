"""The rules of MobilityData's GTFS-Realtime validator that apply to Wayfare's feeds.

Each complaint begins with the validator's name of the rule (RULES.md of gtfs-realtime-validator).
Reads the static feed's files by itself, so that it shares no defect with the importer.
"""

import csv
import io
import math
import zipfile
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from google.transit import gtfs_realtime_pb2

FeedMessage = gtfs_realtime_pb2.FeedMessage
TRIP_BUFFER_METERS = 200.0
OLD_SECONDS = 65
FUTURE_SECONDS = 60
_DEGREE = 111_195.0


@dataclass(eq=False)
class StaticFeed:
    """What the rules need of a static feed."""

    routes: dict[str, str] = field(default_factory=dict)
    directions: dict[str, str] = field(default_factory=dict)
    shapes: dict[str, str] = field(default_factory=dict)
    stops: dict[str, dict[int, str]] = field(default_factory=lambda: defaultdict(dict))
    start_times: dict[str, str] = field(default_factory=dict)
    points: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def read(cls, path: Path) -> "StaticFeed":
        feed = cls()
        with zipfile.ZipFile(path) as archive:
            for row in _rows(archive, "trips.txt"):
                trip = row["trip_id"]
                feed.routes[trip] = row["route_id"]
                feed.directions[trip] = row.get("direction_id", "")
                feed.shapes[trip] = row.get("shape_id", "")
            for row in _rows(archive, "stop_times.txt"):
                trip, sequence = row["trip_id"], int(row["stop_sequence"])
                if not feed.stops[trip] or sequence < min(feed.stops[trip]):
                    feed.start_times[trip] = row["departure_time"].rjust(8, "0")
                feed.stops[trip][sequence] = row["stop_id"]
            shapes = sorted(
                _rows(archive, "shapes.txt"), key=lambda row: int(row["shape_pt_sequence"])
            )
            for row in shapes:
                place = (float(row["shape_pt_lat"]), float(row["shape_pt_lon"]))
                feed.points[row["shape_id"]].append(place)
        return feed

    def meters_off(self, trip_id: str, latitude: float, longitude: float) -> float:
        """Return how far a place is from a trip's shape."""
        points = self.points[self.shapes[trip_id]]
        scale = math.cos(math.radians(latitude))
        flat = [
            ((lat - latitude) * _DEGREE, (lon - longitude) * _DEGREE * scale) for lat, lon in points
        ]
        return min(_meters_to_origin(one, other) for one, other in pairwise(flat))


def _rows(archive: zipfile.ZipFile, name: str) -> Iterator[dict[str, str]]:
    with archive.open(name) as raw:
        yield from csv.DictReader(io.TextIOWrapper(raw, "utf-8-sig"))


def _meters_to_origin(one: tuple[float, float], other: tuple[float, float]) -> float:
    north, east = other[0] - one[0], other[1] - one[1]
    length = north * north + east * east
    share = 0.0 if not length else -(one[0] * north + one[1] * east) / length
    share = min(1.0, max(0.0, share))
    return math.hypot(one[0] + share * north, one[1] + share * east)


def complaints(
    static: StaticFeed,
    feed: FeedMessage,
    *,
    now: int,
    before: FeedMessage | None = None,
    positions: FeedMessage | None = None,
) -> list[str]:
    """Return what is wrong with a feed fetched at `now`, after another, beside one of positions."""
    found = [*_header(feed, now, before)]
    ids = [entity.id for entity in feed.entity]
    if len(ids) != len(set(ids)):
        found.append("E052 ids are not unique")
    for entity in feed.entity:
        if entity.HasField("vehicle"):
            found += _vehicle(static, entity.vehicle, feed.header.timestamp)
        if entity.HasField("trip_update"):
            found += _trip_update(static, entity.trip_update, feed.header.timestamp)
        if entity.HasField("alert"):
            found += _alert(static, entity.alert)
    vehicles = [e.vehicle.vehicle.id for e in feed.entity if e.HasField("vehicle")]
    if len(vehicles) != len(set(vehicles)):
        found.append("E052 vehicle ids are not unique")
    if positions is not None:
        found += _pairing(feed, positions)
    return found


def _header(feed: FeedMessage, now: int, before: FeedMessage | None) -> Iterator[str]:
    header = feed.header
    if header.gtfs_realtime_version not in {"1.0", "2.0"}:
        yield f"E038 version {header.gtfs_realtime_version!r}"
    if not header.HasField("incrementality"):
        yield "E049 no incrementality"
    if not header.timestamp:
        yield "E048 no timestamp in the header"
    if not 1_000_000_000 < header.timestamp < 10_000_000_000:
        yield "E001 the header's timestamp is no POSIX time in seconds"
    if header.timestamp > now + FUTURE_SECONDS:
        yield "E050 the header is of the future"
    if header.timestamp < now - OLD_SECONDS:
        yield "W008 the header is older than 65 seconds"
    if before is not None:
        if header.timestamp < before.header.timestamp:
            yield "E018 the header's timestamp went back"
        same = header.timestamp == before.header.timestamp
        if same and feed.SerializeToString() != before.SerializeToString():
            yield "E017 the content changed and the header's timestamp did not"


def _trip(static: StaticFeed, trip: gtfs_realtime_pb2.TripDescriptor) -> Iterator[str]:
    if trip.trip_id not in static.routes:
        yield f"E003 trip {trip.trip_id!r} is not in the static feed"
        return
    if trip.route_id != static.routes[trip.trip_id]:
        yield f"E035 trip {trip.trip_id} is not of route {trip.route_id!r}"
    direction = static.directions[trip.trip_id]
    if trip.HasField("direction_id") and direction not in {"", str(trip.direction_id)}:
        yield f"E024 trip {trip.trip_id} does not go in direction {trip.direction_id}"
    if trip.start_time != static.start_times[trip.trip_id]:
        yield f"E023 trip {trip.trip_id} does not start at {trip.start_time}"
    if len(trip.start_date) != 8 or not trip.start_date.isdigit():
        yield f"E021 start date {trip.start_date!r}"


def _vehicle(
    static: StaticFeed, vehicle: gtfs_realtime_pb2.VehiclePosition, header: int
) -> Iterator[str]:
    position = vehicle.position
    if not vehicle.vehicle.id:
        yield "W002 no vehicle id"
    if not vehicle.timestamp:
        yield "W001 no timestamp of a vehicle"
    if vehicle.timestamp > header:
        yield "E012 a vehicle is newer than the header"
    if not (-90 <= position.latitude <= 90 and -180 <= position.longitude <= 180):
        yield "E026 no valid position"
    if position.HasField("bearing") and not 0 <= position.bearing <= 360:
        yield f"E027 bearing {position.bearing}"
    if position.HasField("speed") and position.speed < 0:
        yield f"E034 speed {position.speed}"
    if not vehicle.HasField("trip"):
        return
    yield from _trip(static, vehicle.trip)
    if vehicle.trip.trip_id in static.routes:
        off = static.meters_off(vehicle.trip.trip_id, position.latitude, position.longitude)
        if off > TRIP_BUFFER_METERS:
            yield f"E029 {off:.0f} m from the shape of trip {vehicle.trip.trip_id}"
    if vehicle.HasField("stop_id"):
        expected = static.stops[vehicle.trip.trip_id].get(vehicle.current_stop_sequence)
        if expected != vehicle.stop_id:
            yield f"E051 stop {vehicle.stop_id} is not number {vehicle.current_stop_sequence}"


def _trip_update(
    static: StaticFeed, update: gtfs_realtime_pb2.TripUpdate, header: int
) -> Iterator[str]:
    yield from _trip(static, update.trip)
    if not update.timestamp:
        yield "W001 no timestamp of a trip update"
    if update.timestamp > header:
        yield "E012 a trip update is newer than the header"
    if not update.vehicle.id:
        yield "W002 no vehicle id"
    stops = update.stop_time_update
    if not stops:
        yield "E041 no stop time update"
    sequences = [stop.stop_sequence for stop in stops]
    if any(after <= one for one, after in pairwise(sequences)):
        yield f"E002 stop sequences {sequences} do not increase"
    times = [stop.arrival.time for stop in stops]
    if any(after <= one for one, after in pairwise(times)):
        yield f"E022 times {times} do not increase"
    for stop in stops:
        if not stop.HasField("arrival") and not stop.HasField("departure"):
            yield "E043 neither arrival nor departure"
        if not stop.HasField("schedule_relationship"):
            yield "W009 no schedule relationship"
        if static.stops[update.trip.trip_id].get(stop.stop_sequence) != stop.stop_id:
            yield f"E045 stop {stop.stop_id} is not number {stop.stop_sequence}"


def _alert(static: StaticFeed, alert: gtfs_realtime_pb2.Alert) -> Iterator[str]:
    if not alert.informed_entity:
        yield "E032 an alert is about nothing"
    for selector in alert.informed_entity:
        yield from _trip(static, selector.trip)


def _pairing(updates: FeedMessage, positions: FeedMessage) -> Iterator[str]:
    vehicle_of = {
        e.vehicle.trip.trip_id: e.vehicle.vehicle.id
        for e in positions.entity
        if e.vehicle.HasField("trip")
    }
    for entity in updates.entity:
        trip, vehicle = entity.trip_update.trip.trip_id, entity.trip_update.vehicle.id
        if vehicle_of.get(trip) != vehicle:
            yield f"E047 vehicle {vehicle} of trip {trip} is {vehicle_of.get(trip)} among positions"


def newest_before(moments: Sequence[int], moment: int) -> int:
    """Return the index of the last moment that is not after `moment`, or -1."""
    return bisect_left(moments, moment + 1) - 1
