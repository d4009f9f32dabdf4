"""Is what each frame of a peer means for its connection and calls (RFC 9113, 5 and 6).

connection.py reads frames from the socket; here they change streams, windows and settings, or break
a rule: then a ConnectionFault or StreamFault says which.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from services.shared.rpc.wire.blocks import HeaderBlocks, check_priority
from services.shared.rpc.wire.call import Call
from services.shared.rpc.wire.frames import (
    ACK,
    CONTINUATION,
    DATA,
    ENABLE_PUSH,
    END_STREAM,
    FRAME_DEFAULT,
    FRAME_MOST,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_FRAME_SIZE,
    NUMBER,
    PADDED,
    PING,
    PRIORITY,
    PRIORITY_BYTES,
    PUSH_PROMISE,
    RST_STREAM,
    SETTING,
    SETTINGS,
    WINDOW_DEFAULT,
    WINDOW_MOST,
    WINDOW_UPDATE,
    ConnectionFault,
    ErrorCode,
    StreamFault,
    frame,
    reset_frame,
    unpadded,
)
from services.shared.rpc.wire.headers import (
    Fields,
    MalformedRequestError,
    RefusedRequestError,
    Request,
    check_trailers,
    refused,
    request_of,
)
from services.shared.rpc.wire.limits import MEBIBYTE, Budget, Limits
from services.shared.rpc.wire.outlet import Outlet

if TYPE_CHECKING:
    import grpc

    Handler = grpc.RpcMethodHandler[Any, Any]

# What a peer may send on all streams together before we give leave for more.
RECEIVE_WINDOW = 16 * MEBIBYTE
PING_BYTES = 8
_CLOSED_KEPT = 1_024


@dataclass(slots=True)
class Site:
    """Is what all connections of a server share."""

    find_handler: Callable[[str], "Handler | None"]
    limits: Limits
    read_request: Callable[[Fields], Request] = request_of
    connections: set[Any] = field(default_factory=set)
    tasks: set["asyncio.Task[None]"] = field(default_factory=set)


class Peer:
    """Is the state of one connection, as the peer's frames change it."""

    def __init__(self, site: Site, loop: asyncio.AbstractEventLoop) -> None:
        """Begin with a peer that has said nothing."""
        limits = site.limits
        self.loop = loop
        self.tasks = site.tasks
        self.held = 0
        self.name = ""
        # Set when the connection is made, before any frame comes.
        self.outlet: Outlet
        self._site = site
        self._limits = limits
        self._calls: dict[int, Call] = {}
        # Streams that ended lately, and whether the peer may not have heard of it yet.
        self._closed: dict[int, bool] = {}
        self._last_id = 0
        self._is_greeted = False
        self._takes_calls = True
        self._blocks = HeaderBlocks()
        self._window = WINDOW_DEFAULT
        self._resets = Budget(loop.time, limits.resets)
        self._idle_frames = Budget(loop.time, limits.idle_frames)

    def pinged(self, payload: bytes) -> None:
        """Take the answer to our PING."""
        raise NotImplementedError

    def call_ended(self) -> None:
        """Take that a call has ended."""
        raise NotImplementedError

    def take_frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """Take any frame. Raises ConnectionFault or StreamFault."""
        if not self._is_greeted:
            if kind != SETTINGS or flags & ACK:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "settings come first")
            self._is_greeted = True
        if self._blocks.stream_id and kind != CONTINUATION:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a header block is not complete")
        if kind == DATA:
            self._take_data(flags, stream_id, payload)
        elif kind in (HEADERS, CONTINUATION):
            self._take_block(kind, flags, stream_id, payload)
        elif kind == WINDOW_UPDATE:
            self._take_leave(stream_id, payload)
        elif kind == RST_STREAM:
            self._take_reset(stream_id, payload)
        else:
            self._count_idle()
            self._take_control(kind, flags, stream_id, payload)

    def _take_block(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "headers without a stream")
        if kind == HEADERS:
            is_complete = self._blocks.begin(stream_id, flags, payload)
        else:
            if not payload:
                self._count_idle()
            is_complete = self._blocks.go_on(stream_id, flags, payload)
        if is_complete:
            self._take_headers(stream_id)

    def _count_idle(self) -> None:
        if not self._idle_frames.spend():
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many frames that carry nothing")

    def _count_reset(self) -> None:
        if not self._resets.spend():
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many streams are broken off")

    def _take_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "DATA without a stream")
        size = len(payload)
        if not size and not flags & END_STREAM:
            self._count_idle()
        # What is sent to a stream that ended counts for the connection all the same.
        self._window -= size
        if self._window < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than was allowed")
        call = self._calls.get(stream_id)
        if call is None:
            self._check_not_idle(stream_id)
            if self._closed.get(stream_id):
                return
            raise StreamFault(stream_id, ErrorCode.STREAM_CLOSED)
        if call.remote_ended:
            raise StreamFault(stream_id, ErrorCode.STREAM_CLOSED)
        if flags & PADDED:
            payload = unpadded(payload)
            call.window -= size - len(payload)
        if payload:
            call.take(payload, 0, len(payload))
        if flags & END_STREAM and not call.remote_ended:
            call.take_end()

    def _check_not_idle(self, stream_id: int) -> None:
        if stream_id > self._last_id or not stream_id % 2:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the stream was never opened")

    def _take_headers(self, stream_id: int) -> None:
        ends_stream, fields = self._blocks.take()
        call = self._calls.get(stream_id)
        if call is not None:
            self._take_trailers(call, fields, ends_stream=ends_stream)
            return
        if stream_id <= self._last_id:
            in_flight = self._closed.get(stream_id)
            if in_flight:
                return
            code = ErrorCode.PROTOCOL_ERROR if in_flight is None else ErrorCode.STREAM_CLOSED
            raise ConnectionFault(code, "HEADERS of a stream that has ended")
        if not stream_id % 2:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "streams of clients are odd")
        self._last_id = stream_id
        if not self._takes_calls or len(self._calls) >= self._limits.streams:
            raise StreamFault(stream_id, ErrorCode.REFUSED_STREAM)
        self._open(stream_id, fields, ends_stream=ends_stream)

    def _take_trailers(self, call: Call, fields: Fields, *, ends_stream: bool) -> None:
        if call.remote_ended:
            raise StreamFault(call.stream_id, ErrorCode.STREAM_CLOSED)
        try:
            check_trailers(fields)
        except MalformedRequestError:
            raise StreamFault(call.stream_id, ErrorCode.PROTOCOL_ERROR) from None
        if not ends_stream:
            raise StreamFault(call.stream_id, ErrorCode.PROTOCOL_ERROR)
        call.take_end()

    def _open(self, stream_id: int, fields: Fields, *, ends_stream: bool) -> None:
        try:
            request = self._site.read_request(fields)
            handler = self._site.find_handler(request.path)
            if handler is None:
                raise refused(12, "no method has this name")
        except MalformedRequestError:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR) from None
        except RefusedRequestError as refusal:
            self._count_reset()
            self.outlet.put_headers(stream_id, refusal.block, end=True)
            if not ends_stream:
                self.outlet.put(reset_frame(stream_id, ErrorCode.NO_ERROR))
            self._remember_closed(stream_id, in_flight=not ends_stream)
            return
        call = Call(self, stream_id, request, handler, max_bytes=self._limits.message_bytes)
        self._calls[stream_id] = call
        call.begin()
        if ends_stream:
            call.take_end()

    def _take_leave(self, stream_id: int, payload: bytes) -> None:
        if len(payload) != NUMBER.size:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE has four bytes")
        increment = NUMBER.unpack(payload)[0] & WINDOW_MOST
        call = self._calls.get(stream_id)
        if stream_id and call is None:
            self._check_not_idle(stream_id)
            return
        credit = self.outlet.credit if call is None else call.credit
        if not increment or credit + increment > WINDOW_MOST:
            code = ErrorCode.FLOW_CONTROL_ERROR if increment else ErrorCode.PROTOCOL_ERROR
            if call is not None:
                raise StreamFault(stream_id, code)
            raise ConnectionFault(code, "the window is none")
        self.outlet.allow(call, increment)

    def _take_reset(self, stream_id: int, payload: bytes) -> None:
        if len(payload) != NUMBER.size:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM has four bytes")
        self._check_not_idle(stream_id)
        call = self._calls.get(stream_id)
        if call is not None:
            if not call.is_answered:
                self._count_reset()
            call.cancelled_by_peer()
        self._remember_closed(stream_id, in_flight=False)

    def _take_control(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind == SETTINGS:
            self._take_settings(flags, stream_id, payload)
        elif kind == PING:
            self._take_ping(flags, stream_id, payload)
        elif kind == PRIORITY:
            if not stream_id:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PRIORITY without a stream")
            if len(payload) != PRIORITY_BYTES:
                raise StreamFault(stream_id, ErrorCode.FRAME_SIZE_ERROR)
            check_priority(stream_id, payload)
        elif kind == PUSH_PROMISE or (kind == GOAWAY and stream_id):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "clients do not send this")

    def _take_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PING is of the connection")
        if len(payload) != PING_BYTES:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "PING has eight bytes")
        if flags & ACK:
            self.pinged(payload)
        else:
            self.outlet.put(frame(PING, payload, flags=ACK))

    def _take_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "SETTINGS are of the connection")
        if len(payload) % SETTING.size or (flags & ACK and payload):
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS have six bytes each")
        if flags & ACK:
            return
        for name, value in SETTING.iter_unpack(payload):
            self._take_setting(name, value)
        # RFC 9113, 6.5.3: at once, so before anything that the new values let us send.
        self.outlet.put(frame(SETTINGS, flags=ACK))
        self.outlet.pump()

    def _take_setting(self, name: int, value: int) -> None:
        if name == INITIAL_WINDOW_SIZE:
            if value > WINDOW_MOST:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "the window is too large")
            more = value - self.outlet.initial_credit
            self.outlet.initial_credit = value
            for call in list(self._calls.values()):
                if call.credit + more > WINDOW_MOST:
                    raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a window overflows")
                call.credit += more
                self.outlet.wants_to_send(call)
        elif (name == ENABLE_PUSH and value > 1) or (
            name == MAX_FRAME_SIZE and not FRAME_DEFAULT <= value <= FRAME_MOST
        ):
            raise ConnectionFault(
                ErrorCode.PROTOCOL_ERROR, "a setting has a value that it cannot have"
            )

    def forget(self, call: Call) -> None:
        """Take that a call has ended on our side."""
        if self._calls.pop(call.stream_id, None) is not None:
            self._remember_closed(call.stream_id, in_flight=not call.remote_ended)
        self.call_ended()

    def _remember_closed(self, stream_id: int, *, in_flight: bool) -> None:
        closed = self._closed
        closed[stream_id] = in_flight
        if len(closed) > _CLOSED_KEPT:
            del closed[next(iter(closed))]

    def reset(self, stream_id: int, code: ErrorCode) -> None:
        """Break a stream off. Raises ConnectionFault if there were too many."""
        self.outlet.put(reset_frame(stream_id, code))
        call = self._calls.get(stream_id)
        if call is not None:
            call.cancelled_by_peer()
        self._remember_closed(stream_id, in_flight=True)
        self._count_reset()

    def cancel_calls(self) -> None:
        """End every call: nobody hears its answer any more."""
        for call in list(self._calls.values()):
            call.cancelled_by_peer()

    @property
    def is_full(self) -> bool:
        """Say whether too much waits for the application, or for the rest of it."""
        return self.held >= self._limits.held_bytes

    def give_leave(self) -> None:
        """Let the peer send again, unless too much waits for the application."""
        increment = RECEIVE_WINDOW - self._window
        if increment > RECEIVE_WINDOW // 2 and not self.is_full:
            self._window = RECEIVE_WINDOW
            self.outlet.give_leave(0, increment)
