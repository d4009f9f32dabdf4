"""The folder with all that one stack keeps: data, secrets, certificates, logs and what runs now.

Its path is `.wayfare` in the current folder, or WAYFARE_HOME. Every command finds a running stack
through `state.json` in it.
"""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from services.stack.errors import HomeInUseError, NotRunningError, StackError
from services.stack.passwords import write_private_file
from services.stack.process import ChildProcess

_SOCKET_PATH_BYTES_MAX = 107
_LONGEST_SOCKET_NAME = "postgres/.s.PGSQL.5432"
_STATE_VERSION = 1


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
        """Make the folder of the sockets: `run`, or a short one where paths would be too long."""
        inside = self.path / "run"
        if len(str(inside / _LONGEST_SOCKET_NAME).encode()) <= _SOCKET_PATH_BYTES_MAX:
            folder = inside
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700)
        else:
            folder = Path(tempfile.mkdtemp(prefix="wayfare-"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def write_state(self, state: StackState) -> None:
        """Record what runs."""
        text = json.dumps({"version": _STATE_VERSION, **asdict(state)}, indent=2)
        write_private_file(self._state_file, text.encode())

    def read_state(self) -> StackState:
        """Return what runs; raise NotRunningError when nothing does."""
        if not self.is_locked() or not self._state_file.exists():
            raise NotRunningError(f"No stack runs on {self.path}: start one with `wayfare up`.")
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


def process_of(part: object) -> ChildProcess | None:
    """Return the child process of a part; None for a server of your own."""
    process = getattr(part, "process", None)
    return process if isinstance(process, ChildProcess) else None
