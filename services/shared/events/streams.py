"""Names the Valkey keys of events, and how an envelope travels in them.

One stream per service and partition: `events:{<service>:<partition>}`, capped. An entry holds up to
eight envelopes as its values, in order; an aggregate's events are always in the same partition.
`events:{<service>}:published` says that this Valkey has had events; it is gone when Valkey was
emptied.
"""

import zlib

PARTITIONS = 8
ENVELOPES_PER_ENTRY = 8
REPUBLISHED_SECONDS = 24 * 3600
"""Says how old an event may be that is published again when Valkey was emptied."""


def partition_of(aggregate: str) -> int:
    """Return the partition of an aggregate's events."""
    return zlib.crc32(aggregate.encode()) % PARTITIONS


def stream_key(service: str, partition: int) -> str:
    """Return the key of a stream of events."""
    return f"events:{{{service}:{partition}}}"


def published_key(service: str) -> str:
    """Return the key that says that events were published to this Valkey."""
    return f"events:{{{service}}}:published"
