"""Collects the wanted changes of seats of all callers for a moment and commits them together.

Used by everything that changes who has a seat. A batch locks its trips first and is decided then,
so what it says is final: batches of several processes on one trip follow each other, and nobody
guesses. While a batch is being committed the next one gathers.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence, Sized
from contextlib import suppress
from datetime import datetime
from typing import Any

import structlog
from prometheus_client import Counter as Metric
from prometheus_client import Histogram

from services.booking.domain.holding import Sweep
from services.booking.domain.layouts import SeatLayout
from services.booking.domain.seats import Cause, SeatsChanged, TripSeats
from services.booking.domain.trips import Trip
from services.booking.domain.turns import BatchKnown, Happening, TripTurn, WantedChange
from services.booking.errors.trips import TripUnknownError
from services.booking.operations.seat_queue import SeatCall, SeatQueue, fail
from services.booking.operations.trip_memory import KnownTrip, TripMemory
from services.booking.ports.seats import SeatBatch, SeatBatchConflictError, SeatStore
from services.booking.ports.trips import NewEvent
from services.shared.clock import Clock
from services.shared.errors import (
    DependencyUnavailableError,
    DomainError,
    OverloadedError,
    RequestIdReusedError,
)
from services.shared.tasks import HeldTasks

_log = structlog.get_logger()
_CHANGED = Metric("wayfare_booking_seat_changes_total", "Changes of seats", ["cause"])
_REFUSED = Metric("wayfare_booking_seat_refusals_total", "Changes refused", ["reason"])
_BATCH = Histogram(
    "wayfare_booking_seat_batch_changes",
    "Changes committed together",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500),
)
_AGAIN = Metric("wayfare_booking_seat_batches_decided_again_total", "Batches decided again")
_ATTEMPTS = 5
_RETRY_SECONDS = 0.5
_REMEMBERED_MAX = 400_000
_PATIENCE_SECONDS = 0.02


EventOf = Callable[[str, Happening, datetime], NewEvent]


class SeatBatcher:
    """Changes seats, many callers' together."""

    def __init__(
        self,
        *,
        store: SeatStore,
        event_of: EventOf,
        clock: Clock,
        batch_max: int,
        waiting_max: int,
        committers: int,
        gather_seconds: float,
        patience_seconds: float = _PATIENCE_SECONDS,
    ) -> None:
        """Commit to `store`, at most `batch_max` changes at once by so many `committers`.

        A process that is busy lets changes gather for `gather_seconds` before a batch. Callers are
        refused when `waiting_max` changes wait. A batch that takes longer than `patience_seconds`
        does not keep the next one waiting. `event_of` makes an event of what happened, of the
        tenant and at the time given.
        """
        self._store = store
        self._event_of = event_of
        self._clock = clock
        self._batch_max = batch_max
        self._waiting_max = waiting_max
        self._committers = committers
        self._gather_seconds = gather_seconds
        self._patience_seconds = patience_seconds
        self._taken_at = float("-inf")
        self._queue = SeatQueue()
        self._busy: set[str] = set()
        self._under_way = 0
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._memory = TripMemory(_REMEMBERED_MAX)

    async def run(self) -> None:
        """Commit until cancelled; what still waits then is told to come again."""
        try:
            await HeldTasks().hold(*[self._commit_forever] * self._committers)
        finally:
            self._queue.fail(DependencyUnavailableError("booking"))

    async def do(self, wanted: WantedChange) -> Any:
        """Make a change and return its answer, when it is committed.

        Raises its refusal, OverloadedError, or DependencyUnavailableError; after the last one it
        was made or not, and the same again is safe.
        """
        if len(self._queue) >= self._waiting_max:
            raise OverloadedError(
                "more changes of seats wait than can be made soon",
                metadata={"waiting_max": str(self._waiting_max)},
                retry_after_seconds=_RETRY_SECONDS,
            )
        call = SeatCall(wanted, asyncio.get_running_loop().create_future())
        self._queue.put(call)
        self._wake.set()
        return await call.done

    async def sweep(self, tenant_id: str, trip_ids: Iterable[str]) -> int:
        """End what has run out on these trips, and return how many holds that were.

        Trips that somebody has locked are left for the next time.
        """
        calls = [
            SeatCall(Sweep(tenant_id=tenant_id, trip_id=trip_id), asyncio.Future())
            for trip_id in trip_ids
        ]
        answers = await self._decide_and_record(tenant_id, calls, again=False, skip_locked=True)
        return sum(answer for answer in answers if isinstance(answer, int))

    async def _commit_forever(self) -> None:
        while True:
            await self._wake.wait()
            await self._gather()
            await self._wait_for_others()
            tenant_id, calls = self._queue.take(busy=self._busy, most=self._batch_max)
            if not calls:
                # All that waits is of trips that another batch is about; it wakes us.
                self._wake.clear()
                continue
            trip_ids = {call.wanted.trip_id for call in calls}
            self._busy |= trip_ids
            self._under_way += 1
            self._idle.clear()
            try:
                await self._commit(tenant_id, calls)
            except BaseException as error:
                fail(calls, DependencyUnavailableError("booking"))
                if not isinstance(error, Exception):
                    raise
                _log.error("seat_batch_failed", calls=len(calls), exc_info=error)
            finally:
                self._busy -= trip_ids
                self._under_way -= 1
                if not self._under_way:
                    self._idle.set()
                self._wake.set()

    async def _gather(self) -> None:
        """Wait a moment when another batch was taken just now, so that this one is worth it."""
        quiet = self._clock.monotonic() - self._taken_at > self._gather_seconds
        if not quiet and len(self._queue) < self._batch_max:
            await asyncio.sleep(self._gather_seconds)
        self._taken_at = self._clock.monotonic()

    async def _wait_for_others(self) -> None:
        """Let a batch that is under way end first: what gathers meanwhile is one batch, not two.

        One that takes long may wait for a lock, and nobody else shall wait for that.
        """
        if not self._idle.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), self._patience_seconds)

    async def _commit(self, tenant_id: str, calls: Sequence[SeatCall]) -> None:
        """Commit the calls together; if PostgreSQL refuses that, each by itself."""
        try:
            answers = await self._attempt(tenant_id, calls)
        except DependencyUnavailableError as error:
            fail(calls, error)
            return
        except SeatBatchConflictError as error:
            if len(calls) > 1:
                for call in calls:
                    await self._commit(tenant_id, [call])
                return
            _log.error("seats_refused_by_database", tenant_id=tenant_id, exc_info=error)
            fail(calls, error)
            return
        for call, answer in zip(calls, answers, strict=True):
            if call.done.done():
                continue
            if isinstance(answer, Exception):
                call.done.set_exception(answer)
            else:
                call.done.set_result(answer)

    async def _attempt(self, tenant_id: str, calls: Sequence[SeatCall]) -> list[Any]:
        for attempt in range(_ATTEMPTS):
            try:
                return await self._decide_and_record(
                    tenant_id, calls, again=attempt > 0, skip_locked=False
                )
            except SeatBatchConflictError:
                _AGAIN.inc()
                if attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError("the last attempt returns or raises")

    async def _decide_and_record(
        self, tenant_id: str, calls: Sequence[SeatCall], *, again: bool, skip_locked: bool
    ) -> list[Any]:
        """Return for each call its answer, or the DomainError that refuses it."""
        wanted = [call.wanted for call in calls]
        known = BatchKnown(now=self._clock.now())
        async with self._store.batch(tenant_id) as batch:
            turns = await self._turns(batch, known, wanted, skip_locked=skip_locked)
            await _learn(batch, known, wanted, turns, again=again)
            for turn in turns.values():
                turn.seats.expire(known.now)
            answers = [_decide(one, turns.get(one.trip_id)) for one in wanted]
            if not again:
                await _check_refusals(batch, wanted, answers)
            changed = [turn for turn in turns.values() if turn.is_changed]
            if changed:
                await batch.record(changed, self._events(tenant_id, changed))
        causes = Counter(change.cause for turn in changed for change in turn.seats.changes)
        self._remember(turns)
        _count([] if skip_locked else answers, causes)
        return answers

    async def _turns(
        self,
        batch: SeatBatch,
        known: BatchKnown,
        wanted: Sequence[WantedChange],
        *,
        skip_locked: bool,
    ) -> dict[str, TripTurn]:
        """Take the turns at the trips and bring what is known of them up to date."""
        taken = await batch.take_turns(wanted, now=known.now, skip_locked=skip_locked)
        known.live_hold_counts.update(taken.live_hold_counts)
        known.requests = taken.requests
        locked = taken.trips
        remembered = {trip_id: self._memory.take(trip_id) for trip_id in locked}
        trips: dict[str, tuple[Trip, SeatLayout]] = {}
        seats: dict[str, TripSeats] = {}
        notes: dict[str, dict[str, Sized]] = {}
        for trip_id, one in remembered.items():
            lock = locked[trip_id]
            if one is not None and one.trip.update_time == lock.update_time:
                trips[trip_id] = (one.trip, one.layout)
            if one is not None and one.batch_count == lock.batch_count:
                seats[trip_id], notes[trip_id] = one.seats, one.notes
        if changed := locked.keys() - trips.keys():
            trips |= await batch.trips(changed)
        if stale := {one: locked[one].seat_version for one in locked.keys() - seats.keys()}:
            seats |= await batch.seats(stale)
        return {
            trip_id: TripTurn(
                trip=trip,
                layout=layout,
                seats=seats[trip_id],
                event_version=locked[trip_id].event_version,
                batch_count=locked[trip_id].batch_count,
                known=known,
                notes=notes.get(trip_id, {}),
            )
            for trip_id, (trip, layout) in trips.items()
        }

    def _events(self, tenant_id: str, turns: Sequence[TripTurn]) -> list[NewEvent]:
        events = []
        for turn in turns:
            happenings = list(turn.events)
            if turn.seats.changes:
                version = turn.seats.version + 1
                trip_id = turn.trip.trip_id
                body = SeatsChanged(trip_id, version, turn.seats.changes)
                happenings.append(Happening("trip_seats", trip_id, version, body))
            events += [self._event_of(tenant_id, one, turn.now) for one in happenings]
        return events

    def _remember(self, turns: dict[str, TripTurn]) -> None:
        """Keep what is committed for the next batch."""
        for turn in turns.values():
            seats, batch_count = turn.seats, turn.batch_count + turn.is_changed
            seats.settle(seats.version + bool(seats.changes))
            notes = {} if turn.undone else turn.notes
            self._memory.give(KnownTrip(turn.trip, turn.layout, seats, batch_count, notes))


async def _learn(
    batch: SeatBatch,
    known: BatchKnown,
    wanted: Sequence[WantedChange],
    turns: dict[str, TripTurn],
    *,
    again: bool,
) -> None:
    """Read what the changes name besides their trips."""
    hold_ids = {
        hold_id
        for one in wanted
        for hold_id in (*one.hold_ids, *(one.new_hold_ids if again else ()))
        if one.trip_id in turns and hold_id not in turns[one.trip_id].seats.holds
    }
    if hold_ids:
        known.holds = await batch.holds(hold_ids)
    with_turns = [(one, turns[one.trip_id]) for one in wanted if one.trip_id in turns]
    known.parts = await batch.parts(with_turns)


def _decide(wanted: WantedChange, turn: TripTurn | None) -> Any:
    """Return the answer to one change, or the DomainError that refuses it."""
    if turn is None:
        return TripUnknownError(wanted.trip_id)
    key = wanted.request
    mark = turn.mark()
    try:
        if key is None:
            return wanted.decide(turn)
        before = turn.known.requests.get(key[:3])
        if before is not None:
            body_hash, resource_id = before
            if body_hash != key.body_hash:
                raise RequestIdReusedError(key.request_id)
            return wanted.repeated(turn, resource_id)
        answer = wanted.decide(turn)
    except DomainError as error:
        turn.undo(mark)
        return error
    except Exception as error:  # noqa: BLE001 - logged and told to its caller
        # A fault of ours; the others of the batch have nothing to do with it.
        _log.error("seat_change_failed", change=type(wanted).__name__, exc_info=error)
        turn.undo(mark)
        return error
    resource_id = wanted.resource_id(answer)
    turn.known.requests[key[:3]] = (key.body_hash, resource_id)
    turn.requests.append((key, resource_id))
    return answer


async def _check_refusals(
    batch: SeatBatch, wanted: Sequence[WantedChange], answers: Sequence[Any]
) -> None:
    """Raise SeatBatchConflictError if what is refused was made before.

    A repeated call is answered, not refused for what became of its seats since.
    """
    refused = [
        hold_id
        for one, answer in zip(wanted, answers, strict=True)
        if isinstance(answer, DomainError)
        for hold_id in one.new_hold_ids
    ]
    if refused and await batch.holds(refused):
        raise SeatBatchConflictError("what is refused was made before")


def _count(answers: Sequence[Any], causes: Counter[Cause]) -> None:
    _BATCH.observe(len(answers))
    for cause, count in causes.items():
        _CHANGED.labels(cause).inc(count)
    for answer in answers:
        if isinstance(answer, DomainError):
            _REFUSED.labels(answer.reason).inc()
