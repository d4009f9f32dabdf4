"""The status with which a streaming call really ended. The driver's stream asks here."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import grpc
import grpc.aio

from wayfare_client.errors import WayfareError, error_from_rpc

# What grpc.aio says when a write did not go out.
_FAILED_WRITE: Final = (grpc.StatusCode.INTERNAL, "Internal error from Core")
# The server's own status comes right after, if it comes.
_WAIT_SECONDS: Final = 1.0

Value = TypeVar("Value")


class CallStatus:
    """Remembers the status that came from the server.

    A write that is under way when the server ends the call fails, and grpc.aio then puts a status
    of its own (`set_internal_error`) over the server's, or before it. Without this, a refusal would
    now and then look like a lost connection.
    """

    def __init__(self, call: grpc.aio.Call) -> None:
        self._ended: asyncio.Future[grpc.aio.AioRpcError] = (
            asyncio.get_running_loop().create_future()
        )
        call.add_done_callback(self._note)

    async def error(self, seen: grpc.aio.AioRpcError) -> WayfareError:
        """Return why the call ended, given the error that was seen."""
        if (seen.code(), seen.details()) == _FAILED_WRITE:
            try:
                async with asyncio.timeout(_WAIT_SECONDS):
                    seen = await asyncio.shield(self._ended)
            except TimeoutError:
                # The connection is gone, and no status will come.
                pass
        return error_from_rpc(seen)

    def _note(self, call: grpc.aio.Call) -> None:
        # Called each time that a status is set, so that none that follows can hide it.
        code, details = _value_of(call.code()), _value_of(call.details())
        if self._ended.done() or (code, details) == _FAILED_WRITE:
            return
        self._ended.set_result(
            grpc.aio.AioRpcError(
                code,
                grpc.aio.Metadata(),
                _value_of(call.trailing_metadata()),
                details=details,
            )
        )


def _value_of(coroutine: Coroutine[Any, Any, Value]) -> Value:
    """Return what a coroutine returns that has nothing to wait for, as those of an ended call."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        value: Value = stop.value
        return value
    coroutine.close()
    raise RuntimeError("the call has not ended")
