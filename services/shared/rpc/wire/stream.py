"""Is one HTTP/2 stream: what it may send and receive, and what waits to be sent.

A message that the windows and the socket have room for goes straight into the connection's next
write. Otherwise it waits here, in order, and `pending_bytes` says how much does; whoever writes
waits while that is too much.
"""

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from services.shared.rpc.wire.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_AND_PREFIX,
    FRAME_DEFAULT,
    HEADERS,
    PREFIX,
    PREFIX_BYTES,
    ErrorCode,
    StreamFault,
    frame,
    reset_frame,
)

if TYPE_CHECKING:
    from services.shared.rpc.wire.outlet import Outlet

# What a peer may send before the application has read it.
RECEIVE_WINDOW = 65_535
# What waits for a slow peer before `write` waits too.
PENDING_BYTES_MAX = 16_384
_LEAVE_LEAST = RECEIVE_WINDOW // 2
_TURN_BYTES = 65_536


class Stream:
    """Is one HTTP/2 stream of a connection; call.py makes a gRPC call of it."""

    __slots__ = (
        "_end_block",
        "_pending",
        "_room",
        "content_left",
        "credit",
        "ended",
        "held",
        "outlet",
        "pending_bytes",
        "remote_ended",
        "stream_id",
        "window",
    )

    def __init__(self, outlet: "Outlet", stream_id: int) -> None:
        """Begin as a stream whose headers have come."""
        self.outlet = outlet
        self.stream_id = stream_id
        # What we may still send, by the peer's leave; the connection's own is beside it.
        self.credit = outlet.initial_credit
        # What the peer may still send, and how much of what it sent waits for the application.
        self.window = RECEIVE_WINDOW
        self.held = 0
        self.content_left: int | None = None
        self.remote_ended = False
        # Whether nothing can be sent any more: we said the end, or one side broke off.
        self.ended = False
        self._pending: deque[bytes] | None = None
        self.pending_bytes = 0
        self._end_block: bytes | None = None
        self._room: asyncio.Future[None] | None = None

    def count_content(self, size: int) -> None:
        """Compare the body with what content-length said. Raises StreamFault."""
        if self.content_left is None:
            return
        self.content_left -= size
        if self.content_left < 0 or (self.remote_ended and self.content_left):
            raise StreamFault(self.stream_id, ErrorCode.PROTOCOL_ERROR)

    def give_leave(self) -> None:
        """Let the peer send again what has been read, once it is worth a frame."""
        increment = RECEIVE_WINDOW - self.held - self.window
        if increment > _LEAVE_LEAST and not self.remote_ended and not self.ended:
            self.window += increment
            self.outlet.give_leave(self.stream_id, increment)

    def send(self, message: bytes) -> None:
        """Send one message after what waits already; never suspends."""
        body = len(message) + PREFIX_BYTES
        outlet = self.outlet
        if (
            self._pending is None
            and body <= self.credit
            and body <= outlet.credit
            and body <= FRAME_DEFAULT
            and outlet.room > 0
        ):
            self.credit -= body
            outlet.credit -= body
            outlet.room -= body
            out = outlet.out
            if not out:
                outlet.flush_soon()
            out.append(FRAME_AND_PREFIX.pack(0, body, DATA, 0, self.stream_id, 0, body - 5))
            out.append(message)
            return
        if self._pending is None:
            self._pending = deque()
        self._pending.append(PREFIX.pack(0, body - 5) + message)
        self.pending_bytes += body
        outlet.pending_bytes += body
        outlet.wants_to_send(self)
        if not outlet.out:
            outlet.flush_soon()

    @property
    def has_room(self) -> bool:
        """Say whether a message may be sent without waiting."""
        if self.outlet.is_crowded:
            return not self.pending_bytes
        return self.pending_bytes <= PENDING_BYTES_MAX

    async def wait_for_room(self) -> None:
        """Wait until most of what waits has been sent. Raises CancelledError if it never will."""
        while not self.has_room and not self.ended:
            self._room = asyncio.get_running_loop().create_future()
            try:
                await self._room
            finally:
                self._room = None
        if self.ended:
            raise asyncio.CancelledError

    def send_end(self, block: bytes) -> None:
        """Send the last headers after what waits, and end the stream."""
        self._end_block = block
        if self._pending is None:
            self._finish()

    @property
    def may_drain(self) -> bool:
        """Say whether the peer's leave for this stream allows to send what waits."""
        return bool(self._pending) and self.credit > 0

    def drain(self) -> None:
        """Send of what waits as much as there is leave and room for, up to a turn's worth."""
        outlet, pending = self.outlet, self._pending
        turn = _TURN_BYTES
        while pending and turn > 0 and outlet.room > 0:
            chunk = pending[0]
            size = min(len(chunk), self.credit, outlet.credit, FRAME_DEFAULT)
            if size <= 0:
                break
            if size == len(chunk):
                pending.popleft()
            else:
                pending[0] = chunk[size:]
                chunk = chunk[:size]
            self.credit -= size
            outlet.credit -= size
            turn -= size
            self._count_sent(size)
            outlet.put(frame(DATA, chunk, stream_id=self.stream_id))
        if pending:
            outlet.wants_to_send(self)
            return
        self._pending = None
        self._finish()

    def _count_sent(self, size: int) -> None:
        self.pending_bytes -= size
        self.outlet.pending_bytes -= size
        self._tell_room(self.pending_bytes <= PENDING_BYTES_MAX // 2 and self.has_room)

    def _tell_room(self, is_there: bool) -> None:
        if is_there and self._room is not None and not self._room.done():
            self._room.set_result(None)

    def _finish(self) -> None:
        if self._end_block is None or self.ended:
            return
        self.ended = True
        self.outlet.put_headers(self.stream_id, self._end_block, end=True)
        if not self.remote_ended:
            # The peer need not send the rest (RFC 9113, 8.1).
            self.outlet.put(reset_frame(self.stream_id, ErrorCode.NO_ERROR))
        self._end_block = None
        self.has_ended()

    def break_off(self) -> None:
        """Forget what waits: one side ended the stream before its time."""
        if self.ended:
            return
        self.ended = True
        self.outlet.forget(self)
        self.outlet.pending_bytes -= self.pending_bytes
        self.pending_bytes = 0
        self._pending = self._end_block = None
        self._tell_room(True)
        self.has_ended()

    def has_ended(self) -> None:
        """Take that nothing is sent any more."""


def headers_frames(stream_id: int, block: bytes, *, end: bool) -> bytes:
    """Encode a header block as HEADERS, and CONTINUATION where it is long."""
    flags, most = END_STREAM if end else 0, FRAME_DEFAULT
    if len(block) <= most:
        return frame(HEADERS, block, flags=flags | END_HEADERS, stream_id=stream_id)
    parts = [block[at : at + most] for at in range(0, len(block), most)]
    frames = [frame(HEADERS, parts[0], flags=flags, stream_id=stream_id)]
    frames += [frame(CONTINUATION, part, stream_id=stream_id) for part in parts[1:-1]]
    frames.append(frame(CONTINUATION, parts[-1], flags=END_HEADERS, stream_id=stream_id))
    return b"".join(frames)
