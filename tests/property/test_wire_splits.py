"""However the socket cuts a connection's bytes, the calls are the same."""

import asyncio
import itertools
from typing import Any

import grpc
from hypothesis import given, settings
from hypothesis import strategies as st

from services.shared.rpc.wire import frames as h2
from services.shared.rpc.wire.headers import literal
from tests.support.wire_peer import WirePeer, message, request_block, stream

MESSAGES = st.lists(st.binary(max_size=300), max_size=6)


async def collect(_requests: Any, context: Any) -> None:
    """Answer each message with itself, and its metadata at the end."""
    seen = dict(context.invocation_metadata())["x-name"]
    while (one := await context.read()) is not grpc.aio.EOF:
        await context.write(one)
    await context.write(seen.encode())


@st.composite
def bodies(draw: Any) -> tuple[bytes, list[bytes]]:
    """Return a whole connection's bytes, and the messages of its calls one after the other."""
    calls = draw(st.lists(MESSAGES, min_size=1, max_size=3))
    parts = [h2.PREFACE, h2.frame(h2.SETTINGS)]
    for number, messages in enumerate(calls):
        stream_id = 2 * number + 1
        block = request_block() + literal(b"x-name", b"%d" % number)
        cut = draw(st.integers(0, len(block)))
        flags = 0 if draw(st.booleans()) else h2.END_HEADERS
        if flags:
            parts.append(h2.frame(h2.HEADERS, block, flags=flags, stream_id=stream_id))
        else:
            parts.append(h2.frame(h2.HEADERS, block[:cut], stream_id=stream_id))
            parts.append(h2.frame(h2.CONTINUATION, block[cut:], flags=4, stream_id=stream_id))
        body = b"".join(map(message, messages))
        while body:
            size = draw(st.integers(1, len(body)))
            pad = draw(st.one_of(st.none(), st.integers(0, 40)))
            payload, flag = body[:size], 0
            if pad is not None:
                payload, flag = bytes((pad,)) + payload + bytes(pad), h2.PADDED
            parts.append(h2.frame(h2.DATA, payload, flags=flag, stream_id=stream_id))
            parts += [h2.frame(h2.PING, bytes(8))] * draw(st.integers(0, 1))
            body = body[size:]
        parts.append(h2.frame(h2.DATA, b"", flags=h2.END_STREAM, stream_id=stream_id))
    return b"".join(parts), calls


@given(whole=bodies(), data=st.data())
@settings(max_examples=150, deadline=None)
def test_any_split_of_the_bytes_gives_the_same_calls(
    whole: tuple[bytes, list[list[bytes]]], data: st.DataObject
) -> None:
    sent, calls = whole
    cuts = data.draw(st.lists(st.integers(0, len(sent)), max_size=12))
    size = data.draw(st.sampled_from([0, 1, 3, 9, 50]))
    if size:
        cuts = list(range(0, len(sent), size))

    async def answers() -> dict[int, bytes]:
        peer = WirePeer(stream(collect), greet=False)
        bounds = [0, *sorted(cuts), len(sent)]
        for begin, end in itertools.pairwise(bounds):
            if begin < end:
                peer.receive(sent[begin:end])
        found: dict[int, bytes] = {}
        for one in await peer.sent():
            assert one.kind not in (h2.RST_STREAM, h2.GOAWAY)
            if one.kind == h2.DATA:
                found[one.stream_id] = found.get(one.stream_id, b"") + one.payload
        return found

    expected = {
        2 * number + 1: b"".join(map(message, [*messages, b"%d" % number]))
        for number, messages in enumerate(calls)
    }
    assert asyncio.run(answers()) == expected


@given(junk=st.binary(max_size=400), greet=st.booleans())
@settings(max_examples=150, deadline=None)
def test_no_bytes_make_a_connection_fail_in_a_way_of_its_own(junk: bytes, greet: bool) -> None:
    async def receive() -> None:
        peer = WirePeer(stream(collect), greet=greet)
        if not greet:
            peer.receive(h2.PREFACE)
        peer.receive(junk)
        await peer.sent()

    asyncio.run(receive())
