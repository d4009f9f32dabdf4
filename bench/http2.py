"""A gRPC client that costs next to nothing: HTTP/2 by hand, for many streams of small messages.

Used by what measures calls and streams. The generator shares the machine with what it measures, a
stream of grpc.aio costs the client as much as the server, and here a message a few microseconds.
It does what HTTP/2 asks of a client (RFC 9113): settings, flow control in both directions, pings,
resets, and frames that are split or merged anywhere.
"""

import asyncio
import struct
from collections.abc import Mapping
from typing import cast

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS, PADDED = 0x1, 0x1, 0x4, 0x8
HEADER_TABLE_SIZE, ENABLE_PUSH, INITIAL_WINDOW_SIZE = 1, 2, 4
WINDOW_DEFAULT = 65_535
WINDOW_MOST = (1 << 31) - 1
_WINDOW_REFRESH = 1 << 29
_FRAME = struct.Struct(">BHBBI")
_FRAME_AND_PREFIX = struct.Struct(">BHBBIBI")
_PREFIX_BYTES = 5
_STATUS_UNKNOWN = 2
_CANCEL = 8
# Names of the trailer: as gRPC writes it, and as Envoy does (Huffman code of RFC 7541).
_STATUS_NAMES = (b"\x0bgrpc-status", b"\x88\x9a\xca\xc8\xb2\x12\x34\xda\x8f")


def header_block(headers: Mapping[str, str]) -> bytes:
    """Encode headers as literals that nobody needs to remember (RFC 7541, 6.2.2)."""
    parts = []
    for name, value in headers.items():
        parts += [b"\x00", _string(name), _string(value)]
    return b"".join(parts)


def _string(text: str) -> bytes:
    data = text.encode()
    if len(data) < 127:
        return bytes((len(data),)) + data
    rest, length = len(data) - 127, bytearray(b"\x7f")
    while rest >= 128:
        length.append(rest % 128 + 128)
        rest //= 128
    length.append(rest)
    return bytes(length) + data


def frame(kind: int, payload: bytes, *, flags: int = 0, stream_id: int = 0) -> bytes:
    """Encode one frame."""
    return _FRAME.pack(len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, stream_id) + payload


def status_of(block: bytes) -> int | None:
    """Return grpc-status of a header block, None when it has none that can be read."""
    for name in _STATUS_NAMES:
        at = block.find(name)
        if at >= 0:
            start = at + len(name)
            text = block[start + 1 : start + 1 + block[start]]
            return int(text) if text.isdigit() else _STATUS_UNKNOWN
    return None


class Stream:
    """Is one call; subclasses say what to do with its messages."""

    __slots__ = ("_rest", "connection", "credit", "ended", "status", "stream_id")

    def __init__(self, connection: "Connection") -> None:
        """Prepare a call on `connection`."""
        self.connection = connection
        self.stream_id = 0
        self.credit = 0
        self.ended = False
        self.status: int | None = None
        self._rest = b""

    def receive(self, message: bytes) -> None:
        """Take one message of the server."""
        raise NotImplementedError

    def end(self, status: int | None) -> None:
        """Take the end of the call; None when the server said no status."""
        if not self.ended:
            self.ended = True
            self.status = status

    def feed(self, data: bytes) -> None:
        """Take bytes of the call's body and split them into messages."""
        if self._rest:
            data = self._rest + data
        at, size = 0, len(data)
        while size - at >= _PREFIX_BYTES:
            length = int.from_bytes(data[at + 1 : at + _PREFIX_BYTES], "big")
            end = at + _PREFIX_BYTES + length
            if end > size:
                break
            self.receive(data[at + _PREFIX_BYTES : end])
            at = end
        self._rest = data[at:]


class Connection(asyncio.Protocol):
    """Is one HTTP/2 connection with many calls. What is written leaves with `flush`."""

    def __init__(self) -> None:
        """Prepare a connection for `loop.create_connection`."""
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, Stream] = {}
        self._next_id = 1
        self._rest = b""
        self._out: list[bytes] = []
        self._credit = WINDOW_DEFAULT
        self._initial_credit = WINDOW_DEFAULT
        self._unreported = 0
        self.held_back_count = 0
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say our settings: no header table, and windows so wide that the server never waits."""
        # uvloop's transports are none of asyncio's classes.
        self._transport = transport = cast("asyncio.Transport", transport)
        settings = ((HEADER_TABLE_SIZE, 0), (ENABLE_PUSH, 0), (INITIAL_WINDOW_SIZE, WINDOW_MOST))
        payload = b"".join(struct.pack(">HI", name, value) for name, value in settings)
        window = struct.pack(">I", WINDOW_MOST - WINDOW_DEFAULT)
        transport.write(PREFACE + frame(SETTINGS, payload) + frame(WINDOW_UPDATE, window))

    def connection_lost(self, _error: Exception | None) -> None:
        """End every call that is open."""
        self.lost = True
        for stream in self._streams.values():
            stream.end(None)
        self._streams.clear()

    def open(self, stream: Stream, *, block: bytes, message: bytes, is_last: bool) -> None:
        """Begin a call with its headers and its first message."""
        stream.stream_id = self._next_id
        stream.credit = self._initial_credit
        self._next_id += 2
        self._streams[stream.stream_id] = stream
        self._out.append(frame(HEADERS, block, flags=END_HEADERS, stream_id=stream.stream_id))
        self.send(stream, message, is_last=is_last)

    def send(self, stream: Stream, message: bytes, *, is_last: bool = False) -> bool:
        """Write one message; say False when flow control holds it back: it is not sent then."""
        body = len(message) + _PREFIX_BYTES
        if body > stream.credit or body > self._credit:
            self.held_back_count += 1
            return False
        stream.credit -= body
        self._credit -= body
        flags = END_STREAM if is_last else 0
        prefix = _FRAME_AND_PREFIX.pack(0, body, DATA, flags, stream.stream_id, 0, len(message))
        self._out.append(prefix + message)
        return True

    def cancel(self, stream: Stream) -> None:
        """End a call from our side, as a phone does whose app is closed."""
        if self._streams.pop(stream.stream_id, None) is not None:
            payload = struct.pack(">I", _CANCEL)
            self._out.append(frame(RST_STREAM, payload, stream_id=stream.stream_id))
            stream.end(None)

    def flush(self) -> None:
        """Let what was written leave, in one piece."""
        if self._out and self._transport is not None and not self.lost:
            self._transport.write(b"".join(self._out))
            self._out.clear()

    def close(self) -> None:
        """Close at once; the server sees all its calls cancelled."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take what the server sent."""
        if self._rest:
            data = self._rest + data
        at, size = 0, len(data)
        unpack = _FRAME.unpack_from
        while size - at >= 9:
            high, low, kind, flags, stream_id = unpack(data, at)
            end = at + 9 + (high << 16) + low
            if end > size:
                break
            if kind == DATA:
                self._take_data(data[at + 9 : end], flags, stream_id)
            else:
                self._take_other(kind, flags, stream_id, data[at + 9 : end])
            at = end
        self._rest = data[at:]
        self.flush()

    def _take_data(self, payload: bytes, flags: int, stream_id: int) -> None:
        assert not flags & PADDED, "gRPC servers pad nothing"
        self._unreported += len(payload)
        if self._unreported >= _WINDOW_REFRESH:
            self._out.append(frame(WINDOW_UPDATE, struct.pack(">I", self._unreported)))
            self._unreported = 0
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.feed(payload)
            if flags & END_STREAM:
                self._end(stream_id, None)

    def _take_other(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind == HEADERS:
            if flags & END_STREAM:
                self._end(stream_id, status_of(payload))
        elif kind == WINDOW_UPDATE:
            self._take_window(stream_id, struct.unpack(">I", payload)[0])
        elif kind == SETTINGS and not flags & ACK:
            self._take_settings(payload)
        elif kind == PING and not flags & ACK:
            self._out.append(frame(PING, payload, flags=ACK))
        elif kind == RST_STREAM:
            self._end(stream_id, None)

    def _take_window(self, stream_id: int, increment: int) -> None:
        if stream_id == 0:
            self._credit += increment
        elif stream_id in self._streams:
            self._streams[stream_id].credit += increment

    def _take_settings(self, payload: bytes) -> None:
        for at in range(0, len(payload), 6):
            name, value = struct.unpack_from(">HI", payload, at)
            if name == INITIAL_WINDOW_SIZE:
                for stream in self._streams.values():
                    stream.credit += value - self._initial_credit
                self._initial_credit = value
        self._out.append(frame(SETTINGS, b"", flags=ACK))

    def _end(self, stream_id: int, status: int | None) -> None:
        stream = self._streams.pop(stream_id, None)
        if stream is not None:
            stream.end(status)
