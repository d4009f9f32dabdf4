"""Flow control of the wire server, both ways: windows, back-pressure, a socket that is full."""

import asyncio
from typing import Any

from services.shared.rpc.wire import frames as h2
from services.shared.rpc.wire.frames import ErrorCode
from tests.support.wire_peer import (
    WirePeer,
    echo,
    goaway_of,
    hold,
    message,
    reset_of,
    stream,
    unary,
)


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


async def test_settings_are_acknowledged_before_what_they_let_us_send() -> None:
    peer = WirePeer(stream(flood))
    peer.receive(h2.settings_frame({h2.INITIAL_WINDOW_SIZE: 0}))
    peer.open()
    assert sizes(await peer.sent()) == 0

    peer.receive(h2.settings_frame({h2.INITIAL_WINDOW_SIZE: 1}))

    sent = await peer.sent()
    assert [(one.kind, one.flags) for one in sent] == [(h2.SETTINGS, h2.ACK), (h2.DATA, 0)]
    assert sizes(sent) == 1


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
