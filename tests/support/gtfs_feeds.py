"""A small feed that is right in every respect, and the ways to write it down, broken or not."""

import zipfile
from pathlib import Path

from services.location.gtfs.archive import Limits
from services.location.gtfs.faults import FeedBrokenError, Findings
from services.location.gtfs.feed import Feed
from services.location.gtfs.reader import read_feed

PROJECT = Path(__file__).parents[2]
CAIRNS = PROJECT / "data" / "gtfs_cairns" / "cairns_gtfs.zip"

GOOD_FEED = {
    "agency.txt": [
        "agency_id,agency_name,agency_url,agency_timezone",
        "A,Demo Transit,https://example.org,Europe/London",
    ],
    "routes.txt": [
        "route_id,agency_id,route_short_name,route_long_name,route_type",
        "R14,A,14,City - Croxteth,3",
    ],
    "stops.txt": [
        "stop_id,stop_name,stop_lat,stop_lon,location_type,parent_station",
        'S1,"Queen Square, Stand 1",53.4075,-2.9830,0,',
        "S2,Everton Road,53.4150,-2.9650,,",
        "S3,Walton Lane,53.4300,-2.9650,0,",
        "HUB,Queen Square,53.4076,-2.9831,1,",
    ],
    "calendar.txt": [
        "service_id,monday,tuesday,wednesday,thursday,friday,saturday,sunday,start_date,end_date",
        "WEEK,1,1,1,1,1,0,0,20260101,20261231",
    ],
    "calendar_dates.txt": [
        "service_id,date,exception_type",
        "WEEK,20261225,2",
        "WEEK,20261226,1",
    ],
    "shapes.txt": [
        "shape_id,shape_pt_lat,shape_pt_lon,shape_pt_sequence,shape_dist_traveled",
        "W1,53.4075,-2.9830,1,0",
        "W1,53.4150,-2.9650,2,1.5",
        "W1,53.4300,-2.9650,3,3.2",
    ],
    "trips.txt": [
        "route_id,service_id,trip_id,trip_headsign,direction_id,shape_id",
        "R14,WEEK,T1,Croxteth,0,W1",
        "R14,WEEK,T2,Croxteth,0,",
    ],
    "stop_times.txt": [
        "trip_id,arrival_time,departure_time,stop_id,stop_sequence,shape_dist_traveled",
        "T1,8:00:00,8:00:00,S1,1,0",
        "T1,8:05:00,8:06:00,S2,2,1.5",
        "T1,8:12:00,8:12:00,S3,5,3.2",
        "T2,24:50:00,24:50:00,S1,1,",
        "T2,,,S2,2,",
        "T2,25:10:00,25:10:00,S3,3,",
    ],
}


def changed(file: str, line: int, text: str) -> dict[str, list[str]]:
    """Return the good feed with one line, counted from 1, in other words."""
    lines = list(GOOD_FEED[file])
    lines[line - 1] = text
    return {**GOOD_FEED, file: lines}


def with_lines(file: str, *lines: str) -> dict[str, list[str]]:
    """Return the good feed with more lines at the end of a file."""
    return {**GOOD_FEED, file: [*GOOD_FEED.get(file, []), *lines]}


def without(file: str) -> dict[str, list[str]]:
    """Return the good feed without a file."""
    return {name: lines for name, lines in GOOD_FEED.items() if name != file}


def write_folder(folder: Path, feed: dict[str, list[str]]) -> Path:
    """Write a feed as a folder of files."""
    folder.mkdir(exist_ok=True)
    for name, lines in feed.items():
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def write_zip(path: Path, feed: dict[str, list[str]], *, inside: str = "") -> Path:
    """Write a feed as a zip; `inside` is a folder in it."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, lines in feed.items():
            archive.writestr(inside + name, "\r\n".join(lines) + "\r\n")
    return path


def read(path: Path, limits: Limits | None = None) -> tuple[Feed, Findings]:
    """Read a feed that is right."""
    findings = Findings()
    feed = read_feed(path, findings, limits=limits, progress=lambda _what, _rows: None)
    return feed, findings


def faults_of(path: Path, limits: Limits | None = None) -> Findings:
    """Read a broken feed and return what was found."""
    try:
        read(path, limits)
    except FeedBrokenError as error:
        return error.findings
    raise AssertionError("the feed was not refused")
