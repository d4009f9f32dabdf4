"""A peer of the wire server that speaks HTTP/2 frame by frame, without a socket."""

import asyncio
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

import grpc

from services.shared.rpc.wire import frames as h2
from services.shared.rpc.wire.connection import Connection
from services.shared.rpc.wire.headers import literal
from services.shared.rpc.wire.limits import Limits
from services.shared.rpc.wire.peer import Site

Handler = Any
PATH = "/test.Test/Call"


@dataclass(frozen=True)
class Frame:
    """Is one frame that the server sent."""

    kind: int
    flags: int
    stream_id: int
    payload: bytes

    @property
    def number(self) -> int:
        """Return the last four bytes: a window's increment, or a reset's code."""
        return int.from_bytes(self.payload[-4:], "big")


def frames_of(data: bytes) -> list[Frame]:
    """Return the frames that `data` is."""
    found, at = [], 0
    while at < len(data):
        high, low, kind, flags, stream_id = h2.FRAME.unpack_from(data, at)
        end = at + 9 + (high << 16) + low
        assert end <= len(data), "a frame is cut off"
        found.append(Frame(kind, flags, stream_id, data[at + 9 : end]))
        at = end
    return found


class MemoryTransport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.writes = 0
        self.closed = False
        self.aborted = False
        self.unsent = 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Let the test pause writing itself."""

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def write(self, data: Any) -> None:
        assert not self.closed
        self.writes += 1
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True


def request_block(path: str = PATH, *fields: tuple[bytes, bytes]) -> bytes:
    """Encode the headers of a call."""
    first = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path.encode()),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
    ]
    return b"".join(literal(name, value) for name, value in (*first, *fields))


def message(data: bytes, flag: int = 0) -> bytes:
    """Return a gRPC message with its prefix."""
    return struct.pack(">BI", flag, len(data)) + data


class WirePeer:
    """Is a client of one connection."""

    def __init__(
        self,
        handler: Handler,
        *,
        limits: Limits | None = None,
        greet: bool = True,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.site = Site(
            find_handler=lambda path: handler if path == PATH else None, limits=limits or Limits()
        )
        self.connection = Connection(self.site, loop or asyncio.get_running_loop())
        self.transport = MemoryTransport()
        self.connection.connection_made(cast("asyncio.BaseTransport", self.transport))
        if greet:
            self.receive(h2.PREFACE, h2.frame(h2.SETTINGS))

    def receive(self, *data: bytes) -> None:
        """Let the server read `data` in one piece."""
        self.connection.data_received(b"".join(data))

    def open(self, stream_id: int = 1, *, block: bytes | None = None, end: bool = False) -> None:
        """Begin a call."""
        flags = h2.END_HEADERS | (h2.END_STREAM if end else 0)
        self.receive(
            h2.frame(h2.HEADERS, block or request_block(), flags=flags, stream_id=stream_id)
        )

    def data(self, payload: bytes, stream_id: int = 1, *, end: bool = False) -> None:
        """Send DATA."""
        flags = h2.END_STREAM if end else 0
        self.receive(h2.frame(h2.DATA, payload, flags=flags, stream_id=stream_id))

    async def sent(self) -> list[Frame]:
        """Return what the server sent since the last time, once its turn is over."""
        for _ in range(50):
            await asyncio.sleep(0)
        data = bytes(self.transport.written)
        self.transport.written.clear()
        return frames_of(data)

    async def sent_of(self, kind: int) -> list[Frame]:
        """Return the frames of one kind that the server sent since the last time."""
        return [frame for frame in await self.sent() if frame.kind == kind]


def unary(behavior: Callable[[bytes, Any], Awaitable[bytes]]) -> Handler:
    """Return a handler of one message for one message, as bytes."""
    return grpc.unary_unary_rpc_method_handler(behavior)


def stream(behavior: Callable[[Any, Any], Any]) -> Handler:
    """Return a handler of messages for messages, as bytes."""
    return grpc.stream_stream_rpc_method_handler(behavior)


async def echo(request: bytes, _context: Any) -> bytes:
    """Answer with what was asked."""
    return request


async def hold(_requests: Any, context: Any) -> None:
    """Hold the call open, and read nothing."""
    await context.send_initial_metadata(())
    await asyncio.sleep(60)


async def goaway_of(peer: WirePeer) -> h2.ErrorCode:
    """Return with which error the connection ended."""
    [last] = await peer.sent_of(h2.GOAWAY)
    assert peer.transport.closed
    return h2.ErrorCode(h2.NUMBER.unpack_from(last.payload, 4)[0])


async def reset_of(peer: WirePeer) -> h2.ErrorCode:
    """Return with which error the one stream ended; the connection goes on."""
    [reset] = await peer.sent_of(h2.RST_STREAM)
    assert not peer.transport.closed
    return h2.ErrorCode(reset.number)
