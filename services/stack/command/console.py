"""The two consoles that every sub-command prints on, and the few things that all of them show."""

from rich.console import Console

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


def seconds(value: float) -> str:
    """Return a duration as people read it: 0.4 s, 12 s, 3 min, 2 h."""
    if value < 10:
        return f"{value:.1f} s"
    if value < 120:
        return f"{value:.0f} s"
    if value < 7200:
        return f"{value / 60:.0f} min"
    return f"{value / 3600:.0f} h"


def megabytes(value: int) -> str:
    """Return bytes as megabytes."""
    return f"{value / 1024 / 1024:.0f} MB"
