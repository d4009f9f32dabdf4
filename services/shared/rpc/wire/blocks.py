"""Puts header blocks together from HEADERS and CONTINUATION, and decodes them."""

from services.shared.rpc.wire.frames import (
    END_HEADERS,
    END_STREAM,
    NUMBER,
    PADDED,
    PRIORITIZED,
    PRIORITY_BYTES,
    STREAM_ID_MOST,
    ConnectionFault,
    ErrorCode,
    unpadded,
)
from services.shared.rpc.wire.headers import BLOCK_BYTES_MOST, Fields, decode, new_decoder


class HeaderBlocks:
    """Holds the one block that may be open on a connection, and the table of its peer's headers."""

    __slots__ = ("_decoder", "_ends_stream", "_parts", "stream_id")

    def __init__(self) -> None:
        """Begin with no block open."""
        self._decoder = new_decoder()
        self._parts = bytearray()
        self._ends_stream = False
        # Of the open block; 0 when none is.
        self.stream_id = 0

    def begin(self, stream_id: int, flags: int, payload: bytes) -> bool:
        """Take a HEADERS frame; say whether the block is complete."""
        if flags & PADDED:
            payload = unpadded(payload)
        if flags & PRIORITIZED:
            if len(payload) < PRIORITY_BYTES:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "HEADERS without its priority")
            check_priority(stream_id, payload)
            payload = payload[PRIORITY_BYTES:]
        self._ends_stream = bool(flags & END_STREAM)
        return self._add(stream_id, flags, payload)

    def go_on(self, stream_id: int, flags: int, payload: bytes) -> bool:
        """Take a CONTINUATION frame; say whether the block is complete."""
        if stream_id != self.stream_id or not stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION of nothing")
        return self._add(stream_id, flags, payload)

    def _add(self, stream_id: int, flags: int, payload: bytes) -> bool:
        self._parts += payload
        if len(self._parts) > BLOCK_BYTES_MOST:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "a header block has no end")
        self.stream_id = 0 if flags & END_HEADERS else stream_id
        return not self.stream_id

    def take(self) -> tuple[bool, Fields]:
        """Return whether the complete block ends its stream, and its fields."""
        block = bytes(self._parts)
        self._parts.clear()
        return self._ends_stream, decode(self._decoder, block)


def check_priority(stream_id: int, payload: bytes) -> None:
    """Check what is otherwise ignored: a stream that depends on itself is an error."""
    if NUMBER.unpack_from(payload)[0] & STREAM_ID_MOST == stream_id:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a stream depends on itself")
