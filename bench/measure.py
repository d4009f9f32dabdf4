"""Runs one scenario on a stack of its own: starts all, measures, and returns the figures.

Called by load.py.
"""

import asyncio
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

import httpx

from bench.meters import CpuReading, describe_machine, read_cpu, read_memory
from bench.scenario import Route, Scenario
from bench.workers import Worker, start_worker
from bench.world import BenchTrip, TokenMint, make_trips, track
from services.stack.embedded import EmbeddedStack, StackOptions

Say = Callable[[str], None]
GENERATOR = "generator"
# What the load needs to be let through: a phone sends a position every three seconds, not five a
# second.
_SETTINGS = {
    "WAYFARE_LOCATION_POSITIONS_PER_MINUTE": "600",
    "WAYFARE_LOCATION_INTERVAL_LEAST_SECONDS": "0",
    "WAYFARE_STREAMS_MAX": "30000",
}
_LATENCY_BIN_MICROSECONDS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Holds what one scenario gave. Counts are of the whole run, rates of the measured window."""

    scenario: Scenario
    machine: dict[str, str]
    opened: int
    open_seconds: float
    refused: dict[str, int]
    reasons: dict[str, int]
    sent: int = 0
    acked: int = 0
    rejected: int = 0
    delivered: int = 0
    conflated: int = 0
    lost: int = 0
    held_back: int = 0
    late_ticks: int = 0
    window_seconds: float = 0.0
    window_sent: int = 0
    window_delivered: int = 0
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    others_cpu_seconds: float = 0.0
    bytes_per_stream: dict[str, float] = field(default_factory=dict)
    latency_milliseconds: dict[str, float] = field(default_factory=dict)

    def microseconds_per_position(self, part: str) -> float:
        """Return the CPU time of one part for each position sent in the window."""
        return self.cpu_seconds[part] / max(1, self.window_sent) * 1e6

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        document = asdict(self)
        document["cpu_microseconds_per_position"] = {
            part: round(self.microseconds_per_position(part), 2) for part in self.cpu_seconds
        }
        return document


async def measure(
    scenario: Scenario, *, say: Say, settings: dict[str, str] | None = None
) -> Figures:
    """Run `scenario` and return its figures; `say` is told how far it is."""
    options = StackOptions(
        settings={"location": {**_SETTINGS, **(settings or {})}},
        location_processes=scenario.location_processes,
    )
    async with AsyncExitStack() as exits:
        say("starting the stack")
        stack = await exits.enter_async_context(EmbeddedStack(options=options))
        say(f"tracking {scenario.drivers:,} trips")
        mint = TokenMint(stack)
        fleet_tokens = [
            mint.token(str(uuid.uuid4()), "BUSINESS") for _ in range(scenario.fleet_followers)
        ]
        trips = make_trips(
            mint,
            trip_count=scenario.drivers,
            followers_per_trip=scenario.followers_per_trip,
        )
        await track(stack, trips)
        workers = [
            await start_worker(
                exits,
                stack,
                scenario,
                part,
                fleet_tokens if not index else [],
                ring_place=index if scenario.ring else None,
            )
            for index, part in enumerate(_parts_of(trips, scenario.generator_processes))
        ]
        return await _Run(scenario, stack, workers, say).run()


def measure_settings() -> dict[str, str]:
    """Return the settings of location processes under a load: see _SETTINGS."""
    return dict(_SETTINGS)


def _parts_of(trips: list[BenchTrip], count: int) -> list[list[BenchTrip]]:
    return [trips[start::count] for start in range(count)]


class _Run:
    """Is one run of a scenario on a stack that is ready."""

    def __init__(
        self, scenario: Scenario, stack: EmbeddedStack, workers: list[Worker], say: Say
    ) -> None:
        self._scenario = scenario
        self._stack = stack
        self._workers = workers
        self._say = say
        self._process_ids = {
            name: process.pid
            for name, process in stack.processes().items()
            if process.pid is not None
        }

    async def run(self) -> Figures:
        """Open, send, settle, and put the figures together."""
        scenario = self._scenario
        await self._ask_all("connect")
        await asyncio.sleep(1.0)
        memory_before = read_memory(self._process_ids)
        self._say(f"opening {scenario.drivers + scenario.follower_count:,} streams")
        openings = await self._ask_all("open")
        memory_after = read_memory(self._process_ids)
        ended = _sum_of(openings, "ended")
        unanswered = sum(one["unanswered"] for one in openings)
        figures: dict[str, Any] = {
            "scenario": scenario,
            "machine": describe_machine(),
            "opened": sum(one["opened"] for one in openings),
            "open_seconds": max(one["seconds"] for one in openings),
            "refused": ended | ({"unanswered": unanswered} if unanswered else {}),
            "bytes_per_stream": self._bytes_per_stream(memory_before, memory_after),
        }
        if scenario.sends:
            figures |= await self._send()
        figures["reasons"] = await self._reasons()
        await self._ask_all("quit")
        return Figures(**figures)

    async def _send(self) -> dict[str, Any]:
        scenario = self._scenario
        self._say(f"sending {scenario.positions_per_second:,.0f} positions a second")
        await self._ask_all("start")
        await asyncio.sleep(scenario.warmup_seconds)
        conflated_before = await self._conflated()
        before = self._read_cpu()
        await self._ask_all("mark")
        await asyncio.sleep(scenario.duration_seconds)
        windows = await self._ask_all("stop")
        after = self._read_cpu()
        self._say("waiting for the last acknowledgements")
        totals = await self._ask_all("settle")
        conflated = await self._conflated()
        total = {
            name: sum(one[name] for one in totals)
            for name in ("sent", "acked", "rejected", "missing", "delivered", "held_back")
        }
        # By the hub's own count, from the beginning: nobody was to get what it conflated.
        lost = total.pop("missing") - (round(conflated) if scenario.followers_per_trip else 0)
        cpu = {name: after.parts[name] - before.parts[name] for name in after.parts}
        return {
            **total,
            "conflated": round(conflated - conflated_before),
            "lost": lost,
            "late_ticks": sum(one["late_ticks"] for one in windows),
            "window_seconds": after.at - before.at,
            "window_sent": sum(one["sent"] for one in windows),
            "window_delivered": sum(one["delivered"] for one in windows),
            "cpu_seconds": cpu,
            "others_cpu_seconds": after.machine - before.machine - sum(cpu.values()),
            "latency_milliseconds": _latencies(totals),
        }

    def _read_cpu(self) -> CpuReading:
        reading = read_cpu(
            self._process_ids | {f"worker-{one.pid}": one.pid for one in self._workers}
        )
        own = sum(reading.parts.pop(f"worker-{one.pid}") for one in self._workers)
        reading.parts[GENERATOR] = own
        return reading

    def _bytes_per_stream(self, before: dict[str, int], after: dict[str, int]) -> dict[str, float]:
        scenario = self._scenario
        both = scenario.drivers + scenario.follower_count
        streams = {
            "location-1": scenario.drivers,
            "location-2": scenario.follower_count,
            "envoy": both if scenario.route is Route.EDGE else 0,
        }
        if scenario.spread or scenario.ring:
            names = [f"location-{one + 1}" for one in range(scenario.location_processes)]
            streams |= dict.fromkeys(names, both // len(names))
        return {
            name: (after[name] - before[name]) / count
            for name, count in streams.items()
            if count and name in after
        }

    async def _conflated(self) -> float:
        return sum(
            value
            for name, value in await self._metrics()
            if name.startswith("wayfare_location_conflated_total")
        )

    async def _reasons(self) -> dict[str, int]:
        """Count why calls of the two streams ended, as the processes themselves say."""
        reasons: Counter[str] = Counter()
        for name, value in await self._metrics():
            if name.startswith("wayfare_rpc_total{") and (
                "StreamDriver" in name or "Follow" in name
            ):
                reasons[name.partition("{")[2].rstrip("}")] += int(value)
        return dict(reasons)

    async def _metrics(self) -> list[tuple[str, float]]:
        lines: list[tuple[str, float]] = []
        async with httpx.AsyncClient(trust_env=False, timeout=10.0) as client:
            for name in self._process_ids:
                if not name.startswith("location-"):
                    continue
                answer = await client.get(self._stack.services[name].metrics_url)
                for line in answer.text.splitlines():
                    if not line.startswith("#"):
                        series, _, value = line.rpartition(" ")
                        lines.append((series, float(value)))
        return lines

    async def _ask_all(self, command: str) -> list[dict[str, Any]]:
        return list(await asyncio.gather(*(worker.ask(command) for worker in self._workers)))


def _sum_of(answers: list[dict[str, Any]], name: str) -> dict[str, int]:
    total: Counter[str] = Counter()
    for answer in answers:
        total.update(answer[name])
    return dict(total)


def _latencies(answers: list[dict[str, Any]]) -> dict[str, float]:
    """Return percentiles in milliseconds from the workers' histograms."""
    bins: Counter[int] = Counter()
    for answer in answers:
        for number, count in answer["latencies"]:
            bins[number] += count
    total = sum(bins.values())
    if not total:
        return {}
    wanted = {"p50": 0.50, "p90": 0.90, "p99": 0.99, "p99.9": 0.999}
    found: dict[str, float] = {}
    seen = 0
    for number in sorted(bins):
        seen += bins[number]
        for name, share in wanted.items():
            if name not in found and seen >= share * total:
                found[name] = (number + 1) * _LATENCY_BIN_MICROSECONDS / 1000
    found["max"] = (max(bins) + 1) * _LATENCY_BIN_MICROSECONDS / 1000
    return found
