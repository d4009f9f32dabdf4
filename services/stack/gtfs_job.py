"""Runs LocationService's GTFS job as a child process and reads its answers, line by line.

The job belongs to LocationService and gets its environment, as its processes do; the stack imports
nothing of it. Called by `wayfare gtfs` and by the timetable simulator.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from services.stack.environments import service_environment
from services.stack.errors import StackError
from services.stack.home import Home
from services.stack.migrations import role_of
from services.stack.postgres import ExternalPostgres
from services.stack.service_process import PROJECT_FOLDER, python_environment

_LAUNCHER = Path(__file__).with_name("launcher.py")
_MODULE = "services.location.gtfs"
_SERVICE = "location"
_ERROR_LINES = 20

Answer = tuple[str, Any]
"""Is the key of one line and its value: progress, summary, overview, plan or broken."""


def database_environment(home: Home) -> Mapping[str, str]:
    """Return what LocationService is told by the stack that runs on a home.

    Raises NotRunningError when none does.
    """
    state = home.read_state()
    admin_dsn = (home.secrets / "postgres-admin-dsn").read_text(encoding="utf-8")
    postgres = ExternalPostgres(admin_dsn=admin_dsn, secrets_folder=home.secrets)
    valkey = [part.check for part in state.parts if part.kind == "valkey"]
    return service_environment(
        _SERVICE,
        database_dsn=postgres.dsn_for(role_of(_SERVICE)),
        valkey_url=",".join(valkey),
        valkey_cluster=len(valkey) > 1,
        mesh_address=state.mesh_address,
        edge_address=state.edge_address,
        home=home,
    )


def run_gtfs_job(
    arguments: Sequence[str], environment: Mapping[str, str] | None = None
) -> Iterator[Answer]:
    """Yield what the job answers; raise StackError with its own words when it fails.

    A broken feed is an answer, `broken`, and no error.
    """
    launch = [sys.executable, "-I", "-S", str(_LAUNCHER), "--parent", str(os.getpid())]
    launch += ["--death-signal", str(int(signal.SIGKILL)), "--"]
    with subprocess.Popen(
        [*launch, sys.executable, "-m", _MODULE, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        cwd=PROJECT_FOLDER,
        env={**python_environment(), **(environment or {})},
    ) as process:
        try:
            yield from _answers(process)
        finally:
            # Whoever stops listening early wants no more of it.
            process.kill()


def _answers(process: "subprocess.Popen[str]") -> Iterator[Answer]:
    words: list[str] = []
    is_answered = False
    for line in process.stdout or ():
        try:
            ((key, value),) = json.loads(line).items()
        except (ValueError, AttributeError):
            words.append(line.rstrip())
            continue
        if key == "error":
            raise StackError(str(value))
        is_answered = is_answered or key != "progress"
        yield key, value
    code = process.wait()
    if code not in (0, 1) or (code == 1 and not is_answered):
        last = "\n".join(words[-_ERROR_LINES:])
        raise StackError(f"The GTFS job ended with exit code {code}:\n{last}")
