"""Is one gRPC call: its messages in and out, its status, its handler's task.

It is also the context that handlers get: what they use of grpc.aio.ServicerContext is here under
the same names. On top of that a handler may `listen` (inbox.py) and `try_send`, which spare the
wake-up of a task for each message.
"""

import asyncio
import inspect
from collections.abc import Callable, Iterable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, NoReturn

import grpc
import structlog

from services.shared.rpc.wire import headers
from services.shared.rpc.wire.frames import ErrorCode, reset_frame
from services.shared.rpc.wire.headers import Metadata, Request
from services.shared.rpc.wire.inbox import Inbox

if TYPE_CHECKING:
    from services.shared.rpc.wire.peer import Peer

    Handler = grpc.RpcMethodHandler[Any, Any]

_log = structlog.get_logger()
_TIMEOUT_SECONDS_MOST = 30 * 24 * 3600.0
_NUMBERS: Final = {code: int(code.value[0]) for code in grpc.StatusCode}


class Call(Inbox):
    """Is one call of a connection."""

    __slots__ = (
        "_callbacks",
        "_code",
        "_deadline",
        "_details",
        "_handler",
        "_headers_sent",
        "_metadata",
        "_task",
        "_timer",
        "_trailing",
    )

    def __init__(
        self,
        connection: "Peer",
        stream_id: int,
        request: Request,
        handler: "Handler",
        *,
        max_bytes: int,
    ) -> None:
        """Begin with the call's headers; `begin` starts what serves it."""
        super().__init__(
            connection,
            stream_id,
            max_bytes=max_bytes,
            encoding=request.encoding,
            deserialize=handler.request_deserializer,
        )
        self._handler = handler
        self._metadata = request.metadata
        self.content_left = request.content_length
        self._task: asyncio.Task[None] | None = None
        self._headers_sent = False
        self._code: grpc.StatusCode | None = None
        self._details = ""
        self._trailing: Iterable[tuple[str, str | bytes]] = ()
        self._callbacks: list[Callable[[Any], None]] | None = None
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        if request.timeout_seconds is not None:
            loop = connection.loop
            self._deadline = loop.time() + min(request.timeout_seconds, _TIMEOUT_SECONDS_MOST)
            self._timer = loop.call_at(self._deadline, self._pass_deadline)

    def begin(self) -> None:
        """Start the handler, unless it takes one message: then it starts when that is all."""
        if self._handler.request_streaming:
            self._start(self)

    def cancelled_by_peer(self) -> None:
        """Take that the peer gave up, or is gone."""
        self._code = grpc.StatusCode.CANCELLED
        self.break_off()
        self._cancel_task()

    def fail(self, code: int, why: str) -> None:
        """End the call from outside of its handler, which is cancelled."""
        if self.pending_bytes and not self.ended:
            # Behind what a slow peer does not take, the status would come never.
            self.outlet.put(reset_frame(self.stream_id, ErrorCode.CANCEL))
            self.break_off()
        self._end_with(code, why, ())
        self._cancel_task()

    def _cancel_task(self) -> None:
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    def _pass_deadline(self) -> None:
        self._timer = None
        if not self.ended:
            self._code = grpc.StatusCode.DEADLINE_EXCEEDED
            self.fail(4, "the deadline of the call has passed")

    @property
    def is_answered(self) -> bool:
        """Say whether anything was sent."""
        return self._headers_sent

    def has_ended(self) -> None:
        """Let go of what an open call holds."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.drop()
        self._connection.forget(self)
        for callback in self._callbacks or ():
            # Its error must not end the connection.
            self._connection.loop.call_soon(callback, self)

    def take_end(self) -> None:
        """Take that the peer sends nothing more. Raises StreamFault."""
        super().take_end()
        if self._task is None and not self.ended:
            self._start_with_one()

    # The handler

    def _start_with_one(self) -> None:
        count = len(self._messages or ())
        if count != 1:
            self.fail(12, f"the method takes one message, and {count} came")
            return
        try:
            request = self.take_first()
        except Exception:  # noqa: BLE001 - any unreadable bytes mean the same
            self.fail(13, "the message cannot be read")
            return
        self._start(request)

    def _start(self, request: Any) -> None:
        task = self._connection.loop.create_task(self._run(request))
        self._task = task
        self._connection.tasks.add(task)
        task.add_done_callback(self._connection.tasks.discard)

    async def _run(self, request: Any) -> None:
        """Run the handler to its end, and say how it ended. No error leaves."""
        handler: Any = self._handler
        try:
            if handler.response_streaming:
                behavior = handler.stream_stream or handler.unary_stream
                answers = behavior(request, self)
                if inspect.isasyncgen(answers):
                    async with aclosing(answers):
                        async for answer in answers:
                            await self.write(answer)
                else:
                    await answers
            else:
                behavior = handler.stream_unary or handler.unary_unary
                answer = await behavior(request, self)
                if not self.ended and self._end_is_open:
                    self._send_headers()
                    self.send(self._serialized(answer))
            self._end_with(_NUMBERS.get(self._code or grpc.StatusCode.OK, 2), self._details)
        except grpc.aio.AbortError:
            pass
        except asyncio.CancelledError:
            self._end_with(1, "the call was cancelled by the server")
        except Exception as error:  # noqa: BLE001 - the text of an unknown error stays here
            _log.error("handler_failed", exc_info=error)
            self._end_with(2, "the handler failed")

    @property
    def _end_is_open(self) -> bool:
        return self._end_block is None

    def _serialized(self, message: Any) -> bytes:
        serialize = self._handler.response_serializer
        data: bytes = message if serialize is None else serialize(message)
        return data

    def _send_headers(self, metadata: Iterable[tuple[str, str | bytes]] | None = None) -> None:
        if not self._headers_sent:
            self._headers_sent = True
            block = headers.ANSWER_BLOCK
            if metadata:
                block += headers.metadata_block(metadata)
            self.outlet.put_headers(self.stream_id, block, end=False)

    def _end_with(
        self,
        code: int,
        details: str,
        trailing: Iterable[tuple[str, str | bytes]] | None = None,
    ) -> None:
        if self.ended or not self._end_is_open:
            return
        trailing = self._trailing if trailing is None else trailing
        block = (
            headers.OK_BLOCK if not code and not details else headers.status_block(code, details)
        )
        if trailing:
            block += headers.metadata_block(trailing)
        if not self._headers_sent:
            self._headers_sent = True
            block = headers.ANSWER_BLOCK + block
        self.send_end(block)

    # What handlers use: as grpc.aio.ServicerContext

    async def write(self, message: Any) -> None:
        """Send one message; waits only while too much waits already."""
        if self.ended:
            raise asyncio.CancelledError
        self.send_message(self._serialized(message))
        if not self.has_room:
            await self.wait_for_room()

    def send_message(self, message: bytes) -> None:
        """Send one encoded message without waiting, however much waits already."""
        if not self.ended and self._end_is_open:
            if not self._headers_sent:
                self._send_headers()
            self.send(message)

    def try_send(self, message: bytes) -> bool:
        """Send one encoded message; say False, and do nothing, where `write` would wait first."""
        if self.ended or self.pending_bytes or not self._headers_sent or not self._end_is_open:
            return False
        self.send(message)
        return True

    async def send_initial_metadata(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Send the first headers now."""
        self._send_headers(metadata)

    async def abort(
        self,
        code: grpc.StatusCode,
        details: str = "",
        trailing_metadata: Iterable[tuple[str, str | bytes]] = (),
    ) -> NoReturn:
        """End the call with a status. Raises grpc.aio.AbortError."""
        self._code, self._details = code, details
        self._end_with(_NUMBERS[code], details, trailing_metadata)
        raise grpc.aio.AbortError

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        """End the call with a status. Raises grpc.aio.AbortError."""
        await self.abort(status.code, status.details, status.trailing_metadata or ())

    def invocation_metadata(self) -> Metadata:
        """Return what the caller sent beside its messages."""
        return self._metadata

    def forget_metadata(self) -> None:
        """Free what nobody asks for any more: a stream lasts for hours."""
        self._metadata = ()

    def set_trailing_metadata(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Set what is sent with the status."""
        self._trailing = metadata

    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]]:
        """Return what is sent with the status."""
        return self._trailing

    def set_code(self, code: grpc.StatusCode) -> None:
        """Set the status with which the call ends."""
        self._code = code

    def set_details(self, details: str) -> None:
        """Set the sentence that goes with the status."""
        self._details = details

    def code(self) -> grpc.StatusCode | None:
        """Return the status that was set, or with which the call was aborted."""
        return self._code

    def details(self) -> str:
        """Return the sentence that goes with the status."""
        return self._details

    def time_remaining(self) -> float | None:
        """Return the seconds until the deadline, None without one."""
        if self._deadline is None:
            return None
        return max(0.0, self._deadline - self._connection.loop.time())

    def peer(self) -> str:
        """Return the address of who is connected: Envoy's, mostly."""
        return self._connection.name

    def done(self) -> bool:
        """Say whether the call has ended."""
        return self.ended

    def cancelled(self) -> bool:
        """Say whether the caller gave up."""
        return self.ended and self._code is grpc.StatusCode.CANCELLED

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call `callback` with this context when the call has ended."""
        if self.ended:
            self._connection.loop.call_soon(callback, self)
            return
        self._callbacks = [*(self._callbacks or ()), callback]
