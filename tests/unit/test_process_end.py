"""The end of a process: background work ends even when a library loses a cancellation."""

import asyncio

from services.shared.rpc.process import end_tasks


async def test_work_that_loses_a_cancellation_ends_all_the_same() -> None:
    lost = 0

    async def work() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                # As asyncio.wait_for does on Python 3.11 when its inner work has just ended.
                if lost == 2:
                    raise
                lost += 1

    tasks = [asyncio.create_task(work())]
    await asyncio.sleep(0)

    async with asyncio.timeout(10):
        await end_tasks(tasks)

    assert tasks[0].cancelled()


async def test_no_tasks_end_at_once() -> None:
    await end_tasks([])
