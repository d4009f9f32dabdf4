"""Reading from a streaming call. The driver's stream and the trip follower use it."""

import asyncio
from typing import TypeVar

import grpc.aio

from wayfare_client.call_status import CallStatus
from wayfare_client.errors import lost

Request = TypeVar("Request")
Reply = TypeVar("Reply")


async def read_from(
    call: grpc.aio.StreamStreamCall[Request, Reply] | grpc.aio.UnaryStreamCall[Request, Reply],
    status: CallStatus,
) -> Reply | None:
    """Read the next message; None when the server ended the stream in good order.

    Raises:
        WayfareError: the stream was refused, or lost.
        asyncio.CancelledError: the reading task is to end.
    """
    try:
        message = await call.read()
    except grpc.aio.AioRpcError as error:
        raise await status.error(error) from error
    except asyncio.CancelledError:
        # gRPC says so too when the call was cancelled, by a timer of this client or by the other
        # side, which is no wish to end the task.
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise lost("the stream was given up") from None
    return None if message is grpc.aio.EOF else message  # type: ignore[return-value]  # is an object
