"""Start parts again that die while `wayfare up` runs: with growing pauses, and not for ever."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from services.stack.errors import StackError
from services.stack.process import ChildProcess
from services.stack.progress import Progress, ProgressKind, Report

_WATCH_SECONDS = 0.2
_LOG_BYTES_MAX = 64 * 1024 * 1024


class SupervisedStack(Protocol):
    """What the supervisor needs of a stack."""

    def processes(self) -> Mapping[str, ChildProcess]:
        """Return every child process by the name of its part."""

    async def restart_part(self, name: str) -> None:
        """Start a part again and wait until it is healthy."""


class Supervisor:
    """Watches the processes of a stack until it is cancelled."""

    def __init__(
        self,
        stack: SupervisedStack,
        *,
        report: Report,
        monotonic: Callable[[], float] = time.monotonic,
        first_pause_seconds: float = 0.5,
        restarts_max: int = 5,
        window_seconds: float = 120.0,
    ) -> None:
        """Watch a stack: a part that dies more than `restarts_max` times in the window stays down.

        The pause before a restart doubles with each one in the window.
        """
        self._stack = stack
        self._report = report
        self._monotonic = monotonic
        self._first_pause_seconds = first_pause_seconds
        self._restarts_max = restarts_max
        self._window_seconds = window_seconds
        self._restarts: dict[str, deque[float]] = {}

    async def run(self) -> None:
        """Watch every part, and the size of the logs, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for name, process in self._stack.processes().items():
                group.create_task(self._watch(name, process))

    async def _watch(self, name: str, process: ChildProcess) -> None:
        while True:
            if process.is_running():
                trim_log(process.log_path)
                await asyncio.sleep(_WATCH_SECONDS)
                continue
            pause = self._next_pause(name)
            if pause is None:
                detail = f"{_ending(process)} {self._restarts_max} times: see {process.log_path}"
                self._report(Progress(kind=ProgressKind.GAVE_UP, part=name, detail=detail))
                return
            detail = f"{_ending(process)}, starting it again in {pause:.2g} s"
            self._report(Progress(kind=ProgressKind.DIED, part=name, detail=detail))
            await asyncio.sleep(pause)
            await self._restart(name)

    async def _restart(self, name: str) -> None:
        begin = self._monotonic()
        # A start that fails leaves the process ended, which the next round sees and counts.
        try:
            await self._stack.restart_part(name)
        except StackError as error:
            detail = str(error).splitlines()[0]
            self._report(Progress(kind=ProgressKind.NOTE, part=name, detail=detail))
            return
        seconds = self._monotonic() - begin
        self._report(
            Progress(kind=ProgressKind.READY, part=name, detail="runs again", seconds=seconds)
        )

    def _next_pause(self, name: str) -> float | None:
        """Return the pause before the next restart, or None when there were too many."""
        now = self._monotonic()
        recent = self._restarts.setdefault(name, deque())
        while recent and recent[0] <= now - self._window_seconds:
            recent.popleft()
        if len(recent) >= self._restarts_max:
            return None
        recent.append(now)
        pause: float = self._first_pause_seconds * 2 ** (len(recent) - 1)
        return pause


def trim_log(path: Path, *, bytes_max: int = _LOG_BYTES_MAX) -> None:
    """Move a log that has grown too long aside; one older part is kept.

    The writers append, so that the file can be emptied under them.
    """
    with suppress(FileNotFoundError):
        if path.stat().st_size > bytes_max:
            path.with_suffix(".log.1").write_bytes(path.read_bytes())
            with path.open("r+b") as file:
                file.truncate()


def _ending(process: ChildProcess) -> str:
    code = process.exit_code
    if code is not None and code < 0:
        return f"was killed by signal {-code}"
    return f"ended with exit code {code}"
