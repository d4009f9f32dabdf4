"""Keeps the states of seats in Valkey for a second. Implements ports.seat_maps.SeatCache."""

import json
from datetime import UTC, datetime
from typing import Any

from redis.exceptions import ResponseError

from services.booking.ports.seat_maps import CachedSeats
from services.shared.errors import DependencyUnavailableError
from services.shared.valkey import VALKEY_AWAY, Valkey

_KEPT_MILLISECONDS = 1_000
# A map that was read before another was, and comes later, must not take its place.
_PUT = """
local known = redis.call('HGET', KEYS[1], 'version')
if known and tonumber(known) > tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[1], 'seats', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""


class ValkeySeatCache:
    """Is asked instead of PostgreSQL by everybody who looks at the same trip within a second."""

    def __init__(self, client: Valkey) -> None:
        """Keep them by `client`."""
        self._client = client

    async def get(self, trip_id: str) -> CachedSeats | None:
        """Return what is cached, or None."""
        try:
            text = await self._client.hget(_key(trip_id), "seats")
        except (*VALKEY_AWAY, ResponseError) as error:
            raise DependencyUnavailableError("valkey") from error
        return None if text is None else _read(text)

    async def put(self, trip_id: str, seats: CachedSeats) -> None:
        """Cache it, unless a newer version is cached."""
        text = json.dumps([seats.version, seats.read_time.timestamp(), seats.masks])
        try:
            await self._client.eval(_PUT, 1, _key(trip_id), seats.version, text, _KEPT_MILLISECONDS)
        except (*VALKEY_AWAY, ResponseError) as error:
            raise DependencyUnavailableError("valkey") from error


def _key(trip_id: str) -> str:
    return f"booking:seats:{{{trip_id}}}"


def _read(text: bytes) -> CachedSeats | None:
    """Return what was written, or None if it was not we who wrote it."""
    try:
        version, moment, masks = json.loads(text)
        taken: dict[str, Any] = masks
        return CachedSeats(
            int(version),
            {number: (one[0], one[1], one[2]) for number, one in taken.items()},
            datetime.fromtimestamp(moment, UTC),
        )
    except (ValueError, TypeError, IndexError, KeyError, AttributeError):
        return None
