"""Names every key of LocationService in Valkey.

One function per family, with its shape and lifetime.

The part in braces decides the slot on a cluster. Keys inside a bucket are made in functions.lua,
where their shapes are listed.
"""

from zlib import crc32


def bucket_of(driver_id: str, bucket_count: int) -> int:
    """Return the bucket of a driver: stable, the same in every process."""
    return crc32(driver_id.encode()) % bucket_count


def updates_key(bucket: int) -> str:
    """Name the stream of a bucket's ticks, KEYS[1] of the bucket's functions; capped by length."""
    return f"loc:{{{bucket}}}:updates"


def trip_key(trip_id: str) -> str:
    """Name the hash of a tracked trip: tenant, driver, vehicle, expected, stopped; 48 hours."""
    return f"loc:{{t:{trip_id}}}:trip"


def followers_key(trip_id: str) -> str:
    """Name the set of user ids who may follow a trip; 48 hours, in the slot of its trip."""
    return f"loc:{{t:{trip_id}}}:followers"


def vehicle_key(tenant_id: str, vehicle_id: str) -> str:
    """Name the string that tells a vehicle's driver; 24 hours."""
    return f"loc:{{v:{tenant_id}:{vehicle_id}}}:driver"


def follows_key(user_id: str) -> str:
    """Name the sorted set of trips that a user follows, by when that lapses; ten minutes."""
    return f"loc:{{u:{user_id}}}:follows"


def alerts_key(tenant_id: str) -> str:
    """Name the stream of a tenant's alerts, KEYS[1] of alerts.lua; 24 hours after the last one."""
    return f"loc:{{a:{tenant_id}}}:alerts"


def feed_key(tenant_id: str, kind: str) -> str:
    """Name the hash of a tenant's newest feed, KEYS[1] of feeds.lua; an hour after the last one."""
    return f"loc:{{f:{tenant_id}}}:feed:{kind}"


def request_key(request_id: str) -> str:
    """Name the string of a request's answer, after 32 bytes of the hash of its body; 24 hours."""
    return f"loc:{{r:{request_id}}}:request"
