"""The daily report."""

from datetime import UTC, date, datetime, time, timedelta

from services.ledger.report_ports import DailyReport, ReportStore
from services.ledger.withdrawal_errors import DateInvalidError
from services.shared.clock import Clock

_DAY = timedelta(days=1)
# A transfer has the time at which it was decided; it is committed within this, or not at all.
_COMMITTED_WITHIN = timedelta(minutes=1)


class Reports:
    """Sums up days."""

    def __init__(self, *, store: ReportStore, clock: Clock) -> None:
        """Take where transfers are kept."""
        self._store = store
        self._clock = clock

    async def daily(self, tenant_id: str, day: date | None) -> DailyReport:
        """Return what happened on a day of UTC, today by default. Raises DateInvalidError."""
        now = self._clock.now()
        wanted = day or now.date()
        if wanted > now.date():
            raise DateInvalidError(wanted.year, wanted.month, wanted.day)
        start = datetime.combine(wanted, time(), UTC)
        end = start + _DAY
        kinds, accounts = await self._store.totals(tenant_id, start=start, end=end)
        return DailyReport(
            day=wanted, kinds=kinds, accounts=accounts, preliminary=now < end + _COMMITTED_WITHIN
        )
