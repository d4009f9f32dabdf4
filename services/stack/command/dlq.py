"""`wayfare dlq`: events that could not be handled: look at them, try them again, drop them."""

import asyncio
import getpass
import json
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, TypeVar

import typer
from rich.markup import escape
from rich.table import Table

from services.shared.events.dead_letters import Backlog, DeadLetter, DeadLetters
from services.stack.command.console import console
from services.stack.dead_letters import envelope_words, open_dead_letters
from services.stack.errors import StackError
from services.stack.home import Home

Answer = TypeVar("Answer")

dlq = typer.Typer(
    name="dlq",
    help=(
        "Look at events that a service could not handle, and decide what becomes of them.\n\n"
        "A service tries an event several times, with growing pauses; those of the same thing wait"
        " behind it. After the last try it is a dead letter, and the others go on. Mend the cause,"
        " then `retry`; or `drop` what will never be handled.\n\n"
        "Works on the running stack, or on the database of DATABASE_URL.\n\n"
        "Example: wayfare dlq list"
    ),
    no_args_is_help=True,
)

DatabaseOption = Annotated[
    str, typer.Option(envvar="DATABASE_URL", help="A database of your own, as its administrator.")
]
ConsumerOption = Annotated[str, typer.Option("--consumer", "-c", help="Name of one consumer.")]
EventArgument = Annotated[str, typer.Argument(metavar="EVENT_ID", help="As `list` shows it.")]


@dlq.command("list")
def list_letters(
    *,
    consumer: ConsumerOption = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000)] = 50,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 1 when there is a dead letter.")
    ] = False,
    database_url: DatabaseOption = "",
) -> None:
    """List the dead letters of every service, the newest first, and how much waits for a try.

    `error` tells what kind of error it was and where: its words may hold people's data and are
    not kept.

    Example: wayfare dlq list --consumer fraud

    Example: wayfare dlq list --check || echo somebody has to look
    """

    async def look(all_letters: Sequence[DeadLetters]) -> tuple[list[Backlog], list[DeadLetter]]:
        backlogs = [one for letters in all_letters for one in await letters.backlog()]
        found = [
            one
            for letters in all_letters
            for one in await letters.newest(consumer=consumer, most=limit)
        ]
        return backlogs, sorted(found, key=lambda one: one.dead_time, reverse=True)[:limit]

    backlogs, found = _run(look, database_url)
    if consumer:
        backlogs = [one for one in backlogs if one.consumer == consumer]
    if not backlogs:
        console.print("[green]✓[/] There are no dead letters, and nothing waits for another try.")
        return
    if found:
        console.print(_letter_table(found), "")
    dead_count = sum(one.dead_count for one in backlogs)
    for one in backlogs:
        console.print(
            f"{escape(one.schema)}/{escape(one.consumer)}: {one.dead_count} dead,"
            f" {one.waiting_count} waiting for a try"
        )
    if dead_count > len(found):
        console.print(f"The newest {len(found)} of {dead_count} are shown; see --limit.")
    if check and dead_count:
        raise typer.Exit(1)


@dlq.command()
def show(
    event_id: EventArgument, *, consumer: ConsumerOption = "", database_url: DatabaseOption = ""
) -> None:
    """Show one dead letter: who gave it up and why, and the event with its payload as JSON.

    Example: wayfare dlq show 0198c0de-0000-7000-8000-000000000001
    """
    found = _run(lambda all_letters: _find(all_letters, event_id, consumer), database_url)
    for _, letter in found:
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_row("consumer", escape(f"{letter.schema}/{letter.consumer}"))
        table.add_row("tries", str(letter.attempt_count))
        table.add_row("first try", f"{letter.create_time:%Y-%m-%d %H:%M:%S} UTC")
        table.add_row("given up", f"{letter.dead_time:%Y-%m-%d %H:%M:%S} UTC")
        table.add_row("error", escape(letter.error))
        console.print(table, "")
    words = json.dumps(envelope_words(found[0][1].envelope), indent=2, ensure_ascii=False)
    console.print(escape(words), soft_wrap=True)


@dlq.command()
def retry(
    event_id: Annotated[
        str, typer.Argument(metavar="[EVENT_ID]", help="All of the consumer's, if none.")
    ] = "",
    *,
    consumer: ConsumerOption = "",
    database_url: DatabaseOption = "",
) -> None:
    """Put a dead letter back in line, or all of a consumer's. They get all their tries again.

    What came after it of the same thing has been handled meanwhile: the consumer must be able to
    take it late. What was done is kept in the table dead_letter_audit.

    Example: wayfare dlq retry 0198c0de-0000-7000-8000-000000000001

    Example: wayfare dlq retry --consumer fraud
    """
    if not event_id and not consumer:
        raise StackError("Name an event, or all of one consumer's with --consumer.")

    async def put_back(all_letters: Sequence[DeadLetters]) -> int:
        if not event_id:
            return sum(
                [
                    await letters.retry(consumer=consumer, event_id=None, actor=_actor())
                    for letters in all_letters
                ]
            )
        ((letters, letter),) = await _find(all_letters, event_id, consumer, only=True)
        return await letters.retry(
            consumer=letter.consumer, event_id=letter.event_id, actor=_actor()
        )

    count = _run(put_back, database_url)
    if count == 0:
        raise StackError(f"There is no dead letter of {consumer!r}: see `wayfare dlq list`.")
    noun = "dead letter is" if count == 1 else "dead letters are"
    console.print(f"[green]✓[/] {count} {noun} in line again.")


@dlq.command()
def drop(
    event_id: EventArgument,
    *,
    reason: Annotated[str, typer.Option(help="Why, for those who ask later.")],
    consumer: ConsumerOption = "",
    database_url: DatabaseOption = "",
) -> None:
    """Delete one dead letter for good; the consumer never handles this event.

    Who did it, when and why is kept in the table dead_letter_audit, so write no personal data. The
    event itself stays in the event store of the service where it happened.

    Example: wayfare dlq drop 0198c0de-0000-7000-8000-000000000001 --reason "made by a test"
    """
    words = reason.strip()
    if not 0 < len(words) <= 500:
        raise StackError("--reason takes 1 to 500 characters.")

    async def delete(all_letters: Sequence[DeadLetters]) -> DeadLetter:
        ((letters, letter),) = await _find(all_letters, event_id, consumer, only=True)
        gone = await letters.drop(
            consumer=letter.consumer, event_id=letter.event_id, reason=words, actor=_actor()
        )
        if not gone:
            raise StackError("Somebody else was quicker: see `wayfare dlq list`.")
        return letter

    letter = _run(delete, database_url)
    name = escape(f"{letter.schema}/{letter.consumer}")
    console.print(f"[green]✓[/] Dropped for {name}, with the reason in dead_letter_audit.")


def _run(work: Callable[[Sequence[DeadLetters]], Awaitable[Answer]], database_url: str) -> Answer:
    async def opened() -> Answer:
        async with open_dead_letters(Home(), database_url=database_url) as all_letters:
            return await work(all_letters)

    return asyncio.run(opened())


async def _find(
    all_letters: Sequence[DeadLetters], event_id: str, consumer: str, *, only: bool = False
) -> list[tuple[DeadLetters, DeadLetter]]:
    """Return the dead letters of an event; with `only`, exactly one. Raises StackError."""
    try:
        wanted = str(uuid.UUID(event_id))
    except ValueError as error:
        raise StackError(f"{event_id!r} is no event_id: see `wayfare dlq list`.") from error
    found = [
        (letters, letter)
        for letters in all_letters
        for letter in await letters.find(wanted)
        if consumer in ("", letter.consumer)
    ]
    if not found:
        raise StackError(f"There is no dead letter of event {wanted}: see `wayfare dlq list`.")
    if only and len(found) > 1:
        names = ", ".join(letter.consumer for _, letter in found)
        raise StackError(f"Several consumers gave it up: {names}. Name one with --consumer.")
    return found


def _letter_table(found: Sequence[DeadLetter]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("event_id", "consumer", "thing", "tries", "given up (UTC)", "error"):
        table.add_column(
            heading,
            justify="right" if heading == "tries" else "left",
            no_wrap=heading == "event_id",
            overflow="fold",
        )
    for one in found:
        table.add_row(
            one.event_id,
            escape(f"{one.schema}/{one.consumer}"),
            escape(one.aggregate),
            str(one.attempt_count),
            f"{one.dead_time:%Y-%m-%d %H:%M:%S}",
            escape(one.error),
        )
    return table


def _actor() -> str:
    return getpass.getuser()[:128]
