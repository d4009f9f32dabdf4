"""Reads a feed as a whole: every file that tracking needs, judged row by row and against the rest.

https://gtfs.org/documentation/schedule/reference/ says what is right; the rules that are checked
here are those by which a trip could not be tracked, or would be tracked wrongly.
"""

from collections.abc import Sequence
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from services.location.gtfs.archive import FeedFiles, Limits, open_feed
from services.location.gtfs.calendars import read_services
from services.location.gtfs.faults import Findings
from services.location.gtfs.feed import ABSENT, Feed, Route, Stop, Trip
from services.location.gtfs.shapes import read_shapes
from services.location.gtfs.stop_times import read_stop_times
from services.location.gtfs.table import Progress, Table

_REQUIRED_FILES = ("agency.txt", "routes.txt", "stops.txt", "trips.txt", "stop_times.txt")
_CALENDARS = ("calendar.txt", "calendar_dates.txt")
_PLAIN_ROUTE_TYPES = {0, 1, 2, 3, 4, 5, 6, 7, 11, 12}
_EXTENDED_ROUTE_TYPES = range(100, 1703)
_STOP_OR_PLATFORM, _STATION, _GENERIC_NODE, _BOARDING_AREA = 0, 1, 3, 4


def read_feed(
    path: Path, findings: Findings, *, limits: Limits | None = None, progress: Progress
) -> Feed:
    """Read the feed of a zip or folder.

    Raises FeedBrokenError with all that was found when any of it is a fault.
    """
    limits = limits or Limits()
    with open_feed(path, limits) as files:
        return FeedReader(files, findings, limits=limits, progress=progress).read()


class FeedReader:
    """Reads the files in the order in which they name each other."""

    def __init__(
        self, files: FeedFiles, findings: Findings, *, limits: Limits, progress: Progress
    ) -> None:
        """Take the open files, and where to note what is wrong."""
        self._files = files
        self._findings = findings
        self._limits = limits
        self._progress = progress

    def read(self) -> Feed:
        """Read everything, or raise FeedBrokenError."""
        self._check_files()
        # Without a file nothing that names its rows could be judged.
        self._findings.refuse_if_broken()
        agency_name, time_zone, agencies = self._read_agencies()
        routes = self._read_routes(agencies)
        stops, places = self._read_stops()
        services = read_services(self._files, self._findings, self.table)
        shapes = read_shapes(self._files, self._findings, self.table)
        trips, numbers = self._read_trips(routes, set(services), shapes.numbers)
        stop_times = read_stop_times(
            self._findings, self.table, trips=numbers, stops=stops, places=places
        )
        feed = Feed(
            sha256=self._files.sha256(),
            agency_name=agency_name,
            time_zone=time_zone,
            routes=routes,
            stops=list(stops.values()),
            services=services,
            trips=trips,
            shapes=shapes,
            stop_times=stop_times,
        )
        self._check_whole(feed)
        self._findings.refuse_if_broken()
        return feed

    def table(self, name: str, required: Sequence[str]) -> Table:
        """Open a table of the feed."""
        return Table(
            self._files,
            name,
            self._findings,
            required=required,
            limits=self._limits,
            progress=self._progress,
        )

    def _check_files(self) -> None:
        what = "the file is missing"
        for name in _REQUIRED_FILES:
            if name not in self._files:
                self._findings.fault(name, 0, "", "", what=what, mend="add it to the feed")
        if not any(name in self._files for name in _CALENDARS):
            mend = "add calendar.txt, calendar_dates.txt or both"
            self._findings.fault("calendar.txt", 0, "", "", what=what, mend=mend)
        if "frequencies.txt" in self._files and self._files.size_bytes("frequencies.txt"):
            self._findings.warn(
                "frequencies.txt",
                0,
                "",
                "",
                what="trips by headway are imported once, at their times in stop_times.txt",
                mend="write each departure as a trip of its own",
            )

    def _read_agencies(self) -> tuple[str, str, set[str]]:
        table = self.table("agency.txt", ["agency_name", "agency_timezone"])
        agencies: dict[str, str] = {}
        first_name = first_zone = ""
        for _ in table:
            name = table.text("agency_name", required=True)
            zone = table.text("agency_timezone", required=True)
            agency_id = table.raw("agency_id")
            if agency_id in agencies:
                mend = "give each agency an agency_id of its own"
                table.fault("agency_id", "an earlier row has this id", mend)
            agencies[agency_id] = name or ""
            if zone and not _is_time_zone(zone):
                mend = "use a name of the tz database, as Australia/Brisbane"
                table.fault("agency_timezone", "there is no such time zone", mend)
            elif zone and first_zone and zone != first_zone:
                mend = f"import agencies of other zones than {first_zone} as feeds of their own"
                table.fault("agency_timezone", "the agencies have several time zones", mend)
            first_zone, first_name = first_zone or zone or "", first_name or name or ""
        if not agencies and not self._findings.faults_by_file["agency.txt"]:
            mend = "add the agency, with its name and time zone"
            self._findings.fault("agency.txt", 1, "", "", what="there is no agency", mend=mend)
        return first_name, first_zone, set(agencies)

    def _read_routes(self, agencies: set[str]) -> dict[str, Route]:
        table = self.table("routes.txt", ["route_id", "route_type"])
        routes: dict[str, Route] = {}
        for _ in table:
            route_id = table.new_id("route_id", routes)
            short, long = table.text("route_short_name"), table.text("route_long_name")
            route_type = table.whole("route_type", most=1702)
            if route_type is not None and not (
                route_type in _PLAIN_ROUTE_TYPES or route_type in _EXTENDED_ROUTE_TYPES
            ):
                table.fault("route_type", "there is no such kind of route", "3 is a bus")
            if short == "" and long == "":
                mend = "fill in route_short_name or route_long_name"
                table.fault("route_short_name", "the route has no name", mend)
            if table.raw("agency_id"):
                table.known_id("agency_id", agencies, "agency.txt")
            elif len(agencies) > 1:
                mend = "say which of the agencies runs it"
                table.fault("agency_id", "the value is missing", mend)
            if route_id is not None:
                routes[route_id] = Route(route_id, short or "", long or "", route_type or 0)
        return routes

    def _read_stops(self) -> tuple[dict[str, Stop], dict[str, int]]:
        """Return the stops at which vehicles call, and the kinds of all places."""
        table = self.table("stops.txt", ["stop_id"])
        stops: dict[str, Stop] = {}
        places: dict[str, int] = {}
        parents: list[tuple[int, str]] = []
        for line in table:
            stop_id = table.new_id("stop_id", places)
            kind = table.whole("location_type", allowed=range(5), absent=_STOP_OR_PLATFORM)
            named = kind not in (_GENERIC_NODE, _BOARDING_AREA)
            name = table.text("stop_name", required=named)
            latitude = longitude = None
            if named:
                latitude = table.number("stop_lat", -90, 90)
                longitude = table.number("stop_lon", -180, 180)
            if parent := table.raw("parent_station"):
                parents.append((line, parent))
            if stop_id is None or kind is None:
                continue
            places[stop_id] = kind
            if latitude is None or longitude is None:
                continue
            if abs(latitude) < 1 and abs(longitude) < 1:
                table.warn("stop_lat", "the stop lies in the sea at 0, 0", "fill in where it is")
            if kind == _STOP_OR_PLATFORM:
                stops[stop_id] = Stop(stop_id, name or "", latitude, longitude)
        for line, parent in parents:
            if parent not in places:
                what, mend = "stops.txt has no such id", "add the station, or clear parent_station"
                self._findings.fault(
                    "stops.txt", line, "parent_station", parent, what=what, mend=mend
                )
        return stops, places

    def _read_trips(
        self, routes: dict[str, Route], services: set[str], shapes: dict[str, int]
    ) -> tuple[list[Trip], dict[str, int]]:
        table = self.table("trips.txt", ["route_id", "service_id", "trip_id"])
        calendars = " or ".join(name for name in _CALENDARS if name in self._files)
        trips: list[Trip] = []
        numbers: dict[str, int] = {}
        for line in table:
            trip_id = table.new_id("trip_id", numbers)
            route_id = table.known_id("route_id", routes, "routes.txt")
            service_id = table.known_id("service_id", services, calendars)
            direction = table.raw("direction_id") and table.whole("direction_id", allowed=(0, 1))
            shape_id = table.raw("shape_id")
            if shape_id and shape_id not in shapes:
                mend = "add the shape, or clear shape_id"
                table.fault("shape_id", "shapes.txt has no such id", mend)
            if trip_id is None:
                continue
            numbers[trip_id] = len(trips)
            trips.append(
                Trip(
                    trip_id,
                    route_id or "",
                    service_id or "",
                    table.text("trip_headsign") or "",
                    table.text("trip_short_name") or "",
                    direction if isinstance(direction, int) else ABSENT,
                    shapes.get(shape_id, ABSENT),
                    line,
                )
            )
        return trips, numbers

    def _check_whole(self, feed: Feed) -> None:
        unused = 0
        for number, trip in enumerate(feed.trips):
            if len(feed.stop_times.place(number)) > 1:
                continue
            unused += 1
            what = "the trip calls at fewer than two stops and is left out"
            mend = "add its stop times, or remove the trip"
            self._findings.warn(
                "trips.txt", trip.line, "trip_id", trip.trip_id, what=what, mend=mend
            )
        if self._findings.fault_count:
            return
        if unused == len(feed.trips):
            what, mend = "there is no trip to import", "add trips and stop times"
            self._findings.fault("trips.txt", 0, "", "", what=what, mend=mend)
        if not any(service.span() for service in feed.services.values()):
            what, mend = "no service runs on any day", "say on which days the services run"
            file = "calendar.txt" if "calendar.txt" in self._files else "calendar_dates.txt"
            self._findings.fault(file, 0, "", "", what=what, mend=mend)


def _is_time_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True
