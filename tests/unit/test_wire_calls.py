"""gRPC on the wire server, frame by frame: messages, statuses, deadlines, ends of calls."""

import asyncio
import gzip
import zlib
from typing import Any

import grpc
import pytest

from services.shared.rpc.wire import frames as h2
from services.shared.rpc.wire.headers import literal
from services.shared.rpc.wire.limits import Limits
from tests.support.wire_peer import (
    Frame,
    WirePeer,
    echo,
    message,
    request_block,
    stream,
    unary,
)

EOF = grpc.aio.EOF


async def collect(_requests: Any, context: Any) -> None:
    """Answer with all messages in one, after the last."""
    found = []
    while (one := await context.read()) is not EOF:
        found.append(one)
    await context.write(b"|".join(found))


def status_of(sent: list[Frame]) -> tuple[int, bytes]:
    """Return the status and its message, which are literals."""
    block = next(one.payload for one in reversed(sent) if one.kind == h2.HEADERS)
    fields: dict[bytes, bytes] = {}
    for name in (b"grpc-status", b"grpc-message"):
        at = block.find(literal(name, b"")[:-1])
        if at >= 0:
            start = at + 2 + len(name)
            fields[name] = block[start + 1 : start + 1 + block[start]]
    return int(fields.get(b"grpc-status", b"-1")), fields.get(b"grpc-message", b"")


def answers(sent: list[Frame]) -> bytes:
    """Return the bytes of all messages."""
    return b"".join(one.payload for one in sent if one.kind == h2.DATA)


async def test_a_message_may_come_in_any_pieces_and_many_in_one() -> None:
    body = b"".join(message(one) for one in (b"a", b"", b"ccc", bytes(300)))
    for size in (1, 2, 5, 6, 7, 100, len(body)):
        peer = WirePeer(stream(collect))
        peer.open()
        for at in range(0, len(body), size):
            peer.data(body[at : at + size], end=at + size >= len(body))

        assert answers(await peer.sent()) == message(b"|".join((b"a", b"", b"ccc", bytes(300))))


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        (b"gzip", gzip.compress(b"hello" * 100)),
        (b"deflate", zlib.compress(b"hello" * 100)),
    ],
    # What gzip makes names the time, which must not be part of a test's name.
    ids=["gzip", "deflate"],
)
async def test_compressed_messages_are_unpacked(encoding: bytes, data: bytes) -> None:
    peer = WirePeer(unary(echo))
    peer.open(block=request_block() + literal(b"grpc-encoding", encoding))
    peer.data(message(data, flag=1), end=True)

    assert answers(await peer.sent()) == message(b"hello" * 100)


BROKEN_BODIES = {
    "larger than is read": (b"identity", b"\0\0\0\x04\x01", 8),
    "larger once it is unpacked": (b"gzip", message(gzip.compress(bytes(2_000)), 1), 8),
    "not the encoding that was said": (b"gzip", message(b"hello", 1), 13),
    "cut off inside": (b"gzip", message(gzip.compress(b"hello" * 9)[:-9], 1), 13),
    "an encoding that was not said": (b"identity", message(b"hello", 1), 13),
    "a flag that is none": (b"identity", message(b"hello", 2), 13),
    "cut off": (b"identity", message(b"hello")[:-1], 13),
    "cut off in the prefix": (b"identity", b"\0\0", 13),
    "an encoding that is not known": (b"snappy", message(b"hello"), 12),
}


@pytest.mark.parametrize(("encoding", "body", "code"), BROKEN_BODIES.values(), ids=BROKEN_BODIES)
async def test_a_broken_body_ends_its_call(encoding: bytes, body: bytes, code: int) -> None:
    peer = WirePeer(unary(echo), limits=Limits(message_bytes=1_024))
    peer.open(block=request_block() + literal(b"grpc-encoding", encoding))
    peer.data(body, end=True)
    sent = await peer.sent()

    assert status_of(sent)[0] == code
    peer.open(3)
    peer.data(message(b"next"), 3, end=True)
    assert answers(await peer.sent()) == message(b"next")


async def test_a_truncated_stream_is_no_good_end() -> None:
    peer = WirePeer(stream(collect))
    peer.open()
    peer.data(message(b"whole") + message(b"cut")[:-1], end=True)
    sent = await peer.sent()

    assert (status_of(sent)[0], answers(sent)) == (13, b"")


@pytest.mark.parametrize("body", [b"", message(b"a") + message(b"b")], ids=["none", "two"])
async def test_a_method_of_one_message_takes_one(body: bytes) -> None:
    async def slow(_request: bytes, _context: Any) -> bytes:
        await asyncio.sleep(60)
        return b""

    peer = WirePeer(unary(slow))
    peer.open()
    peer.data(body, end=True)

    assert status_of(await peer.sent())[0] == 12


REFUSED = {
    "unknown method": (request_block("/test.Test/Other"), 12),
    "unknown encoding": (request_block() + literal(b"grpc-encoding", b"br"), 12),
    "no time": (request_block() + literal(b"grpc-timeout", b"soon"), 13),
    "a time without a unit": (request_block() + literal(b"grpc-timeout", b"100"), 13),
    "a time of nine digits": (request_block() + literal(b"grpc-timeout", b"123456789S"), 13),
    "metadata that is not ASCII": (request_block() + literal(b"x", b"\xc3\xa4"), 3),
    "metadata that is no base64": (request_block() + literal(b"x-bin", b"!"), 3),
    "too much metadata": (request_block() + literal(b"x", b"y" * 16_384), 8),
}


@pytest.mark.parametrize(("block", "code"), REFUSED.values(), ids=REFUSED)
async def test_a_request_that_is_no_call_is_answered_at_once(block: bytes, code: int) -> None:
    peer = WirePeer(unary(echo))
    await peer.sent()
    parts = [block[at : at + 16_384] for at in range(0, len(block), 16_384)]
    peer.receive(
        h2.frame(h2.HEADERS, parts[0], flags=0 if parts[1:] else 4, stream_id=1),
        *(h2.frame(h2.CONTINUATION, part, flags=4, stream_id=1) for part in parts[1:]),
    )
    sent = await peer.sent()

    assert (status_of(sent)[0], sent[0].flags & h2.END_STREAM) == (code, h2.END_STREAM)
    assert [(one.kind, one.number) for one in sent[1:]] == [(h2.RST_STREAM, 0)]


@pytest.mark.parametrize(
    ("block", "status"),
    [
        (request_block().replace(b"POST", b"BREW"), b"405"),
        (request_block().replace(b"application/grpc", b"application/json"), b"415"),
        (request_block().replace(b"application/grpc", b"application/grp_"), b"415"),
    ],
)
async def test_what_is_no_grpc_is_answered_in_http(block: bytes, status: bytes) -> None:
    peer = WirePeer(unary(echo))
    await peer.sent()
    peer.open(block=block, end=True)
    [answer] = await peer.sent()

    assert answer.payload.startswith(b"\x08\x03" + status)


async def test_a_deadline_ends_the_call_and_its_handler() -> None:
    ended = asyncio.Event()

    async def slow(_request: bytes, context: Any) -> bytes:
        assert 0 < context.time_remaining() <= 0.03
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        return b""

    peer = WirePeer(unary(slow))
    peer.open(block=request_block() + literal(b"grpc-timeout", b"30m"))
    peer.data(message(b"hello"), end=True)
    async with asyncio.timeout(5):
        await ended.wait()

    assert status_of(await peer.sent())[0] == 4


async def test_a_reset_cancels_the_handler_and_nothing_is_sent() -> None:
    events: list[str] = []

    async def slow(_requests: Any, context: Any) -> None:
        context.add_done_callback(lambda one: events.append(f"done {one.cancelled()}"))
        try:
            await context.read()
        except asyncio.CancelledError:
            events.append("cancelled")
            with pytest.raises(asyncio.CancelledError):
                await context.write(b"late")
            raise

    peer = WirePeer(stream(slow))
    peer.open()
    await peer.sent()
    peer.receive(h2.reset_frame(1, h2.ErrorCode.CANCEL))

    assert await peer.sent() == []
    assert events == ["done True", "cancelled"]


async def test_a_handlers_error_is_not_told() -> None:
    async def broken(_request: bytes, _context: Any) -> bytes:
        raise ValueError("the password is hunter2")

    peer = WirePeer(unary(broken))
    peer.open()
    peer.data(message(b"hello"), end=True)
    sent = await peer.sent()

    assert status_of(sent)[0] == 2
    assert b"hunter2" not in b"".join(one.payload for one in sent)


async def test_statuses_are_percent_encoded_and_metadata_is_base64() -> None:
    async def abort(_request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.NOT_FOUND, "100 % é\n", (("x-bin", b"\xff\xfe"),))
        raise AssertionError

    peer = WirePeer(unary(abort))
    peer.open()
    peer.data(message(b"hello"), end=True)
    sent = await peer.sent()

    assert status_of(sent) == (5, b"100 %25 %C3%A9%0A")
    assert literal(b"x-bin", b"//4") in sent[-1].payload


async def test_long_trailers_are_continued() -> None:
    async def abort(_request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.NOT_FOUND, "", (("x-bin", bytes(30_000)),))
        raise AssertionError

    peer = WirePeer(unary(abort))
    await peer.sent()
    peer.open()
    peer.data(message(b"hello"), end=True)
    sent = await peer.sent()

    assert [one.kind for one in sent] == [h2.HEADERS, h2.CONTINUATION, h2.CONTINUATION]
    assert [one.flags for one in sent] == [h2.END_STREAM, 0, h2.END_HEADERS]


# Listening


class Listening:
    """Is a handler that listens, and says what it heard."""

    def __init__(self, *, fails_at: bytes = b"") -> None:
        self.heard: list[bytes] = []
        self.ends: list[Exception | None] = []
        self.context: Any = None
        self._fails_at = fails_at

    def take(self, data: bytes) -> None:
        if data == self._fails_at:
            raise ValueError(data)
        self.heard.append(data)

    async def serve(self, _requests: Any, context: Any) -> None:
        self.context = context
        context.listen(self.take, self.ends.append)
        await asyncio.sleep(60)


async def test_a_listener_hears_messages_as_they_come_and_then_the_end() -> None:
    handler = Listening()
    peer = WirePeer(stream(handler.serve))
    peer.open()
    peer.data(message(b"before"))
    await peer.sent()
    assert handler.heard == [b"before"]

    peer.data(message(b"a") + message(b"b"))
    peer.data(message(b"c"), end=True)
    assert (handler.heard, handler.ends) == ([b"before", b"a", b"b", b"c"], [None])


async def test_a_listener_that_pauses_hears_the_rest_later_and_the_peer_is_held_back() -> None:
    handler = Listening()
    peer = WirePeer(stream(handler.serve))
    peer.open()
    await peer.sent()
    handler.context.pause()
    for _ in range(6):
        peer.data(message(bytes(9_995)))
    peer.data(b"", end=True)
    assert (handler.heard, handler.ends) == ([], [])
    assert peer.connection.held == 60_000

    handler.context.resume(handler.take)
    assert (len(handler.heard), handler.ends, peer.connection.held) == (6, [None], 0)


async def test_a_listeners_error_is_told_to_whoever_listens() -> None:
    handler = Listening(fails_at=b"bad")
    peer = WirePeer(stream(handler.serve))
    peer.open()
    await peer.sent()
    for one in (b"good", b"bad", b"later"):
        peer.data(message(one))

    assert handler.heard == [b"good"]
    assert [type(one) for one in handler.ends] == [ValueError]


async def test_what_was_not_taken_is_forgotten_with_its_call() -> None:
    handler = Listening()
    peer = WirePeer(stream(handler.serve))
    peer.open()
    await peer.sent()
    handler.context.pause()
    peer.data(message(b"whole") + message(b"half")[:-1])
    assert peer.connection.held > 0

    peer.receive(h2.reset_frame(1, h2.ErrorCode.CANCEL))
    assert peer.connection.held == 0


async def test_a_read_that_is_given_up_loses_nothing() -> None:
    readings: list[asyncio.Task[bytes]] = []

    async def patient(_requests: Any, context: Any) -> None:
        readings.append(asyncio.create_task(context.read()))
        await asyncio.wait(readings)
        await context.write(await context.read() + await context.read())

    peer = WirePeer(stream(patient))
    peer.open()
    await peer.sent()
    # The read has its message, and is given up before it goes on.
    peer.data(message(b"a"))
    readings[0].cancel()
    peer.data(message(b"b"), end=True)

    assert answers(await peer.sent()) == message(b"ab")


# Sending


async def test_try_send_sends_nothing_where_a_write_would_wait() -> None:
    outcomes = []

    async def tries(_requests: Any, context: Any) -> None:
        outcomes.append(context.try_send(b"before the headers"))
        await context.send_initial_metadata(())
        outcomes.extend(context.try_send(bytes(16_000)) for _ in range(6))

    peer = WirePeer(stream(tries))
    peer.open()
    sent = await peer.sent()

    # 65,535 bytes fit; the fifth waits, so that a sixth would too.
    assert outcomes == [False, True, True, True, True, True, False]
    assert len(answers(sent)) == h2.WINDOW_DEFAULT


async def test_a_status_does_not_wait_behind_what_a_slow_peer_does_not_take() -> None:
    async def endless(_requests: Any, context: Any) -> None:
        while True:
            await context.write(bytes(10_000))

    peer = WirePeer(stream(endless))
    peer.open(block=request_block() + literal(b"grpc-timeout", b"30m"))
    async with asyncio.timeout(5):
        while not (resets := await peer.sent_of(h2.RST_STREAM)):
            await asyncio.sleep(0.005)

    assert resets[0].number == h2.ErrorCode.CANCEL
    assert peer.connection.outlet.pending_bytes == 0
    assert not peer.site.tasks


async def test_large_messages_under_way_have_a_bound_together() -> None:
    limits = Limits(message_bytes=100_000, held_bytes=100_000)
    peer = WirePeer(unary(echo), limits=limits)
    for number in range(1, 17, 2):
        peer.open(number)
        peer.data(message(bytes(50_000))[:16_000], number)
    sent = await peer.sent()

    assert [one.stream_id for one in sent if one.kind == h2.HEADERS] == [13, 15]
    assert status_of(sent)[0] == 8
    assert peer.connection.held == 6 * 16_000
