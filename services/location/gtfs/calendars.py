"""Reads on which days the services run: calendar.txt, calendar_dates.txt, or both."""

from collections.abc import Callable, Sequence

from services.location.gtfs.archive import FeedFiles
from services.location.gtfs.faults import Findings
from services.location.gtfs.feed import Service
from services.location.gtfs.table import Table

_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_ADDED, _REMOVED = 1, 2

OpenTable = Callable[[str, Sequence[str]], Table]


def read_services(
    files: FeedFiles, findings: Findings, open_table: OpenTable
) -> dict[str, Service]:
    """Return the services by id."""
    services: dict[str, Service] = {}
    if "calendar.txt" in files:
        table = open_table("calendar.txt", ["service_id", *_WEEKDAYS, "start_date", "end_date"])
        for _ in table:
            _read_week(table, services)
    if "calendar_dates.txt" in files:
        table = open_table("calendar_dates.txt", ["service_id", "date", "exception_type"])
        for _ in table:
            _read_exception(table, services)
    for service in services.values():
        if service.span() is None:
            file = "calendar.txt" if "calendar.txt" in files else "calendar_dates.txt"
            what, mend = "the service runs on no day", "give it days, or remove it"
            findings.warn(file, 0, "service_id", service.service_id, what=what, mend=mend)
    return services


def _read_week(table: Table, services: dict[str, Service]) -> None:
    service_id = table.new_id("service_id", services)
    weekdays = 0
    for bit, name in enumerate(_WEEKDAYS):
        weekdays |= (table.whole(name, allowed=(0, 1)) or 0) << bit
    first, last = table.date("start_date"), table.date("end_date")
    if first is not None and last is not None and last < first:
        table.fault("end_date", "the service ends before it begins", "swap the two dates")
    if service_id is not None:
        services[service_id] = Service(
            service_id=service_id, weekdays=weekdays, first_date=first, last_date=last
        )


def _read_exception(table: Table, services: dict[str, Service]) -> None:
    service_id = table.text("service_id", required=True)
    day = table.date("date")
    kind = table.whole("exception_type", allowed=(_ADDED, _REMOVED))
    if not service_id or day is None or kind is None:
        return
    # A service may be told by its exceptions alone.
    service = services.setdefault(service_id, Service(service_id=service_id))
    if day in service.added or day in service.removed:
        mend = "keep one of the rows"
        table.fault("date", "an earlier row has this service and date", mend)
    (service.added if kind == _ADDED else service.removed).add(day)
