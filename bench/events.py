"""Measures events: from the outbox of one service to their effect in the database of another.

`python -m bench.events --help` teaches it. PostgreSQL (fsync on) with two databases, Valkey, the
relay and the consumer are processes of their own; the writer is this one. All share the machine.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import uvloop
from rich.console import Console
from rich.table import Table

from bench.meters import CpuReading, describe_machine, read_cpu
from services.shared.events.consumer import EventConsumer
from services.shared.events.log import EventLog
from services.shared.events.relay import EventRelay
from services.shared.events.tables import consumer_tables, event_tables, published_streams
from services.shared.postgres import open_database
from services.shared.valkey import open_valkey
from services.stack.postgres import SUPERUSER, PostgresServer
from services.stack.service_process import PROJECT_FOLDER
from services.stack.valkey import ValkeyServer
from wayfare.event.v1.envelope_pb2 import Envelope

if TYPE_CHECKING:
    from services.shared.postgres import Connection

_SCHEMA = "sample"
_TENANT = "0198c000-0000-7000-8000-000000000001"
_PAYLOAD = bytes(200)
_AGGREGATES = 5_000
_EFFECTS = """
CREATE TABLE sample.effects (
  effect_number bigint GENERATED ALWAYS AS IDENTITY, event_id uuid PRIMARY KEY,
  aggregate_id text NOT NULL, version bigint NOT NULL,
  occur_time timestamptz NOT NULL, effect_time timestamptz NOT NULL DEFAULT clock_timestamp());
"""
_EFFECT = """
INSERT INTO sample.effects (event_id, aggregate_id, version, occur_time)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::timestamptz[])
"""
_WRITE = """
INSERT INTO sample.events (aggregate_type, aggregate_id, aggregate_version, tenant_id, envelope)
SELECT 'trip', i, v, $1, e FROM unnest($2::text[], $3::bigint[], $4::bytea[]) AS new (i, v, e)
"""
_ABOUT_DONE = "SELECT last_value FROM sample.effects_effect_number_seq"
_DELAYS = """
SELECT percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (
  ORDER BY extract(epoch FROM effect_time - occur_time) * 1000) FROM sample.effects
WHERE occur_time >= $1
"""
_OUT_OF_ORDER = """
SELECT count(*) FROM (
  SELECT version, lag(version, 1, 0) OVER (PARTITION BY aggregate_id ORDER BY effect_number) AS last
  FROM sample.effects) AS each WHERE version <> last + 1
"""


async def relay(dsn: str, valkey_url: str) -> None:
    """Publish until killed."""
    database = await open_database(dsn, pool_size=2)
    valkey = open_valkey(valkey_url, cluster=False, timeout_seconds=5)
    work = EventRelay(
        log=EventLog(database, _SCHEMA),
        valkey=valkey,
        service=_SCHEMA,
        idle_seconds=0.02,
        entries_kept=20_000,
    )
    await work.run()


async def consume(dsn: str, valkey_url: str) -> None:
    """Consume until killed."""
    database = await open_database(dsn, pool_size=6)
    valkey = open_valkey(valkey_url, cluster=False, timeout_seconds=5)
    work = EventConsumer(
        consumer="bench",
        source=_SCHEMA,
        database=database,
        schema=_SCHEMA,
        valkey=valkey,
        handle=_write_down,
    )
    await work.run()


async def _write_down(connection: "Connection", events: Sequence[Envelope]) -> None:
    await connection.execute(
        _EFFECT,
        [event.event_id for event in events],
        [event.aggregate_id for event in events],
        [event.aggregate_version for event in events],
        [event.occur_time.ToDatetime(tzinfo=UTC) for event in events],
    )


class Writer:
    """Writes events as a service does, a transaction for every hundred or so."""

    def __init__(self, connection: "asyncpg.Connection[Any]", per_transaction: int) -> None:
        """Write on a connection of the source's database."""
        self._connection = connection
        self._per_transaction = per_transaction
        self._versions = [0] * _AGGREGATES
        self.count = 0

    async def write(self, count: int, per_second: float) -> None:
        """Write so many, at so many a second whatever becomes of them; 0 for at once."""
        began = time.perf_counter()
        for written in range(0, count, self._per_transaction):
            if per_second:
                await asyncio.sleep(max(0.0, began + written / per_second - time.perf_counter()))
            await self._connection.execute(_WRITE, _TENANT, *self._columns())

    def _columns(self) -> tuple[list[str], list[int], list[bytes]]:
        names, versions, envelopes = [], [], []
        envelope = Envelope(tenant_id=_TENANT, aggregate_type="trip")
        envelope.payload.type_url = "type.googleapis.com/wayfare.bench.v1.Happened"
        envelope.payload.value = _PAYLOAD
        envelope.occur_time.GetCurrentTime()
        for _ in range(self._per_transaction):
            number = self.count % _AGGREGATES
            self.count += 1
            self._versions[number] += 1
            envelope.event_id = _uuid7(self.count)
            envelope.aggregate_id = f"trip-{number}"
            envelope.aggregate_version = self._versions[number]
            names.append(envelope.aggregate_id)
            versions.append(self._versions[number])
            envelopes.append(envelope.SerializeToString())
        return names, versions, envelopes


def _uuid7(number: int) -> str:
    milliseconds = int(time.time() * 1000)
    return str(uuid.UUID(int=milliseconds << 80 | 7 << 76 | 2 << 62 | number))


class Bench:
    """Is the servers and processes of a run."""

    def __init__(self, folder: Path) -> None:
        """Keep everything below a folder."""
        self._folder = folder
        self.postgres = PostgresServer(
            data_folder=folder / "postgres" / "data",
            socket_folder=folder / "postgres" / "run",
            secrets_folder=folder / "postgres" / "secrets",
            log_path=folder / "postgres.log",
        )
        self.valkey = ValkeyServer(
            data_folder=folder / "valkey",
            socket_path=folder / "valkey.sock",
            log_path=folder / "valkey.log",
        )
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def dsn(self, database: str) -> str:
        """Return how to reach a database."""
        return self.postgres.dsn_for(SUPERUSER, database)

    async def prepare(self) -> None:
        """Start the servers and make the two databases."""
        await self.postgres.start()
        await self.valkey.start()
        tables = {
            "source": event_tables(_SCHEMA) + published_streams(_SCHEMA),
            "target": consumer_tables(_SCHEMA) + _EFFECTS,
        }
        root = await asyncpg.connect(self.dsn("postgres"))
        for name, statements in tables.items():
            await root.execute(f'CREATE DATABASE "{name}"')
            connection = await asyncpg.connect(self.dsn(name))
            await connection.execute(f"CREATE SCHEMA {_SCHEMA}; {statements}")
            await connection.close()
        await root.close()

    def start(self) -> None:
        """Start relay and consumer."""
        for name, database in (("relay", "source"), ("consumer", "target")):
            self._children[name] = subprocess.Popen(
                [sys.executable, "-m", "bench.events", name, self.dsn(database), self.valkey.url],
                cwd=PROJECT_FOLDER,
            )

    def stop(self) -> None:
        """Stop relay and consumer."""
        for child in self._children.values():
            child.kill()
            child.wait()
        self._children.clear()

    def read_cpu(self) -> CpuReading:
        """Read what every part has used so far."""
        parts = {name: child.pid for name, child in self._children.items()}
        parts |= {"writer": os.getpid()}
        for name, server in (("PostgreSQL", self.postgres), ("Valkey", self.valkey)):
            if server.process.pid is not None:
                parts[name] = server.process.pid
        reading = read_cpu({name: pid for name, pid in parts.items() if name != "writer"})
        reading.parts["writer"] = time.process_time()
        return reading


@asynccontextmanager
async def running_bench() -> AsyncIterator[Bench]:
    """Start the servers, and stop everything at the end."""
    with tempfile.TemporaryDirectory(prefix="wayfare-bench-") as name:
        bench = Bench(Path(name))
        try:
            await bench.prepare()
            yield bench
        finally:
            bench.stop()
            await bench.valkey.stop()
            await bench.postgres.stop()


async def run(options: argparse.Namespace, console: Console) -> None:
    """Run both scenarios and print the figures."""
    machine = describe_machine()
    console.print("machine: " + ", ".join(f"{name} {value}" for name, value in machine.items()))
    table = Table("scenario", "events/s", "p50 ms", "p99 ms", "CPU µs per event", "missing")
    async with running_bench() as bench:
        source = await asyncpg.connect(bench.dsn("source"))
        target = await asyncpg.connect(bench.dsn("target"))
        writer = Writer(source, options.per_transaction)
        bench.start()
        await _measure(table, bench, writer, target, options.warm_up, options.per_second, "warm-up")
        count = options.per_second * options.seconds
        name = f"written at {options.per_second:,}/s"
        await _measure(table, bench, writer, target, count, options.per_second, name)
        bench.stop()
        await writer.write(options.backlog, 0)
        before = await target.fetchval(_ABOUT_DONE)
        bench.start()
        # To start a process is not what is measured.
        while await target.fetchval(_ABOUT_DONE) == before:  # noqa: ASYNC110 - another process's
            await asyncio.sleep(0.01)
        await _measure(table, bench, writer, target, 0, 0, f"backlog of {options.backlog:,}")
        out_of_order = await target.fetchval(_OUT_OF_ORDER)
        for connection in (source, target):
            await connection.close()
    console.print(table)
    console.print(f"out of order: {out_of_order}")


async def _measure(
    table: Table,
    bench: Bench,
    writer: Writer,
    target: "asyncpg.Connection[Any]",
    count: int,
    per_second: int,
    name: str,
) -> None:
    done = await target.fetchval("SELECT count(*) FROM sample.effects")
    since = await target.fetchval("SELECT clock_timestamp()")
    before, began = bench.read_cpu(), time.perf_counter()
    if count:
        await writer.write(count, per_second)
    # The sequence costs nothing to ask, and a batch that is tried again makes it run ahead.
    for question in (_ABOUT_DONE, "SELECT count(*) FROM sample.effects"):
        while await target.fetchval(question) < writer.count:  # noqa: ASYNC110 - another process's
            await asyncio.sleep(0.05)
    seconds = time.perf_counter() - began
    after = bench.read_cpu()
    effects = await target.fetchval("SELECT count(*) FROM sample.effects")
    handled = effects - done
    delays = await target.fetchval(_DELAYS, since) if count else None
    each = ", ".join(
        f"{part} {(after.parts[part] - before.parts[part]) / handled * 1e6:.0f}"
        for part in after.parts
    )
    table.add_row(
        name,
        f"{handled / seconds:,.0f}",
        *(f"{one:.0f}" for one in delays or ()),
        *(() if delays else ("-", "-")),
        each,
        str(writer.count - effects),
    )


def main(arguments: Sequence[str]) -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(prog="python -m bench.events", description=__doc__)
    parser.add_argument("--per-second", type=int, default=10_000, help="events written a second")
    parser.add_argument("--seconds", type=int, default=20, help="how long they are written")
    parser.add_argument("--per-transaction", type=int, default=100, help="events of a transaction")
    parser.add_argument("--backlog", type=int, default=200_000, help="events to catch up with")
    parser.add_argument("--warm-up", type=int, default=20_000, help="events before the figures")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if arguments[:1] == ["relay"]:
            runner.run(relay(*arguments[1:3]))
        elif arguments[:1] == ["consumer"]:
            runner.run(consume(*arguments[1:3]))
        else:
            runner.run(run(parser.parse_args(arguments), Console(width=150)))


if __name__ == "__main__":
    main(sys.argv[1:])
