"""A whole replay: each trace gets a driver, a tracked trip and perhaps a follower elsewhere.

Used by `wayfare replay` and `wayfare demo`.
"""

import asyncio
import time
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime

from services.stack.environments import DEMO_TENANT_ID
from services.stack.errors import StackError
from services.stack.replay.access import StackAccess
from services.stack.replay.driving import drive
from services.stack.replay.followers import (
    INSTANCE_HEADER,
    WebFollower,
    follow_over_grpc,
    follow_over_grpc_web,
    follow_over_json,
)
from services.stack.replay.people import People
from services.stack.replay.record import RunRecord
from services.stack.replay.schedule import plan_replay
from services.stack.replay.traces import Trace
from wayfare.identity.v1 import session_pb2
from wayfare.location.v1 import trip_pb2, trip_update_pb2
from wayfare_client import TripTracking, WayfareClient, WayfareError

PROTOCOLS = ("gRPC", "gRPC-Web", "JSON")

_FIRST_UPDATE_SECONDS = 15.0
# Longer than the pause after which servers end a stream whose trip is over.
_LAST_UPDATE_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast positions are sent: `speed` times as recorded, and never closer than the gap."""

    speed: float
    gap_seconds_min: float = 0.0


@dataclass(slots=True, kw_only=True)
class Run:
    """One trace on the road: its trip, the people in it, and what becomes of its positions."""

    trace: Trace
    trip_id: str
    driver: session_pb2.Session
    follower: session_pb2.Session | None
    record: RunRecord
    first_update: asyncio.Event = field(default_factory=asyncio.Event)

    def on_update(self, update: trip_update_pb2.TripUpdate) -> None:
        """Take in what the follower heard."""
        self.record.note_update(update, at=time.monotonic())
        self.first_update.set()


class FleetReplay:
    """Prepares the people and trips of some traces, then drives them all at once."""

    def __init__(self, access: StackAccess, traces: Sequence[Trace]) -> None:
        """Name the stack and the traces."""
        self._access = access
        self._traces = traces
        self._people = People(access)
        self.runs: list[Run] = []

    async def prepare(self, *, with_followers: bool) -> None:
        """Sign everybody up, approve the drivers, and begin to track the trips."""
        count = len(self._traces)
        async with asyncio.TaskGroup() as group:
            drivers = group.create_task(self._people.drivers(count))
            followers = group.create_task(self._people.passengers(count if with_followers else 0))
        waiting = iter(followers.result())
        for number, (trace, driver) in enumerate(zip(self._traces, drivers.result(), strict=True)):
            self.runs.append(self._make_run(number, trace, driver, next(waiting, None)))
        await self._start_tracking()

    async def drive(self, pace: Pace) -> None:
        """Drive every run; return when the last one ended and its follower heard so."""
        async with asyncio.TaskGroup() as group:
            for run in self.runs:
                group.create_task(self._drive_run(run, pace))

    def _make_run(
        self,
        number: int,
        trace: Trace,
        driver: session_pb2.Session,
        follower: session_pb2.Session | None,
    ) -> Run:
        instances = self._access.location_instances
        record = RunRecord(
            name=trace.trace_id,
            protocol=PROTOCOLS[number % len(PROTOCOLS)] if follower else "",
            driver_instance=instances[number % len(instances)],
            follower_instance=instances[(number + 1) % len(instances)] if follower else "",
        )
        return Run(
            trace=trace,
            trip_id=str(uuid.uuid4()),
            driver=driver,
            follower=follower,
            record=record,
        )

    async def _start_tracking(self) -> None:
        async with self._access.mesh_channel() as channel:
            tracking = TripTracking(channel)
            for run in self.runs:
                followers = [run.follower.user.user_id] if run.follower else []
                await tracking.start(
                    trip_pb2.TrackedTrip(
                        trip_id=run.trip_id,
                        tenant_id=DEMO_TENANT_ID,
                        driver_id=run.driver.user.user_id,
                        vehicle_id=run.trace.vehicle_id,
                        follower_ids=followers,
                    )
                )

    async def _drive_run(self, run: Run, pace: Pace) -> None:
        async with AsyncExitStack() as closing:
            following: asyncio.Task[None] | None = None
            if run.follower is not None:
                following = asyncio.create_task(self._follow(run, run.follower))
                closing.callback(following.cancel)
                await _wait_for_first_update(run, following)
            client = await closing.enter_async_context(
                self._client(run.driver, run.record.driver_instance)
            )
            plan = plan_replay(
                run.trace,
                start=datetime.now(UTC),
                speed=pace.speed,
                gap_seconds_min=pace.gap_seconds_min,
            )
            await drive(
                client,
                vehicle_id=run.trace.vehicle_id,
                trip_id=run.trip_id,
                plan=list(plan),
                record=run.record,
                gap_seconds_min=pace.gap_seconds_min,
            )
            if following is not None:
                await asyncio.wait({following}, timeout=_LAST_UPDATE_SECONDS)

    async def _follow(self, run: Run, session: session_pb2.Session) -> None:
        web = WebFollower(
            edge_address=self._access.edge_address,
            access_token=session.access_token,
            instance=run.record.follower_instance,
        )
        try:
            match run.record.protocol:
                case "gRPC-Web":
                    await follow_over_grpc_web(web, run.trip_id, run.on_update)
                case "JSON":
                    await follow_over_json(web, run.trip_id, run.on_update)
                case _:
                    async with self._client(session, web.instance) as client:
                        await follow_over_grpc(client, run.trip_id, run.on_update)
        except (StackError, WayfareError, OSError) as error:
            run.record.follower_error = str(error)

    def _client(self, session: session_pb2.Session, instance: str) -> WayfareClient:
        client = WayfareClient(
            self._access.edge_address,
            tenant_id=DEMO_TENANT_ID,
            metadata=[(INSTANCE_HEADER, instance)],
        )
        client.tokens.use(session)
        return client


async def _wait_for_first_update(run: Run, following: asyncio.Task[None]) -> None:
    heard = asyncio.create_task(run.first_update.wait())
    await asyncio.wait(
        {heard, following},
        timeout=_FIRST_UPDATE_SECONDS,
        return_when=asyncio.FIRST_COMPLETED,
    )
    heard.cancel()
    if not run.first_update.is_set():
        why = run.record.follower_error or "no snapshot came"
        raise StackError(f"The follower of {run.record.name} ({run.record.protocol}): {why}")
