"""Asks every part of a running stack how it is; called by `wayfare status`."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import httpx
import psutil
from redis.exceptions import RedisError

from services.stack.envoy_process import is_live
from services.stack.home import PartState
from services.stack.postgres import ping_postgres
from services.stack.valkey import ping_valkey


@dataclass(frozen=True, slots=True, kw_only=True)
class PartHealth:
    """How one part is; `why` says what is wrong when it is not healthy."""

    name: str
    address: str
    pid: int | None
    healthy: bool
    why: str
    memory_bytes: int
    age_seconds: float


async def check_parts(parts: Sequence[PartState]) -> list[PartHealth]:
    """Ask all parts at once; each answers within two seconds or is down."""
    return list(await asyncio.gather(*(_check(part) for part in parts)))


async def _check(part: PartState) -> PartHealth:
    memory_bytes, age_seconds = _usage(part.pid)
    why = await _complaint(part) if part.pid is None or age_seconds else "does not run"
    return PartHealth(
        name=part.name,
        address=part.address,
        pid=part.pid,
        healthy=not why,
        why=why,
        memory_bytes=memory_bytes,
        age_seconds=age_seconds,
    )


async def _complaint(part: PartState) -> str:
    """Return what is wrong with a part; empty when it answers as it should."""
    try:
        match part.kind:
            case "postgres":
                await ping_postgres(await asyncio.to_thread(Path(part.check).read_text))
            case "valkey":
                await ping_valkey(part.check)
            case "envoy":
                return "" if await is_live(Path(part.check)) else "does not answer"
            case _:
                async with httpx.AsyncClient(timeout=2.0, trust_env=False) as client:
                    response = await client.get(part.check)
                if response.status_code != httpx.codes.OK:
                    return f"not ready: {response.text.strip()[:80]}"
    except (OSError, TimeoutError, asyncpg.PostgresError, RedisError, httpx.HTTPError) as error:
        return f"does not answer ({type(error).__name__})"
    return ""


def _usage(pid: int | None) -> tuple[int, float]:
    """Return memory, with that of child processes, and age; zeros when the process is gone."""
    if pid is None:
        return 0, 0.0
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        memory = sum(_private_memory(member) for member in family)
        return memory, max(0.001, time.time() - process.create_time())
    except psutil.NoSuchProcess:
        return 0, 0.0


def _private_memory(process: psutil.Process) -> int:
    # What PostgreSQL's processes share would count once for each of them.
    try:
        memory = process.memory_full_info() if hasattr(process, "memory_maps") else None
        return int(memory.uss if memory is not None else process.memory_info().rss)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0
