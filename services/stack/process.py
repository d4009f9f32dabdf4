"""One child process with a log file, in a process group of its own, that dies with its parent.

Used by every part of the stack. Nothing here is tied to an event loop, so that a process started in
one (a session-wide test fixture) can be stopped in another.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from services.stack.errors import StartError

_LAUNCHER = Path(__file__).with_name("launcher.py")
_POLL_SECONDS = 0.01
_LOG_TAIL_LINES = 20


class ChildProcess:
    """Runs one program; can be stopped, killed and started again."""

    def __init__(
        self,
        name: str,
        *,
        command: Sequence[str],
        log_path: Path,
        environment: Mapping[str, str] | None = None,
        death_signal: signal.Signals = signal.SIGKILL,
        user: str | None = None,
    ) -> None:
        """Describe the process.

        `death_signal` reaches it when this process dies without stopping it. `user` is the system
        user to run as, which needs root.
        """
        self.name = name
        self.command = tuple(command)
        self.log_path = log_path
        self.environment = dict(environment) if environment is not None else None
        self._death_signal = death_signal
        self._user = user
        self._process: subprocess.Popen[bytes] | None = None
        self._started_monotonic = 0.0

    @property
    def pid(self) -> int | None:
        """Return the process id while the process runs."""
        return self._process.pid if self._process is not None and self.is_running() else None

    def is_running(self) -> bool:
        """Return whether the process runs now."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Return the last exit code: negative is a signal, None still runs or never ran."""
        return self._process.poll() if self._process is not None else None

    @property
    def age_seconds(self) -> float:
        """Return the time since the last start."""
        return time.monotonic() - self._started_monotonic

    def start(self) -> None:
        """Start the process; its output is appended to the log file."""
        if self.is_running():
            return
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        launch = [sys.executable, "-I", "-S", str(_LAUNCHER)]
        launch += ["--parent", str(os.getpid()), "--death-signal", str(int(self._death_signal))]
        if self._user is not None:
            launch += ["--user", self._user]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*launch, "--", *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
            )
        self._started_monotonic = time.monotonic()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process itself."""
        if self._process is not None and self.is_running():
            self._process.send_signal(number)

    async def wait(self, timeout_seconds: float) -> bool:
        """Wait until the process has ended; return False when it still runs after the timeout."""
        end = time.monotonic() + timeout_seconds
        while self.is_running():
            if time.monotonic() >= end:
                return False
            await asyncio.sleep(_POLL_SECONDS)
        return True

    async def stop(
        self, *, with_signal: signal.Signals = signal.SIGTERM, timeout_seconds: float = 10.0
    ) -> None:
        """Ask the process to end, and kill its whole group when it has not after the timeout."""
        self.send(with_signal)
        if not await self.wait(timeout_seconds):
            await self.kill()

    async def kill(self) -> None:
        """Kill the process and everything in its group at once, and wait until it is gone."""
        if self._process is None or not self.is_running():
            return
        # It may end between the check and the signal.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self.wait(10.0)

    def log_tail(self) -> str:
        """Return the last lines of the log."""
        if not self.log_path.exists():
            return ""
        with self.log_path.open("rb") as log:
            log.seek(max(0, self.log_path.stat().st_size - 8192))
            text = log.read().decode(errors="replace")
        return "\n".join(text.splitlines()[-_LOG_TAIL_LINES:])

    def start_error(self, why: str) -> StartError:
        """Make the error that says why the process is not healthy, with the end of its log."""
        return StartError(f"{self.name} {why}.\nThe end of {self.log_path}:\n{self.log_tail()}")


def run_to_end(
    command: Sequence[str], *, user: str | None = None, environment: Mapping[str, str] | None = None
) -> str:
    """Run a short program to its end and return its output; raise StartError if it fails."""
    launch = [sys.executable, "-I", "-S", str(_LAUNCHER), "--parent", str(os.getpid())]
    launch += ["--death-signal", str(int(signal.SIGKILL))]
    if user is not None:
        launch += ["--user", user]
    done = subprocess.run(
        [*launch, "--", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120,
        env=dict(environment) if environment is not None else None,
    )
    if done.returncode != 0:
        name = Path(command[0]).name
        raise StartError(f"{name} failed with exit code {done.returncode}:\n{done.stdout.strip()}")
    return done.stdout
