"""Is the alphabet of HTTP/2 (RFC 9113): kinds of frames, flags, settings, error codes, encoding."""

import struct
from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE = 0, 1, 2, 3, 4, 5
PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITIZED = 0x1, 0x1, 0x4, 0x8, 0x20
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS = 1, 2, 3
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 4, 5, 6
WINDOW_DEFAULT = 65_535
WINDOW_MOST = (1 << 31) - 1
FRAME_DEFAULT = 16_384
FRAME_MOST = (1 << 24) - 1
STREAM_ID_MOST = (1 << 31) - 1
FRAME_HEADER_BYTES = 9
# gRPC's own prefix of a message: whether it is compressed, and its length.
PREFIX_BYTES = 5
PRIORITY_BYTES = 5

FRAME = struct.Struct(">BHBBI")
# A frame of DATA that holds exactly one message; for lengths that need two bytes at most.
FRAME_AND_PREFIX = struct.Struct(">BHBBIBI")
PREFIX = struct.Struct(">BI")
SETTING = struct.Struct(">HI")
NUMBER = struct.Struct(">I")
TWO_NUMBERS = struct.Struct(">II")


class ErrorCode(IntEnum):
    """Says why a stream or a connection ends (RFC 9113, 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11


class ConnectionFault(Exception):  # noqa: N818 - RFC 9113 says "connection error" of the whole
    """Says that the peer broke the protocol in a way that ends the connection."""

    def __init__(self, code: ErrorCode, why: str) -> None:
        """Take the code and what is told with it."""
        super().__init__(why)
        self.code = code
        self.why = why


class StreamFault(Exception):  # noqa: N818 - as above
    """Says that the peer broke the protocol in a way that ends one stream."""

    def __init__(self, stream_id: int, code: ErrorCode) -> None:
        """Take the stream and the code."""
        super().__init__(code.name)
        self.stream_id = stream_id
        self.code = code


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream_id: int = 0) -> bytes:
    """Encode one frame."""
    size = len(payload)
    return FRAME.pack(size >> 16, size & 0xFFFF, kind, flags, stream_id) + payload


def settings_frame(values: dict[int, int]) -> bytes:
    """Encode our settings."""
    return frame(SETTINGS, b"".join(SETTING.pack(*item) for item in values.items()))


def window_frame(stream_id: int, increment: int) -> bytes:
    """Encode leave to send `increment` bytes more; stream 0 is the connection."""
    return frame(WINDOW_UPDATE, NUMBER.pack(increment), stream_id=stream_id)


def reset_frame(stream_id: int, code: ErrorCode) -> bytes:
    """Encode the end of one stream."""
    return frame(RST_STREAM, NUMBER.pack(code), stream_id=stream_id)


def goaway_frame(last_id: int, code: ErrorCode, why: str = "") -> bytes:
    """Encode the end of the connection: streams above `last_id` were not looked at."""
    return frame(GOAWAY, TWO_NUMBERS.pack(last_id, code) + why.encode())


def unpadded(payload: bytes) -> bytes:
    """Return the payload of a padded frame without its padding. Raises ConnectionFault."""
    if not payload or payload[0] >= len(payload):
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "more padding than payload")
    return payload[1 : len(payload) - payload[0]]
