"""The watch: what is observed is told once, in order, whoever writes; outages only delay."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from services.location.domain.positions import Fix
from services.location.operations.watch import Observer, Told, Watch
from services.location.ports.live import POSITION, STOP_PROGRESS, Publisher, Update
from services.shared.errors import DependencyUnavailableError
from tests.support.location_fakes import MemoryLiveStore
from tests.support.location_values import SettableClock, a_trip
from tests.support.waiting import until

START = 1_772_366_400_000


class EveryThird:
    """Tells every third fix, by its number; its state is how many it saw and the last capture."""

    def __init__(self) -> None:
        self.trip_id = ""
        self.seen = 0
        self.last = 0

    def observe(self, fix: Fix, _now_milliseconds: int) -> Sequence[Told]:
        if fix.capture_milliseconds <= self.last:
            return []
        self.seen += 1
        self.last = fix.capture_milliseconds
        return [(STOP_PROGRESS, f"fix {self.seen}".encode())] if self.seen % 3 == 0 else []

    def finish(self, _capture_milliseconds: int) -> Sequence[Told]:
        return [(STOP_PROGRESS, b"the end")]

    def save(self) -> bytes:
        return f"{self.seen} {self.last}".encode()

    def restore(self, state: bytes) -> None:
        if state:
            self.seen, self.last = (int(word) for word in state.split())


class Place:
    """A store, trips, and a watch per process."""

    def __init__(self) -> None:
        self.live = MemoryLiveStore()
        self.clock = SettableClock()
        self.trip = a_trip()
        self.publisher = Publisher(
            driver_id=self.trip.driver_id, tenant_id=self.trip.tenant_id, vehicle_id="bus-14"
        )
        self.opened = 0
        self.has_stops = True
        self.plans_away = False

    def a_watch(self, *, watched_max: int = 100) -> Watch:
        return Watch(
            live=self.live,
            open_trip=self._open_trip,
            open_driver=self._open_driver,
            clock=self.clock,
            watched_max=watched_max,
        )

    async def _open_trip(self, _publisher: Publisher, _trip_id: str) -> Observer | None:
        self.opened += 1
        if self.plans_away:
            raise DependencyUnavailableError("postgresql")
        return EveryThird() if self.has_stops else None

    async def _open_driver(self, _publisher: Publisher, _trip_id: str) -> Observer | None:
        return None

    def updates(self, first: int, last: int) -> list[Update]:
        return [
            Update(
                self.publisher,
                "1",
                number,
                POSITION,
                self.trip.trip_id,
                b"",
                Fix(53.4, -2.9, START + number * 1000),
            )
            for number in range(first, last + 1)
        ]

    async def until_told(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(await self.told()) < count:
                await asyncio.sleep(0.01)

    async def told(self) -> list[str]:
        state = await self.live.snapshot(self.trip, with_events=True)
        return [event[18:].decode() for event in state.events]


@asynccontextmanager
async def running(place: Place, *watches: Watch) -> AsyncIterator[None]:
    await place.live.track(place.trip)
    tasks = [asyncio.create_task(watch.run()) for watch in watches]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_what_is_observed_is_told_in_order() -> None:
    place = Place()
    watch = place.a_watch()
    async with running(place, watch):
        for start in range(1, 61, 5):
            watch.accepted(place.updates(start, start + 4))
            await asyncio.sleep(0)

        await place.until_told(20)

    assert await place.told() == [f"fix {number}" for number in range(3, 61, 3)]


async def test_positions_that_come_before_the_plan_is_read_are_observed_too() -> None:
    place = Place()
    watch = place.a_watch()
    async with running(place, watch):
        watch.accepted(place.updates(1, 7))

        await place.until_told(2)

    assert place.opened == 1


async def test_another_process_goes_on_where_the_first_one_was() -> None:
    place = Place()
    one, other = place.a_watch(), place.a_watch()
    async with running(place, one, other):
        one.accepted(place.updates(1, 3))
        await place.until_told(1)
        other.accepted(place.updates(4, 6))
        await place.until_told(2)
        # The driver is back at the first process, which knows the trip as it was.
        one.accepted(place.updates(7, 9))
        await place.until_told(3)

    assert await place.told() == ["fix 3", "fix 6", "fix 9"]


async def test_two_processes_that_see_the_same_positions_tell_them_once() -> None:
    place = Place()
    one, other = place.a_watch(), place.a_watch()
    async with running(place, one, other):
        for number in range(1, 31):
            one.accepted(place.updates(number, number))
            other.accepted(place.updates(number, number))
            await asyncio.sleep(0)
        await place.until_told(10)

    assert await place.told() == [f"fix {number}" for number in range(3, 31, 3)]


async def test_what_is_seen_while_the_store_is_away_is_told_afterwards() -> None:
    place = Place()
    watch = place.a_watch()
    async with running(place, watch):
        watch.accepted(place.updates(1, 1))
        await until(lambda: place.opened == 1)
        await asyncio.sleep(0.01)
        place.live.away = True
        watch.accepted(place.updates(2, 9))
        await asyncio.sleep(0.05)
        place.live.away = False

        await place.until_told(3)

    assert await place.told() == ["fix 3", "fix 6", "fix 9"]


async def test_a_plan_that_could_not_be_read_is_asked_for_again_later() -> None:
    place = Place()
    place.plans_away = True
    watch = place.a_watch()
    async with running(place, watch):
        watch.accepted(place.updates(1, 3))
        await until(lambda: place.opened == 1)
        place.plans_away = False
        watch.accepted(place.updates(4, 6))
        await asyncio.sleep(0)
        assert place.opened == 1
        place.clock.pass_time(11)
        watch.accepted(place.updates(7, 7))
        await until(lambda: place.opened == 2)
        watch.accepted(place.updates(8, 12))

        await place.until_told(2)


async def test_only_so_many_are_watched() -> None:
    place = Place()
    watch = place.a_watch(watched_max=2)
    async with running(place, watch):
        for _ in range(5):
            place.trip = a_trip()
            await place.live.track(place.trip)
            watch.accepted(place.updates(1, 1))

        assert len(watch) == 2
