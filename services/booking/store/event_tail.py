"""Reads the service's own events from Valkey as they are published: ports.seat_maps.EventTail."""

import asyncio
from collections.abc import Sequence
from typing import Any

from services.shared.errors import DependencyUnavailableError
from services.shared.events.streams import PARTITIONS, stream_key
from services.shared.valkey import VALKEY_AWAY, Valkey

_READ_MOST = 500


class ValkeyEventTail:
    """Reads streams without keeping a place: whoever misses something finds it in PostgreSQL."""

    def __init__(self, client: Valkey, service: str, *, cluster: bool) -> None:
        """Read by `client`, whose time limit must be above the seconds of `read`."""
        self._client = client
        self._keys = {stream_key(service, number).encode(): number for number in range(PARTITIONS)}
        self._key_of = {number: key for key, number in self._keys.items()}
        everything = list(range(PARTITIONS))
        # On a cluster each stream may live elsewhere, and one command reads one of them.
        self.groups: Sequence[Sequence[int]] = (
            [[number] for number in everything] if cluster else [everything]
        )

    async def ends(self, partitions: Sequence[int]) -> dict[int, bytes]:
        """Return where these partitions end now."""
        try:
            newest = await asyncio.gather(
                *[self._client.xrevrange(self._key_of[one], count=1) for one in partitions]
            )
        except VALKEY_AWAY as error:
            raise DependencyUnavailableError("valkey") from error
        return {
            one: entries[0][0] if entries else b"0-0"
            for one, entries in zip(partitions, newest, strict=True)
        }

    async def read(self, positions: dict[int, bytes], *, seconds: float) -> list[bytes]:
        """Wait for what comes after `positions`, at most so long; moves them along."""
        try:
            answer = await self._client.xread(
                {self._key_of[one]: position for one, position in positions.items()},
                count=_READ_MOST,
                block=int(seconds * 1000),
            )
        except VALKEY_AWAY as error:
            raise DependencyUnavailableError("valkey") from error
        envelopes: list[bytes] = []
        for key, entries in _streams(answer):
            for _, fields in entries:
                envelopes += fields.values() if isinstance(fields, dict) else fields[1::2]
            if entries:
                positions[self._keys[key]] = entries[-1][0]
        return envelopes

    async def ping(self) -> None:
        """Return if Valkey answers."""
        try:
            await self._client.ping()
        except VALKEY_AWAY as error:
            raise DependencyUnavailableError("valkey") from error


def _streams(answer: Any) -> list[tuple[bytes, Sequence[Any]]]:
    """Return key and entries of each stream: a map with RESP3, pairs with RESP2."""
    if not answer:
        return []
    if isinstance(answer, dict):
        return [
            (key, [one for part in parts for one in _flat(part)]) for key, parts in answer.items()
        ]
    return [(key, entries) for key, entries in answer]


def _flat(part: Any) -> Sequence[Any]:
    """Return entries; with RESP3 the client wraps those of a stream in one more list."""
    return part if part and isinstance(part[0], (list, tuple)) else [part]
