"""Holds what operations need of the indexes over many vehicles."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class FreeDriver(NamedTuple):
    """Is a driver without a trip. `payload` is a TripUpdate with the newest position.

    A tuple, because a question makes one for every driver around.
    """

    driver_id: str
    vehicle_class: int
    capture_milliseconds: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class FleetRow:
    """Is a driver of a fleet. `payload` is a TripUpdate with the newest position, or empty."""

    driver_id: str
    heard_milliseconds: int
    vehicle_id: str
    vehicle_class: int
    trip_id: str
    status: str
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetChange:
    """Is what changed of a bucket's part of a fleet. Times are the store's, in milliseconds."""

    now_milliseconds: int
    online_count: int
    cut_off: bool
    rows: Sequence[FleetRow]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptAlert:
    """Is an alert of a tenant: its place in the order of alerts, and an AlertUpdate."""

    token: str
    payload: bytes


class ViewStore(Protocol):
    """Answers for many vehicles. Every method raises DependencyUnavailableError when it is away."""

    @property
    def bucket_count(self) -> int:
        """Return into how many buckets drivers are spread, from 0."""
        ...

    async def free_drivers(
        self,
        tenant_id: str,
        *,
        latitude: float,
        longitude: float,
        radius_meters: float,
        vehicle_classes: Sequence[int],
        most: int,
        oldest_capture_milliseconds: int,
    ) -> Sequence[FreeDriver]:
        """Return at least the `most` nearest free drivers of these classes, in no order.

        Some may lie a little outside of the radius. Class 0 is a driver who named none.
        """
        ...

    async def fleet_change(
        self, tenant_id: str, bucket: int, *, since_milliseconds: int
    ) -> FleetChange:
        """Return the tenant's drivers in the bucket that were heard of since then."""
        ...

    async def sweep(self, bucket: int) -> tuple[int, int]:
        """Let silent drivers go; return how many went and how many are online."""
        ...

    async def outbox(self, bucket: int, *, most: int) -> Sequence[bytes]:
        """Return the oldest entries of what must reach others; see functions.lua."""
        ...

    async def passed_on(
        self, bucket: int, *, first: bytes, count: int, envelopes: Sequence[bytes]
    ) -> bool:
        """Take entries out, and put envelopes into the stream of events, if `first` is still first.

        Otherwise another process did so; say False.
        """
        ...

    async def raise_alert(self, tenant_id: str, *, digest: str, payload: bytes) -> bool:
        """Keep an alert for a day, once per digest; say whether it is new."""
        ...

    async def first_to_say(self, tenant_id: str, *, digest: str, seconds: int) -> bool:
        """Say whether nobody asked for this digest within the last `seconds`."""
        ...

    async def alerts_after(self, tenant_id: str, token: str, *, most: int) -> Sequence[KeptAlert]:
        """Return the oldest alerts after `token`, which is one of theirs or "<ms>-0"."""
        ...

    async def newest_feed(self, tenant_id: str, kind: str) -> tuple[int, bytes, int]:
        """Return the newest feed's stamp in seconds, its bytes (empty: none), and the time."""
        ...

    async def offer_feed(
        self,
        tenant_id: str,
        kind: str,
        *,
        stamp: int,
        digest: str,
        body: bytes,
        same_seconds: int,
    ) -> tuple[int, bytes]:
        """Keep a feed if it is newer, and says something else than one of the last seconds.

        Returns the stamp and bytes of what is kept.
        """
        ...

    async def newest_alerts(self, tenant_id: str, *, most: int) -> Sequence[KeptAlert]:
        """Return the newest alerts, the oldest of them first."""
        ...
