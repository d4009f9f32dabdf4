"""The HTTP/2 of the wire server, frame by frame: states, errors, bounds (RFC 9113)."""

import struct

import pytest

from services.shared.rpc.wire import frames as h2
from services.shared.rpc.wire.frames import ErrorCode, frame
from services.shared.rpc.wire.headers import literal
from services.shared.rpc.wire.limits import Limits
from tests.support.wire_peer import (
    WirePeer,
    echo,
    goaway_of,
    hold,
    message,
    request_block,
    reset_of,
    stream,
    unary,
)

NUMBER = struct.Struct(">I")


async def test_settings_and_the_window_come_first() -> None:
    peer = WirePeer(unary(echo), greet=False)

    first, second = await peer.sent()

    assert (first.kind, second.kind, second.stream_id) == (h2.SETTINGS, h2.WINDOW_UPDATE, 0)


async def test_settings_are_acknowledged_and_pings_answered() -> None:
    peer = WirePeer(unary(echo))
    peer.receive(frame(h2.PING, b"12345678"))

    answers = [one for one in await peer.sent() if one.flags & h2.ACK]

    assert [(one.kind, one.payload) for one in answers] == [
        (h2.SETTINGS, b""),
        (h2.PING, b"12345678"),
    ]


async def test_an_answer_leaves_in_one_write() -> None:
    peer = WirePeer(unary(echo))
    await peer.sent()
    before = peer.transport.writes
    for number in (1, 3, 5):
        peer.open(number)
        peer.data(message(b"hello"), number, end=True)

    kinds = [one.kind for one in await peer.sent()]

    assert kinds == [h2.HEADERS, h2.DATA, h2.HEADERS] * 3
    assert peer.transport.writes == before + 1


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", ErrorCode.PROTOCOL_ERROR),
        (h2.PREFACE + frame(h2.PING, bytes(8)), ErrorCode.PROTOCOL_ERROR),
        (h2.PREFACE + frame(h2.SETTINGS, flags=h2.ACK), ErrorCode.PROTOCOL_ERROR),
    ],
    ids=["another protocol", "no settings", "settings acknowledged before they were said"],
)
async def test_a_wrong_beginning_ends_the_connection(data: bytes, code: ErrorCode) -> None:
    peer = WirePeer(unary(echo), greet=False)
    peer.receive(data)

    assert await goaway_of(peer) is code


BROKEN_FRAMES = {
    "data of no stream": (frame(h2.DATA, b"x"), ErrorCode.PROTOCOL_ERROR),
    "data of an idle stream": (frame(h2.DATA, b"x", stream_id=7), ErrorCode.PROTOCOL_ERROR),
    "headers of no stream": (frame(h2.HEADERS, b"", flags=4), ErrorCode.PROTOCOL_ERROR),
    "headers of an even stream": (
        frame(h2.HEADERS, request_block(), flags=4, stream_id=2),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "unreadable headers": (
        frame(h2.HEADERS, b"\xff\xff\xff", flags=4, stream_id=1),
        ErrorCode.COMPRESSION_ERROR,
    ),
    "a table that is too large": (
        frame(h2.HEADERS, b"\x3f\xe1\xff\x03", flags=4, stream_id=1),
        ErrorCode.COMPRESSION_ERROR,
    ),
    "a priority without bytes": (
        frame(h2.HEADERS, b"\0", flags=0x24, stream_id=1),
        ErrorCode.FRAME_SIZE_ERROR,
    ),
    "a stream that depends on itself": (
        frame(h2.PRIORITY, b"\0\0\0\x01\0", stream_id=1),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "a priority of no stream": (frame(h2.PRIORITY, bytes(5)), ErrorCode.PROTOCOL_ERROR),
    "a reset of no stream": (frame(h2.RST_STREAM, bytes(4)), ErrorCode.PROTOCOL_ERROR),
    "a reset of an idle stream": (
        frame(h2.RST_STREAM, bytes(4), stream_id=1),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "a short reset": (frame(h2.RST_STREAM, bytes(3), stream_id=1), ErrorCode.FRAME_SIZE_ERROR),
    "settings of a stream": (frame(h2.SETTINGS, stream_id=1), ErrorCode.PROTOCOL_ERROR),
    "settings of five bytes": (frame(h2.SETTINGS, bytes(5)), ErrorCode.FRAME_SIZE_ERROR),
    "an acknowledgement with settings": (
        frame(h2.SETTINGS, bytes(6), flags=1),
        ErrorCode.FRAME_SIZE_ERROR,
    ),
    "push that is neither on nor off": (h2.settings_frame({2: 2}), ErrorCode.PROTOCOL_ERROR),
    "frames that are too small": (h2.settings_frame({5: 16_383}), ErrorCode.PROTOCOL_ERROR),
    "frames that are too large": (h2.settings_frame({5: 1 << 24}), ErrorCode.PROTOCOL_ERROR),
    "a window that is too large": (h2.settings_frame({4: 1 << 31}), ErrorCode.FLOW_CONTROL_ERROR),
    "a promise": (frame(h2.PUSH_PROMISE, bytes(4), stream_id=1), ErrorCode.PROTOCOL_ERROR),
    "a ping of a stream": (frame(h2.PING, bytes(8), stream_id=1), ErrorCode.PROTOCOL_ERROR),
    "a short ping": (frame(h2.PING, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
    "a farewell of a stream": (frame(h2.GOAWAY, bytes(8), stream_id=1), ErrorCode.PROTOCOL_ERROR),
    "leave for nothing": (frame(h2.WINDOW_UPDATE, bytes(4)), ErrorCode.PROTOCOL_ERROR),
    "leave of three bytes": (frame(h2.WINDOW_UPDATE, bytes(3)), ErrorCode.FRAME_SIZE_ERROR),
    "leave for too much": (h2.window_frame(0, h2.WINDOW_MOST), ErrorCode.FLOW_CONTROL_ERROR),
    "leave for an idle stream": (h2.window_frame(9, 1), ErrorCode.PROTOCOL_ERROR),
    "a continuation of nothing": (
        frame(h2.CONTINUATION, b"", flags=4, stream_id=1),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "headers that something interrupts": (
        frame(h2.HEADERS, request_block(), stream_id=1) + frame(h2.PING, bytes(8)),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "headers that another stream continues": (
        frame(h2.HEADERS, request_block(), stream_id=1)
        + frame(h2.CONTINUATION, b"", flags=4, stream_id=3),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "a frame that is too large": (frame(h2.PING, bytes(16_385)), ErrorCode.FRAME_SIZE_ERROR),
}


@pytest.mark.parametrize(("data", "code"), BROKEN_FRAMES.values(), ids=BROKEN_FRAMES)
async def test_a_broken_frame_ends_the_connection(data: bytes, code: ErrorCode) -> None:
    peer = WirePeer(unary(echo))
    peer.receive(data)

    assert await goaway_of(peer) is code
    # What comes after it is not looked at.
    peer.receive(frame(h2.PING, bytes(8)))
    assert await peer.sent() == []


async def test_unknown_frames_flags_settings_and_priorities_are_ignored() -> None:
    peer = WirePeer(unary(echo))
    peer.receive(
        frame(0x77, b"whatever", flags=0xFF, stream_id=1),
        frame(h2.PRIORITY, b"\0\0\0\x03\x10", stream_id=1),
        h2.settings_frame({0x99: 1, h2.HEADER_TABLE_SIZE: 0}),
        frame(h2.GOAWAY, bytes(8)),
    )
    peer.receive(frame(h2.PING, bytes(8), flags=0xFE))

    assert [one.kind for one in await peer.sent() if one.flags & h2.ACK][-1] == h2.PING


async def test_headers_may_be_padded_and_have_a_priority_and_come_in_pieces() -> None:
    peer = WirePeer(unary(echo))
    block = request_block()
    head = b"\x03" + bytes(5) + block[:10] + bytes(3)
    peer.receive(
        frame(h2.HEADERS, head, flags=h2.PADDED | h2.PRIORITIZED, stream_id=1),
        frame(h2.CONTINUATION, block[10:20], stream_id=1),
        frame(h2.CONTINUATION, block[20:], flags=h2.END_HEADERS, stream_id=1),
    )
    padded = b"\x05" + message(b"hello") + bytes(5)
    peer.receive(frame(h2.DATA, padded, flags=h2.PADDED | h2.END_STREAM, stream_id=1))

    [answer] = await peer.sent_of(h2.DATA)
    assert answer.payload == message(b"hello")


@pytest.mark.parametrize("payload", [b"", b"\x01", b"\x09" + bytes(8)])
async def test_more_padding_than_payload_ends_the_connection(payload: bytes) -> None:
    peer = WirePeer(stream(hold))
    peer.open()
    peer.receive(frame(h2.DATA, payload, flags=h2.PADDED, stream_id=1))

    assert await goaway_of(peer) is ErrorCode.PROTOCOL_ERROR


MALFORMED = {
    "uppercase": request_block() + literal(b"X-Name", b"1"),
    "unknown pseudo-header": literal(b":status", b"200") + request_block(),
    "pseudo-header twice": literal(b":path", b"/x") + request_block(),
    "pseudo-header after others": literal(b"x", b"1") + request_block(),
    "no path": literal(b":method", b"POST") + literal(b":scheme", b"http"),
    "no method": literal(b":path", b"/x") + literal(b":scheme", b"http"),
    "empty path": request_block(""),
    "a connection's header": request_block() + literal(b"connection", b"close"),
    "another te": request_block() + literal(b"te", b"gzip"),
    "a line break": request_block() + literal(b"x", b"a\nb"),
    "a length that is none": request_block() + literal(b"content-length", b"-1"),
}


@pytest.mark.parametrize("block", MALFORMED.values(), ids=MALFORMED)
async def test_a_malformed_request_is_reset(block: bytes) -> None:
    peer = WirePeer(unary(echo))
    peer.open(block=block)

    assert await reset_of(peer) is ErrorCode.PROTOCOL_ERROR
    # What was under way is ignored, and the next call is served.
    peer.data(message(b"late"), 1, end=True)
    peer.open(3)
    peer.data(message(b"next"), 3, end=True)
    [answer] = await peer.sent_of(h2.DATA)
    assert (answer.stream_id, answer.payload) == (3, message(b"next"))


async def test_a_body_of_another_length_than_said_is_reset() -> None:
    peer = WirePeer(stream(hold))
    for number, length in ((1, b"3"), (3, b"30")):
        peer.open(number, block=request_block() + literal(b"content-length", length))
        peer.data(message(b"hello"), number, end=True)

        assert await reset_of(peer) is ErrorCode.PROTOCOL_ERROR


async def test_a_stream_that_the_peer_ended_takes_nothing_more() -> None:
    peer = WirePeer(stream(hold))
    peer.open(1, end=True)
    peer.data(b"x", 1)

    assert await reset_of(peer) is ErrorCode.STREAM_CLOSED


async def test_headers_of_a_stream_that_the_peer_reset_end_the_connection() -> None:
    peer = WirePeer(stream(hold))
    peer.open(1)
    peer.receive(h2.reset_frame(1, ErrorCode.CANCEL))
    peer.open(1)

    assert await goaway_of(peer) is ErrorCode.STREAM_CLOSED


async def test_stream_numbers_grow() -> None:
    peer = WirePeer(stream(hold))
    peer.open(5)
    peer.open(3)

    assert await goaway_of(peer) is ErrorCode.PROTOCOL_ERROR


async def test_trailers_of_a_request_end_it_and_others_reset_it() -> None:
    peer = WirePeer(stream(hold))
    peer.open(1)
    peer.open(1, block=literal(b"x", b"1"), end=True)
    assert await peer.sent_of(h2.RST_STREAM) == []

    peer.open(3)
    peer.open(3, block=literal(b"x", b"1"))
    assert await reset_of(peer) is ErrorCode.PROTOCOL_ERROR


async def test_more_streams_than_allowed_are_refused() -> None:
    peer = WirePeer(stream(hold), limits=Limits(streams=2))
    for number in (1, 3, 5):
        peer.open(number)

    assert await reset_of(peer) is ErrorCode.REFUSED_STREAM
