"""The `wayfare` command without a stack: it teaches, and says how to start one."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.stack.command import application
from services.stack.errors import StackError

pytestmark = pytest.mark.unit

COMMANDS = (
    *("up", "demo", "status", "logs", "login", "token", "replay", "follow", "pay"),
    *("scan", "certs", "migrate", "reset"),
)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_shows_an_example(command: str) -> None:
    answer = CliRunner().invoke(application, [command, "--help"])

    assert answer.exit_code == 0
    assert f"wayfare {command}" in answer.output.partition("Example: ")[2]


def test_the_help_lists_every_command() -> None:
    answer = CliRunner().invoke(application, ["--help"])

    assert all(f" {command} " in answer.output for command in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["status"], "wayfare up"),
        (["logs"], "wayfare up"),
        (["login", "--admin"], "wayfare up"),
        (["login"], "--phone"),
        (["token"], "wayfare login"),
        (["pay", "0198c0de-0000-8000-8000-000000000001"], "wayfare up"),
        (["scan", "bus-14"], "wayfare scan --help"),
        (["scan", "0198c0de-0000-7000-8000-000000000001"], "wayfare login"),
        (["scan", "0198c0de-0000-7000-8000-000000000001", "--offline"], "without --offline"),
        (["follow", "0198c0de-0000-7000-8000-000000000001"], "wayfare login"),
    ],
)
def test_a_command_that_misses_something_says_what_to_do(
    tmp_path: Path, arguments: list[str], advice: str
) -> None:
    answer = CliRunner(env={"WAYFARE_HOME": str(tmp_path)}).invoke(application, arguments)

    assert isinstance(answer.exception, StackError)
    assert advice in str(answer.exception)


def test_reset_deletes_the_home(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "logs").mkdir(parents=True)

    answer = CliRunner(env={"WAYFARE_HOME": str(home)}).invoke(application, ["reset", "--yes"])

    assert answer.exit_code == 0
    assert not home.exists()


def test_reset_asks_first(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    runner = CliRunner(env={"WAYFARE_HOME": str(home)})

    answer = runner.invoke(application, ["reset"], input="n\n")

    assert answer.exit_code == 1
    assert home.exists()


def test_certs_shows_each_name_in_the_mesh(tmp_path: Path) -> None:
    answer = CliRunner(env={"WAYFARE_HOME": str(tmp_path / "home")}).invoke(application, ["certs"])

    assert answer.exit_code == 0
    assert "spiffe://wayfare/location" in answer.output
    assert (tmp_path / "home" / "certificates" / "location.key").stat().st_mode & 0o777 == 0o600


def test_logs_are_shown_readably(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "location-1.log").write_text(
        '{"timestamp": "2026-05-04T12:00:01.5Z", "level": "info", "event": "rpc", "code": "OK"}\n'
        "a plain line\n"
    )
    runner = CliRunner(env={"WAYFARE_HOME": str(tmp_path)})

    answer = runner.invoke(application, ["logs", "location-1"])

    assert "12:00:01.5" in answer.output
    assert "rpc code=OK" in answer.output
    assert "a plain line" in answer.output
