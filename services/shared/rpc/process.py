"""Runs one service process: event loop, background work, signals, and an end in good order."""

import asyncio
import gc
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

import structlog
import uvloop
from prometheus_client import Gauge

from services.shared.rpc.server import RpcServer
from services.shared.tasks import cancel_all

_log = structlog.get_logger()
_TASKS = Gauge("wayfare_tasks_open", "Tasks of the event loop that have not ended")
# Generation 0 is collected every 50,000 new objects instead of 700: messages die young anyway, and
# a collection walks all open streams.
_GC_THRESHOLDS = (50_000, 20, 100)

Background = Callable[[], Awaitable[None]]
Build = Callable[[AsyncExitStack], Awaitable[tuple[RpcServer, Sequence[Background]]]]


def run_process(build: Build) -> None:
    """Build the service and run it until SIGTERM or SIGINT.

    `build` returns the server and the background work; what it opens it enters into the stack,
    which is closed in reverse order. Background work that fails stops the process, to be started
    anew.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(build))


async def _run(build: Build) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        rpc, background = await build(stack)
        await serve(rpc, background, stop)


async def serve(rpc: RpcServer, background: Sequence[Background], stop: asyncio.Event) -> None:
    """Serve and do the background work until `stop`, then drain."""
    await rpc.start()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    gc.enable()
    loop = asyncio.get_running_loop()
    # Asked from the thread that serves metrics; a count that is off by one harms nobody.
    _TASKS.set_function(lambda: len(asyncio.all_tasks(loop)))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_forever(work)) for work in (rpc.monitor.run, *background)]
        await stop.wait()
        await rpc.drain_and_stop()
        await cancel_all(tasks)


async def _forever(work: Background) -> None:
    await work()
    raise RuntimeError(f"background work {work!r} ended by itself")
