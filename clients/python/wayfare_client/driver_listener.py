"""What an app may be told while a driver session runs. Given to WayfareClient.drive."""

from collections.abc import Callable
from dataclasses import dataclass

from wayfare.location.v1 import driver_stream_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverListener:
    """Names what to call when the server says something.

    Called from the event loop, soon after; may not block.
    """

    on_rejected: Callable[[driver_stream_pb2.RejectedMessage], object] | None = None
    on_assignment: Callable[[driver_stream_pb2.DriverAssignment], object] | None = None
    on_throttle: Callable[[driver_stream_pb2.DriverThrottle], object] | None = None
