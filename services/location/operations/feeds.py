"""Gathers what a tenant's GTFS-Realtime feeds say, and keeps one newest feed for all processes."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from services.location.domain.timetable import TripPlan
from services.location.domain.trips import TrackedTrip
from services.location.ports.live import LiveStore, TripState
from services.location.ports.timetables import TimetableStore
from services.location.ports.views import FleetRow, KeptAlert, ViewStore

FRESH_SECONDS = 3
# Consumers take a feed for dead whose header is older than some 65 s (validator's W008).
SAME_SECONDS = 30
_READS_AT_ONCE = 64
_ALERTS_MOST = 200
_ALERT_MILLISECONDS = 3600 * 1000


class FeedKind(StrEnum):
    """Names a feed."""

    VEHICLE_POSITIONS = "vehicle-positions"
    TRIP_UPDATES = "trip-updates"
    ALERTS = "alerts"


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedVehicle:
    """Is a vehicle as feeds show it. Without a trip of the timetable only its position is told."""

    row: FleetRow
    trip: TrackedTrip | None = None
    plan: TripPlan | None = None
    state: TripState | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedAlert:
    """Is an alert about a trip of the timetable."""

    kept: KeptAlert
    plan: TripPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedContent:
    """Is what a feed is made of, at a moment in seconds since 1970."""

    kind: FeedKind
    stamp: int
    vehicles: Sequence[FeedVehicle] = ()
    alerts: Sequence[FeedAlert] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """Is an encoded feed. `stamp` is its header's timestamp."""

    stamp: int
    body: bytes


class Feeds:
    """Makes feeds, at most every few seconds."""

    def __init__(
        self,
        *,
        live: LiveStore,
        views: ViewStore,
        timetables: TimetableStore,
        encode: Callable[[FeedContent, int], bytes],
        trip_of_alert: Callable[[KeptAlert], str],
    ) -> None:
        """Read from the stores; `encode` makes a feed's bytes with a header's timestamp."""
        self._trip_of_alert = trip_of_alert
        self._live = live
        self._views = views
        self._timetables = timetables
        self._encode = encode

    async def newest(self, tenant_id: str, kind: FeedKind) -> Feed:
        """Return the newest feed. Its stamp never falls, whichever process answers."""
        stamp, body, now = await self._views.newest_feed(tenant_id, kind.value)
        if body and now - stamp < FRESH_SECONDS:
            return Feed(stamp=stamp, body=body)
        content = await self._gather(tenant_id, kind, now)
        # Without the header's time: what says the same is not newer.
        digest = hashlib.sha256(self._encode(content, 0)).hexdigest()
        stamp, body = await self._views.offer_feed(
            tenant_id,
            kind.value,
            stamp=content.stamp,
            digest=digest,
            body=self._encode(content, content.stamp),
            same_seconds=SAME_SECONDS,
        )
        return Feed(stamp=stamp, body=body)

    async def _gather(self, tenant_id: str, kind: FeedKind, now: int) -> FeedContent:
        if kind is FeedKind.ALERTS:
            alerts = await self._alerts(tenant_id, now)
            return FeedContent(kind=kind, stamp=now, alerts=alerts)
        changes = await asyncio.gather(
            *(
                self._views.fleet_change(tenant_id, bucket, since_milliseconds=0)
                for bucket in range(self._views.bucket_count)
            )
        )
        # A vehicle that two drivers report is where it was heard of last.
        heard: dict[str, FleetRow] = {}
        for change in changes:
            for row in change.rows:
                known = heard.get(row.vehicle_id)
                if row.payload and (not known or known.heard_milliseconds < row.heard_milliseconds):
                    heard[row.vehicle_id] = row
        gate = asyncio.Semaphore(_READS_AT_ONCE)

        async def one(row: FleetRow) -> FeedVehicle:
            async with gate:
                return await self._vehicle(tenant_id, row)

        vehicles = await asyncio.gather(*(one(row) for row in heard.values()))
        # In one order, so that a feed that says the same has the same bytes.
        ordered = sorted(vehicles, key=lambda vehicle: vehicle.row.vehicle_id)
        return FeedContent(kind=kind, stamp=now, vehicles=ordered)

    async def _vehicle(self, tenant_id: str, row: FleetRow) -> FeedVehicle:
        trip = await self._live.tracked_trip(row.trip_id) if row.trip_id else None
        if trip is None or trip.tenant_id != tenant_id:
            return FeedVehicle(row=row)
        state = await self._live.snapshot(trip, with_events=False)
        return FeedVehicle(row=row, trip=trip, plan=await self._plan(trip), state=state)

    async def _plan(self, trip: TrackedTrip) -> TripPlan | None:
        if not trip.timetable_trip_id or trip.service_date is None:
            return None
        return await self._timetables.trip_plan(
            trip.tenant_id, trip.timetable_trip_id, trip.service_date
        )

    async def _alerts(self, tenant_id: str, now: int) -> list[FeedAlert]:
        oldest = now * 1000 - _ALERT_MILLISECONDS
        alerts: list[FeedAlert] = []
        for kept in await self._views.newest_alerts(tenant_id, most=_ALERTS_MOST):
            trip_id = self._trip_of_alert(kept)
            if not trip_id or int(kept.token.partition("-")[0]) < oldest:
                continue
            trip = await self._live.tracked_trip(trip_id)
            plan = await self._plan(trip) if trip and trip.tenant_id == tenant_id else None
            if plan is not None:
                alerts.append(FeedAlert(kept=kept, plan=plan))
        return alerts
