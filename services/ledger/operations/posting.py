"""Collects the transfers of all callers for a moment and commits them together.

Used by everything that moves money. While a batch is being committed the next one gathers, so a
single caller waits for nothing and a thousand share one commit.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog
from prometheus_client import Counter, Gauge, Histogram

from services.ledger.domain.deciding import Known, Outcome, decide, foresee
from services.ledger.domain.transfers import Phase, Transfer, WantedTransfer
from services.ledger.ports import (
    Batch,
    BatchConflictError,
    LedgerRefusedError,
    LedgerStore,
    NewEvent,
)
from services.shared.clock import Clock
from services.shared.errors import DependencyUnavailableError, OverloadedError
from services.shared.tasks import HeldTasks

_log = structlog.get_logger()
_MADE = Counter("wayfare_ledger_transfers_total", "Transfers made", ["phase"])
_REFUSED = Counter("wayfare_ledger_refusals_total", "Transfers refused", ["reason"])
_WAITING = Gauge("wayfare_ledger_transfers_waiting", "Transfers that wait to be committed")
_BATCH = Histogram(
    "wayfare_ledger_batch_transfers",
    "Transfers committed together",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
_AGAIN = Counter(
    "wayfare_ledger_batches_decided_again_total", "Batches that had to be decided again"
)
_ATTEMPTS = 5
_OPENED_MAX = 200_000
_RETRY_SECONDS = 0.5

EventOf = Callable[[str, Transfer], NewEvent]


@dataclass(slots=True)
class _Call:
    """Is what one caller wants, made in one batch."""

    wanted: Sequence[WantedTransfer]
    limits: Mapping[str, int]
    done: "asyncio.Future[list[Outcome]]" = field(repr=False)


class Poster:
    """Makes transfers, many callers' together."""

    def __init__(
        self,
        *,
        store: LedgerStore,
        event_of: EventOf,
        clock: Clock,
        batch_max: int,
        waiting_max: int,
        committers: int,
        gather_seconds: float,
    ) -> None:
        """Commit to `store`, about `batch_max` transfers at once by so many `committers`.

        A process that is busy lets transfers gather for `gather_seconds` before a batch.

        Callers are refused when `waiting_max` transfers wait. `event_of` makes the event that is
        kept with a transfer.
        """
        self._store = store
        self._event_of = event_of
        self._clock = clock
        self._batch_max = batch_max
        self._waiting_max = waiting_max
        self._committers = committers
        self._gather_seconds = gather_seconds
        self._taken_at = float("-inf")
        self._queues: OrderedDict[str, deque[_Call]] = OrderedDict()
        self._waiting = 0
        self._wake = asyncio.Event()
        self._opened: set[str] = set()

    async def run(self) -> None:
        """Commit until cancelled; what still waits then is told to come again."""
        try:
            await HeldTasks().hold(*[self._commit_forever] * self._committers)
        finally:
            away = DependencyUnavailableError("ledger")
            for queue in self._queues.values():
                _fail(queue, away)
            self._queues.clear()

    async def post(
        self,
        tenant_id: str,
        wanted: Sequence[WantedTransfer],
        *,
        limits: Mapping[str, int] | None = None,
    ) -> list[Outcome]:
        """Make transfers and return what became of each, when it is committed.

        `limits` are those of wallets, by account id, that are opened for this; 0 without. Raises
        OverloadedError, DependencyUnavailableError; then nothing or everything was made, and the
        same again is safe.
        """
        if self._waiting + len(wanted) > self._waiting_max:
            raise OverloadedError(
                "more transfers wait than can be made soon",
                metadata={"waiting_max": str(self._waiting_max)},
                retry_after_seconds=_RETRY_SECONDS,
            )
        call = _Call(wanted, limits or {}, asyncio.get_running_loop().create_future())
        self._queues.setdefault(tenant_id, deque()).append(call)
        self._waiting += len(wanted)
        self._wake.set()
        return await call.done

    async def _commit_forever(self) -> None:
        while True:
            await self._wake.wait()
            if not self._queues:
                self._wake.clear()
                continue
            await self._gather()
            if not self._queues:
                continue
            tenant_id, calls = self._take()
            try:
                await self._commit(tenant_id, calls)
            except BaseException as error:
                _fail(calls, DependencyUnavailableError("ledger"))
                if not isinstance(error, Exception):
                    raise
                _log.error("batch_failed", calls=len(calls), exc_info=error)

    async def _gather(self) -> None:
        """Wait a moment when another batch was taken just now, so that this one is worth it."""
        quiet = self._clock.monotonic() - self._taken_at > self._gather_seconds
        if not quiet and self._waiting < self._batch_max:
            await asyncio.sleep(self._gather_seconds)
        self._taken_at = self._clock.monotonic()

    def _take(self) -> tuple[str, list[_Call]]:
        """Take the calls of one tenant that make a batch; tenants take turns."""
        tenant_id, queue = self._queues.popitem(last=False)
        calls: list[_Call] = []
        size = 0
        while queue and (not calls or size + len(queue[0].wanted) <= self._batch_max):
            call = queue.popleft()
            size += len(call.wanted)
            # A caller who went away before the start wants nothing any more.
            if not call.done.done():
                calls.append(call)
        if queue:
            self._queues[tenant_id] = queue
        self._waiting -= size
        _WAITING.set(self._waiting)
        return tenant_id, calls

    async def _commit(self, tenant_id: str, calls: Sequence[_Call]) -> None:
        """Commit the calls together; if PostgreSQL refuses that, each by itself."""
        if not calls:
            return
        try:
            outcomes = await self._attempt(tenant_id, calls)
        except DependencyUnavailableError as error:
            _fail(calls, error)
            return
        except (LedgerRefusedError, BatchConflictError) as error:
            if len(calls) > 1:
                for call in calls:
                    await self._commit(tenant_id, [call])
                return
            _log.error("transfers_refused_by_database", tenant_id=tenant_id, exc_info=error)
            _fail(calls, error)
            return
        for call in calls:
            own, outcomes = outcomes[: len(call.wanted)], outcomes[len(call.wanted) :]
            if not call.done.done():
                call.done.set_result(own)

    async def _attempt(self, tenant_id: str, calls: Sequence[_Call]) -> list[Outcome]:
        wanted = [transfer for call in calls for transfer in call.wanted]
        await self._open_accounts(tenant_id, calls)
        # First without locks, unless it is about other transfers: PostgreSQL refuses what must not
        # be, and batches are written side by side.
        lock = any(one.pending_id or one.refund_of for one in wanted)
        attempt = 1
        while True:
            try:
                outcomes = await self._decide_and_record(tenant_id, wanted, lock=lock)
            except (BatchConflictError, LedgerRefusedError):
                if attempt == _ATTEMPTS:
                    raise
                attempt, lock = attempt + 1, True
                _AGAIN.inc()
            else:
                _count(outcomes)
                return outcomes

    async def _decide_and_record(
        self, tenant_id: str, wanted: Sequence[WantedTransfer], *, lock: bool
    ) -> list[Outcome]:
        # All that can be done before the locks is: another batch is being written meanwhile.
        known = Known(now=self._clock.now())
        for one in wanted:
            outcome = foresee(one, known.now)
            if outcome is not None:
                known.foreseen[id(one)] = outcome
                if outcome.transfer is not None:
                    outcome.event = self._event_of(tenant_id, outcome.transfer)
        async with self._store.batch(tenant_id) as batch:
            await self._learn(known, batch, wanted, lock=lock)
            outcomes = decide(wanted, known)
            if not lock:
                await _check_refusals(known, batch, wanted, outcomes)
            made = [outcome for outcome in outcomes if outcome.transfer is not None]
            if made:
                await batch.record(made, [self._event(tenant_id, outcome) for outcome in made])
        return outcomes

    def _event(self, tenant_id: str, outcome: Outcome) -> NewEvent:
        if isinstance(outcome.event, NewEvent):
            return outcome.event
        if outcome.transfer is None:
            raise ValueError("only transfers that are made have an event")
        return self._event_of(tenant_id, outcome.transfer)

    async def _learn(
        self, known: Known, batch: Batch, wanted: Sequence[WantedTransfer], *, lock: bool
    ) -> None:
        """Read what the batch concerns, and lock it if asked."""
        pending_ids = {one.pending_id for one in wanted if one.pending_id}
        refund_ids = {one.refund_of for one in wanted if one.refund_of}
        account_ids = {posting[0] for one in wanted for posting in one.postings}
        if pending_ids or refund_ids:
            await batch.wait_for_targets(pending_ids | refund_ids)
            known.targets = await batch.targets(pending_ids | refund_ids)
            account_ids.update(
                posting[0] for target in known.targets.values() for posting in target.postings
            )
        known.funds = await batch.wallets(account_ids, lock=lock)
        if lock:
            # Else a transfer that was made before is refused by PostgreSQL, and seen the next time.
            known.made = await batch.made([one.transfer_id for one in wanted])
        if pending_ids:
            resolutions = await batch.resolutions(pending_ids)
            known.resolved = {pending: Phase(phase) for pending, phase in resolutions.items()}
        if refund_ids:
            known.refunded = await batch.refunded(refund_ids)

    async def _open_accounts(self, tenant_id: str, calls: Sequence[_Call]) -> None:
        missing = {
            account_id: key
            for call in calls
            for transfer in call.wanted
            for account_id, key, _ in transfer.postings
            if account_id not in self._opened
        }
        if not missing:
            return
        limits = {account_id: limit for call in calls for account_id, limit in call.limits.items()}
        await self._store.open_accounts(tenant_id, missing, limits=limits)
        if len(self._opened) > _OPENED_MAX:
            self._opened.clear()
        self._opened.update(missing)


async def _check_refusals(
    known: Known, batch: Batch, wanted: Sequence[WantedTransfer], outcomes: Sequence[Outcome]
) -> None:
    """Raise BatchConflictError if something may have been refused only for want of locks.

    That is what was made before, and what lacks funds that others of the batch had taken.
    """
    refused = [
        one.transfer_id
        for one, outcome in zip(wanted, outcomes, strict=True)
        if outcome.error is not None
    ]
    if refused and (known.needs_locks or await batch.made(refused)):
        raise BatchConflictError("what is refused must be looked at with locks")


def _fail(calls: Sequence[_Call] | deque[_Call], error: Exception) -> None:
    for call in calls:
        if not call.done.done():
            call.done.set_exception(error)


def _count(outcomes: Sequence[Outcome]) -> None:
    _BATCH.observe(len(outcomes))
    phases: dict[str, int] = {}
    for outcome in outcomes:
        if outcome.error is not None:
            _REFUSED.labels(outcome.error.reason).inc()
        elif outcome.transfer is not None:
            phase = outcome.transfer.phase
            phases[phase] = phases.get(phase, 0) + 1
    for made, count in phases.items():
        _MADE.labels(made).inc(count)
