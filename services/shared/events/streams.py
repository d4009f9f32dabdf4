"""Names the Valkey keys of events, and how an envelope travels in them.

One stream per service and partition: `events:{<service>:<partition>}`, capped. An entry holds up to
eight envelopes as its values, in order; an aggregate's events are always in the same partition.
Ids only grow, also from one Valkey to the next: consumers keep them as their positions.
"""

import zlib

PARTITIONS = 8
ENVELOPES_PER_ENTRY = 8
REPUBLISHED_SECONDS = 24 * 3600
"""Says how old an event may be that is published again when Valkey lost some."""

ADD_TO_STREAM = """
local function parts(id)
  local time, number = string.match(id, '(%d+)-(%d+)')
  return tonumber(time), tonumber(number)
end
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local top = last[1] and last[1][1] or '0-0'
local top_time, top_number = parts(top)
local known_time, known_number = parts(ARGV[1])
if ARGV[2] == '0' and
    (top_time < known_time or (top_time == known_time and top_number < known_number)) then
  return false
end
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
if ARGV[2] == '1' then now = math.max(now, known_time + 1) end
local id = string.format('%.0f-*', math.max(now, top_time))
for first = 5, #ARGV, ARGV[4] do
  local fields = {}
  for index = first, math.min(first + ARGV[4] - 1, #ARGV) do
    fields[#fields + 1] = index - first
    fields[#fields + 1] = ARGV[index]
  end
  top = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[3], id, unpack(fields))
end
return top
"""
"""Adds envelopes to a stream unless it has lost something; returns the last entry's id.

KEYS[1] is the stream. ARGV are the last id that is known; 1 if that entry may be lost, and what is
added only has to come after it; entries kept; envelopes per entry; and the envelopes.
"""


def partition_of(aggregate: str) -> int:
    """Return the partition of an aggregate's events."""
    return zlib.crc32(aggregate.encode()) % PARTITIONS


def stream_key(service: str, partition: int) -> str:
    """Return the key of a stream of events."""
    return f"events:{{{service}:{partition}}}"


def order_of(stream_id: bytes | str) -> tuple[int, int]:
    """Return what the ids of a stream's entries are ordered by; nothing comes before ""."""
    text = stream_id.decode() if isinstance(stream_id, bytes) else stream_id
    milliseconds, _, number = text.partition("-")
    return int(milliseconds or 0), int(number or 0)
