"""Counts calls in Valkey many at a time. Used by rate_limits.py.

A round trip costs a process more than counting does, so what comes while two are under way waits
for the next. One script counts all of them, each as the `limits` library counts it: under the same
keys, by the same steps (its acquire_sliding_window.lua), so that the library's reading of a window
stays right.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any, cast

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
_AT_ONCE_MAX = 500
_TRIPS_MAX = 2


@dataclass(slots=True)
class _Hit:
    key: str
    limit: int
    window_seconds: int
    passed: "asyncio.Future[bool]" = field(repr=False)


class GatheredHits:
    """Counts calls in one Valkey server: a cluster would not take keys of several slots at once."""

    def __init__(self, valkey: Valkey) -> None:
        """Count by the client `valkey`."""
        self._script: Any = cast("Any", valkey).register_script(_SCRIPT)
        self._waiting: list[_Hit] = []
        self._trips: set[asyncio.Task[None]] = set()
        self._scheduled = False

    async def hit(self, key: str, *, limit: int, window_seconds: int) -> bool:
        """Count a call under the library's `key`; say whether it was within the limit.

        Raises one of VALKEY_AWAY; then it was counted or not.
        """
        loop = asyncio.get_running_loop()
        hit = _Hit(key, limit, window_seconds, loop.create_future())
        self._waiting.append(hit)
        if not self._scheduled and len(self._trips) < _TRIPS_MAX:
            # Not at once: others of this turn of the loop come along.
            self._scheduled = True
            loop.call_soon(self._depart)
        return await hit.passed

    def _depart(self) -> None:
        self._scheduled = False
        # Whoever went away while waiting is not counted.
        hits = [one for one in self._waiting[:_AT_ONCE_MAX] if not one.passed.done()]
        del self._waiting[:_AT_ONCE_MAX]
        if hits:
            trip = asyncio.get_running_loop().create_task(self._travel(hits))
            self._trips.add(trip)
            trip.add_done_callback(self._arrive)

    def _arrive(self, trip: "asyncio.Task[None]") -> None:
        self._trips.discard(trip)
        if self._waiting and not self._scheduled:
            self._depart()

    async def _travel(self, hits: list[_Hit]) -> None:
        keys: list[str] = []
        limits: list[int] = []
        for hit in hits:
            current = f"{_PREFIX}:{{{hit.key}}}"
            keys += (f"{current}/-1", current)
            limits += (hit.limit, hit.window_seconds)
        try:
            answers = await self._script(keys, limits)
        except BaseException as error:
            for hit in hits:
                if not hit.passed.done():
                    hit.passed.set_exception(_of_its_own(error))
            if not isinstance(error, Exception):
                raise
            return
        for hit, passed in zip(hits, answers, strict=True):
            if not hit.passed.done():
                hit.passed.set_result(passed == 1)


def _of_its_own(error: BaseException) -> BaseException:
    """Return an error for one waiter: an exception object must not be raised in many tasks."""
    if isinstance(error, asyncio.CancelledError):
        return ConnectionError("the process stops")
    if not isinstance(error, Exception):
        return ConnectionError(type(error).__name__)
    own = type(error)(*error.args)
    own.__cause__ = error
    return own
