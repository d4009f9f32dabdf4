"""Uses of API keys, counted in Valkey until they are written to PostgreSQL. Made by app.py.

See ports.ApiKeyUses.

Keys, both in one cluster slot, without a lifetime because every few seconds a process takes and
deletes them:
- `identity:{api-key-uses}:counts`  hash, field `<tenant_id>/<key_id>`: uses since they were last
  taken
- `identity:{api-key-uses}:times`   hash, same fields: the last use, milliseconds since 1970
Statistics: what is taken and not written because the process dies is lost, never counted twice.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import structlog

from services.identity.domain import ApiKeyId, KeyUses, TenantId
from services.shared.valkey import VALKEY_AWAY, Valkey

_KEYS = ("identity:{api-key-uses}:counts", "identity:{api-key-uses}:times")
_log = structlog.get_logger()

_ADD = """
redis.call('HINCRBY', KEYS[1], ARGV[1], ARGV[2])
local last = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or '0')
if tonumber(ARGV[3]) > last then redis.call('HSET', KEYS[2], ARGV[1], ARGV[3]) end
return 0
"""

_TAKE = """
local counts = redis.call('HGETALL', KEYS[1])
local times = redis.call('HGETALL', KEYS[2])
redis.call('DEL', KEYS[1], KEYS[2])
return {counts, times}
"""


class ValkeyApiKeyUses:
    """Counts in Valkey, for all processes together. While Valkey is away, uses are not counted."""

    def __init__(self, valkey: Valkey) -> None:
        """Take an open client."""
        self._valkey = valkey

    async def add(
        self, key_id: ApiKeyId, *, tenant_id: TenantId, count: int, now: datetime
    ) -> None:
        """Add to the count of a key; a count that cannot be kept is lost."""
        field = f"{tenant_id}/{key_id}"
        try:
            await self._valkey.eval(_ADD, len(_KEYS), *_KEYS, field, count, _milliseconds(now))
        except VALKEY_AWAY as error:
            _log.warning("api_key_use_not_counted", error=type(error).__name__)

    async def take(self) -> Sequence[KeyUses]:
        """Return what was counted since the last call, and count from zero again."""
        counts, times = await self._valkey.eval(_TAKE, len(_KEYS), *_KEYS)
        last_uses = dict(zip(times[::2], times[1::2], strict=True))
        return [
            _uses_of(field.decode(), int(count), milliseconds=int(last_uses.get(field, 0)))
            for field, count in zip(counts[::2], counts[1::2], strict=True)
        ]

    async def put_back(self, uses: Sequence[KeyUses]) -> None:
        """Count again what was taken and could not be written."""
        for use in uses:
            await self.add(
                use.key_id, tenant_id=use.tenant_id, count=use.count, now=use.last_use_time
            )


def _uses_of(field: str, count: int, *, milliseconds: int) -> KeyUses:
    tenant_id, _, key_id = field.partition("/")
    return KeyUses(
        key_id=ApiKeyId(key_id),
        tenant_id=TenantId(tenant_id),
        count=count,
        last_use_time=datetime.fromtimestamp(milliseconds / 1000, UTC),
    )


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
