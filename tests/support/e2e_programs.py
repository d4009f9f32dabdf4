"""Runs the programs that stand in for other people's clients: grpcurl, buf, curl, node."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.waiting import until

PROJECT = Path(__file__).parents[2]
GRPCURL = PROJECT / ".tools" / "bin" / "grpcurl"
BUF = Path(sys.executable).with_name("buf")
NODE_FOLDER = PROJECT / "tests" / "e2e" / "node"

_SECONDS_MAX = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a program left behind."""

    exit_code: int
    output: str
    errors: str

    def documents(self) -> list[dict[str, Any]]:
        """Return the JSON documents that it printed, one after the other."""
        return documents_in(self.output)


@dataclass(kw_only=True)
class Program:
    """A program that runs."""

    process: asyncio.subprocess.Process
    output: bytearray = field(default_factory=bytearray)
    errors: bytearray = field(default_factory=bytearray)

    async def until_printed(self, text: str, *, count: int = 1) -> None:
        """Wait until it printed a text, so many times."""
        await until(
            lambda: self.output.decode().count(text) >= count or self.process.returncode is not None
        )
        assert self.output.decode().count(text) >= count, (self.output, self.errors)

    async def say(self, *messages: dict[str, Any]) -> None:
        """Write JSON documents to its input."""
        assert self.process.stdin is not None
        for message in messages:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
        await self.process.stdin.drain()

    async def end(self) -> Result:
        """Close its input and wait for its end."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        code = await asyncio.wait_for(self.process.wait(), _SECONDS_MAX)
        await asyncio.sleep(0)
        return Result(exit_code=code, output=self.output.decode(), errors=self.errors.decode())


@asynccontextmanager
async def running_program(
    *command: str | Path, has_input: bool = False, folder: Path = PROJECT
) -> AsyncIterator[Program]:
    """Start a program; it is killed if the test leaves it running."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        stdin=asyncio.subprocess.PIPE if has_input else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
    )
    program = Program(process=process)
    assert process.stdout is not None
    assert process.stderr is not None
    readers = [
        asyncio.create_task(_gather(process.stdout, program.output.extend)),
        asyncio.create_task(_gather(process.stderr, program.errors.extend)),
    ]
    try:
        yield program
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await asyncio.gather(*readers)


async def run_program(*command: str | Path, folder: Path = PROJECT) -> Result:
    """Run a program to its end."""
    async with running_program(*command, folder=folder) as program:
        await program.end()
    assert program.process.returncode is not None
    return Result(
        exit_code=program.process.returncode,
        output=program.output.decode(),
        errors=program.errors.decode(),
    )


def documents_in(text: str) -> list[dict[str, Any]]:
    """Read the JSON documents of a text, one after the other."""
    decoder, found, position = json.JSONDecoder(), [], 0
    while position < len(text.rstrip()):
        document, end = decoder.raw_decode(text, position)
        found.append(document)
        position = end + len(text[end:]) - len(text[end:].lstrip())
    return found


def headers_of(token: str, option: str = "-H") -> Sequence[str]:
    """Return the words that give a program an access token."""
    return (option, f"authorization: Bearer {token}")


async def _gather(stream: asyncio.StreamReader, take: Callable[[bytes], None]) -> None:
    while data := await stream.read(65536):
        take(data)
