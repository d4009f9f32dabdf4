"""The daily report over the real database: days join without gaps, and all accounts sum to zero."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.ledger import convert
from services.ledger.domain.accounts import AccountKey, AccountKind
from services.ledger.domain.transfers import Phase, Posting, WantedTransfer
from services.ledger.operations.posting import Poster
from services.ledger.operations.reports import Reports
from services.ledger.report_ports import AccountTotal
from services.ledger.store import PostgresLedgerStore
from services.ledger.store.reports import PostgresReportStore
from services.shared.postgres import open_database
from services.shared.tasks import cancel_all
from tests.support.location_values import new_id
from tests.support.stack_fixtures import TestDatabase

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(300)]

FIRST = datetime(2026, 11, 20, tzinfo=UTC)
DAYS = 4
WALLET_LIMIT = -(10**9)
KEYS = [
    (AccountKind.WALLET, "0198c000-0000-7000-8000-0000000000aa"),
    (AccountKind.WALLET, "0198c000-0000-7000-8000-0000000000bb"),
    (AccountKind.REVENUE, ""),
    (AccountKind.GATEWAY_CLEARING, "PAYHERE"),
    (AccountKind.GATEWAY_CLEARING, "KASHIER"),
    (AccountKind.WITHDRAWALS, ""),
]
Line = tuple[str, str, str]


class Move(NamedTuple):
    """Is one transfer at some microsecond, of which those at midnight are the likeliest."""

    after: timedelta
    source: int
    target: int
    amount: int
    code: str
    holds: bool


_midnights = st.builds(
    lambda day, tick: timedelta(days=day, microseconds=tick),
    st.integers(0, DAYS - 1),
    st.integers(-1, 1),
)
_times = st.one_of(_midnights, st.timedeltas(timedelta(), timedelta(days=DAYS)))
_moves = st.lists(
    st.builds(
        Move,
        _times.filter(lambda one: timedelta() <= one < timedelta(days=DAYS)),
        st.integers(0, len(KEYS) - 1),
        st.integers(0, len(KEYS) - 1),
        st.integers(1, 10**6),
        st.sampled_from(["EGP", "LKR"]),
        st.booleans(),
    ).filter(lambda one: one.source != one.target),
    max_size=20,
)


class SetClock:
    """Tells the time that the test sets."""

    def __init__(self) -> None:
        self.moment = FIRST

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return self.moment.timestamp()


class Books:
    """Makes transfers at any time, and reads reports."""

    def __init__(self, store: PostgresLedgerStore, reports: Reports, clock: SetClock) -> None:
        self.store, self.reports, self.clock = store, reports, clock
        self.poster = Poster(
            store=store,
            event_of=lambda tenant, one: convert.event_of(tenant, one, event_id=new_id()),
            clock=clock,
            batch_max=50,
            waiting_max=1_000,
            committers=1,
            gather_seconds=0,
        )

    async def move(self, tenant: str, move: Move) -> None:
        keys = [AccountKey(*KEYS[index], move.code) for index in (move.source, move.target)]
        postings = [
            Posting(key.account_id(tenant), key, amount)
            for key, amount in zip(keys, (-move.amount, move.amount), strict=True)
        ]
        transfer_id = new_id()
        wanted = WantedTransfer(
            transfer_id=transfer_id,
            phase=Phase.PENDING if move.holds else Phase.POSTED,
            kind=keys[0].kind,
            currency_code=move.code,
            postings=postings,
            body_hash=bytes.fromhex(transfer_id.replace("-", "")),
        )
        self.clock.moment = FIRST + move.after
        limits = {one.account_id: WALLET_LIMIT for one in postings}
        (outcome,) = await self.poster.post(tenant, [wanted], limits=limits)
        assert outcome.error is None


@pytest.fixture
async def books(module_database: TestDatabase) -> AsyncIterator[Books]:
    async with AsyncExitStack() as stack:
        database = await open_database(module_database.dsn_for("ledger"), pool_size=3)
        stack.push_async_callback(database.close)
        clock = SetClock()
        made = Books(
            PostgresLedgerStore(database, clock),
            Reports(store=PostgresReportStore(database), clock=clock),
            clock,
        )
        posting = asyncio.create_task(made.poster.run())
        stack.push_async_callback(cancel_all, [posting])
        yield made


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(moves=_moves, fold_after=st.integers(0, 20))
async def test_every_day_opens_as_the_day_before_closed(
    books: Books, moves: list[Move], fold_after: int
) -> None:
    tenant = new_id()
    for number, move in enumerate(moves):
        await books.move(tenant, move)
        if number == fold_after:
            await books.store.fold()
    books.clock.moment = FIRST + timedelta(days=DAYS, minutes=1)

    closings: dict[Line, int] = {}
    for day in range(DAYS + 1):
        today = (FIRST + timedelta(days=day)).date()
        report = await books.reports.daily(tenant, today)
        assert report.preliminary == (day == DAYS)
        accounts = {(one.kind, one.subject, one.currency_code): one for one in report.accounts}
        for line, total in accounts.items():
            opening = total.opening_minor
            assert opening == closings.get(line, 0)
            assert opening + total.credits_minor - total.debits_minor == total.closing_minor
        assert set(closings) <= set(accounts)
        closings = {line: one.closing_minor for line, one in accounts.items() if one.closing_minor}
        assert all(total == 0 for total in sums(report.accounts).values())
        posted = [one for one in moves if not one.holds and of_day(one, today)]
        assert sum(one.transfer_count for one in report.kinds) == len(posted)
        assert sum(one.amount_minor for one in report.kinds) == sum(one.amount for one in posted)


def sums(totals: Sequence[AccountTotal]) -> dict[str, int]:
    by_currency: dict[str, int] = defaultdict(int)
    for one in totals:
        by_currency[one.currency_code] += one.closing_minor
    return by_currency


def of_day(move: Move, day: date) -> bool:
    return (FIRST + move.after).date() == day
