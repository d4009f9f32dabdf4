"""Takes what a driver sends over StreamDriver, message by message. Begun by driver_stream.py.

Messages come as bytes, so that a broken one spoils nothing, and as they are read from the socket:
no task waits for each. Where the session or the process has no room for more, they wait in the
call, and the phone as soon as its window is used up.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

from services.location import convert, view_messages
from services.location.domain.positions import Refusal
from services.location.domain.trips import TripStatus
from services.location.operations.batcher import UpdateBatcher
from services.location.operations.driver_session import DriverSession
from services.location.quick_check import valid_fix
from services.location.settings import LocationSettings
from services.shared.clock import Clock
from services.shared.errors import DomainError
from services.shared.ids import Uuid7Source
from services.shared.rpc.validation import check_message, parse_message
from wayfare.location.v1 import driver_stream_pb2

# As in the rule of DriverMessage.seq.
_SEQ_MAX = 1 << 52
DriverMessage = driver_stream_pb2.DriverMessage


class DriverMessages:
    """Is what one driver sends."""

    __slots__ = (
        "_batcher",
        "_clock",
        "_context",
        "_expected_count",
        "_has_ended",
        "_ids",
        "_in_flight_max",
        "_max_bytes",
        "_session",
        "_task",
        "error",
        "is_done",
    )

    def __init__(
        self,
        session: DriverSession,
        context: Any,
        expected_count: int,
        *,
        batcher: UpdateBatcher,
        clock: Clock,
        settings: LocationSettings,
        ids: Uuid7Source,
    ) -> None:
        """Take for `session` what comes over `context`."""
        self._session = session
        self._context = context
        self._expected_count = expected_count
        self._batcher = batcher
        self._clock = clock
        self._ids = ids
        self._max_bytes = settings.message_bytes_max
        self._in_flight_max = settings.location_session_pending_max
        self._has_ended = False
        self._task: asyncio.Task[None] | None = None
        # Whether all that came is decided and acknowledged, or there was an error.
        self.is_done = False
        self.error: Exception | None = None

    def begin(self) -> None:
        """Take messages as they come."""
        self._context.listen(self._take, self._end)

    async def close(self) -> None:
        """Take nothing more."""
        self._context.pause()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _take(self, data: bytes) -> None:
        session = self._session
        try:
            message = parse_message(data, DriverMessage, max_bytes=self._max_bytes)
            fix = valid_fix(message)
            if fix is None:
                check_message(message)
        except DomainError as error:
            session.refuse(_seq_of(data, self._max_bytes), error.reason, error.message)
            return
        if message.HasField("position"):
            position = message.position
            session.receive_position(
                message.seq,
                fix or convert.fix_of(position),
                convert.position_payload(position),
                int(self._clock.now().timestamp() * 1000),
            )
        elif message.HasField("goodbye"):
            self._context.pause()
            self._end(None)
            return
        else:
            self._take_other(message)
        if session.in_flight >= self._in_flight_max or not self._batcher.has_room:
            self._context.pause()
            self._start(self._wait_for_room())

    def _take_other(self, message: driver_stream_pb2.DriverMessage) -> None:
        session = self._session
        if message.HasField("status"):
            status = convert.status_of(message.status.status)
            payload = convert.status_payload(message.status)
            session.receive_status(message.seq, status, payload, self._alert(message))
        elif message.HasField("boarding"):
            payload = convert.boarding_payload(message.boarding, self._expected_count)
            session.receive_boarding(message.seq, payload)
        else:
            session.refuse(
                message.seq, Refusal.HELLO_EXPECTED_FIRST.value, "hello comes first, and once"
            )

    def _alert(self, message: driver_stream_pb2.DriverMessage) -> bytes:
        """Return what staff is alerted of with a status; empty unless the driver calls for help."""
        if convert.status_of(message.status.status) is not TripStatus.EMERGENCY:
            return b""
        return view_messages.emergency(
            alert_id=self._ids.new_id(),
            trip_id=self._session.trip_id,
            vehicle_id=self._session.publisher.vehicle_id,
            payload=self._session.newest_payload,
            raised=message.status.capture_time,
        )

    async def _wait_for_room(self) -> None:
        await self._session.wait_for_room(self._in_flight_max)
        self._context.resume(self._take)

    def _end(self, error: Exception | None) -> None:
        if not self._has_ended:
            self._has_ended = True
            self.error = error
            self._start(self._finish())

    async def _finish(self) -> None:
        if self.error is None:
            await self._session.wait_decided()
            self._session.acknowledge_if_due()
        self.is_done = True
        self._session.wake_writer()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        # Waiting for room is over when this begins, or pointless: the driver has left.
        if self._task is not None:
            self._task.cancel()
        self._task = asyncio.create_task(work)


def _seq_of(data: bytes, max_bytes: int) -> int:
    """Return the number of a message that breaks a rule, 0 when it cannot be read."""
    if len(data) > max_bytes:
        return 0
    try:
        seq = DriverMessage.FromString(data).seq
    except Exception:  # noqa: BLE001 - any unreadable bytes mean the same
        return 0
    # A number that breaks the rule itself would shadow all that come after it.
    return seq if 0 <= seq <= _SEQ_MAX else 0
