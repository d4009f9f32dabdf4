"""Turns header blocks into gRPC requests, and answers into header blocks. Pure but for HPACK.

Requests go through the `hpack` package. Answers are literals that nobody has to remember (RFC 7541,
6.2.2): a call answers with the same dozen bytes each time, so an encoder's table would win nothing.
"""

import base64
import binascii
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, cast

import hpack
import hpack.hpack

from services.shared.rpc.wire.frames import ConnectionFault, ErrorCode

Metadata = tuple[tuple[str, str | bytes], ...]
Fields = Sequence[tuple[bytes, bytes]]
# Envoy takes 60 KiB from its callers. One caller's headers must not end a connection that thousands
# share, so these bounds are above what Envoy passes on; what a call may have is less.
BLOCK_BYTES_MOST: Final = 128 * 1024
LIST_BYTES_MOST: Final = 256 * 1024
METADATA_BYTES_MAX: Final = 16 * 1024
_FIELD_OVERHEAD_BYTES = 32
_TEXTS_REMEMBERED = 2_048
_REMEMBERED_BYTES_MAX = 1_024
_UNIT_SECONDS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_TIMEOUT_DIGITS_MAX = 8
_CONNECTION_HEADERS = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
)
_PSEUDO_HEADERS = frozenset((b":method", b":scheme", b":path", b":authority"))
# What gRPC itself needs is no metadata of the call.
_OWN_HEADERS = frozenset(
    (
        b"te",
        b"content-type",
        b"grpc-timeout",
        b"grpc-encoding",
        b"grpc-accept-encoding",
        b"content-length",
    )
)
_UPPERCASE = frozenset(range(ord("A"), ord("Z") + 1))
_ENCODINGS = b"identity, deflate, gzip"


def _remembering(decode: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Return Huffman's decoding with a memory for short texts."""
    remembered = lru_cache(maxsize=_TEXTS_REMEMBERED)(decode)
    return lambda data: (remembered if len(data) <= _REMEMBERED_BYTES_MAX else decode)(data)


# A caller's token comes with each of its calls; bit by bit in Python it takes longer than the call.
_codec: Any = hpack.hpack
_codec.decode_huffman = _remembering(_codec.decode_huffman)
# It would tell tokens to whoever sets the root logger to DEBUG.
logging.getLogger("hpack").setLevel(logging.WARNING)


class MalformedRequestError(Exception):
    """Says that headers are no request of HTTP/2 (RFC 9113, 8.1.1): the stream is reset."""


class RefusedRequestError(Exception):
    """Says that a request is answered without a handler."""

    def __init__(self, block: bytes) -> None:
        """Take the whole answer as a header block."""
        super().__init__()
        self.block = block


@dataclass(slots=True)
class Request:
    """Is what the headers of a call say."""

    path: str
    metadata: Metadata
    timeout_seconds: float | None
    encoding: str
    content_length: int | None


def new_decoder() -> hpack.Decoder:
    """Return a decoder for one connection."""
    return hpack.Decoder(max_header_list_size=LIST_BYTES_MOST)


def decode(decoder: hpack.Decoder, block: bytes) -> Fields:
    """Return the fields of a block. Raises ConnectionFault: the table is lost after an error."""
    try:
        return cast("Fields", decoder.decode(block, raw=True))
    except hpack.OversizedHeaderListError:
        raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many headers") from None
    except (hpack.HPACKError, IndexError, ValueError):
        raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, "unreadable headers") from None


def check_fields(fields: Fields) -> dict[bytes, bytes]:
    """Return the pseudo-headers of a request. Raises MalformedRequestError."""
    pseudo: dict[bytes, bytes] = {}
    regular = False
    for name, value in fields:
        if name[:1] == b":":
            if regular or name in pseudo or name not in _PSEUDO_HEADERS:
                raise MalformedRequestError
            pseudo[name] = value
            continue
        regular = True
        if name in _CONNECTION_HEADERS or (name == b"te" and value != b"trailers"):
            raise MalformedRequestError
        if not name or not _UPPERCASE.isdisjoint(name):
            raise MalformedRequestError
        if b"\0" in value or b"\r" in value or b"\n" in value:
            raise MalformedRequestError
    return pseudo


def check_trailers(fields: Fields) -> None:
    """Check what comes after a request's body. Raises MalformedRequestError."""
    if check_fields(fields):
        raise MalformedRequestError


def request_of(fields: Fields) -> Request:
    """Return the request. Raises MalformedRequestError or RefusedRequestError."""
    pseudo = check_fields(fields)
    if not pseudo.get(b":path") or b":method" not in pseudo or b":scheme" not in pseudo:
        raise MalformedRequestError
    if pseudo[b":method"] != b"POST":
        raise RefusedRequestError(b"\x08\x03405" + literal(b"allow", b"POST"))
    own = {name: value for name, value in fields if name in _OWN_HEADERS}
    kind = own.get(b"content-type", b"")
    if kind != b"application/grpc" and not kind.startswith(
        (b"application/grpc+", b"application/grpc;")
    ):
        raise RefusedRequestError(b"\x08\x03415")
    size = sum(len(name) + len(value) + _FIELD_OVERHEAD_BYTES for name, value in fields)
    if size > METADATA_BYTES_MAX:
        raise refused(8, f"the metadata has {size} bytes, at most {METADATA_BYTES_MAX} are read")
    return Request(
        path=pseudo[b":path"].decode("latin-1"),
        metadata=_metadata_of(fields),
        timeout_seconds=_timeout_of(own.get(b"grpc-timeout")),
        encoding=_encoding_of(own.get(b"grpc-encoding", b"identity")),
        content_length=_length_of(own.get(b"content-length")),
    )


def _length_of(text: bytes | None) -> int | None:
    if text is None:
        return None
    if not text.isdigit():
        raise MalformedRequestError
    return int(text)


def _encoding_of(name: bytes) -> str:
    if name not in (b"identity", b"gzip", b"deflate"):
        raise refused(
            12, "the messages' encoding is not known here", ((b"grpc-accept-encoding", _ENCODINGS),)
        )
    return name.decode()


def _timeout_of(value: bytes | None) -> float | None:
    if value is None:
        return None
    text = value.decode("latin-1")
    digits, unit = text[:-1], text[-1:]
    known = digits.isascii() and digits.isdigit() and unit in _UNIT_SECONDS
    if not known or len(digits) > _TIMEOUT_DIGITS_MAX:
        raise refused(13, "grpc-timeout is no time")
    return int(digits) * _UNIT_SECONDS[unit]


def _metadata_of(fields: Fields) -> Metadata:
    metadata: list[tuple[str, str | bytes]] = []
    for name, value in fields:
        if name[:1] == b":" or name in _OWN_HEADERS:
            continue
        try:
            key = name.decode("ascii")
            if name.endswith(b"-bin"):
                metadata += [(key, _unbase64(part)) for part in value.split(b",")]
            else:
                text = value.decode("ascii")
                if not text.isprintable() and text:
                    raise ValueError
                metadata.append((key, text))
        except (ValueError, binascii.Error):
            raise refused(
                3, "metadata is printable ASCII, or base64 where its name ends in -bin"
            ) from None
    return tuple(metadata)


def _unbase64(text: bytes) -> bytes:
    text = text.strip().rstrip(b"=")
    return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)


def refused(code: int, why: str, more: Fields = ()) -> RefusedRequestError:
    """Return the answer to a call that gets no handler."""
    return RefusedRequestError(ANSWER_BLOCK + status_block(code, why, more))


def literal(name: bytes, value: bytes) -> bytes:
    """Encode a field that nobody needs to remember (RFC 7541, 6.2.2)."""
    return b"\x00" + _string(name) + _string(value)


def _string(data: bytes) -> bytes:
    size = len(data)
    if size < 127:
        return bytes((size,)) + data
    rest, length = size - 127, bytearray(b"\x7f")
    while rest >= 128:
        length.append(rest % 128 + 128)
        rest //= 128
    length.append(rest)
    return bytes(length) + data


def metadata_block(metadata: Iterable[tuple[str, str | bytes]] | None) -> bytes:
    """Encode a call's metadata."""
    parts = []
    for name, value in metadata or ():
        key = name.lower().encode("ascii")
        if key.endswith(b"-bin"):
            raw = value.encode() if isinstance(value, str) else value
            data = base64.b64encode(raw).rstrip(b"=")
        else:
            data = value.encode("ascii") if isinstance(value, str) else value
        parts.append(literal(key, data))
    return b"".join(parts)


def status_block(code: int, details: str, more: Fields = ()) -> bytes:
    """Encode a call's status."""
    block = literal(b"grpc-status", b"%d" % code)
    if details:
        block += literal(b"grpc-message", _percent_encoded(details))
    return block + b"".join(literal(name, value) for name, value in more)


def _percent_encoded(text: str) -> bytes:
    data = text.encode()
    if text.isascii() and text.isprintable() and "%" not in text:
        return data
    return b"".join(
        b"%c" % byte if 0x20 <= byte <= 0x7E and byte != 0x25 else b"%%%02X" % byte for byte in data
    )


# `:status: 200` is entry 8 of the static table, content-type its name 31.
ANSWER_BLOCK: Final = (
    b"\x88\x0f\x10" + _string(b"application/grpc") + literal(b"grpc-accept-encoding", _ENCODINGS)
)
OK_BLOCK: Final = status_block(0, "")
