"""Asks for the nearest of 100,000 online drivers in one city while positions go on being written.

`python -m bench.nearby --help` teaches it. Writes go through StreamDriver on location-1, questions
to location-2. The other drivers of the city are put into Valkey by the service's own store and kept
fresh by it: that many phones would not fit beside the stack on one machine.
"""

import argparse
import asyncio
import os
import random
import re
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from multiprocessing import get_context

import httpx
import uvloop
from rich.console import Console

from bench.http2 import Connection, Stream, header_block
from bench.limits import raise_file_limit
from bench.measure import measure_settings
from bench.meters import describe_machine, read_cpu
from bench.scenario import Scenario
from bench.workers import start_worker
from bench.world import TENANT_ID, BenchTrip, TokenMint, make_trips
from services.location.domain.positions import Fix
from services.location.ports.live import POSITION, Publisher, Update
from services.location.store.live import ValkeyLiveStore
from services.shared.clock import SystemClock
from services.shared.tasks import cancel_all
from services.shared.valkey import open_valkey
from services.stack.embedded import EmbeddedStack, StackOptions
from wayfare.location.v1 import (
    location_service_pb2,
    position_pb2,
    trip_update_pb2,
)

# As large as Liverpool with its surroundings: some 20 by 20 km.
_SOUTH, _WEST, _NORTH, _EAST = 53.32, -3.05, 53.50, -2.75
# What a location process gathers in a tick: Valkey answers nobody while it takes a batch.
_BATCH = 64
_REFRESH_SECONDS = 24.0
# Everybody's first question also shows a token that nobody has seen, and the first one connects.
_WARM_SECONDS = 2.0
_ANSWER_SECONDS = 5.0
_METHOD = "/wayfare.location.v1.LocationService/ListNearbyDrivers"


@dataclass(slots=True)
class Answers:
    """Holds how long questions took, in seconds, and how many drivers came back.

    `served` is how many the server counted, and for how many seconds in all it had them in hand.
    """

    seconds: list[float]
    drivers: int = 0
    degraded: int = 0
    refused: int = 0
    served: Sequence[float] = (0.0, 0.0)


class City:
    """Is the drivers who have no phone here."""

    def __init__(self, store: ValkeyLiveStore, count: int, seed: int) -> None:
        """Spread `count` drivers over the city."""
        self._store = store
        self._random = random.Random(seed)
        self._drivers = [
            Publisher(
                driver_id=str(uuid.uuid4()),
                tenant_id=TENANT_ID,
                vehicle_id=f"car-{number}",
                vehicle_class=1 + number % 4,
            )
            for number in range(count)
        ]

    async def open(self) -> None:
        """Make all of them known."""
        for start in range(0, len(self._drivers), _BATCH):
            await asyncio.gather(
                *(
                    self._store.join_session(
                        driver_id=one.driver_id,
                        tenant_id=one.tenant_id,
                        vehicle_id=one.vehicle_id,
                        trip_id="",
                        vehicle_class=one.vehicle_class,
                    )
                    for one in self._drivers[start : start + _BATCH]
                )
            )

    async def drive_once(self, *, within_seconds: float) -> None:
        """Give every driver a new position, evenly over the time."""
        began = time.monotonic()
        batches = range(0, len(self._drivers), _BATCH)
        for number, start in enumerate(batches):
            await self._store.apply(0, self._updates(self._drivers[start : start + _BATCH]))
            ahead = (number + 1) / len(batches) * within_seconds - (time.monotonic() - began)
            if ahead > 0:
                await asyncio.sleep(ahead)

    async def drive(self) -> None:
        """Keep all of them fresh until cancelled."""
        while True:
            await self.drive_once(within_seconds=_REFRESH_SECONDS)

    def _updates(self, drivers: Sequence[Publisher]) -> list[Update]:
        now = int(time.time() * 1000)
        updates = []
        for one in drivers:
            fix = Fix(self._random.uniform(_SOUTH, _NORTH), self._random.uniform(_WEST, _EAST), now)
            position = position_pb2.Position()
            position.location.latitude, position.location.longitude = fix[:2]
            position.capture_time.FromMilliseconds(now)
            payload = trip_update_pb2.TripUpdate(position=position).SerializeToString()
            updates.append(Update(one, "", 0, POSITION, "", payload, fix))
        return updates


class Question(Stream):
    """Is one question: its time runs from before it is encoded until its answer is read."""

    __slots__ = ("_answers", "_began", "_counted")

    def __init__(self, connection: Connection, answers: Answers, *, counted: bool) -> None:
        """Put into `answers` what comes, if it is `counted`."""
        super().__init__(connection)
        self._answers = answers
        self._counted = counted
        self._began = time.monotonic()

    def ask(self, request: location_service_pb2.ListNearbyDriversRequest, token: str) -> None:
        """Send it."""
        block = header_block(
            {
                ":method": "POST",
                ":scheme": "http",
                ":path": _METHOD,
                ":authority": "localhost",
                "content-type": "application/grpc",
                "te": "trailers",
                "grpc-timeout": "5S",
                "authorization": f"Bearer {token}",
            }
        )
        message = request.SerializeToString()
        self.connection.open(self, block=block, message=message, is_last=True)
        self.connection.flush()

    def receive(self, message: bytes) -> None:
        """Read the answer."""
        answer = location_service_pb2.ListNearbyDriversResponse.FromString(message)
        if self._counted:
            self._answers.seconds.append(time.monotonic() - self._began)
            self._answers.drivers += len(answer.drivers)
            self._answers.degraded += answer.degraded

    def end(self, status: int | None) -> None:
        """Note a question that got no answer."""
        if not self.ended:
            self._answers.refused += status != 0
        super().end(status)


def ask_elsewhere(address: str, tokens: Sequence[str], options: argparse.Namespace) -> Answers:
    """Ask from a process of its own, which nothing else holds up."""
    return uvloop.run(
        ask(
            address,
            tokens,
            per_second=options.questions,
            seconds=options.seconds,
            radius_meters=options.radius,
            limit=options.limit,
        )
    )


async def ask(
    address: str,
    tokens: Sequence[str],
    *,
    per_second: float,
    seconds: float,
    radius_meters: float,
    limit: int,
) -> Answers:
    """Ask from random places of the city, so many times a second, as many people."""
    chance, answers = random.Random(2), Answers(seconds=[])
    path = address.removeprefix("unix:")
    _, connection = await asyncio.get_running_loop().create_unix_connection(Connection, path)
    questions = []
    begin = time.monotonic()
    for number in range(int(per_second * (_WARM_SECONDS + seconds))):
        await asyncio.sleep(max(0.0, begin + number / per_second - time.monotonic()))
        counted = number >= per_second * _WARM_SECONDS
        question = Question(connection, answers, counted=counted)
        request = location_service_pb2.ListNearbyDriversRequest(
            radius_meters=radius_meters, page_size=limit
        )
        request.location.latitude = chance.uniform(_SOUTH, _NORTH)
        request.location.longitude = chance.uniform(_WEST, _EAST)
        question.ask(request, tokens[number % len(tokens)])
        questions.append(question)
    give_up = time.monotonic() + _ANSWER_SECONDS
    # A poll: the last answers come within milliseconds.
    while not all(one.ended for one in questions) and time.monotonic() < give_up:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    answers.refused += sum(not one.ended for one in questions)
    connection.close()
    return answers


async def bench(options: argparse.Namespace, console: Console) -> None:
    """Run it and print the figures."""
    async with AsyncExitStack() as exits:
        stack = await exits.enter_async_context(
            EmbeddedStack(options=StackOptions(settings={"location": measure_settings()}))
        )
        client = open_valkey(stack.valkey.url, cluster=False)
        exits.push_async_callback(client.aclose)
        store = ValkeyLiveStore(
            client,
            reader=client,
            bucket_count=1,
            live_seconds=30,
            updates_kept=4_000,
            clock=SystemClock(),
        )
        await store.ping()
        city = City(store, options.drivers - options.phones, options.seed)
        console.print(f"putting {options.drivers - options.phones:,} drivers on the road")
        await city.open()
        await city.drive_once(within_seconds=0)
        mint = TokenMint(stack)
        scenario = Scenario(
            name="nearby",
            about="free drivers",
            drivers=options.phones,
            interval_seconds=options.phones / max(1.0, options.writes - _refreshed(options)),
            followers_per_trip=0,
        )
        phones = [
            _free(one) for one in make_trips(mint, trip_count=options.phones, followers_per_trip=0)
        ]
        worker = await start_worker(exits, stack, scenario, phones, [])
        for command in ("connect", "open", "start"):
            await worker.ask(command)
        fresh = asyncio.create_task(city.drive())
        await asyncio.sleep(3)
        await worker.ask("mark")
        process_ids = {
            name: one.pid for name, one in stack.processes().items() if one.pid is not None
        }
        process_ids["generator"] = os.getpid()
        served = await _served(stack)
        before = read_cpu(process_ids)
        # As many people as ask, because each may ask twice a second.
        count = 2 * int(options.questions)
        tokens = [mint.token(str(uuid.uuid4()), "PASSENGER") for _ in range(count)]
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            asking = pool.submit(
                ask_elsewhere, stack.services["location-2"].listen, tokens, options
            )
            answers = await asyncio.wrap_future(asking)
        after = read_cpu(process_ids)
        answers.served = [
            now - then for now, then in zip(await _served(stack), served, strict=True)
        ]
        sent = (await worker.ask("stop"))["sent"]
        await cancel_all([fresh])
        cpu = {name: after.parts[name] - before.parts[name] for name in after.parts}
        # The stack's processes are children of this one.
        cpu["generator"] -= sum(used for name, used in cpu.items() if name != "generator")
        cpu["others on the machine"] = after.machine - before.machine - sum(cpu.values())
        _print(console, options, answers, sent, cpu, after.at - before.at)


async def _served(stack: EmbeddedStack) -> list[float]:
    """Return how many questions location-2 answered, and for how many seconds it had them."""
    async with httpx.AsyncClient(trust_env=False) as web:
        text = (await web.get(stack.services["location-2"].metrics_url)).text
    found = []
    for what in ("count", "sum"):
        name = re.escape(f'wayfare_rpc_seconds_{what}{{method="{_METHOD}"}}')
        match = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
        found.append(float(match[1]) if match else 0.0)
    return found


def _free(trip: BenchTrip) -> BenchTrip:
    """Return the driver without the trip."""
    return BenchTrip(
        trip_id="",
        vehicle_id=trip.vehicle_id,
        driver_id=trip.driver_id,
        driver_token=trip.driver_token,
        follower_ids=(),
        follower_tokens=(),
    )


def _print(
    console: Console,
    options: argparse.Namespace,
    answers: Answers,
    sent: int,
    cpu: dict[str, float],
    seconds: float,
) -> None:
    ordered = sorted(answers.seconds)
    console.print(
        f"{len(ordered):,} questions in {seconds:.1f} s ({answers.refused} refused,"
        f" {answers.degraded} degraded), {answers.drivers / max(1, len(ordered)):.1f} drivers each,"
        f" of {options.drivers:,} online, {options.radius:g} m, limit {options.limit}"
    )
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)):
        value = ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000
        console.print(f"  {name} {value:.2f} ms")
    count, in_hand = answers.served
    console.print(f"  of it in the server's hands: {in_hand / max(1.0, count) * 1000:.2f} ms, mean")
    console.print(
        f"positions meanwhile: {sent / seconds:,.0f} a second by phones,"
        f" {_refreshed(options):,.0f} by the store"
    )
    console.print(
        "CPU, % of a core: "
        + ", ".join(f"{name} {used / seconds * 100:.1f}" for name, used in cpu.items())
    )
    per_question = cpu["location-2"] / max(1.0, count) * 1e6
    console.print(f"location-2 per question: {per_question:.0f} µs")
    console.print("machine: " + ", ".join(f"{k} {v}" for k, v in describe_machine().items()))


def _refreshed(options: argparse.Namespace) -> float:
    """Return how many positions a second keep the drivers without a phone fresh."""
    return float((options.drivers - options.phones) / _REFRESH_SECONDS)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m bench.nearby", description=__doc__)
    add = parser.add_argument
    add("--drivers", type=int, default=100_000, help="drivers online in the city")
    add("--phones", type=int, default=2_000, help="of them with a stream of their own")
    add("--writes", type=float, default=5_000, help="positions a second, the store's included")
    add("--questions", type=float, default=100, help="questions a second")
    add("--seconds", type=float, default=20, help="for how long")
    add("--radius", type=float, default=5_000, help="meters")
    add("--limit", type=int, default=50, help="most drivers per answer")
    add("--seed", type=int, default=1, help="seed of where everybody is")
    options = parser.parse_args(arguments)
    raise_file_limit()
    uvloop.run(bench(options, Console(highlight=False, width=160)))


if __name__ == "__main__":
    main()
