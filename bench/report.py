"""Prints the figures of a load as tables. Called by load.py."""

from rich.console import Console
from rich.table import Table

from bench.measure import Figures
from bench.scenario import Scenario

# What a Socket.IO server with Redis adapter, and a naive prototype of this path, cost for one
# position with one follower on another process at 5,000 a second on a machine of this kind.
SOCKET_IO_MICROSECONDS = 135.0
PROTOTYPE_MICROSECONDS = 104.0


def print_figures(console: Console, figures: Figures) -> None:
    """Print everything that one scenario gave."""
    scenario = figures.scenario
    console.rule(f"[bold]{scenario.name}[/]: {scenario.about}", align="left")
    console.print(_load_line(scenario))
    refused = sum(figures.refused.values())
    console.print(
        f"streams: {figures.opened:,} opened and answered in {figures.open_seconds:.2f} s,"
        f" {refused} refused or ended{_named(figures.refused)}"
    )
    if figures.bytes_per_stream:
        sizes = ", ".join(
            f"{name} {size / 1024:.1f} KiB" for name, size in figures.bytes_per_stream.items()
        )
        console.print(f"memory per stream (RSS): {sizes}")
    if scenario.sends:
        _print_sending(console, figures)
    if figures.reasons:
        console.print(f"ended streams by method, code and reason: {figures.reasons}")
    console.print("machine: " + ", ".join(f"{k} {v}" for k, v in figures.machine.items()))


def _print_sending(console: Console, figures: Figures) -> None:
    seconds = figures.window_seconds
    console.print(
        f"whole run: sent {figures.sent:,}, acknowledged {figures.acked:,}, rejected"
        f" {figures.rejected:,}, delivered {figures.delivered:,}, conflated"
        f" {figures.conflated:,}, lost {figures.lost:,}"
    )
    console.print(
        f"window of {seconds:.1f} s: {figures.window_sent / seconds:,.0f} positions sent a second,"
        f" {figures.window_delivered / seconds:,.0f} delivered"
        f" (generator: {figures.late_ticks} late ticks, {figures.held_back} held back)"
    )
    if figures.latency_milliseconds:
        latency = ", ".join(f"{k} {v:.1f}" for k, v in figures.latency_milliseconds.items())
        console.print(f"latency from send to follower, ms: {latency}")
    console.print(_cpu_table(figures))


def _cpu_table(figures: Figures) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("process")
    table.add_column("CPU µs per position", justify="right")
    table.add_column("% of a core", justify="right")
    for part, seconds in figures.cpu_seconds.items():
        share = seconds / figures.window_seconds * 100
        table.add_row(part, f"{figures.microseconds_per_position(part):.1f}", f"{share:.1f}")
    location = sum(
        figures.microseconds_per_position(part)
        for part in figures.cpu_seconds
        if part.startswith("location-")
    )
    table.add_row("[bold]location, all processes[/]", f"[bold]{location:.1f}[/]", "")
    if figures.scenario.followers_per_trip == 1:
        table.add_row(
            "  ratio to Socket.IO with Redis (135)", f"{location / SOCKET_IO_MICROSECONDS:.2f}", ""
        )
        table.add_row(
            "  ratio to the naive prototype (104)", f"{location / PROTOTYPE_MICROSECONDS:.2f}", ""
        )
    if figures.window_delivered and figures.scenario.followers_per_trip != 1:
        delivered = figures.cpu_seconds["location-2"] / figures.window_delivered * 1e6
        table.add_row("  location-2 per delivery", f"{delivered:.1f}", "")
    others = figures.others_cpu_seconds / figures.window_seconds * 100
    table.add_row("[dim]others on the machine (noise)[/]", "", f"[dim]{others:.1f}[/]")
    return table


def _load_line(scenario: Scenario) -> str:
    return (
        f"{scenario.drivers:,} drivers, one position per {scenario.interval_seconds:g} s,"
        f" {scenario.followers_per_trip} follower(s) each,"
        f" {scenario.fleet_followers} of the fleet, {scenario.route.value},"
        f" {scenario.streams_per_connection} streams per connection,"
        f" {scenario.generator_processes} generator process(es)"
    )


def _named(counts: dict[str, int]) -> str:
    if not counts:
        return ""
    return " (" + ", ".join(f"{name}: {count}" for name, count in counts.items()) + ")"
