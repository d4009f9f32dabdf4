"""Ends tasks for certain, and holds those that run as long as their owner."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine
from typing import Any

import structlog

_log = structlog.get_logger()
_CANCEL_ATTEMPTS = 20
_CANCEL_SECONDS = 0.5

Task = asyncio.Task[None]


async def cancel_all(tasks: Collection[Task], *, every_seconds: float = _CANCEL_SECONDS) -> None:
    """Cancel until every task has ended, twenty times at most.

    One cancellation may be lost: a wait with a time limit that succeeds in the same moment takes
    it for its own (python/cpython#86296).
    """
    pending = set(tasks)
    cancelled: asyncio.CancelledError | None = None
    for _ in range(_CANCEL_ATTEMPTS):
        if not pending:
            break
        for task in pending:
            task.cancel()
        try:
            _, pending = await asyncio.wait(pending, timeout=every_seconds)
        except asyncio.CancelledError as error:
            # Whoever waits for this is impatient, and would leave tasks behind.
            cancelled = error
            pending = {task for task in pending if not task.done()}
    if pending:
        _log.error("background_work_does_not_end", tasks=[task.get_name() for task in pending])
    if cancelled is not None:
        raise cancelled


class HeldTasks:
    """Are tasks that end with `hold`, at the latest. A task that fails ends it with its error.

    asyncio.TaskGroup cancels its tasks once, which may be lost; see `cancel_all`.
    """

    def __init__(self, *, cancel_every_seconds: float = _CANCEL_SECONDS) -> None:
        """Hold nothing yet."""
        self._cancel_every_seconds = cancel_every_seconds
        self._tasks: set[Task] = set()
        self._failed: asyncio.Future[None] | None = None

    async def hold(self, *works: Callable[[], Awaitable[None]]) -> None:
        """Do `works`, and what is started meanwhile, until cancelled."""
        self._failed = asyncio.get_running_loop().create_future()
        for work in works:
            _ = self.start(_coroutine(work))
        try:
            await self._failed
        finally:
            self._failed = None
            await cancel_all(self._tasks, every_seconds=self._cancel_every_seconds)

    def start(self, work: Coroutine[Any, Any, None]) -> Task:
        """Start a task; only while `hold` runs, else RuntimeError."""
        if self._failed is None:
            work.close()
            raise RuntimeError("nobody holds the task")
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: Task) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and self._failed is not None and not self._failed.done():
            self._failed.set_exception(error)


async def _coroutine(work: Callable[[], Awaitable[None]]) -> None:
    await work()
