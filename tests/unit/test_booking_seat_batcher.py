"""What the batcher of seats does before PostgreSQL is asked, and what it remembers."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.booking.domain.holding import Sweep
from services.booking.domain.layouts import Deck, Seat, SeatClass, SeatLayout
from services.booking.domain.seats import Cause, SeatState, TripSeats
from services.booking.domain.trips import ClassFare, SalesTerms, Trip, TripStop
from services.booking.domain.turns import BatchKnown, TripTurn, WantedChange
from services.booking.operations.seat_batcher import SeatBatcher
from services.booking.operations.trip_memory import KnownTrip, TripMemory
from services.booking.ports.seats import TakenTurns
from services.shared.clock import SystemClock
from services.shared.errors import DependencyUnavailableError, OverloadedError

START = datetime(2026, 5, 1, tzinfo=UTC)


def a_layout() -> SeatLayout:
    seat = Seat(seat_number="1A", seat_class_code="STANDARD", row_index=0, column_index=0)
    return SeatLayout(
        seat_layout_id="layout",
        display_name="One seat",
        vehicle_class="BUS",
        seat_classes=(SeatClass(seat_class_code="STANDARD", display_name="Standard"),),
        decks=(Deck(display_name="", row_count=1, column_count=1, seats=(seat,)),),
    )


def a_trip(trip_id: str) -> Trip:
    stops = tuple(
        TripStop(
            stop_id=name,
            display_name=name,
            latitude=30.0,
            longitude=31.0,
            arrival_time=START + timedelta(hours=number),
            departure_time=START + timedelta(hours=number),
        )
        for number, name in enumerate("AB")
    )
    return Trip(
        trip_id=trip_id,
        display_name=trip_id,
        seat_layout_id="layout",
        stops=stops,
        currency_code="EGP",
        fares=(ClassFare(seat_class_code="STANDARD", leg_prices_minor=(100,)),),
        terms=SalesTerms(),
        update_time=START,
    )


def known(trip_id: str, batch_count: int) -> KnownTrip:
    return KnownTrip(a_trip(trip_id), a_layout(), TripSeats(version=1), batch_count)


def test_a_trip_that_is_taken_is_remembered_by_nobody_until_it_is_given_back() -> None:
    memory = TripMemory(1_000)
    memory.give(known("one", 3))

    taken = memory.take("one")

    assert taken is not None
    assert taken.batch_count == 3
    assert memory.take("one") is None


def test_an_older_trip_never_takes_the_place_of_a_newer_one() -> None:
    memory = TripMemory(1_000)
    memory.give(known("one", 5))
    memory.give(known("one", 4))

    taken = memory.take("one")

    assert taken is not None
    assert taken.batch_count == 5


def test_of_more_trips_than_fit_those_used_last_are_remembered() -> None:
    size = known("one", 0).size
    memory = TripMemory(3 * size)
    for number in range(5):
        memory.give(known(str(number), 0))

    assert [memory.take(str(number)) is not None for number in range(5)] == [
        False,
        False,
        True,
        True,
        True,
    ]


def test_what_a_change_did_before_it_failed_is_taken_back() -> None:
    seats = TripSeats(version=1)
    turn = TripTurn(
        trip=a_trip("one"),
        layout=a_layout(),
        seats=seats,
        event_version=7,
        batch_count=2,
        known=BatchKnown(now=START),
    )
    mark = turn.mark()
    seats.take("1A", 1, SeatState.HELD, owner_id="h", cause=Cause.HELD)
    turn.write("rows", object())
    turn.tell_of_trip(object())

    turn.undo(mark)

    assert not turn.is_changed
    assert turn.event_version == 7
    assert seats.claim_writes() == []


async def test_more_changes_than_can_be_made_soon_are_refused_and_the_rest_told_at_the_end() -> (
    None
):
    no_store: Any = None
    batcher = SeatBatcher(
        store=no_store,
        event_of=lambda _tenant_id, _happening, _now: pytest.fail("nothing happens"),
        clock=SystemClock(),
        batch_max=10,
        waiting_max=1,
        committers=1,
        gather_seconds=60,
    )
    waiting = asyncio.create_task(batcher.do(Sweep(tenant_id="t", trip_id="one")))
    await asyncio.sleep(0)

    with pytest.raises(OverloadedError):
        await batcher.do(Sweep(tenant_id="t", trip_id="two"))

    running = asyncio.create_task(batcher.run())
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    with pytest.raises(DependencyUnavailableError):
        await waiting


class StuckStore:
    """Begins batches that get no lock until they are let, and then fail."""

    def __init__(self) -> None:
        self.begun: list[list[str]] = []
        self.let = asyncio.Event()

    @asynccontextmanager
    async def batch(self, tenant_id: str) -> AsyncIterator["StuckStore"]:
        yield self

    async def take_turns(self, wanted: Sequence[WantedChange], **_: Any) -> TakenTurns:
        self.begun.append([one.trip_id for one in wanted])
        await self.let.wait()
        raise DependencyUnavailableError("postgresql")


async def test_what_comes_during_a_batch_is_one_batch_and_waits_for_no_lock_of_another_trip() -> (
    None
):
    store: Any = StuckStore()
    batcher = SeatBatcher(
        store=store,
        event_of=lambda _tenant_id, _happening, _now: pytest.fail("nothing happens"),
        clock=SystemClock(),
        batch_max=10,
        waiting_max=10,
        committers=2,
        gather_seconds=0,
        patience_seconds=0.3,
    )

    def wants(trip_id: str) -> "asyncio.Task[Any]":
        return asyncio.create_task(batcher.do(Sweep(tenant_id="t", trip_id=trip_id)))

    async def until(count: int) -> None:
        async with asyncio.timeout(10):
            while len(store.begun) < count:
                await asyncio.sleep(0.005)

    running = asyncio.create_task(batcher.run())
    waiting = [wants("one")]
    await until(1)
    waiting.append(wants("two"))
    await asyncio.sleep(0.005)
    waiting.append(wants("three"))
    # The first batch never ends by itself: it has no lock.
    await until(2)
    store.let.set()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    running.cancel()

    assert store.begun == [["one"], ["two", "three"]]
    assert all(isinstance(one, DependencyUnavailableError) for one in answers)
