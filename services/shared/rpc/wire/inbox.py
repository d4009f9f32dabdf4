"""Is the receiving side of a call: bytes to messages, and how the handler gets them.

A handler reads, as with grpc.aio, or it listens: then each message goes to it as it comes, without
a task and a wake-up for each. What the handler has not taken counts against the peer's window.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import grpc
import structlog

from services.shared.rpc.wire.frames import PREFIX, PREFIX_BYTES, ErrorCode, StreamFault
from services.shared.rpc.wire.messages import Assembly, MessageFault
from services.shared.rpc.wire.stream import RECEIVE_WINDOW, Stream

if TYPE_CHECKING:
    from services.shared.rpc.wire.peer import Peer

_log = structlog.get_logger()
EOF: Final = grpc.aio.EOF
_LEAVE_BELOW = RECEIVE_WINDOW // 2
_unpack_prefix = PREFIX.unpack_from
Listener = Callable[[bytes], None]


class Inbox(Stream):
    """Is what one call has received."""

    __slots__ = (
        "_assembly",
        "_connection",
        "_deserialize",
        "_encoding",
        "_listener",
        "_max_bytes",
        "_messages",
        "_on_end",
        "_reader",
    )

    def __init__(
        self,
        connection: "Peer",
        stream_id: int,
        *,
        max_bytes: int,
        encoding: str,
        deserialize: Callable[[bytes], Any] | None,
    ) -> None:
        """Begin empty; refuse messages of more than `max_bytes`."""
        super().__init__(connection.outlet, stream_id)
        self._connection = connection
        self._max_bytes = max_bytes
        self._encoding = encoding
        self._deserialize = deserialize
        self._assembly: Assembly | None = None
        self._messages: deque[bytes] | None = None
        self._reader: asyncio.Future[Any] | None = None
        self._listener: Listener | None = None
        self._on_end: Callable[[Exception | None], None] | None = None

    def fail(self, code: int, why: str) -> None:
        """End the call with a status."""
        raise NotImplementedError

    # What the connection brings
    def take(self, data: bytes, at: int, end: int) -> None:
        """Take `data[at:end]` of the call's body. Raises StreamFault."""
        size = end - at
        self.window -= size
        if self.window < 0:
            raise StreamFault(self.stream_id, ErrorCode.FLOW_CONTROL_ERROR)
        if self._assembly is None and size >= PREFIX_BYTES and self.content_left is None:
            flag, length = _unpack_prefix(data, at)
            if not flag and length == size - PREFIX_BYTES and length <= self._max_bytes:
                self._deliver(data[at + PREFIX_BYTES : end])
                if self.window < _LEAVE_BELOW:
                    self.give_leave()
                return
        self.count_content(size)
        self._take_piece(data[at:end])
        self.give_leave()

    def _take_piece(self, data: bytes) -> None:
        assembly = self._assembly
        if assembly is None:
            assembly = self._assembly = Assembly(self._max_bytes, self._encoding)
        before = assembly.size
        try:
            messages = assembly.feed(data)
        except MessageFault as fault:
            self.fail(fault.code, fault.why)
            return
        finally:
            self._connection.held += assembly.size - before
        if not assembly.size:
            self._assembly = None
        elif self._connection.is_full:
            # To wait would hold up every other call of the connection, perhaps for ever.
            self.fail(8, "too many large messages are under way")
        for message in messages:
            if not self.ended:
                self._deliver(message)

    def _deliver(self, message: bytes) -> None:
        listener = self._listener
        if listener is not None:
            try:
                listener(message)
            except Exception as error:  # noqa: BLE001 - told to whoever listens
                self._end_listening(error)
            return
        reader = self._reader
        if reader is not None and not reader.done():
            reader.set_result(message)
            return
        self._keep(message)

    def _keep(self, message: bytes, *, first: bool = False) -> None:
        if self._messages is None:
            self._messages = deque()
        if first:
            self._messages.appendleft(message)
        else:
            self._messages.append(message)
        self.held += len(message) + PREFIX_BYTES
        self._connection.held += len(message) + PREFIX_BYTES

    def take_end(self) -> None:
        """Take that the peer sends nothing more. Raises StreamFault."""
        self.remote_ended = True
        self.count_content(0)
        if self._assembly is not None:
            self.fail(13, "the last message is cut off")
        elif not self._messages:
            self._tell_end()

    def _tell_end(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(EOF)
        self._end_listening(None)

    def _end_listening(self, error: Exception | None) -> None:
        on_end, self._on_end, self._listener = self._on_end, None, None
        if on_end is not None:
            on_end(error)

    def drop(self) -> None:
        """Forget what was not taken: the call has ended."""
        self._connection.held -= self.held
        if self._assembly is not None:
            self._connection.held -= self._assembly.size
        self.held = 0
        self._messages = self._assembly = None
        self._listener = self._on_end = None

    # What the handler does

    async def read(self) -> Any:
        """Return the next message, or grpc.aio.EOF after the last."""
        if self._messages:
            return self.take_first()
        if self.remote_ended:
            return EOF
        if self.ended:
            raise asyncio.CancelledError
        message = await self._next_message()
        if message is EOF or self._deserialize is None:
            return message
        return self._deserialize(message)

    def take_first(self) -> Any:
        """Return the message that waits longest. Raises IndexError when none does."""
        message = self._pop()
        return message if self._deserialize is None else self._deserialize(message)

    def _pop(self) -> bytes:
        if self._messages is None:
            raise IndexError
        message = self._messages.popleft()
        size = len(message) + PREFIX_BYTES
        self.held -= size
        self._connection.held -= size
        self.give_leave()
        self._connection.give_leave()
        return message

    async def _next_message(self) -> Any:
        reader = self._reader = self._connection.loop.create_future()
        try:
            return await reader
        except asyncio.CancelledError:
            if reader.done() and not reader.cancelled() and reader.result() is not EOF:
                # It came in the turn in which the wait for it was given up.
                self._keep(reader.result(), first=True)
            raise
        finally:
            self._reader = None

    def __aiter__(self) -> "Inbox":
        return self

    async def __anext__(self) -> Any:
        message = await self.read()
        if message is EOF:
            raise StopAsyncIteration
        return message

    def listen(self, listener: Listener, on_end: Callable[[Exception | None], None]) -> None:
        """Call `listener` with each message as it comes, and with those that wait.

        `on_end` is called once after the last, or with the error that `listener` raised; neither is
        called any more once the call has ended. `pause` stops it: messages wait then, and the peer
        as soon as its window is used up.
        """
        self._on_end = on_end
        self.resume(listener)

    def pause(self) -> None:
        """Let messages wait until `resume` or `read`."""
        self._listener = None

    def resume(self, listener: Listener) -> None:
        """Go on as after `listen`."""
        self._listener = listener
        while self._messages and self._listener is not None:
            self._deliver(self._pop())
        if self.remote_ended and not self._messages and not self.ended:
            self._end_listening(None)
