"""The `wayfare` command. Sub-commands have files of their own; what they do is in rooms beside."""

import sys

import typer
from rich.markup import escape

from services.stack.command.console import errors
from services.stack.command.demo import demo
from services.stack.command.dlq import dlq
from services.stack.command.follow import follow
from services.stack.command.gtfs import gtfs
from services.stack.command.ledger import ledger
from services.stack.command.maintenance import certs, logs, migrate, reset
from services.stack.command.pay import pay
from services.stack.command.replay import replay
from services.stack.command.scan import scan
from services.stack.command.session import login, token
from services.stack.command.status import status
from services.stack.command.trips import trips
from services.stack.command.up import up
from services.stack.errors import StackError
from wayfare_client import WayfareError

application = typer.Typer(
    name="wayfare",
    help=(
        "Run Wayfare on this machine, look at it and try it out.\n\n"
        "State lives in `.wayfare` or in WAYFARE_HOME."
        " Begin with `wayfare up`, or watch it work with `wayfare demo`."
    ),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_COMMANDS = (up, demo, status, logs, login, token, replay, follow, pay, scan, certs, migrate, reset)
for _command in _COMMANDS:
    application.command()(_command)
application.add_typer(gtfs, name="gtfs")
application.add_typer(dlq, name="dlq")
application.add_typer(ledger, name="ledger")
application.add_typer(trips, name="trips")


def main() -> None:
    """Run the command; a known failure is one sentence and exit code 1."""
    try:
        application()
    except* (StackError, WayfareError) as group:
        for error in _leaves(group):
            errors.print(f"[bold red]✗[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(1)


def _leaves(error: BaseException) -> list[BaseException]:
    # Work that runs together fails together; the same sentence once is enough.
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    leaves = [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return list({str(leaf): leaf for leaf in leaves}.values())
