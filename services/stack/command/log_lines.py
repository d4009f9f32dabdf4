"""Read log files from their end, and print JSON lines so that people can read them."""

import json
import zlib
from pathlib import Path
from typing import Any

from rich.text import Text

from services.stack.command.console import console

_COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "bright_cyan", "bright_magenta")
_TAIL_BYTES = 256 * 1024
_TIME_NAMES = ("timestamp", "time", "start_time")
_LEVEL_COLOURS = {"warning": "yellow", "error": "red", "critical": "red"}


class LogReader:
    """Reads one log from its end on; goes on when the file is emptied under it."""

    def __init__(self, path: Path) -> None:
        """Begin at the file's end."""
        self.name = path.stem
        self._path = path
        self._offset = path.stat().st_size

    def last(self, count: int) -> list[str]:
        """Return the last lines."""
        if count == 0:
            return []
        with self._path.open("rb") as file:
            file.seek(max(0, self._offset - _TAIL_BYTES))
            text = file.read(_TAIL_BYTES).decode(errors="replace")
        return text.splitlines()[-count:]

    def new(self) -> list[str]:
        """Return the whole lines that were added since the last call."""
        if self._path.stat().st_size < self._offset:
            self._offset = 0
        with self._path.open("rb") as file:
            file.seek(self._offset)
            added = file.read()
        whole = added[: added.rfind(b"\n") + 1]
        self._offset += len(whole)
        return whole.decode(errors="replace").splitlines()


def print_line(name: str, line: str, *, raw: bool) -> None:
    """Print one line with the part's name before it."""
    if raw:
        console.print(line, markup=False, soft_wrap=True)
        return
    colour = _COLOURS[zlib.crc32(name.encode()) % len(_COLOURS)]
    text = Text(f"{name:<12} ", style=colour)
    text.append(_readable(line))
    console.print(text, soft_wrap=True)


def _readable(line: str) -> Text:
    try:
        entry: Any = json.loads(line)
    except ValueError:
        return Text(line)
    if not isinstance(entry, dict):
        return Text(line)
    moment = next((str(entry.pop(key)) for key in _TIME_NAMES if key in entry), "")
    level = str(entry.pop("level", "")).lower()
    event = str(entry.pop("event", ""))
    pairs = " ".join(f"{key}={value}" for key, value in entry.items() if value not in ("", None))
    readable = Text(f"{moment[11:23]} ", style="dim")
    readable.append(f"{event} " if event else "", style=_LEVEL_COLOURS.get(level, "bold"))
    readable.append(pairs)
    return readable
