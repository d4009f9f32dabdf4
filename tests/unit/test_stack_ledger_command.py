"""`wayfare ledger` without a stack: it teaches, and reads a gateway's report with care."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.stack.command import application
from services.stack.errors import StackError
from services.stack.gateway_file import read_gateway_file
from wayfare.ledger.v1 import deposit_pb2

pytestmark = pytest.mark.unit

DEPOSIT = "0198c0de-0000-8000-8000-000000000001"
HEAD = "gateway,payment_id,deposit_id,amount,currency\n"


@pytest.mark.parametrize("command", ["verify", "reconcile", "receipt"])
def test_the_help_of_every_command_shows_an_example(command: str) -> None:
    answer = CliRunner().invoke(application, ["ledger", command, "--help"])

    assert answer.exit_code == 0
    assert f"wayfare ledger {command}" in answer.output.partition("Example: ")[2]


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["verify"], "wayfare login"),
        (["reconcile"], "wayfare login"),
        (["receipt", DEPOSIT], "wayfare login"),
        (["verify", "--since-seal"], "--against"),
    ],
)
def test_a_command_that_misses_something_says_what_to_do(
    tmp_path: Path, arguments: list[str], advice: str
) -> None:
    runner = CliRunner(env={"WAYFARE_HOME": str(tmp_path)})

    answer = runner.invoke(application, ["ledger", *arguments])

    assert isinstance(answer.exception, StackError)
    assert advice in str(answer.exception)


def test_a_gateways_report_is_read(tmp_path: Path) -> None:
    path = tmp_path / "report.csv"
    path.write_text(
        f"\ufeff{HEAD}kashier, TX-1 ,{DEPOSIT},150.5,egp\nPAYHERE,2,{DEPOSIT},-0.01,LKR\n"
    )

    first, second = read_gateway_file(path)

    assert (first.gateway, first.gateway_payment_id) == (deposit_pb2.GATEWAY_KASHIER, "TX-1")
    assert (first.amount.currency_code, first.amount.units) == ("EGP", 150)
    assert first.amount.nanos == 500_000_000
    assert (second.amount.units, second.amount.nanos) == (0, -10_000_000)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("gateway,amount\n", "misses the columns payment_id, deposit_id, currency"),
        (f"{HEAD}STRIPE,1,{DEPOSIT},1,EGP\n", "line 2: 'STRIPE' is no gateway"),
        (f"{HEAD}UNSPECIFIED,1,{DEPOSIT},1,EGP\n", "'UNSPECIFIED' is no gateway"),
        (f"{HEAD}KASHIER,1,{DEPOSIT},1,EGP\nKASHIER,1,x,1,EGP\n", "line 3: badly formed"),
        (f"{HEAD}KASHIER,1,{DEPOSIT},one,EGP\n", "'one' is no amount"),
        (f"{HEAD}KASHIER,1,{DEPOSIT},Infinity,EGP\n", "'Infinity' is no amount"),
        (f"{HEAD}KASHIER,1,{DEPOSIT},0.0000000001,EGP\n", "too many decimals"),
        (f"{HEAD}KASHIER,1\n", "line 2: a value is missing"),
        (HEAD + f"KASHIER,1,{DEPOSIT},1,EGP\n" * 10_001, "more than 10000 lines"),
    ],
)
def test_a_report_that_cannot_be_read_says_where(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "report.csv"
    path.write_text(text)

    with pytest.raises(StackError) as error:
        read_gateway_file(path)

    assert complaint in str(error.value)
