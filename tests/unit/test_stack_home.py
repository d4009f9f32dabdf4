"""The home folder: one stack at a time, sockets with short paths, secrets for one's own eyes."""

import json
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from services.stack.errors import HomeInUseError, NotRunningError
from services.stack.home import Home, PartState, StackState
from services.stack.passwords import read_or_create_secret
from services.stack.ports import choose_port
from services.stack.service_process import python_environment
from services.stack.signing_keys import ensure_signing_key, write_jwks

pytestmark = pytest.mark.unit

# So many of some 14,000 that two who do not know of each other would meet.
PORTS = 400
STATE = StackState(
    supervisor_pid=4711,
    start_time="2026-05-04T12:00:00+00:00",
    edge_address="127.0.0.1:8080",
    mesh_address="127.0.0.1:8081",
    run_folder="run",
    parts=[
        PartState(name="valkey", kind="valkey", pid=1, address="unix:v", check="unix://v", log="l")
    ],
)


def test_a_second_stack_on_one_home_is_refused_and_told_who_is_there(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")

    with home.lock():
        home.write_state(STATE)

        with pytest.raises(HomeInUseError, match="process 4711"), Home(home.path).lock():
            pass


def test_the_state_is_read_back_while_the_stack_runs(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")

    with home.lock():
        home.write_state(STATE)

        assert Home(home.path).read_state() == STATE


def test_a_state_that_a_killed_stack_left_behind_means_that_nothing_runs(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with home.lock():
        home.write_state(STATE)

    with pytest.raises(NotRunningError, match="wayfare up"):
        home.read_state()


def test_a_home_is_not_deleted_while_a_stack_runs_on_it(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")

    with home.lock(), pytest.raises(HomeInUseError):
        home.remove()

    home.remove()
    assert not home.path.exists()


def test_sockets_lie_in_the_home_when_their_paths_are_short_enough(short_folder: Path) -> None:
    home = Home(short_folder / "short-home")
    home.create()

    with home.run_folder() as folder:
        assert folder == home.path / "run"

    assert not folder.exists()


@pytest.mark.parametrize("name", ["deep" * 25, "my project, new"])
def test_sockets_lie_in_a_private_short_folder_when_the_homes_path_does_not_do(
    tmp_path: Path, name: str
) -> None:
    home = Home(tmp_path / name)
    home.create()

    with home.run_folder() as folder:
        assert len(str(folder)) < 60
        assert folder.stat().st_mode & 0o777 == 0o700

    assert not folder.exists()


def test_a_secret_is_made_once_and_closed_to_others(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "password"

    secret = read_or_create_secret(path)

    assert len(secret) == 24
    assert read_or_create_secret(path) == secret
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_the_jwks_holds_public_halves_only(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    ensure_signing_key(keys, now=datetime(2026, 5, 4, tzinfo=UTC))
    ensure_signing_key(keys, now=datetime(2027, 5, 4, tzinfo=UTC))

    write_jwks(keys, tmp_path / "jwks.json")

    (jwk,) = json.loads((tmp_path / "jwks.json").read_text())["keys"]
    assert jwk["kid"] == "20260504T000000Z"
    assert set(jwk) == {"kty", "crv", "use", "alg", "kid", "x"}
    private = keys / "20260504T000000Z.pem"
    assert private.stat().st_mode & 0o777 == 0o600
    load_pem_private_key(private.read_bytes(), password=None)


def test_a_taken_port_is_replaced_by_a_free_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        choice = choose_port(port, chosen=set())

    assert choice.port != port
    assert choice.taken == port


def test_a_free_port_is_chosen_as_asked_and_only_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    chosen: set[int] = set()

    first = choose_port(port, chosen=chosen)
    second = choose_port(port, chosen=chosen)

    assert (first.port, first.taken) == (port, None)
    assert second.port != port


def test_processes_that_choose_at_once_choose_different_ports() -> None:
    with _choosing_ports() as one, _choosing_ports() as other:
        ports = [int(word) for process in (one, other) for word in _line_of(process).split()]

    assert len(ports) == 2 * PORTS
    assert len(set(ports)) == len(ports)


def _choosing_ports() -> subprocess.Popen[str]:
    """Start a process that prints the ports which it was promised, and keeps them until its end."""
    program = (
        "from services.stack.ports import choose_port\n"
        f"print(*(choose_port(None, chosen=set()).port for _ in range({PORTS})), flush=True)\n"
        "input()"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env=python_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()
