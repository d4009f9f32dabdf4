"""Rows of one file of a feed, by the names of its columns, each value judged as it is read."""

import csv
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import date
from functools import lru_cache

from services.location.gtfs.archive import FeedFiles, Limits
from services.location.gtfs.faults import Findings

Progress = Callable[[str, int], None]
"""Is told the name of a file and how many of its rows are read."""

_PROGRESS_ROWS = 20_000
_ID_CHARACTERS_MAX = 128
_TEXT_CHARACTERS_MAX = 1_000
_TIME = re.compile(r"([0-9]{1,3}):([0-5][0-9]):([0-5][0-9])")
_DATE = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})")
_WHOLE = re.compile(r"[0-9]{1,10}")
_HOURS_MAX = 168
_INTEGER_MAX = 2**31 - 1


class Table:
    """Reads one file. Iterate over it; the methods judge the row at which it stands.

    A value that is wrong is a fault, and the method returns None.
    """

    def __init__(
        self,
        files: FeedFiles,
        name: str,
        findings: Findings,
        *,
        required: Sequence[str],
        limits: Limits,
        progress: Progress,
    ) -> None:
        """Name the file, and the columns without which it is of no use."""
        self.name = name
        self.line = 0
        self._files = files
        self._findings = findings
        self._required = required
        self._limits = limits
        self._progress = progress
        self._row: list[str] = []
        self._places: dict[str, int] = {}

    def __iter__(self) -> Iterator[int]:
        """Yield the number of each row's line."""
        reader = csv.reader(self._files.lines(self.name, self._findings), strict=True)
        count = 0
        try:
            header = next(reader, None)
            if not self._takes_header(header):
                return
            width = len(header or ())
            before = reader.line_num
            for row in reader:
                # A quoted value may hold line breaks: the row's line is its first.
                self.line, before = before + 1, reader.line_num
                if not row:
                    continue
                count += 1
                if count > self._limits.rows:
                    what = f"the file has more than {self._limits.rows} rows"
                    mend = "split the feed by agency or by period"
                    self._findings.fault(self.name, self.line, "", "", what=what, mend=mend)
                    return
                if count % _PROGRESS_ROWS == 0:
                    self._progress(self.name, count)
                if len(row) != width:
                    what = f"the row has {len(row)} values, the header {width} names"
                    mend = "give each row as many values as there are columns"
                    self._findings.fault(self.name, self.line, "", "", what=what, mend=mend)
                    continue
                row.append("")
                self._row = row
                yield self.line
        except csv.Error as error:
            line = max(reader.line_num, 1)
            mend = 'close every quote, and write a quote inside quotes as ""'
            self._findings.fault(self.name, line, "", "", what=f"no CSV: {error}", mend=mend)
        self._progress(self.name, count)

    def raw(self, column: str) -> str:
        """Return the value as it is written; empty when the file has no such column."""
        return self._row[self._places.get(column, -1)].strip()

    def fault(self, column: str, what: str, mend: str) -> None:
        """Note a fault of the row."""
        self._findings.fault(self.name, self.line, column, self.raw(column), what=what, mend=mend)

    def warn(self, column: str, what: str, mend: str) -> None:
        """Note an oddity of the row."""
        self._findings.warn(self.name, self.line, column, self.raw(column), what=what, mend=mend)

    def text(self, column: str, *, required: bool = False) -> str | None:
        """Return a text; empty when there is none and none is required."""
        value = self.raw(column)
        if not value and required:
            self.fault(column, "the value is missing", "fill it in")
            return None
        if len(value) > _TEXT_CHARACTERS_MAX:
            self.fault(column, f"longer than {_TEXT_CHARACTERS_MAX} characters", "shorten it")
            return None
        return value

    def new_id(self, column: str, known: Collection[str]) -> str | None:
        """Return an id that no row before has."""
        value = self._id(column)
        if value is not None and value in known:
            self.fault(column, "an earlier row has this id", "give each row an id of its own")
            return None
        return value

    def known_id(self, column: str, known: Collection[str], file: str) -> str | None:
        """Return an id that another file has."""
        value = self._id(column)
        if value is not None and value not in known:
            self.fault(column, f"{file} has no such id", f"add it to {file}, or remove this row")
            return None
        return value

    def number(self, column: str, least: float, most: float) -> float | None:
        """Return a decimal within a range."""
        value = self.raw(column)
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        # Also refuses nan, which is never within a range.
        if least <= number <= most:
            return number
        what = "the value is missing" if not value else f"no number from {least:g} to {most:g}"
        self.fault(column, what, "write a decimal with a point, as 53.4075")
        return None

    def whole(
        self,
        column: str,
        *,
        most: int = _INTEGER_MAX,
        allowed: Collection[int] | None = None,
        absent: int | None = None,
    ) -> int | None:
        """Return a whole number from 0 on; `absent` when there is none and that may be."""
        value = self.raw(column)
        if not value and absent is not None:
            return absent
        number = int(value) if _WHOLE.fullmatch(value) else -1
        if 0 <= number <= most and (allowed is None or number in allowed):
            return number
        names = ", ".join(map(str, sorted(allowed))) if allowed and len(allowed) < 12 else ""
        what = "the value is missing" if not value else "the value is not allowed here"
        self.fault(column, what, f"use {names or f'a whole number from 0 to {most}'}")
        return None

    def date(self, column: str) -> date | None:
        """Return a date, written as 20260131."""
        parsed = parse_date(self.raw(column))
        if parsed is None:
            self.fault(column, "no date", "write year, month and day, as 20260131")
        return parsed

    def seconds(self, column: str) -> int | None:
        """Return a time of a service day in seconds; -1 when there is none."""
        value = self.raw(column)
        if not value:
            return -1
        seconds = parse_time(value)
        if seconds is None:
            mend = f"write H:MM:SS below {_HOURS_MAX} hours; 25:35:00 is 1:35 of the next morning"
            self.fault(column, "no time of a service day", mend)
        return seconds

    def _id(self, column: str) -> str | None:
        value = self.text(column, required=True)
        if value is not None and len(value) > _ID_CHARACTERS_MAX:
            self.fault(column, f"longer than {_ID_CHARACTERS_MAX} characters", "shorten the id")
            return None
        return value

    def _takes_header(self, header: list[str] | None) -> bool:
        if not header:
            mend = "write the names of the columns into the first line"
            self._findings.fault(self.name, 1, "", "", what="the file is empty", mend=mend)
            return False
        names = [name.strip() for name in header]
        twice = sorted({name for name in names if name and names.count(name) > 1})
        missing = [name for name in self._required if name not in names]
        for name in twice:
            mend = "name each column once"
            self._findings.fault(self.name, 1, name, "", what="the column is twice", mend=mend)
        for name in missing:
            mend = "add the column"
            self._findings.fault(self.name, 1, name, "", what="the column is missing", mend=mend)
        self._places = {name: place for place, name in enumerate(names)}
        return not (twice or missing)


@lru_cache(maxsize=100_000)
def parse_time(value: str) -> int | None:
    """Return H:MM:SS in seconds, or None when it is none."""
    match = _TIME.fullmatch(value)
    if match is None:
        return None
    hours, minutes, seconds = (int(part) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds if hours < _HOURS_MAX else None


@lru_cache(maxsize=10_000)
def parse_date(value: str) -> date | None:
    """Return YYYYMMDD as a date, or None when it is none."""
    match = _DATE.fullmatch(value)
    if match is None:
        return None
    try:
        return date(*(int(part) for part in match.groups()))
    except ValueError:
        return None
