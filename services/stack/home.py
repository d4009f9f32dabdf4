"""The folder with all that one stack keeps: data, secrets, certificates, logs and what runs now.

Its path is `.wayfare` in the current folder, or WAYFARE_HOME. Every command finds a running stack
through `state.json` in it.
"""

import asyncio
import fcntl
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from services.stack.errors import HomeInUseError, NotRunningError, StackError
from services.stack.passwords import write_private_file
from services.stack.process import ChildProcess

_SOCKET_PATH_BYTES_MAX = 107
_LONGEST_SOCKET_NAME = "postgres/.s.PGSQL.5432"
_AWKWARD_IN_PATHS = re.compile(r"[^A-Za-z0-9/._-]")
_STATE_VERSION = 1
_LEFTOVER_SECONDS = 40.0
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class PartState:
    """One part of a running stack, as other commands need to know it.

    `kind` is postgres, valkey, envoy or service. `check` is where its health is asked: the file of
    a DSN, a URL, or the path of Envoy's admin socket. `pid` is None for a server of your own.
    """

    name: str
    kind: str
    pid: int | None
    address: str
    check: str
    log: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StackState:
    """Everything other commands need to know about a running stack."""

    supervisor_pid: int
    start_time: str
    edge_address: str
    mesh_address: str
    run_folder: str
    parts: list[PartState]


class Home:
    """Knows where in the home everything lies, and whether a stack runs on it."""

    def __init__(self, path: Path | None = None) -> None:
        """Open the home at a path; by default WAYFARE_HOME or `.wayfare` here."""
        self.path = (path or Path(os.environ.get("WAYFARE_HOME", ".wayfare"))).absolute()
        self.logs = self.path / "logs"
        self.secrets = self.path / "secrets"
        self.signing_keys = self.secrets / "signing-keys"
        self.jwks_file = self.path / "jwks.json"
        self.certificates = self.path / "certificates"
        self.postgres_data = self.path / "postgres"
        self.valkey_data = self.path / "valkey"
        self.envoy_config = self.path / "envoy.json"
        self.session_file = self.secrets / "session.json"
        self.scans = self.path / "scans"
        self._state_file = self.path / "state.json"
        self._lock_file = self.path / "lock"

    def create(self) -> None:
        """Create the folder, closed to other users, and its subfolders."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in (self.secrets, self.certificates, self.logs):
            folder.mkdir(exist_ok=True, mode=0o700)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the home for one stack; raise HomeInUseError when another one has it.

        The kernel lets go of the lock when the process ends, however it ends.
        """
        self.create()
        with self._lock_file.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise HomeInUseError(self._in_use_message()) from error
            yield

    def is_locked(self) -> bool:
        """Return whether a stack runs on this home."""
        if not self._lock_file.exists():
            return False
        try:
            with self.lock():
                return False
        except HomeInUseError:
            return True

    @contextmanager
    def run_folder(self) -> Iterator[Path]:
        """Make the folder of the sockets: `run`, or a short one where its path would not do."""
        inside = self.path / "run"
        if _is_fit_for_sockets(inside):
            folder = inside
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700)
        else:
            folder = Path(tempfile.mkdtemp(prefix="wayfare-"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    async def wait_for_leftovers(self) -> None:
        """Wait until the processes of a stack that was killed are gone.

        The kernel takes them down with their parent, but they may need a moment, in which they
        would remove sockets of the new stack or write to its files.
        """
        if not self._state_file.exists():
            return
        try:
            state = self._parse_state()
        except (StackError, ValueError, TypeError):
            # Written by another version, or not to its end: nothing can be learned from it.
            return
        end = time.monotonic() + _LEFTOVER_SECONDS
        while left := [part.name for part in state.parts if _is_ours(part.pid, state.run_folder)]:
            if time.monotonic() >= end:
                raise StackError(
                    f"These processes of a killed stack do not end: {', '.join(left)}."
                )
            await asyncio.sleep(_POLL_SECONDS)

    def write_state(self, state: StackState) -> None:
        """Record what runs."""
        text = json.dumps({"version": _STATE_VERSION, **asdict(state)}, indent=2)
        write_private_file(self._state_file, text.encode())

    def read_state(self) -> StackState:
        """Return what runs; raise NotRunningError when nothing does."""
        if not self.is_locked() or not self._state_file.exists():
            raise NotRunningError(f"No stack runs on {self.path}: start one with `wayfare up`.")
        return self._parse_state()

    def _parse_state(self) -> StackState:
        document: dict[str, Any] = json.loads(self._state_file.read_text(encoding="utf-8"))
        if document.pop("version", None) != _STATE_VERSION:
            raise StackError(f"{self._state_file} is of another version: restart `wayfare up`.")
        parts = [PartState(**part) for part in document.pop("parts")]
        return StackState(parts=parts, **document)

    def clear_state(self) -> None:
        """Forget what ran."""
        self._state_file.unlink(missing_ok=True)

    def remove(self) -> None:
        """Delete everything; raise HomeInUseError while a stack runs."""
        if not self.path.exists():
            return
        with self.lock():
            shutil.rmtree(self.path)

    def _in_use_message(self) -> str:
        owner = ""
        if self._state_file.exists():
            document = json.loads(self._state_file.read_text(encoding="utf-8"))
            owner = f" (process {document.get('supervisor_pid')})"
        return (
            f"A stack already runs on {self.path}{owner}. Stop it with Ctrl-C there, look at it"
            " with `wayfare status`, or choose another home with WAYFARE_HOME."
        )


def part_state(kind: str, part: object, *, check: str) -> PartState:
    """Describe one part of a stack for other commands; a server of your own has no process."""
    process = process_of(part)
    return PartState(
        name=process.name if process is not None else kind,
        kind=kind,
        pid=process.pid if process is not None else None,
        address=str(getattr(part, "address", "")),
        check=check,
        log=str(process.log_path) if process is not None else "",
    )


def _is_fit_for_sockets(folder: Path) -> bool:
    # The path becomes part of URLs and of PostgreSQL's lists, each with its own way of quoting.
    path = str(folder / _LONGEST_SOCKET_NAME)
    return len(path) <= _SOCKET_PATH_BYTES_MAX and not _AWKWARD_IN_PATHS.search(path)


def _is_ours(pid: int | None, run_folder: str) -> bool:
    # A process id may have been given to somebody else's process meanwhile.
    if pid is None:
        return False
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and (
            run_folder in " ".join((*process.cmdline(), *process.environ().values()))
        )
    return False


def process_of(part: object) -> ChildProcess | None:
    """Return the child process of a part; None for a server of your own."""
    process = getattr(part, "process", None)
    return process if isinstance(process, ChildProcess) else None
