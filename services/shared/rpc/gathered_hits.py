"""Counts calls in Valkey many at a time. Used by rate_limits.py.

A round trip costs a process more than counting does. One script counts all calls of one, each as
the `limits` library counts it: under the same keys, by the same steps (its
acquire_sliding_window.lua), so that the library's reading of a window stays right.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from services.shared.gathering import Gathering
from services.shared.valkey import Valkey

_SCRIPT = """
local passed = {}
for number = 1, #ARGV / 2 do
  local previous, current = KEYS[number * 2 - 1], KEYS[number * 2]
  local limit, expiry = tonumber(ARGV[number * 2 - 1]), tonumber(ARGV[number * 2]) * 1000
  local current_ttl = redis.call('pttl', current)
  if current_ttl > 0 and current_ttl < expiry then
    redis.call('rename', current, previous)
    redis.call('set', current, 0, 'PX', current_ttl + expiry)
    current_ttl = current_ttl + expiry
  end
  local current_count = 0
  if current_ttl > 0 then
    current_count = tonumber(redis.call('get', current)) or 0
  end
  local previous_count = tonumber(redis.call('get', previous)) or 0
  local weighted = current_count
  if previous_count > 0 then
    local previous_ttl = math.max(redis.call('pttl', previous), 0)
    weighted = math.floor(previous_count * previous_ttl / expiry) + current_count
  end
  if weighted + 1 > limit then
    passed[number] = 0
  else
    passed[number] = 1
    if current_ttl > 0 then
      redis.call('incr', current)
    else
      redis.call('set', current, 1, 'PX', expiry * 2)
    end
  end
end
return passed
"""
_PREFIX = "LIMITS"
# What a busy process's calls wait for each other: a round trip costs it more than thirty counts.
_GATHER_SECONDS = 0.004


class _Hit(NamedTuple):
    key: str
    limit: int
    window_seconds: int


class GatheredHits:
    """Counts calls in one Valkey server: a cluster would not take keys of several slots at once."""

    def __init__(self, valkey: Valkey) -> None:
        """Count by the client `valkey`."""
        self._script: Any = cast("Any", valkey).register_script(_SCRIPT)
        self._hits = Gathering[_Hit, bool](self._count, gather_seconds=_GATHER_SECONDS)

    async def hit(self, key: str, *, limit: int, window_seconds: int) -> bool:
        """Count a call under the library's `key`; say whether it was within the limit.

        Raises one of VALKEY_AWAY; then it was counted or not.
        """
        return await self._hits.ask(_Hit(key, limit, window_seconds))

    async def _count(self, hits: Sequence[_Hit]) -> list[bool]:
        keys: list[str] = []
        limits: list[int] = []
        for key, limit, window_seconds in hits:
            current = f"{_PREFIX}:{{{key}}}"
            keys += (f"{current}/-1", current)
            limits += (limit, window_seconds)
        return [passed == 1 for passed in await self._script(keys, limits)]
