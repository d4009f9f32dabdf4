"""`wayfare up` as people run it: it comes up whole, heals, and leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import psutil
import pytest

from services.stack.home import Home
from tests.support.waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

START_SECONDS = 90.0


class UpProcess:
    """One `wayfare up` on a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.output = home / "up.out"
        home.mkdir(exist_ok=True)
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", COMMAND, "up"],
                env=environment(home),
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def printed(self) -> str:
        return self.output.read_text()

    def pid_of(self, part: str) -> int:
        parts = json.loads((self.home / "state.json").read_text())["parts"]
        return next(int(entry["pid"]) for entry in parts if entry["name"] == part)

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


COMMAND = "from services.stack.command import main; main()"


def environment(home: Path) -> dict[str, str]:
    own_servers = ("DATABASE_URL", "VALKEY_URL")
    kept = {name: value for name, value in os.environ.items() if name not in own_servers}
    return {**kept, "WAYFARE_HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path)}


def wayfare(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments],
        env={**environment(home), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def all_gone(processes: Sequence[psutil.Process]) -> bool:
    return not any(
        process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes
    )


async def started(home: Path) -> UpProcess:
    up = UpProcess(home)
    await until(
        lambda: "Wayfare runs." in up.printed() or up.process.poll() is not None,
        seconds=START_SECONDS,
    )
    assert "Wayfare runs." in up.printed(), up.printed()
    return up


def make_home(short_folder: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=short_folder))


@pytest.fixture(scope="module")
async def up(short_folder: Path) -> AsyncIterator[UpProcess]:
    up = await started(make_home(short_folder))
    yield up
    up.process.kill()
    up.process.wait()


@pytest.mark.slow
async def test_killed_or_asked_to_stop_it_leaves_no_process_and_keeps_its_home(
    short_folder: Path,
) -> None:
    home = make_home(short_folder)
    killed = await started(home)
    children = killed.children()
    assert {"postgres", "valkey-server", "envoy"} <= {child.name() for child in children}
    killed.process.kill()
    killed.process.wait()
    await until(lambda: all_gone(children), seconds=30)

    again = await started(home)
    children = again.children()
    again.process.terminate()
    await until(lambda: again.process.poll() is not None, seconds=60)

    assert again.process.returncode == 0
    assert all_gone(children)
    assert "Everything is kept" in again.printed()
    assert not (home / "state.json").exists()


async def test_a_service_that_dies_is_started_again_and_the_status_tells(up: UpProcess) -> None:
    first = up.pid_of("location-1")

    os.kill(first, signal.SIGKILL)
    await until(lambda: "runs again" in up.printed(), seconds=START_SECONDS)

    assert up.pid_of("location-1") != first
    assert "was killed by signal 9" in up.printed()
    status = wayfare(up.home, "status")
    assert status.returncode == 0, status.stdout
    assert status.stdout.count("healthy") == len(Home(up.home).read_state().parts)


async def test_a_second_stack_and_a_reset_are_refused_while_one_runs(up: UpProcess) -> None:
    second = wayfare(up.home, "up")
    reset = wayfare(up.home, "reset", "--yes")

    for refused in (second, reset):
        assert refused.returncode == 1
        assert "already runs" in refused.stderr
    assert up.process.poll() is None


async def test_the_administrator_logs_in_and_gets_tokens_at_the_terminal(up: UpProcess) -> None:
    login = wayfare(up.home, "login", "--admin")
    token = wayfare(up.home, "token")

    assert "ADMIN" in login.stdout
    assert token.stdout.count(".") == 2
    assert len(token.stdout.splitlines()) == 1
    assert (up.home / "secrets" / "session.json").stat().st_mode & 0o777 == 0o600
