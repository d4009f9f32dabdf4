"""`wayfare status`: what runs, and how it is."""

import asyncio

import typer
from rich.table import Table

from services.stack.command.console import console, megabytes, seconds
from services.stack.health import PartHealth, check_parts
from services.stack.home import Home


def status() -> None:
    """Show every part of the running stack: its health, process, address, memory and age.

    The exit code is 1 when something is down, so that scripts can ask too.

    Example: wayfare status && echo all is well
    """
    state = Home().read_state()
    parts = asyncio.run(check_parts(state.parts))
    table = Table(box=None, pad_edge=False)
    for heading in ("part", "health", "pid", "memory", "up", "address"):
        table.add_column(heading, justify="right" if heading in {"pid", "memory", "up"} else "left")
    for part in parts:
        table.add_row(*_row(part))
    console.print(table)
    console.print(f"\nedge {state.edge_address}   mesh {state.mesh_address}")
    if not all(part.healthy for part in parts):
        raise typer.Exit(1)


def _row(part: PartHealth) -> list[str]:
    health = "[green]✓ healthy[/]" if part.healthy else f"[red]✗ {part.why}[/]"
    return [
        part.name,
        health,
        str(part.pid or "-"),
        megabytes(part.memory_bytes) if part.memory_bytes else "-",
        seconds(part.age_seconds) if part.age_seconds else "-",
        part.address,
    ]
