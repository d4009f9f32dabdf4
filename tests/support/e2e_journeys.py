"""A driver and followers of one trip on the Python client, and what each of them saw.

A journey begins in the past, a position every three seconds of capture time, so that it can be
sent faster than a real one.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from services.stack.embedded import EmbeddedStack
from tests.support.e2e_edge import Edge, Trip, now
from tests.support.e2e_streams import LATITUDE, LONGITUDE, STEP_DEGREES, step_of
from tests.support.waiting import until
from wayfare.location.v1 import driver_stream_pb2, trip_pb2, trip_update_pb2
from wayfare_client import DriverListener, DriverSession, Pacing, TripFollower, make_position

_INTERVAL = timedelta(seconds=3)
_BEGINS_AGO = timedelta(hours=6)
_STATUSES = (trip_pb2.TRIP_STATUS_STARTED, trip_pb2.TRIP_STATUS_PAUSED)


@dataclass(kw_only=True)
class Viewer:
    """A follower and what it heard.

    Statuses are told apart by their capture times, positions by how far north they are.
    """

    follower: TripFollower
    steps: list[int] = field(default_factory=list)
    statuses: list[datetime] = field(default_factory=list)
    degraded: list[bool] = field(default_factory=list)

    async def follow(self) -> None:
        """Note what comes until the trip ends."""
        async for update in self.follower:
            self._note(update)

    def _note(self, update: trip_update_pb2.TripUpdate) -> None:
        match update.WhichOneof("update"):
            case "snapshot":
                self.degraded.append(update.snapshot.degraded)
                if update.snapshot.HasField("position"):
                    self.steps.append(step_of(update.snapshot.position.location.latitude))
            case "position":
                self.steps.append(step_of(update.position.location.latitude))
            case "status":
                self.statuses.append(update.status.capture_time.ToDatetime(UTC))
            case "heartbeat":
                self.degraded.append(update.heartbeat.degraded)
            case _:
                pass


@dataclass(kw_only=True)
class Journey:
    """One trip while it is driven and followed."""

    trip: Trip
    session: DriverSession
    throttles: list[driver_stream_pb2.DriverThrottle]
    begin: datetime = field(default_factory=lambda: now() - _BEGINS_AGO)
    sent_steps: int = 0
    sent_statuses: list[datetime] = field(default_factory=list)
    viewers: list[Viewer] = field(default_factory=list)
    stopping: bool = False

    async def send_position(self) -> None:
        """Send the next position."""
        self.sent_steps += 1
        await self.session.send_position_message(
            make_position(
                LATITUDE + self.sent_steps * STEP_DEGREES,
                LONGITUDE,
                capture_time=self.begin + self.sent_steps * _INTERVAL,
            )
        )

    async def send_status(self) -> None:
        """Send the next status: under way, waiting, under way, …"""
        moment = self.begin.replace(microsecond=0) + timedelta(milliseconds=len(self.sent_statuses))
        status = _STATUSES[len(self.sent_statuses) % 2]
        self.sent_statuses.append(moment)
        await self.session.send_status(status, capture_time=moment)

    async def drive(self, *, gap_seconds: float) -> None:
        """Send positions, and a status after every second one, until told to stop."""
        while not self.stopping:
            await self.send_position()
            if self.sent_steps % 2 == 0:
                await self.send_status()
            await asyncio.sleep(gap_seconds)

    def progress(self) -> int:
        """Return the step that every viewer has seen."""
        return min((viewer.steps[-1] if viewer.steps else 0) for viewer in self.viewers)

    async def arrive(self) -> None:
        """Wait until all that was sent is acknowledged and the last of it reached the viewers."""
        await self.session.wait_acknowledged(20)
        with suppress(TimeoutError):
            await until(self._has_arrived, seconds=15)
        assert self._has_arrived(), self._missing()

    def _has_arrived(self) -> bool:
        return self.progress() == self.sent_steps and not self._missing()

    def _missing(self) -> list[set[datetime]]:
        """Return the statuses that each viewer lacks, if any lacks some."""
        missing = [set(self.sent_statuses) - set(viewer.statuses) for viewer in self.viewers]
        return missing if any(missing) else []

    def check_nothing_missing(self) -> None:
        """Fail unless every viewer saw the last position, and every status once and in order."""
        assert self.session.statistics.rejected_counts == {}
        assert self.session.statistics.pending_count == 0
        for viewer in self.viewers:
            assert viewer.follower.gap_count == 0
            assert viewer.steps[-1] == self.sent_steps
            assert viewer.steps == sorted(viewer.steps)
            numbers = [self.sent_statuses.index(moment) for moment in viewer.statuses]
            assert numbers == list(range(len(self.sent_statuses)))


@asynccontextmanager
async def journeys(edge: Edge, trips: Sequence[Trip]) -> AsyncIterator[list[Journey]]:
    """Begin journeys, each with a viewer of its own, wherever Envoy sends them."""
    async with AsyncExitStack() as closing:
        begun = [await closing.enter_async_context(_journey(edge, trip)) for trip in trips]
        await closing.enter_async_context(viewing(edge, begun))
        yield begun


@asynccontextmanager
async def viewing(
    edge: Edge, begun: Sequence[Journey], *, instance: str = ""
) -> AsyncIterator[None]:
    """Let another viewer follow each journey, at one process if it is named."""
    async with AsyncExitStack() as closing:
        viewers: list[Viewer] = []
        for journey in begun:
            client = edge.client(journey.trip.passenger_token, instance=instance)
            await closing.enter_async_context(client)
            follower = client.follow_trip(journey.trip.trip_id)
            viewers.append(Viewer(follower=await closing.enter_async_context(follower)))
            journey.viewers.append(viewers[-1])
        async with _together([viewer.follow() for viewer in viewers]):
            await until(lambda: all(viewer.degraded for viewer in viewers))
            yield


@asynccontextmanager
async def driving(begun: Sequence[Journey], *, gap_seconds: float) -> AsyncIterator[None]:
    """Drive journeys beside what a test does meanwhile."""
    for journey in begun:
        journey.stopping = False
    async with asyncio.TaskGroup() as group:
        for journey in begun:
            group.create_task(journey.drive(gap_seconds=gap_seconds))
        yield
        for journey in begun:
            journey.stopping = True


async def open_streams(stack: EmbeddedStack, instance: str, method: str) -> int:
    """Return how many streams of a method a process holds open, by its own metrics."""
    async with httpx.AsyncClient(trust_env=False) as client:
        text = (await client.get(stack.services[instance].metrics_url)).text
    found = re.search(rf'wayfare_streams_open{{method="[^"]*/{method}"}} (\S+)', text)
    return int(float(found.group(1))) if found else 0


@asynccontextmanager
async def _journey(edge: Edge, trip: Trip) -> AsyncIterator[Journey]:
    throttles: list[driver_stream_pb2.DriverThrottle] = []
    async with (
        edge.client(trip.driver_token) as driver,
        driver.drive(
            trip.vehicle_id,
            trip.trip_id,
            pacing=Pacing.KEEP,
            listener=DriverListener(on_throttle=throttles.append),
        ) as session,
    ):
        yield Journey(trip=trip, session=session, throttles=throttles)


@asynccontextmanager
async def _together(works: Sequence[Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Run endless work beside a test, which fails when any of it ends or raises."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
        for task in tasks:
            assert not task.done(), task
    finally:
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result
