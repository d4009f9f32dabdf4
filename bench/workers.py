"""Starts generator processes and talks to them. Called by measure.py, nearby.py and soak.py."""

import asyncio
import json
import sys
import uuid
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.scenario import Route, Scenario
from bench.world import BenchTrip
from services.stack.embedded import EmbeddedStack


class Worker:
    """Is one generator process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        """Talk to `process` by its pipes."""
        self._process = process
        self.pid = process.pid

    async def ask(self, command: str) -> dict[str, Any]:
        """Give a command and wait for its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\n".encode())
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the generator ended at {command}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def end(self) -> None:
        """Let the process end."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


async def start_worker(
    exits: AsyncExitStack,
    stack: EmbeddedStack,
    scenario: Scenario,
    trips: list[BenchTrip],
    fleet_tokens: list[str],
    *,
    ring_place: int | None = None,
) -> Worker:
    """Start a generator for these trips and followers of the fleet; `exits` ends it.

    At a place in a ring its drivers are on the process of that place, its followers on the next.
    """
    names = {"driver": "location-1", "follower": "location-2"}
    if ring_place is not None:
        following = (ring_place + 1) % scenario.location_processes
        names = {"driver": f"location-{ring_place + 1}", "follower": f"location-{following + 1}"}
    config: dict[str, Any] = {
        **asdict(scenario),
        "open_per_second": scenario.open_per_second / scenario.generator_processes,
        "trips": [asdict(trip) for trip in trips],
        "fleet_tokens": fleet_tokens,
    }
    for kind, name in names.items():
        direct = scenario.route is Route.DIRECT
        config[f"{kind}_address"] = stack.services[name].listen if direct else stack.edge_address
        config[f"{kind}_instance"] = "" if direct or scenario.spread else name
    path = stack.secrets / f"bench-{uuid.uuid4()}.json"
    await asyncio.to_thread(_write_private, path, json.dumps(config))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.worker", str(path)),
        cwd=Path(__file__).parents[1],
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 26,
    )
    worker = Worker(process)
    exits.push_async_callback(worker.end)
    return worker


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
