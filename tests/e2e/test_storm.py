"""Thousands of phones that open their streams at once, as after a tunnel or a deployment."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import grpc.aio
import pytest

from tests.support.e2e_edge import Edge, bearer
from tests.support.e2e_streams import STREAM_DRIVER
from wayfare.location.v1 import driver_stream_pb2

pytestmark = [pytest.mark.e2e, pytest.mark.alone, pytest.mark.slow, pytest.mark.timeout(180)]

STREAMS = 5_000
CONNECTIONS = 50


async def test_5000_streams_opened_at_once_are_all_welcomed(edge: Edge) -> None:
    tokens = [edge.mint.token("DRIVER") for _ in range(STREAMS)]
    calls: list[Any] = []
    async with AsyncExitStack() as closing:
        channels = [await closing.enter_async_context(edge.channel()) for _ in range(CONNECTIONS)]
        opening = [
            _open(channels[number % CONNECTIONS], token, number=number, calls=calls)
            for number, token in enumerate(tokens)
        ]
        answers = Counter(await asyncio.gather(*opening))
        still_open = sum(1 for call in calls if not call.done())
        for call in calls:
            call.cancel()

    assert answers == {"welcome": STREAMS}
    assert still_open == STREAMS


async def _open(channel: grpc.aio.Channel, token: str, *, number: int, calls: list[Any]) -> str:
    """Say hello, and return what came back: a reply's kind, or a status."""
    call: Any = channel.stream_stream(
        STREAM_DRIVER,
        request_serializer=driver_stream_pb2.DriverMessage.SerializeToString,
        response_deserializer=driver_stream_pb2.DriverReply.FromString,
    )(metadata=bearer(token))
    calls.append(call)
    hello = driver_stream_pb2.DriverHello(vehicle_id=f"storm-{number}")
    try:
        await call.write(driver_stream_pb2.DriverMessage(hello=hello))
        reply = await call.read()
    except grpc.aio.AioRpcError as error:
        return f"{error.code().name}: {error.details()}"
    return str(reply.WhichOneof("reply"))
