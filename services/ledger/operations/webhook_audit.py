"""Keeps what came of webhooks that changed nothing, without letting anybody fill the disk.

What changes a deposit is recorded with it, in the same transaction, and not here. Of the rest each
line is written at once while there is room: a number of lines at first, and so many a minute after.
What comes beyond that is counted, and written as one line for each gateway, outcome and reason when
the next interval ends. Webhooks that bear a gateway's signature have more room of their own, which
those of strangers cannot use up.
"""

import asyncio
import hashlib
from dataclasses import replace

import structlog
from prometheus_client import Counter

from services.ledger.deposit_ports import AuditLine, DepositStore
from services.shared.clock import Clock
from services.shared.errors import DependencyUnavailableError

_log = structlog.get_logger()
_SUMMED = Counter("wayfare_ledger_webhooks_summed_total", "Webhooks kept only as a sum")

_Kind = tuple[str, str, str, bool]


class _Room:
    """Is how many lines may be written: a burst, filled again by so many a minute."""

    def __init__(self, burst: int, per_minute: float, now: float) -> None:
        self._burst = float(burst)
        self._per_second = per_minute / 60
        self._left = self._burst
        self._at = now

    def take(self, now: float) -> bool:
        self._left = min(self._burst, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class WebhookAudit:
    """Writes lines at once, or sums of them."""

    def __init__(
        self,
        *,
        store: DepositStore,
        clock: Clock,
        stranger_lines_per_minute: int,
        gateway_lines_per_minute: int,
        sum_seconds: float,
    ) -> None:
        """Write so many lines a minute, six times as many at first; sums every `sum_seconds`."""
        self._store = store
        self._sum_seconds = sum_seconds
        self._clock = clock
        now = clock.monotonic()
        self._room = {
            False: _Room(6 * stranger_lines_per_minute, stranger_lines_per_minute, now),
            True: _Room(6 * gateway_lines_per_minute, gateway_lines_per_minute, now),
        }
        # At most one for each gateway, outcome, reason and kind of sender: a few dozen.
        self._sums: dict[_Kind, AuditLine] = {}

    async def note(self, line: AuditLine) -> None:
        """Keep a line. Raises DependencyUnavailableError if PostgreSQL is away."""
        if self._room[line.is_verified].take(self._clock.monotonic()):
            await self._store.note([line])
            return
        _SUMMED.inc()
        kind = (line.gateway, line.outcome, line.reason, line.is_verified)
        before = self._sums.get(kind)
        self._sums[kind] = _first_of_sum(line) if before is None else _sum(before, line)

    async def sum_forever(self) -> None:
        """Write sums until cancelled, and once more then."""
        try:
            while True:
                await asyncio.sleep(self._sum_seconds)
                await self.write_sums()
        finally:
            await self.write_sums()

    async def write_sums(self) -> None:
        """Write what was counted; while PostgreSQL is away it waits."""
        sums, self._sums = self._sums, {}
        if not sums:
            return
        try:
            await self._store.note(list(sums.values()))
        except DependencyUnavailableError:
            _log.warning("webhook_sums_wait", kinds=len(sums))
            for kind, line in sums.items():
                later = self._sums.get(kind)
                self._sums[kind] = line if later is None else _sum(line, later)


def _first_of_sum(line: AuditLine) -> AuditLine:
    """Return the line without what is of one webhook alone."""
    return replace(
        line,
        tenant_id="",
        deposit_id="",
        order_id="",
        payment_id="",
        status=None,
        amount_minor=None,
        currency_code="",
    )


def _sum(before: AuditLine, line: AuditLine) -> AuditLine:
    """Return both together; the hash is of the hashes in their order."""
    return replace(
        before,
        webhook_count=before.webhook_count + line.webhook_count,
        body_bytes=before.body_bytes + line.body_bytes,
        body_hash=hashlib.sha256(before.body_hash + line.body_hash).digest(),
    )
