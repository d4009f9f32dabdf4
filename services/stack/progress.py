"""What the stack says while it starts and runs; `wayfare up` prints it, tests ignore it."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class ProgressKind(StrEnum):
    """What happened to a part."""

    STARTING = "starting"
    READY = "ready"
    NOTE = "note"
    DIED = "died"
    GAVE_UP = "gave_up"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One thing that happened; `seconds` is how long a start or stop took."""

    kind: ProgressKind
    part: str
    detail: str = ""
    seconds: float = 0.0


Report = Callable[[Progress], None]


def ignore(progress: Progress) -> None:
    """Say nothing."""
    del progress
