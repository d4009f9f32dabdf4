"""Passes on what the store's steps left in the outbox: alerts, and drivers who came or went.

Runs in every process; an entry is passed on by whoever is first, and receivers know it by its
digest or its number, so that each takes effect once and in order.
"""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import structlog
from prometheus_client import Counter, Gauge

from services.location.ports.views import ViewStore
from services.shared.errors import DependencyUnavailableError
from services.shared.tasks import HeldTasks

_log = structlog.get_logger()
_PASSED_ON = Counter("wayfare_location_outbox_total", "Entries of the outbox passed on", ["kind"])
_ONLINE = Gauge("wayfare_location_drivers_online", "Drivers online, as the last sweep counted")
_SWEPT = Counter("wayfare_location_drivers_swept_total", "Drivers who went silent")
_READ_MOST = 200
_IDLE_SECONDS = 0.1
_AWAY_SECONDS = 1.0
_SWEEP_SECONDS = 2.0
_SWEPT_AT_ONCE = 1_000
_ALERT = "a"
_UUID_LENGTH = 36


@dataclass(frozen=True, slots=True, kw_only=True)
class PresenceChange:
    """Is a driver who came online or went offline. Numbered from 1 for each driver."""

    tenant_id: str
    driver_id: str
    number: int
    time_milliseconds: int
    vehicle_id: str
    vehicle_class: int
    online: bool
    explicit: bool


def presence_change(entry: bytes) -> PresenceChange:
    """Read an entry of the outbox; `push_presence` in functions.lua says its form."""
    text = entry.decode()
    rest = text[1 + 2 * _UUID_LENGTH :]
    number, time, vehicle_and_class = rest.split(" ", 2)
    vehicle_id, _, vehicle_class = vehicle_and_class.rpartition(" ")
    return PresenceChange(
        tenant_id=text[1 : 1 + _UUID_LENGTH],
        driver_id=text[1 + _UUID_LENGTH : 1 + 2 * _UUID_LENGTH],
        number=int(number),
        time_milliseconds=int(time),
        vehicle_id=vehicle_id,
        vehicle_class=int(vehicle_class or 0),
        online=text[0] == "+",
        explicit=text[0] == "!",
    )


class OutboxRelay:
    """Empties the outboxes of all buckets."""

    def __init__(self, *, views: ViewStore, envelope: Callable[[PresenceChange], bytes]) -> None:
        """Read and write `views`; `envelope` encodes a domain event."""
        self._views = views
        self._envelope = envelope

    async def run(self) -> None:
        """Pass on until cancelled."""
        buckets = range(self._views.bucket_count)
        await HeldTasks().hold(*(partial(self._pass_on_from, bucket) for bucket in buckets))

    async def _pass_on_from(self, bucket: int) -> None:
        while True:
            try:
                passed = await self.pass_on(bucket)
            except DependencyUnavailableError:
                await asyncio.sleep(_AWAY_SECONDS)
                continue
            if passed < _READ_MOST:
                await asyncio.sleep(_IDLE_SECONDS)

    async def pass_on(self, bucket: int) -> int:
        """Pass on the oldest entries of one bucket; return how many there were."""
        entries = await self._views.outbox(bucket, most=_READ_MOST)
        if not entries:
            return 0
        envelopes = []
        for entry in entries:
            if chr(entry[0]) == _ALERT:
                await self._raise(entry)
            else:
                envelopes.append(self._envelope(presence_change(entry)))
        taken = await self._views.passed_on(
            bucket, first=entries[0], count=len(entries), envelopes=envelopes
        )
        if taken:
            self._count(entries)
        return len(entries)

    async def _raise(self, entry: bytes) -> None:
        tenant_id = entry[1 : 1 + _UUID_LENGTH].decode()
        payload = entry[1 + _UUID_LENGTH :]
        digest = hashlib.sha256(payload).hexdigest()[:32]
        await self._views.raise_alert(tenant_id, digest=digest, payload=payload)

    def _count(self, entries: Sequence[bytes]) -> None:
        for entry in entries:
            _PASSED_ON.labels(chr(entry[0])).inc()


class PresenceSweep:
    """Lets drivers go who were not heard of for the time that presence lasts."""

    def __init__(self, *, views: ViewStore) -> None:
        """Sweep `views`."""
        self._views = views

    async def run(self) -> None:
        """Sweep until cancelled; every process does, and finds little when another just did."""
        while True:
            try:
                swept, online = await self.sweep()
            except DependencyUnavailableError:
                await asyncio.sleep(_SWEEP_SECONDS)
                continue
            _ONLINE.set(online)
            _SWEPT.inc(swept)
            if swept < _SWEPT_AT_ONCE:
                await asyncio.sleep(_SWEEP_SECONDS)

    async def sweep(self) -> tuple[int, int]:
        """Sweep all buckets once; return how many drivers went and how many are online."""
        swept, online = 0, 0
        for bucket in range(self._views.bucket_count):
            went, left = await self._views.sweep(bucket)
            swept, online = swept + went, online + left
        return swept, online
