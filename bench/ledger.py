"""Measures the ledger: settlements of three postings through gRPC, with fsync on.

`python -m bench.ledger --help` teaches it. The stack, its PostgreSQL and this generator share the
machine; requests are built before the clock starts.
"""

import argparse
import asyncio
import random
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import asyncpg
import grpc
import uvloop
from rich.console import Console
from rich.table import Table

from bench.meters import CpuReading, describe_machine, read_cpu
from services.stack.embedded import EmbeddedStack, StackOptions
from services.stack.environments import DEMO_TENANT_ID
from wayfare.ledger.v1 import account_pb2, ledger_service_pb2, transfer_pb2

_SERVICE = "/wayfare.ledger.v1.LedgerService/"
_BOOKING = (("x-forwarded-client-cert", "By=x;URI=spiffe://wayfare/booking"),)
_OPTIONS = (("grpc.max_receive_message_length", 16 << 20),)
_SIZE = """
SELECT sum(pg_total_relation_size(c.oid))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'ledger' AND c.relkind = 'r'
"""
_REVENUE = account_pb2.AccountName(kind=account_pb2.ACCOUNT_KIND_REVENUE)
_CLEARING = account_pb2.AccountName(
    kind=account_pb2.ACCOUNT_KIND_GATEWAY_CLEARING, subject="PAYHERE"
)


def _wallet(user_id: str) -> account_pb2.AccountName:
    return account_pb2.AccountName(kind=account_pb2.ACCOUNT_KIND_WALLET, subject=user_id)


def _posting(account: account_pb2.AccountName, units: int) -> transfer_pb2.Posting:
    posting = transfer_pb2.Posting(account=account)
    posting.side = transfer_pb2.SIDE_CREDIT if units > 0 else transfer_pb2.SIDE_DEBIT
    posting.amount.currency_code, posting.amount.units = "EGP", abs(units)
    return posting


class Load:
    """Asks one ledger process for settlements, as booking does."""

    def __init__(self, stack: EmbeddedStack, accounts: int) -> None:
        """Move money between so many passengers and a tenth as many drivers."""
        process = stack.services["ledger-1"]
        self._channel = grpc.aio.insecure_channel(process.listen, options=_OPTIONS)
        self._create: Any = self._channel.unary_unary(f"{_SERVICE}CreateTransfers")
        self._random = random.Random(7)
        self.passengers = [str(uuid.uuid4()) for _ in range(accounts)]
        self.drivers = [str(uuid.uuid4()) for _ in range(max(1, accounts // 10))]

    def settlements(self, count: int) -> bytes:
        """Return a request for so many settlements of three postings, one of them revenue."""
        request = self._request()
        for _ in range(count):
            passenger, driver = map(self._random.choice, (self.passengers, self.drivers))
            request.transfers.add(
                transfer_id=_uuid7(),
                kind="TRIP_FARE",
                postings=[
                    _posting(_wallet(passenger), -20),
                    _posting(_wallet(driver), 17),
                    _posting(_REVENUE, 3),
                ],
            )
        return request.SerializeToString()

    async def fund(self) -> None:
        """Give every passenger enough for the run."""
        for start in range(0, len(self.passengers), 500):
            request = self._request()
            for passenger in self.passengers[start : start + 500]:
                request.transfers.add(
                    transfer_id=_uuid7(),
                    kind="DEPOSIT",
                    postings=[
                        _posting(_CLEARING, -1_000_000_000),
                        _posting(_wallet(passenger), 1_000_000_000),
                    ],
                )
            await self.create(request.SerializeToString())

    async def create(self, request: bytes) -> float:
        """Make the transfers; return the seconds it took. Raises if one was refused."""
        began = time.perf_counter()
        answer: bytes = await self._create(request, metadata=_BOOKING, timeout=30)
        if answer:
            failures = ledger_service_pb2.CreateTransfersResponse.FromString(answer).failures
            raise RuntimeError(f"{len(failures)} transfers were refused: {failures[0]}")
        return time.perf_counter() - began

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    def _request(self) -> ledger_service_pb2.CreateTransfersRequest:
        return ledger_service_pb2.CreateTransfersRequest(
            tenant_id=DEMO_TENANT_ID, request_id=str(uuid.uuid4())
        )


def _uuid7() -> str:
    milliseconds = int(time.time() * 1000)
    value = milliseconds << 80 | 7 << 76 | random.getrandbits(12) << 64
    return str(uuid.UUID(int=value | 2 << 62 | random.getrandbits(62)))


async def measure_batches(load: Load, requests: Sequence[bytes], callers: int) -> list[float]:
    """Send the requests by so many callers; return what each took, in seconds."""
    left = list(requests)
    took: list[float] = []

    async def call() -> None:
        while left:
            took.append(await load.create(left.pop()))

    await asyncio.gather(*(call() for _ in range(callers)))
    return took


async def measure_singles(load: Load, requests: Sequence[bytes], per_second: int) -> list[float]:
    """Send a request every so often, whether the last was answered or not (open loop)."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    tasks = []
    for number, request in enumerate(requests):
        await asyncio.sleep(max(0.0, began + number / per_second - loop.time()))
        tasks.append(asyncio.create_task(load.create(request)))
    return list(await asyncio.gather(*tasks))


async def run(options: argparse.Namespace, console: Console) -> None:
    """Run every scenario on a stack of its own and print the figures."""
    machine = describe_machine()
    console.print("machine: " + ", ".join(f"{name} {value}" for name, value in machine.items()))
    table = Table("scenario", "settlements/s", "p50 ms", "p99 ms", "CPU µs each", "bytes each")
    async with EmbeddedStack(options=StackOptions(location_processes=1)) as stack:
        # First, because batches leave minutes of events behind, which are no part of 500 a second.
        if options.only in "single":
            load = Load(stack, 10_000)
            await load.fund()
            requests = [load.settlements(1) for _ in range(options.per_second * options.seconds)]
            work = partial(measure_singles, load, requests, options.per_second)
            await _row(table, stack, f"single, {options.per_second}/s", len(requests), work)
            await load.close()
        for name, accounts in (("batch", 10_000), ("batch, 50 accounts", 50), ("batch, 10", 10)):
            if options.only not in name:
                continue
            load = Load(stack, accounts)
            await load.fund()
            count = options.count // options.batch
            requests = [load.settlements(options.batch) for _ in range(count)]
            await _row(
                table,
                stack,
                name,
                count * options.batch,
                partial(measure_batches, load, requests, options.callers),
            )
            await load.close()
    console.print(table)


async def _row(
    table: Table,
    stack: EmbeddedStack,
    name: str,
    count: int,
    work: Callable[[], Awaitable[list[float]]],
) -> None:
    process_ids = {
        part: process.pid for part, process in stack.processes().items() if process.pid is not None
    }
    size = await _size(stack)
    before, began = read_cpu(process_ids), time.perf_counter()
    own = time.process_time()
    took = sorted(await work())
    seconds = time.perf_counter() - began
    own = time.process_time() - own
    after = read_cpu(process_ids)
    grown = await _size(stack) - size
    table.add_row(
        name,
        f"{count / seconds:,.0f}",
        f"{took[len(took) // 2] * 1000:.1f}",
        f"{took[int(len(took) * 0.99)] * 1000:.1f}",
        f"ledger {_each(before, after, 'ledger-1', count)},"
        f" PostgreSQL {_each(before, after, 'postgres', count)}, generator {own / count * 1e6:.0f}",
        f"{grown / count:.0f}",
    )


def _each(before: CpuReading, after: CpuReading, part: str, count: int) -> str:
    return f"{(after.parts[part] - before.parts[part]) / count * 1e6:.0f}"


async def _size(stack: EmbeddedStack) -> int:
    connection = await asyncpg.connect(stack.database_dsn("ledger"))
    try:
        return int(await connection.fetchval(_SIZE))
    finally:
        await connection.close()


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(prog="python -m bench.ledger", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="settlements of a scenario")
    parser.add_argument("--batch", type=int, default=200, help="settlements of a request")
    parser.add_argument("--callers", type=int, default=8, help="requests at once")
    parser.add_argument("--per-second", type=int, default=500, help="single calls a second")
    parser.add_argument("--seconds", type=int, default=20, help="how long single calls go on")
    parser.add_argument("--only", default="", help="part of a scenario's name, to run that alone")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(parser.parse_args(arguments), Console(width=140)))


if __name__ == "__main__":
    main(sys.argv[1:])
