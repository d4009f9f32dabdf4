"""The reader of GTFS feeds: what is right is read, every kind of fault is named with its line."""

import zipfile
from datetime import date
from pathlib import Path

import pytest

from services.location.gtfs.archive import Limits
from services.location.gtfs.plans import plans_of_day
from tests.support.gtfs_feeds import (
    CAIRNS,
    GOOD_FEED,
    changed,
    faults_of,
    read,
    with_lines,
    without,
    write_folder,
    write_zip,
)

pytestmark = pytest.mark.unit

TIMES_HEADER = GOOD_FEED["stop_times.txt"][0]


def test_a_zip_and_a_folder_with_a_byte_order_mark_are_read_alike(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "feed", GOOD_FEED)
    stops = folder / "stops.txt"
    stops.write_bytes(b"\xef\xbb\xbf" + stops.read_bytes())

    from_folder, _ = read(folder)
    from_zip, findings = read(write_zip(tmp_path / "feed.zip", GOOD_FEED))

    assert from_folder.stops == from_zip.stops
    assert from_zip.stops[0].display_name == "Queen Square, Stand 1"
    assert [stop.stop_id for stop in from_zip.stops] == ["S1", "S2", "S3"]
    assert list(from_zip.stop_times.arrivals) == list(from_folder.stop_times.arrivals)
    assert findings.warning_count == 0


def test_times_past_midnight_go_on_counting(tmp_path: Path) -> None:
    feed, _ = read(write_zip(tmp_path / "feed.zip", GOOD_FEED))

    place = feed.stop_times.place(1)

    assert feed.stop_times.departures[place[0]] == 24 * 3600 + 50 * 60


def test_a_blank_time_is_filled_in_by_the_way(tmp_path: Path) -> None:
    feed, _ = read(write_zip(tmp_path / "feed.zip", GOOD_FEED))

    at = feed.stop_times.place(1)[1]

    # 1,455 m of 3,123 m, which take twenty minutes.
    assert feed.stop_times.arrivals[at] == pytest.approx(24 * 3600 + 50 * 60 + 559, abs=15)


def test_rows_in_any_order_are_put_in_order(tmp_path: Path) -> None:
    rows = GOOD_FEED["stop_times.txt"]
    mixed = {
        **GOOD_FEED,
        "stop_times.txt": [rows[0], rows[6], rows[2], rows[4], *rows[3:0:-2], rows[5]],
    }
    mixed["shapes.txt"] = [GOOD_FEED["shapes.txt"][0], *reversed(GOOD_FEED["shapes.txt"][1:])]

    feed, _ = read(write_zip(tmp_path / "mixed.zip", mixed))
    same, _ = read(write_zip(tmp_path / "feed.zip", GOOD_FEED))

    # By their words: the distances that the feed does not tell are nan.
    assert repr(feed.stop_times) == repr(same.stop_times)
    assert repr(feed.shapes) == repr(same.shapes)


def test_services_run_on_weekdays_and_added_days_but_not_on_removed_ones(tmp_path: Path) -> None:
    feed, _ = read(write_zip(tmp_path / "feed.zip", GOOD_FEED))
    week = feed.services["WEEK"]

    assert week.runs_on(date(2026, 6, 5))
    assert not week.runs_on(date(2026, 6, 6))
    assert not week.runs_on(date(2026, 12, 25))
    assert week.runs_on(date(2026, 12, 26))
    assert not week.runs_on(date(2027, 1, 1))


def test_the_feed_of_cairns_is_read_whole() -> None:
    feed, findings = read(CAIRNS)

    counts = (len(feed.routes), len(feed.stops), len(feed.trips), len(feed.stop_times.stops))
    assert counts == (22, 416, 1339, 37790)
    assert (len(feed.shapes.ids), len(feed.shapes.latitudes)) == (54, 22784)
    assert feed.span() == (date(2014, 5, 26), date(2014, 12, 28))
    assert findings.warning_count == 0


@pytest.mark.parametrize(
    ("file", "line", "text", "column"),
    [
        ("agency.txt", 2, "A,X,https://x.org,Mars/Base", "agency_timezone"),
        ("agency.txt", 3, "B,Y,,Europe/Paris", "agency_timezone"),
        ("stops.txt", 1, "stop_id,stop_name,stop_lat,stop_lon,stop_name,x", "stop_name"),
        ("routes.txt", 1, "route_id,agency_id,short,long,type", "route_type"),
        ("routes.txt", 2, "R14,A,,,3", "route_short_name"),
        ("routes.txt", 2, "R14,A,14,,99", "route_type"),
        ("routes.txt", 2, "R14,B,14,,3", "agency_id"),
        ("stops.txt", 3, "S2,Everton Road,93.4,-2.9,,", "stop_lat"),
        ("stops.txt", 3, "S2,Everton Road,53.4,west,,", "stop_lon"),
        ("stops.txt", 3, "S2,Everton Road,nan,-2.9,,", "stop_lat"),
        ("stops.txt", 3, "S2,,53.4,-2.9,,", "stop_name"),
        ("stops.txt", 3, "S2,Everton Road,53.4,-2.9,9,", "location_type"),
        ("stops.txt", 6, "S1,Again,53.4,-2.9,0,", "stop_id"),
        ("stops.txt", 6, "S4,Bay,53.4,-2.9,0,NOWHERE", "parent_station"),
        ("stops.txt", 6, "S4,Bay,53.4", ""),
        ("stops.txt", 6, '"S4,Bay,53.4,-2.9,0,', ""),
        ("calendar.txt", 2, "WEEK,1,1,1,1,1,0,2,20260101,20261231", "sunday"),
        ("calendar.txt", 2, "WEEK,1,1,1,1,1,0,0,20260101,20251231", "end_date"),
        ("calendar.txt", 2, "WEEK,1,1,1,1,1,0,0,20260230,20261231", "start_date"),
        ("calendar_dates.txt", 4, "WEEK,20261225,1", "date"),
        ("calendar_dates.txt", 4, "WEEK,20260501,3", "exception_type"),
        ("trips.txt", 2, "R99,WEEK,T1,Croxteth,0,W1", "route_id"),
        ("trips.txt", 2, "R14,DAILY,T1,Croxteth,0,W1", "service_id"),
        ("trips.txt", 2, "R14,WEEK,T1,Croxteth,2,W1", "direction_id"),
        ("trips.txt", 2, "R14,WEEK,T1,Croxteth,0,W9", "shape_id"),
        ("trips.txt", 4, "R14,WEEK,T1,Croxteth,0,W1", "trip_id"),
        ("shapes.txt", 3, "W1,53.4150,-2.9650,1,1.5", "shape_pt_sequence"),
        ("shapes.txt", 4, "W1,53.4300,-2.9650,3,1.2", "shape_dist_traveled"),
        ("shapes.txt", 4, "W1,53.4300,-2.9650,-3,3.2", "shape_pt_sequence"),
        ("stop_times.txt", 2, "T9,8:00:00,8:00:00,S1,1,0", "trip_id"),
        ("stop_times.txt", 2, "T1,8:00:00,8:00:00,S9,1,0", "stop_id"),
        ("stop_times.txt", 2, "T1,8:00:00,8:00:00,HUB,1,0", "stop_id"),
        ("stop_times.txt", 2, "T1,8 o'clock,8:00:00,S1,1,0", "arrival_time"),
        ("stop_times.txt", 2, "T1,8:00:60,8:01:00,S1,1,0", "arrival_time"),
        ("stop_times.txt", 3, "T1,8:05:00,8:04:00,S2,2,1.5", "departure_time"),
        ("stop_times.txt", 4, "T1,8:05:30,8:12:00,S3,5,3.2", "arrival_time"),
        ("stop_times.txt", 4, "T1,8:12:00,8:12:00,S3,2,3.2", "stop_sequence"),
        ("stop_times.txt", 4, "T1,8:12:00,8:12:00,S3,5,1.2", "shape_dist_traveled"),
        ("stop_times.txt", 4, "T1,,,S3,5,3.2", "arrival_time"),
    ],
)
def test_a_fault_is_named_with_its_file_line_and_column(
    tmp_path: Path, file: str, line: int, text: str, column: str
) -> None:
    # The line is put in the place of the good one, or after the last.
    is_new = line > len(GOOD_FEED[file])
    feed = with_lines(file, text) if is_new else changed(file, line, text)

    findings = faults_of(write_zip(tmp_path / "feed.zip", feed))

    found = [(fault.file, fault.line, fault.column) for fault in findings.faults]
    assert (file, line, column) in found
    fault = findings.faults[found.index((file, line, column))]
    assert fault.value in text.replace("8:05:30", "08:05:30")
    assert fault.what
    assert fault.mend


@pytest.mark.parametrize(
    ("feed", "file", "line"),
    [
        (without("stops.txt"), "stops.txt", 0),
        ({**without("calendar.txt"), "calendar_dates.txt": []}, "calendar_dates.txt", 1),
        ({**GOOD_FEED, "agency.txt": GOOD_FEED["agency.txt"][:1]}, "agency.txt", 1),
        ({**GOOD_FEED, "stop_times.txt": [TIMES_HEADER]}, "trips.txt", 0),
    ],
)
def test_what_is_missing_is_a_fault_of_its_file(
    tmp_path: Path, feed: dict[str, list[str]], file: str, line: int
) -> None:
    findings = faults_of(write_zip(tmp_path / "feed.zip", feed))

    assert (file, line) in {(fault.file, fault.line) for fault in findings.faults}


def test_faults_are_counted_all_and_shown_fifty(tmp_path: Path) -> None:
    wrong = [f"T1,8:00:00,8:00:00,NOWHERE,{number},0" for number in range(10, 210)]

    findings = faults_of(write_zip(tmp_path / "feed.zip", with_lines("stop_times.txt", *wrong)))

    assert findings.fault_count == 200
    assert len(findings.faults) == 50
    assert findings.faults[0].line == 8


def test_the_line_of_a_row_counts_line_breaks_inside_quotes(tmp_path: Path) -> None:
    feed = with_lines("stops.txt", '"S4","Two\nlines",53.4,-2.9,0,', "S5,North,95,-2.9,0,")

    (fault,) = faults_of(write_folder(tmp_path / "feed", feed)).faults

    assert (fault.line, fault.value) == (8, "95")


def test_text_that_is_not_utf_8_is_named_with_its_line(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "feed", GOOD_FEED)
    with (folder / "stops.txt").open("ab") as file:
        file.write("S4,Café,53.4,-2.9,0,\n".encode("latin-1"))

    findings = faults_of(folder)

    assert (findings.faults[0].file, findings.faults[0].line) == ("stops.txt", 6)
    assert "UTF-8" in findings.faults[0].what


def test_what_is_odd_and_usable_is_a_warning(tmp_path: Path) -> None:
    feed = with_lines("trips.txt", "R14,WEEK,T3,Croxteth,0,")
    feed["frequencies.txt"] = ["trip_id,start_time,end_time,headway_secs", "T1,8:00:00,9:00:00,600"]
    feed["calendar_dates.txt"] = [*GOOD_FEED["calendar_dates.txt"], "NEVER,20261224,2"]

    read_feed, findings = read(write_zip(tmp_path / "feed.zip", feed))

    warned = {(warning.file, warning.value) for warning in findings.warnings}
    assert warned == {("trips.txt", "T3"), ("frequencies.txt", ""), ("calendar.txt", "NEVER")}
    assert list(read_feed.used_trips()) == [0, 1]


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (Limits(file_bytes=200), "expands to more than 200 bytes"),
        (Limits(feed_bytes=500), "expands to more than 500 bytes"),
        (Limits(files=3), "more than 3 files"),
        (Limits(rows=3), "more than 3 rows"),
    ],
)
def test_a_feed_that_is_too_large_is_refused(tmp_path: Path, limits: Limits, says: str) -> None:
    findings = faults_of(write_zip(tmp_path / "feed.zip", GOOD_FEED), limits)

    assert any(says in fault.what for fault in findings.faults)


def test_a_zip_that_expands_without_end_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("stops.txt", b"\0" * 20_000_000)

    findings = faults_of(path, Limits(file_bytes=10_000_000))

    assert path.stat().st_size < 100_000
    assert findings.faults[0].file == "stops.txt"


def test_an_id_that_is_too_long_is_refused_and_shown_short(tmp_path: Path) -> None:
    feed = with_lines("stops.txt", f"{'S' * 129},Long,53.4,-2.9,0,")

    (fault,) = faults_of(write_zip(tmp_path / "feed.zip", feed)).faults

    assert (fault.line, fault.column, fault.value) == (6, "stop_id", "S" * 79 + "…")


def test_a_line_without_end_is_refused(tmp_path: Path) -> None:
    feed = with_lines("stops.txt", "x" * 100_000)

    findings = faults_of(write_zip(tmp_path / "feed.zip", feed))

    assert (findings.faults[0].file, findings.faults[0].line) == ("stops.txt", 6)


def test_what_is_no_feed_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "feed.zip"
    text.write_text("stops")
    nested = write_zip(tmp_path / "nested.zip", GOOD_FEED, inside="feed/")

    assert "no zip" in faults_of(text).faults[0].what
    assert "folder" in faults_of(nested).faults[0].what
    assert faults_of(tmp_path / "absent.zip").fault_count == 1


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "feed.zip", GOOD_FEED)
    data = bytearray(path.read_bytes())
    # Inside the compressed bytes of the first file.
    data[60] ^= 0xFF
    path.write_bytes(data)

    assert faults_of(path).fault_count


def test_the_same_files_have_the_same_digest_and_others_another(tmp_path: Path) -> None:
    one, _ = read(write_folder(tmp_path / "one", GOOD_FEED))
    same, _ = read(write_folder(tmp_path / "same", GOOD_FEED))
    other, _ = read(
        write_folder(tmp_path / "other", changed("stops.txt", 3, "S2,Everton,53.415,-2.965,,"))
    )

    assert one.sha256 == same.sha256 != other.sha256


def test_where_nobody_gets_on_or_off_is_read(tmp_path: Path) -> None:
    header, *rows = GOOD_FEED["stop_times.txt"]
    kinds = [",0,1", ",1,0", ",2,3", ",,", ",,1", ",1,1"]
    lines = [f"{header},pickup_type,drop_off_type", *map("".join, zip(rows, kinds, strict=True))]
    feed, _ = read(write_zip(tmp_path / "feed.zip", {**GOOD_FEED, "stop_times.txt": lines}))

    plans = list(plans_of_day(feed, date(2026, 6, 5), from_seconds=0, until_seconds=200_000))

    assert [[(stop.no_pickup, stop.no_drop_off) for stop in plan.stops] for plan in plans] == [
        [(False, True), (True, False), (False, False)],
        [(False, False), (False, True), (True, True)],
    ]


def test_a_pickup_type_that_there_is_not_is_named_with_its_line(tmp_path: Path) -> None:
    header, *rows = GOOD_FEED["stop_times.txt"]
    lines = [f"{header},pickup_type", *(f"{row},{index}" for index, row in enumerate(rows))]

    found = faults_of(write_zip(tmp_path / "feed.zip", {**GOOD_FEED, "stop_times.txt": lines}))

    assert [(one.line, one.column, one.value) for one in found.faults] == [
        (6, "pickup_type", "4"),
        (7, "pickup_type", "5"),
    ]
