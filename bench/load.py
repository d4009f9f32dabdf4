"""Loads the stack with drivers and followers over gRPC and prints what that costs.

`python -m bench.load --help` teaches it.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import uvloop
from rich.console import Console

from bench.limits import raise_file_limit
from bench.measure import Figures, measure
from bench.report import print_figures
from bench.scenario import SCENARIOS, Route, Scenario

_ABOUT = """\
Start a stack of its own, open streams of drivers and followers, send positions for a while, and
print throughput, CPU per position of each process, memory per stream, latency and losses.

Each driver is on a trip of its own. Drivers are on the process location-1, followers on
location-2, so that every position crosses Valkey. A position's capture time is the moment it is
sent; the follower's side of the generator subtracts it from its own clock.
"""
_EXAMPLES = """\
examples:
  python -m bench.load                                   the scenario throughput
  python -m bench.load many storm                        two scenarios, one after the other
  python -m bench.load throughput --route edge           the same through Envoy
  python -m bench.load --drivers 100 --interval 1 --duration 5 --warmup 1    a quick look
  python -m bench.load fanout --json fanout.json         figures for a program to read
  python -m bench.load --set WAYFARE_LOCATION_TICK_SECONDS=0.02    try a setting out

scenarios:
"""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    listed = "\n".join(f"  {one.name:16} {one.about}" for one in SCENARIOS.values())
    parser = argparse.ArgumentParser(
        prog="python -m bench.load",
        description=_ABOUT,
        epilog=_EXAMPLES + listed,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("scenario", nargs="*", help="which loads to run (default: throughput)")
    add("--drivers", type=int, help="driver streams, each on a trip of its own")
    add("--interval", type=float, help="seconds between two positions of one driver")
    add("--followers", type=int, help="followers per trip")
    add("--route", choices=[one.value for one in Route], help="direct: to the processes' sockets")
    add("--duration", type=float, help="seconds that are measured")
    add("--warmup", type=float, help="seconds of sending before that")
    add("--streams-per-connection", type=int, help="most streams on one HTTP/2 connection")
    add("--open-per-second", type=int, help="streams opened a second; 0 opens all at once")
    add("--generators", type=int, help="generator processes")
    add("--tick", type=float, help="seconds between two batches of sends; less spreads them more")
    add("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    add(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an environment variable for the location processes; may be repeated",
    )
    return parser.parse_args(arguments)


def scenarios_of(options: argparse.Namespace) -> list[Scenario]:
    """Return the scenarios that are asked for, with what the options change."""
    fields = {
        "drivers": options.drivers,
        "interval_seconds": options.interval,
        "followers_per_trip": options.followers,
        "route": None if options.route is None else Route(options.route),
        "duration_seconds": options.duration,
        "warmup_seconds": options.warmup,
        "streams_per_connection": options.streams_per_connection,
        "open_per_second": options.open_per_second,
        "generator_processes": options.generators,
        "tick_seconds": options.tick,
    }
    changes = {name: value for name, value in fields.items() if value is not None}
    unknown = [name for name in options.scenario if name not in SCENARIOS]
    if unknown:
        raise SystemExit(
            f"no scenario is called {', '.join(unknown)}; there are {', '.join(SCENARIOS)}"
        )
    return [replace(SCENARIOS[name], **changes) for name in options.scenario or ["throughput"]]


def run(
    scenarios: Sequence[Scenario], *, settings: dict[str, str], json_file: Path | None
) -> list[Figures]:
    """Run the scenarios one after the other, print each, and write the file."""
    raise_file_limit()
    console = Console(highlight=False)
    every: list[Figures] = []
    for scenario in scenarios:
        with console.status(scenario.name) as status:
            figures = uvloop.run(
                measure(
                    scenario,
                    say=lambda text, name=scenario.name: status.update(f"{name}: {text}"),  # type: ignore[misc]  # the default binds the name
                    settings=settings,
                )
            )
        print_figures(console, figures)
        every.append(figures)
    if json_file is not None:
        json_file.write_text(json.dumps([one.to_json() for one in every], indent=2) + "\n")
    return every


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line asks for."""
    options = parse(arguments)
    settings = dict(text.split("=", 1) for text in options.set)
    run(scenarios_of(options), settings=settings, json_file=options.json)


if __name__ == "__main__":
    main()
