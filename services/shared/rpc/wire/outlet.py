"""Is what a connection sends: frames gather here and leave together, at most once a loop's turn."""

import asyncio

from services.shared.rpc.wire.frames import WINDOW_DEFAULT, window_frame
from services.shared.rpc.wire.stream import Stream, headers_frames

# What may gather for one write; beyond it messages wait in their streams.
OUT_BYTES_MAX = 1_048_576
# What may wait in all streams of a connection before every write waits until its own has left.
PENDING_BYTES_MAX = 16 * 1_048_576
# Answers to settings and pings that a peer asks for and does not read.
_UNREAD_BYTES_MAX = 8 * 1_048_576


class Outlet:
    """Gathers frames of one connection, as far as the peer's windows and the socket allow."""

    __slots__ = (
        "_loop",
        "_paused",
        "_transport",
        "_waiting",
        "credit",
        "initial_credit",
        "out",
        "pending_bytes",
        "room",
    )

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        """Write to `transport`."""
        self._transport = transport
        self._loop = loop
        self._paused = False
        self._waiting: dict[Stream, None] = {}
        self.out: list[bytes] = []
        self.room = OUT_BYTES_MAX
        # What the peer lets us send on the connection, and at first on each stream.
        self.credit = WINDOW_DEFAULT
        self.initial_credit = WINDOW_DEFAULT
        self.pending_bytes = 0

    @property
    def is_crowded(self) -> bool:
        """Say whether so much waits that nobody should add to it."""
        return self.pending_bytes > PENDING_BYTES_MAX

    def put(self, data: bytes) -> None:
        """Add whole frames that flow control has nothing to do with, or has allowed."""
        if not self.out:
            self.flush_soon()
        self.out.append(data)
        self.room -= len(data)

    def put_headers(self, stream_id: int, block: bytes, *, end: bool) -> None:
        """Add a header block."""
        self.put(headers_frames(stream_id, block, end=end))

    def flush_soon(self) -> None:
        """Let what gathers leave at the end of this turn."""
        self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Let everything leave now."""
        if self.out:
            data = b"".join(self.out)
            self.out.clear()
            if not self._transport.is_closing():
                self._transport.write(data)
            if self._paused:
                self._check_unread()
            self.room = 0 if self._paused else OUT_BYTES_MAX
        if self._waiting and self.room > 0:
            self.pump()

    def pause(self) -> None:
        """Hold messages back: the socket takes no more."""
        self._paused = True
        self.room = 0

    def _check_unread(self) -> None:
        if self._transport.get_write_buffer_size() > _UNREAD_BYTES_MAX:
            self._transport.abort()

    def resume(self) -> None:
        """Go on: the socket has room again."""
        self._paused = False
        self.room = OUT_BYTES_MAX
        self.pump()

    def wants_to_send(self, stream: Stream) -> None:
        """Note a stream that has something to send when there is room."""
        if stream.may_drain:
            self._waiting[stream] = None

    def forget(self, stream: Stream) -> None:
        """Forget what a stream wanted to send."""
        self._waiting.pop(stream, None)

    def pump(self) -> None:
        """Let streams that wait send in turn, as long as there is leave and room."""
        waiting = self._waiting
        for _ in range(len(waiting)):
            if self.room <= 0 or self.credit <= 0:
                break
            stream = next(iter(waiting))
            del waiting[stream]
            stream.drain()

    def allow(self, stream: Stream | None, increment: int) -> None:
        """Take leave to send more, on a stream or on the connection."""
        if stream is None:
            self.credit += increment
        else:
            stream.credit += increment
            self.wants_to_send(stream)
        if self._waiting:
            self.pump()

    def give_leave(self, stream_id: int, increment: int) -> None:
        """Let the peer send `increment` bytes more."""
        self.put(window_frame(stream_id, increment))

    def close(self, data: bytes) -> None:
        """Send the last words and close."""
        self.put(data)
        self.flush()
        self._transport.close()
