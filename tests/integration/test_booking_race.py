"""A thousand clients on fifty seats over two services: nobody has what another has on a leg."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from services.stack.valkey import ValkeyServer
from tests.integration.test_location_faults import own_valkey
from tests.support.booking_process import BookingProcess, running_booking
from tests.support.booking_seats import BOOKED, FREE, HELD, hold_request, watching
from tests.support.identity_process import refusal_of
from tests.support.location_tokens import TokenMint
from tests.support.location_values import TENANT, new_id
from tests.support.stack_fixtures import TestDatabase
from wayfare.booking.v1 import booking_service_pb2 as pb
from wayfare.booking.v1 import events_pb2, trip_pb2

__all__ = ["own_valkey"]
pytestmark = [pytest.mark.integration, pytest.mark.slow]

STOPS = ("A", "B", "C", "D", "E")
LEGS = len(STOPS) - 1
CLIENTS = 1_000
EXPECTED = {"SEAT_HELD", "SEATS_NOT_AVAILABLE", "HOLD_EXPIRED", "HOLD_NOT_ACTIVE"}


class Ahead:
    """Is the real clock, some time ahead."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


async def test_no_seat_is_two_peoples_whoever_races_and_whatever_stops(
    migrated_database: TestDatabase, own_valkey: ValkeyServer, short_folder: Path
) -> None:
    dsn, mint, clock = migrated_database.dsn_for("booking"), TokenMint(), Ahead()
    service: Any = {"dsn": dsn, "valkey_url": own_valkey.url, "mint": mint, "clock": clock}
    async with (
        running_booking(short_folder, **service) as one,
        running_booking(short_folder, **service) as other,
    ):
        made = await one.layout(rows=25, letters="A B")
        terms = trip_pb2.SalesTerms(hold_duration=Duration(seconds=30))
        trip = await one.trip(made.seat_layout_id, stop_ids=STOPS, sales_terms=terms)
        chance = random.Random(7)
        outcomes: Counter[str] = Counter()
        async with watching(one, trip) as watcher:
            clients = asyncio.gather(
                *[
                    client(chance.choice((one, other)), trip, random.Random(number), outcomes)
                    for number in range(CLIENTS)
                ]
            )
            await asyncio.sleep(0.5)
            await own_valkey.kill()
            # Holds that are old enough end while Valkey is away.
            clock.seconds += 31
            await asyncio.sleep(1.5)
            await own_valkey.start()
            await clients
            clock.seconds += 31
            await watcher.sees(
                lambda seen: bool(seen.states) and set(seen.states.values()) == {FREE}, seconds=20
            )
        told = await one.events("trip_seats", trip.trip_id)

    assert outcomes["held"] > 100
    assert set(outcomes) - {"held", "released", "extended"} <= EXPECTED
    assert outcomes["SEAT_HELD"] > 100
    assert owners_after(told) == {}
    assert await counted(migrated_database) == (0, 0)


async def client(
    booking: BookingProcess, trip: trip_pb2.Trip, chance: random.Random, outcomes: Counter[str]
) -> None:
    """Hold something, and then release it, extend it, or leave it."""
    await asyncio.sleep(chance.random() * 3)
    passenger = booking.passenger
    start = chance.randrange(LEGS)
    end = chance.randrange(start + 1, LEGS + 1)
    values: dict[str, Any] = {"from_stop_id": STOPS[start], "to_stop_id": STOPS[end]}
    if chance.random() < 0.2:
        values["best_available"] = pb.BestAvailable(seat_count=chance.randint(1, 3))
    seats = {f"{chance.randint(1, 25)}{chance.choice('AB')}" for _ in range(2)}
    hold = await attempt(
        booking, "HoldSeats", hold_request(trip, *seats, **values), passenger, outcomes
    )
    if hold is None:
        return
    outcomes["held"] += 1
    await asyncio.sleep(chance.random())
    what = chance.random()
    if what < 0.4:
        release = pb.ReleaseHoldRequest(hold_id=hold.hold_id, request_id=new_id())
        done = await attempt(booking, "ReleaseHold", release, passenger, outcomes)
        outcomes["released"] += done is not None
    elif what < 0.6:
        extend = pb.ExtendHoldRequest(hold_id=hold.hold_id, request_id=new_id())
        done = await attempt(booking, "ExtendHold", extend, passenger, outcomes)
        outcomes["extended"] += done is not None


async def attempt(
    booking: BookingProcess, method: str, request: Any, passenger: Any, outcomes: Counter[str]
) -> Any:
    """Call until there is an answer: what was asked for once is done once."""
    for _ in range(20):
        try:
            return await booking.call(method, request, passenger)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                outcomes[refusal_of(error).reason] += 1
                return None
        await asyncio.sleep(0.2)
    raise AssertionError(f"{method} had no answer")


def owners_after(told: Iterable[Any]) -> dict[tuple[str, int], str]:
    """Replay all changes; return who has what after them. Fails if one takes what another has."""
    owners: dict[tuple[str, int], str] = {}
    states: dict[tuple[str, int], int] = {}
    for event in told:
        assert isinstance(event, events_pb2.SeatsChanged)
        for change in event.changes:
            legs = range(change.first_leg_index, change.first_leg_index + change.leg_count)
            for key in ((change.seat_number, leg) for leg in legs):
                assert states.get(key, FREE) == change.previous_state
                states[key] = change.state
                if change.state == FREE:
                    assert owners.pop(key) == change.cause_id
                else:
                    assert change.state in (HELD, BOOKED)
                    assert key not in owners
                    owners[key] = change.cause_id
    return owners


async def counted(database: TestDatabase) -> tuple[int, int]:
    """Return how many claims there are, and how many holds keep seats."""
    connection = await asyncpg.connect(database.dsn_for("booking"))
    try:
        await connection.execute(
            "SELECT set_config('app.tenant_id', $1, false),"
            " set_config('app.role', 'SERVICE', false)",
            TENANT,
        )
        claims = await connection.fetchval("SELECT count(*) FROM booking.seat_claims")
        holds = await connection.fetchval(
            "SELECT count(*) FROM booking.holds WHERE state IN ('ACTIVE', 'PAYING')"
        )
    finally:
        await connection.close()
    return claims, holds
