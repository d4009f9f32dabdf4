"""What only the real Valkey can show: lifetimes, two processes, a lost server."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from services.location.domain.trips import TrackedTrip
from services.location.ports.live import LiveStore
from services.location.store.live import ValkeyLiveStore
from services.shared.clock import SystemClock
from services.shared.errors import DependencyUnavailableError
from services.shared.valkey import open_valkey
from tests.support.location_stores import opened_live_store
from tests.support.location_values import (
    TENANT,
    a_trip,
    capture_of,
    new_id,
    now_milliseconds,
    position_update,
    status_update,
)


@dataclass
class Valkey:
    """A store on Valkey, and Valkey itself."""

    url: str
    stack: AsyncExitStack
    live: ValkeyLiveStore
    client: Any
    trip: TrackedTrip = field(default_factory=a_trip)

    async def drive(self, *, status: str = "") -> None:
        """Track the trip and send one position of it, and a status."""
        await self.live.track(self.trip)
        grant = await opened(self.live, self.trip)
        driver_id, trip_id = self.trip.driver_id, self.trip.trip_id
        updates = [
            position_update(
                driver_id,
                seq=1,
                capture=now_milliseconds(),
                session=grant,
                trip_id=trip_id,
            )
        ]
        if status:
            updates.append(
                status_update(driver_id, seq=2, status=status, session=grant, trip_id=trip_id)
            )
        verdicts = await self.live.apply(self.live.bucket_of(driver_id), updates)
        assert set(verdicts) == {"A"}

    async def seconds_left(self, pattern: str) -> float:
        """Return the lifetime of the one key that matches."""
        (key,) = await self.client.keys(pattern)
        return int(await self.client.pttl(key)) / 1000


async def opened(live: LiveStore, trip: TrackedTrip) -> str:
    grant = await live.open_session(
        driver_id=trip.driver_id,
        tenant_id=TENANT,
        vehicle_id=trip.vehicle_id,
        trip_id=trip.trip_id,
        resume_seq=None,
    )
    return grant.session


@pytest.fixture
async def valkey(valkey_url: str) -> AsyncIterator[Valkey]:
    async with AsyncExitStack() as stack:
        live = await opened_live_store(stack, valkey_url)
        client = open_valkey(valkey_url, cluster=False)
        stack.push_async_callback(client.aclose)
        yield Valkey(valkey_url, stack, live, client)


@pytest.mark.parametrize(
    ("pattern", "least_seconds", "most_seconds"),
    [
        ("loc:*:driver:*", 86_000, 86_400),
        ("loc:{?}:trip:*", 86_000, 86_400),
        ("loc:*:events:*", 86_000, 86_400),
        ("loc:{t:*}:trip", 172_000, 172_800),
        ("loc:{t:*}:followers", 172_000, 172_800),
        ("loc:{v:*}:driver", 86_000, 86_400),
    ],
)
async def test_a_key_lasts_as_long_as_its_family_says(
    valkey: Valkey, pattern: str, least_seconds: float, most_seconds: float
) -> None:
    await valkey.drive(status="STARTED")
    if pattern == "loc:*:driver:*":
        pattern = f"loc:*:driver:{valkey.trip.driver_id}"

    assert least_seconds <= await valkey.seconds_left(pattern) <= most_seconds


async def test_every_key_has_a_lifetime_or_a_bound(valkey: Valkey) -> None:
    await valkey.drive(status="STARTED")
    await valkey.live.follow(new_id(), valkey.trip.trip_id, trips_max=5)
    await valkey.live.keep_answer(new_id(), b"a" * 32, b"answer")
    await valkey.live.untrack(valkey.trip)

    lasting = {key for key in await valkey.client.keys("*") if await valkey.client.ttl(key) == -1}

    # The stream of ticks and the outbox are capped; the others hold one entry per driver or tenant.
    assert {key.split(b":")[2] for key in lasting} <= {
        b"updates",
        b"outbox",
        b"presence",
        b"presencev",
        b"tenants",
    }


async def test_a_live_position_expires(valkey: Valkey) -> None:
    live = await opened_live_store(valkey.stack, valkey.url, live_seconds=1)
    short = Valkey(valkey.url, valkey.stack, live, valkey.client)
    await short.drive()
    assert (await live.snapshot(short.trip, with_events=False)).position_payload

    async with asyncio.timeout(5):
        while (await live.snapshot(short.trip, with_events=False)).position_payload:
            await asyncio.sleep(0.05)


async def test_two_processes_that_write_the_same_driver_end_with_the_newest_capture(
    valkey: Valkey,
) -> None:
    await valkey.drive()
    processes = [valkey.live, await opened_live_store(valkey.stack, valkey.url)]
    start = now_milliseconds()
    captures = list(range(1, 401))
    random.Random(7).shuffle(captures)

    async def write(worker: int) -> int:
        live, accepted = processes[worker % 2], 0
        for capture in captures[worker::40]:
            update = position_update(
                valkey.trip.driver_id,
                seq=0,
                capture=start + 1000 + capture,
                trip_id=valkey.trip.trip_id,
            )
            verdict = await live.apply(live.bucket_of(valkey.trip.driver_id), [update])
            accepted += verdict.count("A")
        return accepted

    accepted = sum(await asyncio.gather(*(write(worker) for worker in range(40))))
    state = await valkey.live.snapshot(valkey.trip, with_events=False)

    assert capture_of(state.position_payload) == start + 1400
    # One version per accepted position, and one for the first.
    assert state.version == accepted + 1


async def test_two_sessions_that_race_leave_one_that_may_write(valkey: Valkey) -> None:
    await valkey.live.track(valkey.trip)
    other = await opened_live_store(valkey.stack, valkey.url)
    sessions = await asyncio.gather(
        *(opened(live, valkey.trip) for live in [valkey.live, other] * 10)
    )
    start = now_milliseconds()
    bucket = valkey.live.bucket_of(valkey.trip.driver_id)
    verdicts = [
        await other.apply(
            bucket,
            [
                position_update(
                    valkey.trip.driver_id,
                    seq=1,
                    capture=start + number,
                    session=session,
                    trip_id=valkey.trip.trip_id,
                )
            ],
        )
        for number, session in enumerate(sessions)
    ]

    assert len(set(sessions)) == 20
    assert sorted(verdicts) == ["A", *["S"] * 19]


async def test_a_server_that_came_back_empty_gets_the_functions_again(valkey: Valkey) -> None:
    await valkey.client.function_flush()

    await valkey.drive()


async def test_after_the_server_lost_all_a_session_must_be_opened_again(valkey: Valkey) -> None:
    await valkey.drive()
    before = await valkey.live.snapshot(valkey.trip, with_events=False)
    await valkey.client.flushall()
    update = position_update(valkey.trip.driver_id, seq=2, capture=now_milliseconds(), session="1")
    bucket = valkey.live.bucket_of(valkey.trip.driver_id)
    assert await valkey.live.apply(bucket, [update]) == "M"

    await valkey.drive()

    after = await valkey.live.snapshot(valkey.trip, with_events=False)
    assert after.epoch != before.epoch


async def test_a_server_that_is_away_is_named() -> None:
    async with AsyncExitStack() as stack:
        client = open_valkey("unix:///nowhere/valkey.sock", cluster=False)
        stack.push_async_callback(client.aclose)
        live = ValkeyLiveStore(
            client,
            reader=client,
            bucket_count=1,
            live_seconds=1,
            updates_kept=100,
            clock=SystemClock(),
        )
        with pytest.raises(DependencyUnavailableError, match="valkey"):
            await live.ping()
        with pytest.raises(DependencyUnavailableError, match="valkey"):
            await live.tracked_trip(new_id())
