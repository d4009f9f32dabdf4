"""Tells operators how far behind events are: what waits to be published, and to be taken."""

import time
from collections.abc import Mapping

from prometheus_client import Gauge

from services.shared.events.streams import PARTITIONS, stream_key
from services.shared.valkey import Valkey

_RELAY_LAG = Gauge(
    "wayfare_events_relay_lag_seconds",
    "Age of the oldest event that this process tried to publish and has not; 0 without",
    ["service"],
)
_CONSUMER_LAG = Gauge(
    "wayfare_events_consumer_lag_seconds",
    "Age of the oldest published event that a consumer has not taken; 0 without",
    ["consumer", "source"],
)


class Lag:
    """Grows from the moment of the oldest event that waits, also while nobody looks."""

    def __init__(self, gauge: Gauge) -> None:
        """Be the value of `gauge`."""
        self._since: float | None = None
        gauge.set_function(self.seconds)

    def seconds(self) -> float:
        """Return how long the oldest has been waiting; 0 when nothing waits."""
        return 0.0 if self._since is None else max(0.0, time.time() - self._since)

    def waits_since(self, moment: float | None) -> None:
        """Say from when the oldest is that waits, in seconds since 1970; None when none does."""
        self._since = moment


def relay_lag(service: str) -> Lag:
    """Return the lag of a service's relay."""
    return Lag(_RELAY_LAG.labels(service))


def consumer_lag(consumer: str, source: str) -> Lag:
    """Return the lag of a consumer."""
    return Lag(_CONSUMER_LAG.labels(consumer, source))


async def oldest_not_taken(
    valkey: Valkey, source: str, positions: Mapping[int, str]
) -> float | None:
    """Return when the oldest entry behind these positions was published; None without one."""
    pipeline = valkey.pipeline(transaction=False)
    for partition in range(PARTITIONS):
        after = f"({positions.get(partition, '0-0')}"
        pipeline.xrange(stream_key(source, partition), min=after, count=1)
    found = [answer[0][0] for answer in await pipeline.execute() if answer]
    moments = [int(bytes(stream_id).partition(b"-")[0]) / 1000 for stream_id in found]
    return min(moments, default=None)
