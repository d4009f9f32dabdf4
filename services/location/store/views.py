"""Reads the indexes over many vehicles in Valkey. Implements ports.views.ViewStore."""

import asyncio
from collections.abc import Sequence
from typing import Any

from services.location.ports.views import FleetChange, FleetRow, FreeDriver, KeptAlert
from services.location.store import keys
from services.location.store.functions import ValkeyFunctions, valkey_answers
from services.shared.valkey import Valkey

# Valkey's geohash and its sphere differ from the true distance by up to 0.6 %.
_RADIUS_SHARE = 1.006
_RADIUS_SLACK_METERS = 2.0
# Just below a step of Valkey's geohash: twice as far looks at four times as many drivers.
_FIRST_RADIUS_METERS = 305.0
_FLEET_MOST = 100_000
_SWEEP_MOST = 1_000


class ValkeyViewStore:
    """Answers for many vehicles, from one Valkey server or a cluster of them."""

    def __init__(self, client: Valkey, *, bucket_count: int, live_seconds: int) -> None:
        """Ask by `client`; a driver is online for `live_seconds` after being heard of."""
        self._client = client
        self._bucket_count = bucket_count
        self._live_milliseconds = live_seconds * 1000
        self._functions = ValkeyFunctions(client)

    @property
    def bucket_count(self) -> int:
        """Return into how many buckets drivers are spread, from 0."""
        return self._bucket_count

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
        """Return at least the `most` nearest free drivers of these classes, in no order."""
        arguments = (
            tenant_id,
            repr(longitude),
            repr(latitude),
            radius_meters * _RADIUS_SHARE + _RADIUS_SLACK_METERS,
            _FIRST_RADIUS_METERS,
            most,
            oldest_capture_milliseconds,
            *(str(number or "") for number in vehicle_classes),
        )
        answers = await asyncio.gather(
            *(self._call("loc_nearby", bucket, arguments) for bucket in range(self._bucket_count))
        )
        return [
            FreeDriver(row[0].decode(), int(row[2] or 0), int(row[1]), row[3])
            for answer in answers
            for row in _rows_of(answer, 4)
        ]

    async def fleet_change(
        self, tenant_id: str, bucket: int, *, since_milliseconds: int
    ) -> FleetChange:
        """Return the tenant's drivers in the bucket that were heard of since then."""
        answer = await self._call(
            "loc_fleet",
            bucket,
            (tenant_id, since_milliseconds, self._live_milliseconds, _FLEET_MOST),
        )
        return FleetChange(
            now_milliseconds=int(answer[0]),
            online_count=int(answer[1]),
            cut_off=bool(answer[2]),
            rows=[
                FleetRow(
                    row[0].decode(),
                    int(row[1]),
                    row[2].decode(),
                    int(row[3] or 0),
                    row[4].decode(),
                    row[5].decode(),
                    row[6],
                )
                for row in _rows_of(answer[3:], 7)
            ],
        )

    async def sweep(self, bucket: int) -> tuple[int, int]:
        """Let silent drivers go; return how many went and how many are online."""
        swept, online = await self._call(
            "loc_sweep", bucket, (self._live_milliseconds, _SWEEP_MOST)
        )
        return int(swept), int(online)

    async def outbox(self, bucket: int, *, most: int) -> Sequence[bytes]:
        """Return the oldest entries of what must reach others."""
        entries: Sequence[bytes] = await self._call("loc_outbox", bucket, (most,))
        return entries

    async def passed_on(
        self, bucket: int, *, first: bytes, count: int, envelopes: Sequence[bytes]
    ) -> bool:
        """Take entries out, unless another process did so before."""
        return bool(await self._call("loc_passed_on", bucket, (first, count, *envelopes)))

    async def raise_alert(self, tenant_id: str, *, digest: str, payload: bytes) -> bool:
        """Keep an alert for a day, once per digest; say whether it is new."""
        key = keys.alerts_key(tenant_id)
        return bool(await self._functions.call("loc_raise_alert", key, (digest, payload)))

    async def first_to_say(self, tenant_id: str, *, digest: str, seconds: int) -> bool:
        """Say whether nobody asked for this digest within the last `seconds`."""
        key = keys.alerts_key(tenant_id)
        return bool(await self._functions.call("loc_first_to_say", key, (digest, seconds)))

    async def alerts_after(self, tenant_id: str, token: str, *, most: int) -> Sequence[KeptAlert]:
        """Return the oldest alerts after `token`."""
        async with valkey_answers():
            entries = await self._client.xrange(
                keys.alerts_key(tenant_id), min=f"({token}", count=most
            )
        return [_kept(entry) for entry in entries]

    async def newest_alerts(self, tenant_id: str, *, most: int) -> Sequence[KeptAlert]:
        """Return the newest alerts, the oldest of them first."""
        async with valkey_answers():
            entries = await self._client.xrevrange(keys.alerts_key(tenant_id), count=most)
        return [_kept(entry) for entry in reversed(entries)]

    async def newest_feed(self, tenant_id: str, kind: str) -> tuple[int, bytes, int]:
        """Return the newest feed's stamp in seconds, its bytes (empty: none), and the time."""
        key = keys.feed_key(tenant_id, kind)
        stamp, body, now = await self._functions.call("loc_newest_feed", key, ())
        return int(stamp), body, int(now)

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
        """Keep a feed if it is newer, and says something else than one of the last seconds."""
        key = keys.feed_key(tenant_id, kind)
        kept_stamp, kept_body = await self._functions.call(
            "loc_offer_feed", key, (stamp, digest, body, same_seconds)
        )
        return int(kept_stamp), kept_body

    async def _call(self, function: str, bucket: int, arguments: Sequence[Any]) -> Any:
        return await self._functions.call(function, keys.updates_key(bucket), arguments)


def _rows_of(flat: Sequence[bytes], width: int) -> list[Sequence[bytes]]:
    return [flat[start : start + width] for start in range(0, len(flat), width)]


def _kept(entry: tuple[bytes, dict[bytes, bytes]]) -> KeptAlert:
    return KeptAlert(token=entry[0].decode(), payload=entry[1][b"alert"])
