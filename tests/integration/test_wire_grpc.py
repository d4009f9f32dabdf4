"""The wire server and grpc's own client: every kind of call, metadata, deadlines, windows."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from services.shared.rpc.wire.limits import Limits
from services.shared.rpc.wire.server import WireServer

EOF = grpc.aio.EOF
LARGEST = 3_000_000
SIZES = (0, 1, 16_378, 16_379, 16_380, 65_535, 1_000_000, LARGEST)


class Methods:
    """Does what each method's name says."""

    def __init__(self) -> None:
        self.written = 0
        self.cancelled = asyncio.Event()

    async def echo(self, request: bytes, _context: Any) -> bytes:
        return request

    async def describe(self, _request: bytes, context: Any) -> bytes:
        await context.send_initial_metadata((("x-first", "1"), ("x-first-bin", b"\0\xff")))
        context.set_trailing_metadata((("x-last", "a"), ("x-last", "b"), ("x-last-bin", b"\1")))
        seen = [one for one in context.invocation_metadata() if one[0].startswith("x-")]
        return repr(seen).encode()

    async def count(self, request: bytes, _context: Any) -> AsyncIterator[bytes]:
        for number in range(int(request)):
            yield b"%d" % number

    async def pour(self, _request: bytes, context: Any) -> None:
        for _ in range(1_000):
            await context.write(bytes(10_000))
            self.written += 1

    async def join(self, requests: AsyncIterator[bytes], _context: Any) -> bytes:
        return b"|".join([one async for one in requests])

    async def repeat(self, requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
        async for one in requests:
            yield one

    async def reply(self, _requests: Any, context: Any) -> None:
        while (one := await context.read()) is not EOF:
            await context.write(one)

    async def hang(self, _request: bytes, _context: Any) -> bytes:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return b""

    async def refuse(self, _request: bytes, context: Any) -> bytes:
        context.set_code(grpc.StatusCode.OUT_OF_RANGE)
        context.set_details("nicht möglich: 100 %")
        return b""


class Place:
    """Is a server and grpc's client of it."""

    def __init__(self, address: str) -> None:
        self.methods = methods = Methods()
        self.server = WireServer(limits=Limits(message_bytes=LARGEST))
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
        handlers: dict[str, Any] = {
            "echo": unary(methods.echo),
            "describe": unary(methods.describe),
            "hang": unary(methods.hang),
            "refuse": unary(methods.refuse),
            "count": grpc.unary_stream_rpc_method_handler(methods.count),
            "pour": grpc.unary_stream_rpc_method_handler(methods.pour),
            "join": grpc.stream_unary_rpc_method_handler(methods.join),
            "repeat": stream(methods.repeat),
            "reply": stream(methods.reply),
        }
        self.server.add_registered_method_handlers("test.Test", handlers)
        port = self.server.add_insecure_port(address)
        target = address if address.startswith("unix:") else f"127.0.0.1:{port}"
        # A window that stays as it is: otherwise the client takes megabytes that nobody reads.
        options = [("grpc.max_receive_message_length", -1), ("grpc.http2.bdp_probe", 0)]
        self.channel = grpc.aio.insecure_channel(target, options=options)

    def unary(self, name: str) -> Any:
        return self.channel.unary_unary(f"/test.Test/{name}")

    def streams_out(self, name: str) -> Any:
        return self.channel.unary_stream(f"/test.Test/{name}")

    def streams(self, name: str) -> Any:
        return self.channel.stream_stream(f"/test.Test/{name}")

    async def refused(self, name: str, request: bytes = b"", **values: Any) -> Any:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.unary(name)(request, **values)
        return caught.value


async def all_of(call: Any) -> list[bytes]:
    """Return the rest of what a call brings."""
    found = []
    while (one := await call.read()) is not EOF:
        found.append(one)
    return found


@pytest.fixture(params=["tcp", "unix"])
async def place(short_folder: Path, request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    address = "127.0.0.1:0" if request.param == "tcp" else f"unix:{short_folder}/wire.sock"
    place = Place(address)
    await place.server.start()
    yield place
    await place.channel.close()
    await place.server.stop(0.5)


@pytest.mark.parametrize("size", SIZES)
async def test_messages_of_any_size_go_both_ways(place: Place, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)

    assert await place.unary("echo")(data[:size]) == data[:size]


async def test_all_four_kinds_of_calls_are_served(place: Place) -> None:
    assert [one async for one in place.streams_out("count")(b"3")] == [b"0", b"1", b"2"]
    assert [one async for one in place.streams_out("count")(b"0")] == []
    join: Any = place.channel.stream_unary("/test.Test/join")
    assert await join(iter([b"a", b"", b"c"])) == b"a||c"
    for name in ("repeat", "reply"):
        sent = [b"a", b"", bytes(100_000)]
        assert [one async for one in place.streams(name)(iter(sent))] == sent


async def test_a_conversation_goes_to_and_fro(place: Place) -> None:
    call = place.streams("reply")()
    for number in range(50):
        await call.write(b"%d" % number)
        assert await call.read() == b"%d" % number
    await call.done_writing()

    assert await call.read() is EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_metadata_goes_both_ways(place: Place) -> None:
    call = place.unary("describe")(
        b"", metadata=(("x-a", "1"), ("x-a", "2"), ("x-b-bin", b"\0\xfe"))
    )

    assert await call == repr([("x-a", "1"), ("x-a", "2"), ("x-b-bin", b"\0\xfe")]).encode()
    assert tuple(await call.initial_metadata()) == (("x-first", "1"), ("x-first-bin", b"\0\xff"))
    assert tuple(await call.trailing_metadata()) == (
        ("x-last", "a"),
        ("x-last", "b"),
        ("x-last-bin", b"\1"),
    )


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_compressed_messages_are_read(place: Place, compression: Any) -> None:
    data = b"again and " * 10_000

    assert await place.unary("echo")(data, compression=compression) == data


async def test_statuses_arrive(place: Place) -> None:
    error = await place.refused("refuse")
    assert (error.code(), error.details()) == (
        grpc.StatusCode.OUT_OF_RANGE,
        "nicht möglich: 100 %",
    )
    assert (await place.refused("missing")).code() is grpc.StatusCode.UNIMPLEMENTED
    too_large = await place.refused("echo", bytes(LARGEST + 1))
    assert too_large.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    # The connection goes on.
    assert await place.unary("echo")(b"next") == b"next"


async def test_a_deadline_ends_the_handler(place: Place) -> None:
    error = await place.refused("hang", timeout=0.1)

    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    async with asyncio.timeout(5):
        await place.methods.cancelled.wait()


async def test_a_client_that_cancels_ends_the_handler(place: Place) -> None:
    call = place.unary("hang")(b"")
    with suppress(TimeoutError):
        async with asyncio.timeout(0.1):
            await call
    call.cancel()

    async with asyncio.timeout(5):
        await place.methods.cancelled.wait()


async def test_a_reader_that_is_slow_holds_the_writer_back_and_gets_everything(
    place: Place,
) -> None:
    call = place.streams_out("pour")(b"")
    await call.read()
    before = -1
    async with asyncio.timeout(10):
        while before != place.methods.written:
            before = place.methods.written
            await asyncio.sleep(0.1)
    assert before < 1_000, "ten megabytes were written to a client that reads nothing"

    assert [len(one) for one in await all_of(call)] == [10_000] * 999


async def test_small_writes_are_not_held_back_for_an_acknowledgement(place: Place) -> None:
    await place.unary("echo")(b"hello")
    [connection] = place.server._site.connections
    line: socket.socket = connection._transport.get_extra_info("socket")

    # Nagle's delay would be 40 ms a message. A Unix socket has none.
    is_tcp = line.family is not socket.AF_UNIX
    assert not is_tcp or line.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_many_calls_at_once_are_each_answered(place: Place) -> None:
    echo = place.unary("echo")
    sent = [b"%d" % number for number in range(500)]

    assert await asyncio.gather(*(echo(one) for one in sent)) == sent


async def test_a_server_that_stops_lets_calls_end_and_cuts_what_stays(place: Place) -> None:
    staying = place.streams("reply")()
    await staying.write(b"a")
    await staying.read()
    ending = place.streams_out("count")(b"3")
    assert await ending.read() == b"0"
    await place.server.stop(0.2)

    assert await all_of(ending) == [b"1", b"2"]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await staying.read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
