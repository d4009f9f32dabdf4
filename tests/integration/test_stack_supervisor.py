"""The supervisor, with real processes: what dies is started again, what keeps dying is given up."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from services.stack.process import ChildProcess
from services.stack.progress import Progress, ProgressKind
from services.stack.supervisor import Supervisor, trim_log
from tests.support.waiting import until

pytestmark = pytest.mark.integration


class OneProcessStack:
    """A stack of one process that runs a Python program."""

    def __init__(self, folder: Path, program: str) -> None:
        self.process = ChildProcess(
            "part", command=[sys.executable, "-c", program], log_path=folder / "part.log"
        )

    def processes(self) -> dict[str, ChildProcess]:
        return {"part": self.process}

    async def restart_part(self, name: str) -> None:
        assert name == "part"
        self.process.start()


Supervise = Callable[[OneProcessStack], list[Progress]]


@pytest.fixture
async def supervise() -> AsyncIterator[Supervise]:
    tasks: list[asyncio.Task[None]] = []
    stacks: list[OneProcessStack] = []

    def begin(stack: OneProcessStack) -> list[Progress]:
        reports: list[Progress] = []
        supervisor = Supervisor(
            stack, report=reports.append, first_pause_seconds=0.01, restarts_max=3
        )
        stack.process.start()
        stacks.append(stack)
        tasks.append(asyncio.create_task(supervisor.run()))
        return reports

    yield begin
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    for stack in stacks:
        await stack.process.kill()


async def test_a_killed_process_is_started_again(tmp_path: Path, supervise: Supervise) -> None:
    stack = OneProcessStack(tmp_path, "import time; time.sleep(300)")
    reports = supervise(stack)
    first = stack.process.pid

    await stack.process.kill()
    await until(lambda: stack.process.pid not in (None, first))

    await until(lambda: len(reports) == 2)
    assert [report.kind for report in reports] == [ProgressKind.DIED, ProgressKind.READY]
    assert "killed by signal 9" in reports[0].detail


async def test_a_process_that_keeps_dying_is_given_up_with_its_log_named(
    tmp_path: Path, supervise: Supervise
) -> None:
    stack = OneProcessStack(tmp_path, "raise SystemExit(7)")

    reports = supervise(stack)
    await until(lambda: reports and reports[-1].kind is ProgressKind.GAVE_UP)

    kinds = [report.kind for report in reports]
    assert kinds.count(ProgressKind.DIED) == 3
    assert "exit code 7" in reports[-1].detail
    assert "part.log" in reports[-1].detail


async def test_pauses_between_restarts_grow(tmp_path: Path, supervise: Supervise) -> None:
    stack = OneProcessStack(tmp_path, "raise SystemExit(7)")

    reports = supervise(stack)
    await until(lambda: reports and reports[-1].kind is ProgressKind.GAVE_UP)

    died = [report.detail for report in reports if report.kind is ProgressKind.DIED]
    assert [detail.split(" in ")[1] for detail in died] == ["0.01 s", "0.02 s", "0.04 s"]


def test_a_long_log_is_moved_aside_while_it_is_written(tmp_path: Path) -> None:
    log = tmp_path / "part.log"
    with log.open("ab") as writer:
        writer.write(b"x" * 100)
        writer.flush()

        trim_log(log, bytes_max=99)
        writer.write(b"after")
        writer.flush()

    assert log.read_bytes() == b"after"
    assert (tmp_path / "part.log.1").read_bytes() == b"x" * 100
