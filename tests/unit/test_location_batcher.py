"""UpdateBatcher and Ring: what waits, in which order, and who is told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from services.location.operations.batcher import UpdateBatcher
from services.location.operations.ring import Ring
from services.location.ports.live import Update
from services.shared.clock import SystemClock
from tests.support.location_fakes import MemoryLiveStore
from tests.support.location_values import TENANT, new_id, now_milliseconds, position_update
from tests.support.waiting import until


class Verdicts:
    """Collects what is decided."""

    def __init__(self) -> None:
        self.seqs: list[int] = []
        self.verdicts: list[str] = []

    def decided(self, update: Update, verdict: str) -> None:
        self.seqs.append(update.seq)
        self.verdicts.append(verdict)


class Writing:
    """A batcher that runs, its store, and what it told."""

    def __init__(self, *, pending_max: int = 1000) -> None:
        self.live = MemoryLiveStore()
        self.told: list[bool] = []
        self.verdicts = Verdicts()
        self.batcher = UpdateBatcher(
            live=self.live,
            tick_seconds=0.005,
            pending_max=pending_max,
            on_degraded=self.told.append,
        )

    async def driver(self) -> str:
        driver_id = new_id()
        await self.live.join_session(
            driver_id=driver_id, tenant_id=TENANT, vehicle_id="bus", trip_id=""
        )
        return driver_id

    def add(self, driver_id: str, *seqs: int) -> None:
        start = now_milliseconds()
        for seq in seqs:
            update = position_update(driver_id, seq=seq, capture=start + seq)
            self.batcher.add(update, self.verdicts)


@asynccontextmanager
async def running(batcher: UpdateBatcher) -> AsyncIterator[None]:
    task = asyncio.create_task(batcher.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_updates_of_a_driver_are_written_in_their_order() -> None:
    writing = Writing()
    driver_id = await writing.driver()
    async with running(writing.batcher):
        writing.add(driver_id, *range(1, 600))
        await asyncio.wait_for(writing.batcher.drain(), 5)

    assert writing.verdicts.seqs == list(range(1, 600))
    assert set(writing.verdicts.verdicts) == {"A"}


async def test_updates_of_a_tick_are_written_together() -> None:
    writing = Writing()
    driver_id = await writing.driver()
    writing.add(driver_id, *range(1, 100))
    async with running(writing.batcher):
        await asyncio.wait_for(writing.batcher.drain(), 5)

    assert [len(updates) for updates in writing.live.applied] == [99]


async def test_while_the_store_is_away_everything_is_kept() -> None:
    writing = Writing()
    driver_id = await writing.driver()
    writing.live.away = True
    async with running(writing.batcher):
        writing.add(driver_id, 1, 2)
        await until(lambda: writing.told)
        writing.add(driver_id, 3)
        writing.live.away = False
        await asyncio.wait_for(writing.batcher.drain(), 5)

    assert writing.verdicts.seqs == [1, 2, 3]
    assert writing.verdicts.verdicts == ["A", "A", "A"]


async def test_an_outage_is_told_once_when_it_begins_and_once_when_it_ends() -> None:
    writing = Writing()
    driver_id = await writing.driver()
    writing.live.away = True
    async with running(writing.batcher):
        writing.add(driver_id, 1)
        await until(lambda: writing.batcher.degraded)
        writing.live.away = False
        await asyncio.wait_for(writing.batcher.drain(), 5)

    assert writing.told == [True, False]


async def test_there_is_room_up_to_the_bound_and_again_once_it_is_written() -> None:
    writing = Writing(pending_max=3)
    driver_id = await writing.driver()
    room = []
    for seq in (1, 2, 3):
        writing.add(driver_id, seq)
        room.append(writing.batcher.has_room)
    async with running(writing.batcher):
        await asyncio.wait_for(writing.batcher.drain(), 5)
    room.append(writing.batcher.has_room)

    assert room == [True, True, False, True]


async def test_nothing_to_drain_is_drained_at_once() -> None:
    await asyncio.wait_for(Writing().batcher.drain(), 1)


def ring_of(visited: list[str], period_seconds: float = 1.0) -> Ring[str]:
    return Ring(period_seconds=period_seconds, visit=visited.append, clock=SystemClock())


def turn(ring: Ring[str], times: int) -> None:
    for _ in range(times):
        ring.turn()


def test_a_member_is_visited_once_per_period() -> None:
    visited: list[str] = []
    ring = ring_of(visited)
    turn(ring, 10)
    ring.add("one")

    turn(ring, 63)
    assert not visited
    turn(ring, 65)

    assert visited == ["one", "one"]


@pytest.mark.parametrize("present", [True, False])
def test_a_member_that_left_is_not_visited(present: bool) -> None:
    visited: list[str] = []
    ring = ring_of(visited)
    if present:
        ring.add("one")
    ring.discard("one")
    turn(ring, 64)

    assert not visited
    assert len(ring) == 0


def test_a_member_may_leave_while_it_is_visited() -> None:
    visited: list[str] = []

    def visit(member: str) -> None:
        visited.append(member)
        ring.discard(member)

    ring = Ring(period_seconds=1.0, visit=visit, clock=SystemClock())
    ring.add("one")
    ring.add("two")
    turn(ring, 64)

    assert sorted(visited) == ["one", "two"]
    assert ring.members() == []


async def test_a_running_ring_turns_by_itself() -> None:
    visited: list[str] = []
    ring = ring_of(visited, period_seconds=0.064)
    ring.add("one")
    task = asyncio.create_task(ring.run())
    await until(lambda: len(visited) >= 2)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
