"""What one peer may do to the wire server, and how a connection ends."""

import asyncio
from typing import Any

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
    stream,
    unary,
)

WITHOUT_PATH = literal(b":method", b"POST") + literal(b":scheme", b"http")


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
        peer.open(number, block=WITHOUT_PATH)

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
    assert h2.NUMBER.unpack_from(first.payload)[0] == h2.STREAM_ID_MOST
    peer.open(1)
    peer.receive(frame(h2.PING, ping.payload, flags=h2.ACK))
    [second] = await peer.sent()
    assert h2.NUMBER.unpack_from(second.payload)[0] == 1

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
