"""The job that reads GTFS feeds: `python -m services.location.gtfs import FEED --tenant UUID`.

It answers in lines of JSON, each with one key, for the program that started it: `progress` while it
works, then `summary`, or `overview`, or `feed` and one `plan` per trip, or `broken` with the
faults, or `error`. People use `wayfare gtfs` and `wayfare trips`. The exit code is 0, or 1 for a
broken feed, or 2 for anything else.
"""

import argparse
import asyncio
import json
import sys
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import asyncpg

from services.location.gtfs.faults import FeedBrokenError, Findings
from services.location.gtfs.feed import Feed
from services.location.gtfs.overview import is_over, read_overview
from services.location.gtfs.plans import plans_of_day
from services.location.gtfs.reader import read_feed
from services.location.gtfs.table import parse_time
from services.location.gtfs.writer import ImportBusyError, write_feed
from services.location.settings import LocationSettings

_OK, _BROKEN, _FAILED = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the arguments say and return the exit code."""
    options = _parser().parse_args(arguments)
    findings = Findings()
    try:
        match options.command:
            case "import":
                asyncio.run(_import(options, findings))
            case "show":
                asyncio.run(_show(options))
            case _:
                _plan(options, findings)
    except FeedBrokenError as error:
        _tell("broken", _findings(error.findings))
        return _BROKEN
    except ImportBusyError as error:
        _tell("error", str(error))
        return _FAILED
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        _tell("error", f"The database does not do it: {error}")
        return _FAILED
    return _OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m services.location.gtfs", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    importing = commands.add_parser("import", help="make a feed the timetable of a tenant")
    importing.add_argument("feed", type=Path, help="a GTFS zip, or a folder with its files")
    importing.add_argument("--tenant", type=uuid.UUID, required=True)
    importing.add_argument("--dry-run", action="store_true", help="only read and judge")
    showing = commands.add_parser("show", help="tell what is imported")
    showing.add_argument("--tenant", type=uuid.UUID, required=True)
    showing.add_argument("--date", type=date.fromisoformat)
    planning = commands.add_parser("plan", help="tell the trips of a day, without importing")
    planning.add_argument("feed", type=Path)
    planning.add_argument("--date", type=date.fromisoformat, required=True)
    planning.add_argument("--from", dest="begin", type=_seconds, default=0)
    planning.add_argument("--until", type=_seconds, default=_seconds("48:00"))
    planning.add_argument("--trips", type=int, default=1_000)
    return parser


def _seconds(text: str) -> int:
    seconds = parse_time(f"{text}:00")
    if seconds is None:
        raise argparse.ArgumentTypeError("write HH:MM")
    return seconds


async def _import(options: argparse.Namespace, findings: Findings) -> None:
    feed = read_feed(options.feed, findings, progress=_progress)
    summary = _summary(feed, findings)
    if not options.dry_run:
        result = await write_feed(
            _dsn(),
            feed,
            tenant_id=str(options.tenant),
            now=datetime.now(UTC),
            warning_count=findings.warning_count,
            progress=_progress,
        )
        summary |= {"feed_id": result.feed_id, "is_new": result.is_new}
    _tell("summary", summary)


async def _show(options: argparse.Namespace) -> None:
    overview = await read_overview(
        _dsn(), tenant_id=str(options.tenant), day=options.date, now=datetime.now(UTC)
    )
    _tell("overview", asdict(overview) if overview else None)


def _plan(options: argparse.Namespace, findings: Findings) -> None:
    feed = read_feed(options.feed, findings, progress=_progress)
    _tell("feed", {"agency_name": feed.agency_name, "time_zone": feed.time_zone})
    plans = plans_of_day(
        feed, options.date, from_seconds=options.begin, until_seconds=options.until
    )
    for _, plan in zip(range(options.trips), plans, strict=False):
        _tell("plan", asdict(plan) | {"shape": plan.shape})


def _summary(feed: Feed, findings: Findings) -> dict[str, Any]:
    first_date, last_date = feed.span()
    if is_over(last_date, feed.time_zone):
        what, mend = "the timetable has ended", "import the agency's newer feed"
        findings.warn("calendar.txt", 0, "end_date", last_date, what=what, mend=mend)
    return {
        "agency_name": feed.agency_name,
        "time_zone": feed.time_zone,
        "first_date": first_date,
        "last_date": last_date,
        "route_count": len(feed.routes),
        "stop_count": len(feed.stops),
        "trip_count": sum(1 for _ in feed.used_trips()),
        "shape_count": len(feed.shapes.ids),
        "stop_time_count": len(feed.stop_times.stops),
        "service_count": len(feed.services),
        **_findings(findings),
    }


def _findings(findings: Findings) -> dict[str, Any]:
    return {
        "fault_count": findings.fault_count,
        "faults": [asdict(fault) for fault in findings.faults],
        "warning_count": findings.warning_count,
        "warnings": [asdict(warning) for warning in findings.warnings],
    }


def _dsn() -> str:
    return LocationSettings().database_url.get_secret_value()


def _progress(what: str, rows: int) -> None:
    _tell("progress", {"what": what, "rows": rows})


def _tell(key: str, value: object) -> None:
    sys.stdout.write(json.dumps({key: value}, default=str) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
