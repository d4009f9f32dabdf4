"""Moves withdrawals on that are not done: a worker in every process.

The order of steps is what keeps a payout from being made twice; ADR 0016 says why.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import structlog
from prometheus_client import Counter

from services.ledger.domain.withdrawals import (
    ClaimLostError,
    State,
    Withdrawal,
    answered,
    submitted,
)
from services.ledger.operations.withdrawals import UNFINISHED_SECONDS, Withdrawals
from services.ledger.withdrawal_errors import WithdrawalUnknownError
from services.ledger.withdrawal_ports import (
    PayoutAnswer,
    PayoutProvider,
    PayoutStatus,
    PayoutUncertainError,
    WithdrawalStore,
)
from services.shared.clock import Clock
from services.shared.errors import DependencyUnavailableError, DomainError

_log = structlog.get_logger()
_ASKED = Counter(
    "wayfare_ledger_payout_answers_total", "What payout providers answered", ["answer"]
)
# What one process moves on at once; each may take as long as the provider does.
_AT_ONCE = 8
_LONGEST_SECONDS = 300.0
_FORGET_AFTER = timedelta(days=1)
_OUTCOMES = {PayoutStatus.PAID: State.PAID, PayoutStatus.REFUSED: State.FAILED}


class Payouts:
    """Works beside the calls; any number of processes may do so at once."""

    def __init__(
        self,
        *,
        withdrawals: Withdrawals,
        store: WithdrawalStore,
        provider: PayoutProvider | None,
        clock: Clock,
        idle_seconds: float,
        first_retry_seconds: float,
        lease_seconds: float,
    ) -> None:
        """Pay by `provider`; without one what is approved stays so.

        A claim lasts `lease_seconds`: longer than two calls of the provider and all else take.
        """
        self._withdrawals = withdrawals
        self._store = store
        self._provider = provider
        self._clock = clock
        self._idle_seconds = idle_seconds
        self._first_retry_seconds = first_retry_seconds
        self._lease = timedelta(seconds=lease_seconds)

    async def run(self) -> None:
        """Move withdrawals on until cancelled."""
        while True:
            try:
                moved = await self.work()
            except DependencyUnavailableError as error:
                _log.warning("withdrawals_wait", error=error.reason)
                moved = 0
            if moved < _AT_ONCE:
                await asyncio.sleep(self._idle_seconds)

    async def work(self) -> int:
        """Move on what is due, each once; return how many there were."""
        due = await self._store.claim(
            now=self._clock.now(),
            lease=self._lease,
            most=_AT_ONCE,
            pays_out=self._provider is not None,
        )
        await asyncio.gather(*(self._try(one) for one in due))
        return len(due)

    async def _try(self, withdrawal: Withdrawal) -> None:
        try:
            await self._move_on(withdrawal)
        except PayoutUncertainError as error:
            _ASKED.labels(error.why).inc()
            _log.warning(
                "payout_is_uncertain", withdrawal_id=withdrawal.withdrawal_id, error=error.why
            )
        except (ClaimLostError, WithdrawalUnknownError):
            return
        except DomainError as error:
            _log.warning(
                "withdrawal_waits", withdrawal_id=withdrawal.withdrawal_id, error=error.reason
            )
        except Exception:  # noqa: BLE001 - whatever is wrong with one
            # One that is wrong must not hold up the others.
            _log.exception("withdrawal_fails", withdrawal_id=withdrawal.withdrawal_id)
        else:
            return
        # What is away now may be away for this too; then the claim ends by itself.
        try:
            await self._change(withdrawal, lambda row: replace(row, next_time=self._later(row)))
        except (ClaimLostError, DomainError) as error:
            _log.warning("withdrawal_keeps_its_claim", error=type(error).__name__)

    async def _move_on(self, withdrawal: Withdrawal) -> None:
        if withdrawal.state is State.HOLDING:
            await self._end_request(withdrawal)
        elif withdrawal.outcome is not None:
            await self._withdrawals.finish(withdrawal)
        elif self._provider is not None:
            await self._pay(withdrawal, self._provider)

    async def _end_request(self, withdrawal: Withdrawal) -> None:
        """End a request that its process did not: it is held, or it is forgotten in a day."""
        if await self._store.is_held(withdrawal):
            await self._withdrawals.hold_made(withdrawal)
            return
        now = self._clock.now()
        if withdrawal.update_time < now - _FORGET_AFTER:
            await self._store.forget(withdrawal, before=now - _FORGET_AFTER)
            return
        again = now + timedelta(seconds=max(UNFINISHED_SECONDS, _LONGEST_SECONDS))
        await self._change(withdrawal, lambda row: replace(row, next_time=again))

    async def _pay(self, withdrawal: Withdrawal, provider: PayoutProvider) -> None:
        """Ask to pay once, or ask what became of it; act on the provider's last word alone."""
        answer: PayoutAnswer | None = None
        if withdrawal.submit_time is None:
            if not await self._store.hold_is_open(withdrawal):
                raise PayoutUncertainError("hold_resolved")
            now = self._clock.now()
            # Committed before the provider hears of it: whoever comes after a crash asks first.
            withdrawal = await self._change(withdrawal, lambda row: submitted(row, now))
        else:
            answer = await provider.find(withdrawal)
        if answer is None:
            answer = await provider.create(withdrawal)
        _ASKED.labels(answer.status).inc()
        outcome = _OUTCOMES.get(answer.status)
        said = answer
        changed = await self._change(
            withdrawal,
            lambda row: answered(
                row,
                payout_id=said.payout_id,
                outcome=outcome,
                reason=said.reason if outcome is State.FAILED else "",
                next_time=self._later(row) if outcome is None else self._clock.now() + self._lease,
            ),
        )
        await self._withdrawals.finish(changed)

    async def _change(
        self, withdrawal: Withdrawal, change: Callable[[Withdrawal], Withdrawal]
    ) -> Withdrawal:
        """Change a withdrawal that this process has claimed. Raises ClaimLostError."""

        def checked(row: Withdrawal, _: bool) -> Withdrawal:
            if row.attempt_count != withdrawal.attempt_count or row.state is not withdrawal.state:
                raise ClaimLostError
            return change(row)

        return await self._store.change(withdrawal.tenant_id, withdrawal.withdrawal_id, checked)

    def _later(self, withdrawal: Withdrawal) -> datetime:
        """Return when to try again: backoff with jitter, five minutes at most."""
        doubled = self._first_retry_seconds * 2 ** min(withdrawal.attempt_count - 1, 20)
        longest = min(_LONGEST_SECONDS, doubled)
        seconds = random.uniform(longest / 2, longest)  # noqa: S311 - jitter, not a secret
        return self._clock.now() + timedelta(seconds=seconds)
