"""`wayfare reset`, `certs`, `migrate` and `logs`: what keeps a home in order."""

import asyncio
import time
from typing import Annotated

import typer
from cryptography import x509
from rich.table import Table

from services.stack.certificates import spiffe_id, write_certificates
from services.stack.command.console import console
from services.stack.command.log_lines import LogReader, print_line
from services.stack.embedded import MESH_SERVICES
from services.stack.errors import NotRunningError, StackError
from services.stack.home import Home
from services.stack.migrations import migrate_home

_FOLLOW_SECONDS = 0.2


def reset(
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete the home: data, secrets, certificates and logs. Refused while the stack runs.

    Example: wayfare reset --yes
    """
    home = Home()
    if not home.path.exists():
        console.print(f"There is nothing at {home.path}.")
        return
    if not yes:
        typer.confirm(f"Delete {home.path} with all its data?", abort=True)
    home.remove()
    console.print(f"{home.path} is gone.")


def certs() -> None:
    """Make or renew the local authority and the certificates with which services know each other.

    `wayfare up` does so by itself; running services read new certificates when they start again.

    Example: wayfare certs
    """
    home = Home()
    home.create()
    written = write_certificates(home.certificates, MESH_SERVICES)
    table = Table(box=None, pad_edge=False)
    for heading in ("certificate", "name in the mesh", "valid until", ""):
        table.add_column(heading)
    for path in sorted(home.certificates.glob("*.pem")):
        end = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
        issued = "[green]new[/]" if path.stem in written else ""
        name = spiffe_id(path.stem) if path.stem in MESH_SERVICES else ""
        table.add_row(path.name, name, f"{end:%Y-%m-%d}", issued)
    console.print(table)
    console.print(f"in {home.certificates}")


def migrate(
    database_url: Annotated[
        str, typer.Option(envvar="DATABASE_URL", help="A database of your own.")
    ] = "",
) -> None:
    """Bring the database's schema up to date: roles first, then each service's migrations.

    `wayfare up` does so by itself. This is for a database of your own (DATABASE_URL), or to see
    what is pending.

    Example: DATABASE_URL=postgresql://admin@db/wayfare wayfare migrate
    """
    applied = asyncio.run(migrate_home(Home(), database_url=database_url))
    for line in applied:
        console.print(f"[green]✓[/] {line}")
    if not applied:
        console.print("Nothing to do: the schema is up to date.")


def logs(
    part: Annotated[str, typer.Argument(help="postgres, valkey, envoy, access, location-1 …")] = "",
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many past lines.")] = 20,
    raw: Annotated[bool, typer.Option("--raw", help="Print lines as they are.")] = False,
) -> None:
    """Show the end of the logs, of one part or of all.

    `access` is Envoy's log of every call.

    Example: wayfare logs location-1 --follow
    """
    folder = Home().logs
    known = sorted(path.stem for path in folder.glob("*.log"))
    if not known:
        raise NotRunningError(f"There are no logs in {folder}: start the stack with `wayfare up`.")
    if part and part not in known:
        raise StackError(f"There is no log of {part!r}. There are: {', '.join(known)}.")
    readers = [LogReader(folder / f"{name}.log") for name in ([part] if part else known)]
    for reader in readers:
        for line in reader.last(lines):
            print_line(reader.name, line, raw=raw)
    while follow:
        for reader in readers:
            for line in reader.new():
                print_line(reader.name, line, raw=raw)
        time.sleep(_FOLLOW_SECONDS)
