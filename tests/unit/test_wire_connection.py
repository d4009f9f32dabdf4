"""The HTTP/2 of the wire server, frame by frame: states, errors, bounds (RFC 9113)."""

import asyncio
import struct
from typing import Any

import pytest

from services.shared.rpc.wire import frames as h2
from services.shared.rpc.wire.frames import ErrorCode, frame
from services.shared.rpc.wire.headers import literal
from services.shared.rpc.wire.limits import Limits
from tests.support.wire_peer import WirePeer, echo, message, request_block, stream, unary

NUMBER = struct.Struct(">I")


async def hold(_requests: Any, context: Any) -> None:
    """Hold the call open, and read nothing."""
    await context.send_initial_metadata(())
    await asyncio.sleep(60)


async def goaway_of(peer: WirePeer) -> ErrorCode:
    """Return with which error the connection ended."""
    [last] = await peer.sent_of(h2.GOAWAY)
    assert peer.transport.closed
    return ErrorCode(NUMBER.unpack_from(last.payload, 4)[0])


async def reset_of(peer: WirePeer) -> ErrorCode:
    """Return with which error the one stream ended; the connection goes on."""
    [reset] = await peer.sent_of(h2.RST_STREAM)
    assert not peer.transport.closed
    return ErrorCode(reset.number)


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


# Flow control


async def flood(_requests: Any, context: Any) -> None:
    """Send more than the windows allow."""
    for _ in range(10):
        await context.write(b"x" * 20_000)


def sizes(sent: list[Any]) -> int:
    """Count the bytes of DATA."""
    return sum(len(one.payload) for one in sent if one.kind == h2.DATA)


async def test_no_more_is_sent_than_the_peer_allows() -> None:
    peer = WirePeer(stream(flood))
    peer.open()
    assert sizes(await peer.sent()) == h2.WINDOW_DEFAULT

    peer.receive(h2.window_frame(1, 1_000))
    assert sizes(await peer.sent()) == 0
    peer.receive(h2.window_frame(0, 600))
    assert sizes(await peer.sent()) == 600
    peer.receive(h2.window_frame(0, 600))
    assert sizes(await peer.sent()) == 400
    peer.receive(h2.window_frame(0, 500_000), h2.window_frame(1, 500_000))
    rest = await peer.sent()
    assert sizes(rest) == 10 * 20_005 - h2.WINDOW_DEFAULT - 1_000
    assert (rest[-2].kind, rest[-2].flags & h2.END_STREAM) == (h2.HEADERS, h2.END_STREAM)


async def test_the_first_window_may_change_on_open_streams_and_even_below_zero() -> None:
    peer = WirePeer(stream(flood))
    peer.receive(h2.window_frame(0, 500_000))
    peer.open()
    assert sizes(await peer.sent()) == h2.WINDOW_DEFAULT

    peer.receive(h2.settings_frame({h2.INITIAL_WINDOW_SIZE: 100}))
    peer.receive(h2.window_frame(1, 1_000))
    assert sizes(await peer.sent()) == 0
    peer.receive(h2.settings_frame({h2.INITIAL_WINDOW_SIZE: h2.WINDOW_DEFAULT}))
    assert sizes(await peer.sent()) == 1_000


async def test_a_stream_window_that_overflows_is_reset() -> None:
    peer = WirePeer(stream(hold))
    peer.open()
    peer.receive(h2.window_frame(1, h2.WINDOW_MOST))

    assert await reset_of(peer) is ErrorCode.FLOW_CONTROL_ERROR


async def test_settings_that_make_a_window_overflow_end_the_connection() -> None:
    peer = WirePeer(stream(hold))
    peer.open()
    peer.receive(h2.window_frame(1, h2.WINDOW_MOST - h2.WINDOW_DEFAULT))
    peer.receive(h2.settings_frame({h2.INITIAL_WINDOW_SIZE: h2.WINDOW_DEFAULT + 1}))

    assert await goaway_of(peer) is ErrorCode.FLOW_CONTROL_ERROR


async def test_frames_are_no_larger_than_every_peer_takes() -> None:
    peer = WirePeer(stream(flood))
    peer.receive(h2.window_frame(0, 500_000), h2.settings_frame({4: 500_000}))
    peer.open()

    assert max(len(one.payload) for one in await peer.sent()) == h2.FRAME_DEFAULT


async def test_leave_to_send_is_given_back_as_messages_are_read() -> None:
    go_on = asyncio.Event()

    async def read_later(_requests: Any, context: Any) -> None:
        await go_on.wait()
        while await context.read():
            pass

    peer = WirePeer(stream(read_later))
    peer.open()
    for _ in range(6):
        peer.data(message(bytes(9_995)))
    assert [one for one in await peer.sent_of(h2.WINDOW_UPDATE) if one.stream_id == 1] == []

    go_on.set()
    given = [one for one in await peer.sent_of(h2.WINDOW_UPDATE) if one.stream_id == 1]
    assert sum(one.number for one in given) > 30_000


async def test_more_than_the_stream_may_send_is_reset() -> None:
    peer = WirePeer(stream(hold))
    peer.open()
    for _ in range(7):
        peer.data(message(bytes(9_995)))

    assert await reset_of(peer) is ErrorCode.FLOW_CONTROL_ERROR


async def test_a_message_may_be_larger_than_the_window() -> None:
    peer = WirePeer(unary(echo))
    peer.receive(h2.window_frame(0, 500_000), h2.settings_frame({4: 500_000}))
    peer.open()
    body = message(bytes(300_000))
    window = h2.WINDOW_DEFAULT
    for at in range(0, len(body), 10_000):
        assert window >= 10_000, "no leave was given back for what was taken"
        peer.data(body[at : at + 10_000], end=at + 10_000 >= len(body))
        window -= 10_000
        sent = [one for one in await peer.sent() if one.kind == h2.WINDOW_UPDATE]
        window += sum(one.number for one in sent if one.stream_id == 1)


async def test_a_connection_whose_socket_is_full_sends_nothing_until_there_is_room() -> None:
    peer = WirePeer(stream(flood))
    peer.receive(h2.window_frame(0, 500_000), h2.settings_frame({4: 500_000}))
    peer.connection.pause_writing()
    peer.open()
    assert sizes(await peer.sent()) == 0

    peer.connection.resume_writing()
    assert sizes(await peer.sent()) == 10 * 20_005


async def test_writers_wait_while_their_stream_is_behind() -> None:
    written = 0

    async def count(_requests: Any, context: Any) -> None:
        nonlocal written
        while True:
            await context.write(bytes(1_000))
            written += 1

    peer = WirePeer(stream(count))
    peer.receive(h2.settings_frame({h2.INITIAL_WINDOW_SIZE: 0}))
    peer.open()
    await peer.sent()

    assert 10 < written < 20


# Floods


async def test_a_flood_of_resets_ends_the_connection() -> None:
    async def slow(_request: bytes, _context: Any) -> bytes:
        await asyncio.sleep(60)
        return b""

    peer = WirePeer(unary(slow), limits=Limits(resets=(100, 1)))
    for number in range(1, 203, 2):
        peer.open(number)
        peer.data(message(b"hello"), number)
        peer.receive(h2.reset_frame(number, ErrorCode.CANCEL))

    assert await goaway_of(peer) is ErrorCode.ENHANCE_YOUR_CALM
    await asyncio.sleep(0)
    assert not [task for task in peer.site.tasks if not task.cancelling() and not task.done()]


async def test_answered_calls_may_all_be_reset_at_once() -> None:
    peer = WirePeer(stream(hold), limits=Limits(resets=(10, 1)))
    numbers = range(1, 101, 2)
    for number in numbers:
        peer.open(number)
    await peer.sent()
    for number in numbers:
        peer.receive(h2.reset_frame(number, ErrorCode.CANCEL))

    assert await peer.sent_of(h2.GOAWAY) == []


async def test_streams_that_we_have_to_reset_count_too() -> None:
    peer = WirePeer(stream(hold), limits=Limits(resets=(10, 1)))
    for number in range(1, 25, 2):
        peer.open(number, block=MALFORMED["no path"])

    assert await goaway_of(peer) is ErrorCode.ENHANCE_YOUR_CALM


@pytest.mark.parametrize(
    "data",
    [
        frame(h2.PING, bytes(8)),
        frame(h2.SETTINGS),
        frame(h2.PRIORITY, b"\0\0\0\x03\0", stream_id=1),
        frame(h2.DATA, b"", stream_id=1),
        frame(0x77, b"", stream_id=1),
    ],
    ids=["pings", "settings", "priorities", "empty data", "unknown"],
)
async def test_a_flood_of_frames_that_carry_nothing_ends_the_connection(data: bytes) -> None:
    peer = WirePeer(stream(hold), limits=Limits(idle_frames=(50, 1)))
    peer.open()
    peer.receive(data * 60)

    assert await goaway_of(peer) is ErrorCode.ENHANCE_YOUR_CALM


@pytest.mark.parametrize("piece", [b"", b"\x00\x01x\x01y" * 3_000], ids=["empty", "endless"])
async def test_a_header_block_without_an_end_ends_the_connection(piece: bytes) -> None:
    peer = WirePeer(stream(hold), limits=Limits(idle_frames=(50, 1)))
    peer.receive(frame(h2.HEADERS, request_block(), stream_id=1))
    peer.receive(frame(h2.CONTINUATION, piece, stream_id=1) * 60)

    assert await goaway_of(peer) is ErrorCode.ENHANCE_YOUR_CALM


async def test_answers_that_a_peer_does_not_read_have_a_bound() -> None:
    peer = WirePeer(stream(hold))
    peer.connection.pause_writing()
    peer.receive(frame(h2.PING, bytes(8)))
    await peer.sent()
    assert not peer.transport.aborted

    peer.transport.unsent = 16 * 1_048_576
    peer.receive(frame(h2.PING, bytes(8)))
    await peer.sent()
    assert peer.transport.aborted


# The end


async def test_a_server_that_stops_says_so_twice_and_serves_what_came_between() -> None:
    peer = WirePeer(unary(echo))
    await peer.sent()
    peer.connection.leave()
    first, ping = await peer.sent()
    assert NUMBER.unpack_from(first.payload)[0] == h2.STREAM_ID_MOST
    peer.open(1)
    peer.receive(frame(h2.PING, ping.payload, flags=h2.ACK))
    [second] = await peer.sent()
    assert NUMBER.unpack_from(second.payload)[0] == 1

    peer.open(3)
    [refused] = await peer.sent()
    assert (refused.kind, refused.number) == (h2.RST_STREAM, ErrorCode.REFUSED_STREAM)
    peer.data(message(b"hello"), 1, end=True)
    [answer] = await peer.sent_of(h2.DATA)
    assert answer.payload == message(b"hello")
    assert peer.transport.closed


async def test_calls_end_with_their_connection() -> None:
    peer = WirePeer(stream(hold))
    peer.open()
    await peer.sent()
    assert len(peer.site.tasks) == 1

    peer.connection.connection_lost(None)
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert not peer.site.tasks
    assert not peer.site.connections


async def test_a_silent_peer_is_asked_for_a_sign_of_life_and_then_dropped() -> None:
    limits = Limits(ping_after_seconds=0.02, ping_answer_seconds=0.02)
    peer = WirePeer(stream(hold), limits=limits)
    async with asyncio.timeout(5):
        while not peer.transport.aborted:
            await asyncio.sleep(0.005)

    assert (await peer.sent())[-1].kind == h2.PING


async def test_a_peer_that_answers_stays() -> None:
    limits = Limits(ping_after_seconds=0.02, ping_answer_seconds=0.2)
    peer = WirePeer(stream(hold), limits=limits)
    pings = 0
    async with asyncio.timeout(5):
        while pings < 3:
            for one in await peer.sent_of(h2.PING):
                pings += 1
                peer.receive(frame(h2.PING, one.payload, flags=h2.ACK))
            await asyncio.sleep(0.005)

    assert not peer.transport.closed
