"""Every bound of the client, with defaults that suit a phone. WayfareClient takes one."""

from dataclasses import dataclass
from typing import Final

from wayfare_client.backoff import Backoff

_RETRY: Final = Backoff(floor_seconds=0.05, first_seconds=0.2, ceiling_seconds=2.0)
_RECONNECT: Final = Backoff(floor_seconds=0.2, first_seconds=1.0, ceiling_seconds=15.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """Bounds on time, attempts and memory."""

    # Unary calls: the deadline is the method's `max_duration` plus the way there and back.
    network_seconds: float = 1.0
    max_attempts: int = 4
    retry: Backoff = _RETRY

    # Streams.
    reconnect: Backoff = _RECONNECT
    # A stream that lived that long was good: the next loss starts with a short wait again.
    stable_seconds: float = 10.0
    # How long hello may wait for welcome.
    welcome_seconds: float = 10.0
    # Interval of heartbeats until the server names its own.
    heartbeat_seconds: float = 15.0
    # A stream that is silent for so many heartbeats is dead.
    silent_heartbeats: float = 2.0
    # How long entering a driver session waits for its first welcome before it goes on alone.
    connect_seconds: float = 5.0
    # How long leaving a driver session waits for acknowledgements.
    goodbye_seconds: float = 5.0
    # How many unacknowledged messages a driver session keeps: 50 minutes of positions.
    max_unacknowledged: int = 1000

    # Tokens are refreshed that long before they end, or after four fifths of a short life.
    refresh_margin_seconds: float = 60.0

    # The channel, matched to the servers'.
    keepalive_seconds: float = 20.0
    keepalive_timeout_seconds: float = 10.0
    max_message_bytes: int = 1024 * 1024
