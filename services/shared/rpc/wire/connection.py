"""Is one HTTP/2 connection (RFC 9113), the server's side: its socket, its life, its end.

What the socket brings is parsed in one loop; a message in a frame of its own, which is nearly all
of the traffic, goes from there to its listener in two calls. What other frames mean is in peer.py,
what is sent in outlet.py.
"""

import asyncio
from typing import Any, cast

import structlog

from services.shared.rpc.wire.frames import (
    DATA,
    FRAME,
    FRAME_DEFAULT,
    FRAME_HEADER_BYTES,
    MAX_CONCURRENT_STREAMS,
    MAX_HEADER_LIST_SIZE,
    PING,
    PREFACE,
    STREAM_ID_MOST,
    WINDOW_DEFAULT,
    ConnectionFault,
    ErrorCode,
    StreamFault,
    frame,
    goaway_frame,
    settings_frame,
)
from services.shared.rpc.wire.headers import METADATA_BYTES_MAX
from services.shared.rpc.wire.outlet import Outlet
from services.shared.rpc.wire.peer import RECEIVE_WINDOW, Peer, Site

_log = structlog.get_logger()
_LAST_ROUND = b"last one"
_SIGN_OF_LIFE = b"are you?"
_ONE_ROUND_SECONDS = 1.0


class Connection(Peer, asyncio.Protocol):
    """Is one HTTP/2 connection with many calls."""

    def __init__(self, site: Site, loop: asyncio.AbstractEventLoop) -> None:
        """Prepare a connection for the loop's server."""
        super().__init__(site, loop)
        self._transport: asyncio.Transport
        # The beginning of a frame that has not come whole, and how many bytes it takes to go on.
        self._rest = bytearray()
        self._need = 0
        self._is_prefaced = False
        self._is_over = False
        self._is_leaving = False
        self._heard = True
        self._timer: asyncio.TimerHandle | None = None

    # The socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say our settings."""
        # uvloop's transports are none of asyncio's classes.
        self._transport = transport = cast("asyncio.Transport", transport)
        transport.set_write_buffer_limits(high=self._limits.write_buffer_bytes)
        self.name = _name_of(transport.get_extra_info("peername"))
        self.outlet = outlet = Outlet(transport, self.loop)
        self._site.connections.add(self)
        outlet.put(
            settings_frame(
                {
                    MAX_CONCURRENT_STREAMS: self._limits.streams,
                    MAX_HEADER_LIST_SIZE: METADATA_BYTES_MAX,
                }
            )
        )
        self._window = RECEIVE_WINDOW
        outlet.give_leave(0, RECEIVE_WINDOW - WINDOW_DEFAULT)
        self._timer = self.loop.call_later(self._limits.ping_after_seconds, self._look_alive)

    def connection_lost(self, _error: Exception | None) -> None:
        """Cancel every call that is open."""
        self._is_over = True
        self._site.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        self.cancel_calls()

    def pause_writing(self) -> None:
        """Hold messages back."""
        self.outlet.pause()

    def resume_writing(self) -> None:
        """Send messages again."""
        self.outlet.resume()

    def eof_received(self) -> bool:
        """Close: a peer that sends nothing more cannot even give us leave to send."""
        return False

    def data_received(self, data: bytes) -> None:
        """Take what the peer sent."""
        self._heard = True
        if self._is_over:
            return
        rest = self._rest
        if rest:
            rest += data
            if len(rest) < self._need:
                return
            data = bytes(rest)
            rest.clear()
        try:
            at = self._take_frames(data) if self._is_prefaced else self._take_preface(data)
        except ConnectionFault as fault:
            self._fail(fault)
            return
        if at < len(data):
            rest += data[at:] if at else data

    def _take_preface(self, data: bytes) -> int:
        size = len(PREFACE)
        if not PREFACE.startswith(data[:size]):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "this is not HTTP/2")
        if len(data) < size:
            return 0
        self._is_prefaced = True
        return size + self._take_frames(data[size:])

    def _take_frames(self, data: bytes) -> int:
        """Take all frames that are complete, and return where the next one begins."""
        at, size, calls, blocks = 0, len(data), self._calls, self._blocks
        unpack = FRAME.unpack_from
        while size - at >= FRAME_HEADER_BYTES:
            high, length, kind, flags, stream_id = unpack(data, at)
            if high or length > FRAME_DEFAULT:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a frame is too large")
            begin = at + FRAME_HEADER_BYTES
            end = begin + length
            if end > size:
                self._need = end - at
                return at
            try:
                call = calls.get(stream_id) if kind == DATA and not flags and length else None
                if call is None or call.remote_ended or blocks.stream_id:
                    self.take_frame(kind, flags, stream_id & STREAM_ID_MOST, data[begin:end])
                else:
                    self._window -= length
                    call.take(data, begin, end)
            except StreamFault as fault:
                self.reset(fault.stream_id, fault.code)
            at = end
            if self._is_over:
                return size
        self._need = FRAME_HEADER_BYTES
        if self._window < RECEIVE_WINDOW // 2:
            if self._window < 0:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than was allowed")
            self.give_leave()
        return at

    # The end

    def _fail(self, fault: ConnectionFault) -> None:
        self._is_over = True
        _log.warning("peer_broke_protocol", code=fault.code.name, why=fault.why, peer=self.name)
        self.outlet.close(goaway_frame(self._last_id, fault.code, fault.why))
        self.cancel_calls()

    def leave(self) -> None:
        """Say that the server stops: first that it will, a round later that no call is taken."""
        if not self._is_leaving:
            self._is_leaving = True
            self.outlet.put(goaway_frame(STREAM_ID_MOST, ErrorCode.NO_ERROR))
            self.outlet.put(frame(PING, _LAST_ROUND))
            self.loop.call_later(_ONE_ROUND_SECONDS, self._take_no_more)

    def _take_no_more(self) -> None:
        if self._takes_calls and not self._is_over:
            self._takes_calls = False
            self.outlet.put(goaway_frame(self._last_id, ErrorCode.NO_ERROR))
            self._close_if_idle()

    def pinged(self, payload: bytes) -> None:
        """Go on with what waited for a round: the peer has read what was sent before."""
        if payload == _LAST_ROUND and self._is_leaving:
            self._take_no_more()

    def call_ended(self) -> None:
        """Close after the last call, when the server stops."""
        if not self._takes_calls:
            self._close_if_idle()

    def _close_if_idle(self) -> None:
        if not self._calls and not self._is_over:
            self._is_over = True
            self.outlet.flush()
            self._transport.close()

    def cut(self) -> None:
        """End all calls and close, because the server's time is over."""
        for call in list(self._calls.values()):
            call.fail(14, "the server stops")
        if not self._is_over:
            self._is_over = True
            self.outlet.close(goaway_frame(self._last_id, ErrorCode.NO_ERROR))

    def _look_alive(self) -> None:
        """Ask a peer that is silent for a sign of life; without one, close."""
        limits = self._limits
        if self._heard:
            self._heard = False
            self._timer = self.loop.call_later(limits.ping_after_seconds, self._look_alive)
            return
        self.outlet.put(frame(PING, _SIGN_OF_LIFE))
        self._timer = self.loop.call_later(limits.ping_answer_seconds, self._give_up)

    def _give_up(self) -> None:
        if self._heard:
            self._look_alive()
        else:
            self._transport.abort()


def _name_of(address: Any) -> str:
    if isinstance(address, tuple):
        return f"ipv{6 if ':' in address[0] else 4}:{address[0]}:{address[1]}"
    return "unix:"
