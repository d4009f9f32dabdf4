"""Tasks that end for certain, also when one of them loses a cancellation."""

import asyncio

import pytest

from services.shared.tasks import HeldTasks, cancel_all

SOON = 0.01


class Deaf:
    """A task that takes its first cancellations for something else."""

    def __init__(self, lost: int) -> None:
        self.lost = lost
        self.ended = False

    async def run(self) -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.lost -= 1
                if self.lost < 0:
                    self.ended = True
                    raise


async def test_a_task_that_loses_a_cancellation_is_cancelled_again() -> None:
    deaf = Deaf(lost=2)
    task = asyncio.create_task(deaf.run())
    await asyncio.sleep(0)

    await cancel_all([task], every_seconds=SOON)

    assert deaf.ended


async def test_held_tasks_end_with_their_holder_though_it_is_cancelled_twice() -> None:
    held, works = HeldTasks(cancel_every_seconds=SOON), [Deaf(lost=3), Deaf(lost=0)]
    holder = asyncio.create_task(held.hold(works[0].run))
    await asyncio.sleep(0.01)
    started = held.start(works[1].run())
    await asyncio.sleep(0.01)

    holder.cancel()
    await asyncio.sleep(0.015)
    holder.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holder

    assert [work.ended for work in works] == [True, True]
    assert started.cancelled()


async def test_a_task_that_fails_ends_its_holder_and_the_others() -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise LookupError("no such thing")

    held, other = HeldTasks(cancel_every_seconds=SOON), Deaf(lost=0)
    with pytest.raises(LookupError):
        await held.hold(other.run, fail)

    assert other.ended


async def test_nothing_is_started_that_nobody_holds() -> None:
    with pytest.raises(RuntimeError, match="nobody holds"):
        _ = HeldTasks(cancel_every_seconds=SOON).start(Deaf(lost=0).run())


async def test_a_task_may_be_cancelled_alone() -> None:
    held = HeldTasks(cancel_every_seconds=SOON)
    holder = asyncio.create_task(held.hold())
    await asyncio.sleep(0)
    task = held.start(Deaf(lost=0).run())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0.01)

    assert task.cancelled()
    assert not holder.done()
    await cancel_all([holder])
