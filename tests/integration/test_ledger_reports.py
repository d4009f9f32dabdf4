"""The daily report over real servers."""

from datetime import UTC, datetime, timedelta

import pytest
from google.type import date_pb2

from tests.support.ledger_process import (
    CLEARING,
    REVENUE,
    LedgerProcess,
    minor,
    pb,
    transfer,
    wallet,
)
from tests.support.location_values import new_id
from wayfare.ledger.v1 import account_pb2, audit_pb2

pytestmark = pytest.mark.integration


async def report_of(
    ledger: LedgerProcess, date: date_pb2.Date | None = None
) -> audit_pb2.DailyReport:
    request = pb.GetDailyReportRequest(date=date)
    answer: audit_pb2.DailyReport = await ledger.call(
        "GetDailyReport", request, ledger.bearer("BUSINESS", new_id())
    )
    return answer


async def test_the_report_of_today_says_what_moved_and_what_is_there(
    ledger: LedgerProcess,
) -> None:
    user = await ledger.person(1_000)
    assert await ledger.create(transfer(wallet(user), REVENUE, 300, kind="TRIP_FARE")) == [""]
    await ledger.hold(user, 500)

    report = await report_of(ledger)

    kinds = {one.kind: (one.transfer_count, minor(one.amount)) for one in report.kinds}
    accounts = {
        (account_pb2.AccountKind.Name(one.kind).removeprefix("ACCOUNT_KIND_"), one.subject): [
            minor(amount) for amount in (one.opening, one.debits, one.credits, one.closing)
        ]
        for one in report.accounts
    }
    assert report.preliminary
    assert kinds == {"TEST": (1, 1_000), "TRIP_FARE": (1, 300)}
    assert accounts == {
        ("GATEWAY_CLEARING", CLEARING.subject): [0, 1_000, 0, -1_000],
        ("REVENUE", ""): [0, 0, 300, 300],
        ("WALLET", ""): [0, 300, 1_000, 700],
    }


async def test_a_day_before_everything_is_empty(ledger: LedgerProcess) -> None:
    await ledger.person(1_000)

    report = await report_of(ledger, date_pb2.Date(year=2020, month=2, day=29))

    assert report == audit_pb2.DailyReport(
        date=date_pb2.Date(year=2020, month=2, day=29), kinds=[], accounts=[]
    )


@pytest.mark.parametrize(
    "date",
    [
        date_pb2.Date(year=2026, month=2, day=30),
        date_pb2.Date(year=2026, month=2),
        date_pb2.Date(day=3),
        date_pb2.Date(year=9999, month=12, day=31),
    ],
    ids=["30 February", "a month", "a day", "the future"],
)
async def test_a_date_that_is_none_is_refused(ledger: LedgerProcess, date: date_pb2.Date) -> None:
    refusal = await ledger.refused(
        "GetDailyReport",
        pb.GetDailyReportRequest(date=date),
        ledger.bearer("ADMIN", new_id()),
    )

    assert refusal.reason == "DATE_INVALID"


async def test_tomorrow_is_in_the_future(ledger: LedgerProcess) -> None:
    soon = datetime.now(UTC) + timedelta(days=2)

    refusal = await ledger.refused(
        "GetDailyReport",
        pb.GetDailyReportRequest(
            date=date_pb2.Date(year=soon.year, month=soon.month, day=soon.day)
        ),
        ledger.bearer("ADMIN", new_id()),
    )

    assert refusal.metadata["date"] == f"{soon:%Y-%m-%d}"


async def test_people_do_not_see_the_report(ledger: LedgerProcess) -> None:
    refusal = await ledger.refused(
        "GetDailyReport", pb.GetDailyReportRequest(), ledger.bearer("PASSENGER", new_id())
    )

    assert refusal.reason == "ROLE_NOT_ALLOWED"
