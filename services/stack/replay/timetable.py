"""Drives the trips of a GTFS feed as real drivers: `wayfare replay --gtfs`, the demo, the soak.

A day of the feed is driven now. One shift maps its time to the present, the same for positions and
timetable, so that a vehicle that is late in the feed's time is as late in ours:

- At speed 1 a moment is as long after the start as it is after the first one in the feed.
- At a higher speed positions are sent faster, but their capture times keep the feed's intervals,
  because servers judge speeds by them; all of it began in the past and reaches the present with
  its last position, as in `schedule`.

The timetable's own times belong to the feed's day. Therefore each trip is tracked with explicit
stops at shifted times, and names its trip of the timetable, and its service day, for its shape and
for what feeds tell of it. Import the feed first (`wayfare gtfs import`).
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from google.type import date_pb2, latlng_pb2

from services.stack.environments import DEMO_TENANT_ID
from services.stack.errors import StackError
from services.stack.gtfs_job import run_gtfs_job
from services.stack.replay.access import StackAccess
from services.stack.replay.driving import drive
from services.stack.replay.followers import INSTANCE_HEADER
from services.stack.replay.motion import Call, FeedStop, FeedTrip, simulate_calls, simulate_fixes
from services.stack.replay.people import People
from services.stack.replay.record import RunRecord
from services.stack.replay.schedule import PlannedPosition
from wayfare.identity.v1 import session_pb2
from wayfare.location.v1 import trip_pb2
from wayfare_client import TripTracking, WayfareClient

# Between two trips a driver changes the sign; also keeps the streams of the two apart.
_TURN_SECONDS = 30.0
_DAY_SECONDS = 24 * 3600.0
# What the contract allows in the name of a stop.
_NAME_CHARACTERS_MAX = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """Says how the trips are driven. Intervals are of capture times."""

    speed: float = 1.0
    interval_seconds: float = 3.0
    noise_meters: float = 4.0
    capacity_count: int = 60
    seed: int = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """Maps the feed's time to ours. `begin` and `end` are the feed's, `start` is ours."""

    begin: datetime
    end: datetime
    start: datetime
    speed: float

    def sent(self, moment: datetime) -> datetime:
        """Return when a position of that moment is sent."""
        return self.start + (moment - self.begin) / self.speed

    def captured(self, moment: datetime) -> datetime:
        """Return what that moment is called in capture times and in the shifted timetable."""
        return self.sent(self.end) - (self.end - moment)


@dataclass(slots=True, kw_only=True)
class TimetableRun:
    """Is one trip on the road; `trip_id` is the tracked one."""

    trip: FeedTrip
    calls: list[Call]
    trip_id: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass(slots=True, kw_only=True)
class Vehicle:
    """Is a vehicle, its driver, its trips in order, and what became of its positions."""

    vehicle_id: str
    runs: list[TimetableRun]
    record: RunRecord
    driver: session_pb2.Session | None = None


def read_trips(feed: Path, service_date: date, *, begin: str, until: str) -> list[FeedTrip]:
    """Return the trips that depart first within a part of a day (HH:MM), in that order.

    Raises StackError when the feed is broken or has no such trip.
    """
    arguments = ["plan", str(feed.absolute()), "--date", service_date.isoformat()]
    arguments += ["--from", begin, "--until", until, "--trips", "100000"]
    trips: list[FeedTrip] = []
    for key, value in run_gtfs_job(arguments):
        if key == "broken":
            raise StackError(f"{feed} is broken: see `wayfare gtfs import {feed} --dry-run`.")
        if key == "plan":
            trips.append(_trip(value))
    if not trips:
        raise StackError(f"{feed} has no trip on {service_date} from {begin} to {until}.")
    return trips


def assign_vehicles(
    trips: Iterable[FeedTrip], *, vehicles: int, simulation: Simulation
) -> list[Vehicle]:
    """Give each trip the vehicle that is free first; trips that none is free for are left out."""
    fleet: list[Vehicle] = []
    for trip in sorted(trips, key=lambda trip: (trip.begin, trip.timetable_trip_id)):
        calls = simulate_calls(trip, _random(simulation, trip, "calls"))
        run = TimetableRun(trip=trip, calls=calls)
        free = min(fleet, key=_free_from, default=None)
        if free is not None and _free_from(free) <= calls[0].arrival_time:
            free.runs.append(run)
        elif len(fleet) < vehicles:
            name = f"bus-{len(fleet) + 1}"
            fleet.append(Vehicle(vehicle_id=name, runs=[run], record=RunRecord(name=name)))
    return fleet


class TimetableReplay:
    """Prepares the drivers of a fleet, then drives all its trips at their times."""

    def __init__(
        self,
        access: StackAccess,
        fleet: Sequence[Vehicle],
        simulation: Simulation,
        *,
        follower_ids: Sequence[str] = (),
        on_start: Callable[[Vehicle, TimetableRun], None] | None = None,
    ) -> None:
        """Name the stack and the fleet.

        `on_start` is called when a trip is tracked; `follower_ids` may follow every trip.
        """
        self._access = access
        self._simulation = simulation
        self._follower_ids = tuple(follower_ids)
        self._on_start = on_start
        self.fleet = fleet
        self.begin = min(vehicle.runs[0].calls[0].arrival_time for vehicle in fleet)
        self.end = max(vehicle.runs[-1].calls[-1].departure_time for vehicle in fleet)
        if simulation.speed > 1 and (self.end - self.begin).total_seconds() > _DAY_SECONDS:
            raise StackError("More than a day of trips, which servers refuse: use --speed 1.")

    @property
    def duration_seconds(self) -> float:
        """Return how long it takes here."""
        return (self.end - self.begin).total_seconds() / self._simulation.speed

    async def prepare(self) -> None:
        """Sign the drivers up and have them approved."""
        drivers = await People(self._access).drivers(len(self.fleet))
        for vehicle, driver in zip(self.fleet, drivers, strict=True):
            vehicle.driver = driver

    async def drive(self) -> None:
        """Drive every trip; return when the last vehicle has ended its last one."""
        start = datetime.now(UTC)
        started = time.monotonic()
        shift = Shift(begin=self.begin, end=self.end, start=start, speed=self._simulation.speed)
        async with self._access.mesh_channel() as channel, asyncio.TaskGroup() as group:
            tracking = TripTracking(channel)
            for number, vehicle in enumerate(self.fleet):
                group.create_task(self._drive_vehicle(number, vehicle, tracking, shift, started))

    async def _drive_vehicle(
        self, number: int, vehicle: Vehicle, tracking: TripTracking, shift: Shift, started: float
    ) -> None:
        async with self._client(number, vehicle) as client:
            for run in vehicle.runs:
                due = (shift.sent(run.calls[0].arrival_time) - shift.start).total_seconds()
                await asyncio.sleep(started + due - time.monotonic())
                await tracking.start(self._tracked(vehicle, run, shift))
                if self._on_start is not None:
                    self._on_start(vehicle, run)
                await drive(
                    client,
                    vehicle_id=vehicle.vehicle_id,
                    trip_id=run.trip_id,
                    plan=self._plan(run, shift),
                    record=vehicle.record,
                    gap_seconds_min=0.0,
                )
                await tracking.stop(run.trip_id, DEMO_TENANT_ID)

    @asynccontextmanager
    async def _client(self, number: int, vehicle: Vehicle) -> AsyncIterator[WayfareClient]:
        if vehicle.driver is None:
            raise StackError("Call prepare() before drive().")
        instances = self._access.location_instances
        client = WayfareClient(
            self._access.edge_address,
            tenant_id=DEMO_TENANT_ID,
            metadata=[(INSTANCE_HEADER, instances[number % len(instances)])],
        )
        client.tokens.use(vehicle.driver)
        async with client:
            yield client

    def _plan(self, run: TimetableRun, shift: Shift) -> list[PlannedPosition]:
        begin = run.calls[0].arrival_time
        fixes = simulate_fixes(
            run.trip,
            run.calls,
            _random(self._simulation, run.trip, "fixes"),
            interval_seconds=self._simulation.interval_seconds,
            noise_meters=self._simulation.noise_meters,
        )
        return [
            PlannedPosition(
                point=point,
                send_after_seconds=point.offset.total_seconds() / shift.speed,
                capture_time=shift.captured(begin + point.offset),
            )
            for point in fixes
        ]

    def _tracked(self, vehicle: Vehicle, run: TimetableRun, shift: Shift) -> trip_pb2.TrackedTrip:
        day = date.fromisoformat(run.trip.service_date)
        return trip_pb2.TrackedTrip(
            trip_id=run.trip_id,
            tenant_id=DEMO_TENANT_ID,
            driver_id=vehicle.driver.user.user_id if vehicle.driver else "",
            vehicle_id=vehicle.vehicle_id,
            follower_ids=self._follower_ids,
            stops=[_shifted(stop, shift) for stop in run.trip.stops],
            timetable_trip_id=run.trip.timetable_trip_id,
            service_date=date_pb2.Date(year=day.year, month=day.month, day=day.day),
            capacity_count=self._simulation.capacity_count,
        )


def _shifted(stop: FeedStop, shift: Shift) -> trip_pb2.TripStop:
    shifted = trip_pb2.TripStop(
        stop_id=stop.stop_id,
        display_name=stop.display_name[:_NAME_CHARACTERS_MAX],
        location=latlng_pb2.LatLng(latitude=stop.latitude, longitude=stop.longitude),
    )
    shifted.scheduled_arrival_time.FromDatetime(shift.captured(stop.arrival_time))
    shifted.scheduled_departure_time.FromDatetime(shift.captured(stop.departure_time))
    return shifted


def _free_from(vehicle: Vehicle) -> datetime:
    return vehicle.runs[-1].calls[-1].departure_time + timedelta(seconds=_TURN_SECONDS)


def _random(simulation: Simulation, trip: FeedTrip, purpose: str) -> Random:
    return Random(f"{simulation.seed}/{trip.timetable_trip_id}/{purpose}")  # noqa: S311 no secret


def _trip(value: dict[str, Any]) -> FeedTrip:
    return FeedTrip(
        timetable_trip_id=value["timetable_trip_id"],
        service_date=value["service_date"],
        route_short_name=value["route_short_name"],
        stops=tuple(
            FeedStop(
                stop_id=stop["stop_id"],
                display_name=stop["display_name"],
                latitude=stop["latitude"],
                longitude=stop["longitude"],
                arrival_time=datetime.fromisoformat(stop["arrival_time"]),
                departure_time=datetime.fromisoformat(stop["departure_time"]),
                distance_meters=stop["distance_meters"],
            )
            for stop in value["stops"]
        ),
        shape=tuple((point[0], point[1], point[2]) for point in value["shape"]),
    )
