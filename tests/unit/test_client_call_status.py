"""Why a streaming call ended, whatever grpc.aio puts over it."""

from collections.abc import Callable
from typing import Any, cast

import grpc
import grpc.aio

from tests.support.client_refusal import Refusal
from wayfare_client.call_status import CallStatus
from wayfare_client.reasons import SessionSupersededError

SUPERSEDED = Refusal(code=grpc.StatusCode.ABORTED, reason="SESSION_SUPERSEDED")
FAILED_WRITE = Refusal(code=grpc.StatusCode.INTERNAL)
FAILED_WRITE_SEEN = grpc.aio.AioRpcError(
    grpc.StatusCode.INTERNAL,
    grpc.aio.Metadata(),
    grpc.aio.Metadata(),
    details="Internal error from Core",
)


class EndingCall:
    """Is a call on which statuses are set, one over the other, as grpc.aio does."""

    def __init__(self) -> None:
        self._callbacks: list[Callable[[Any], object]] = []
        self._status = FAILED_WRITE

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        self._callbacks.append(callback)

    def set_status(self, status: Refusal) -> None:
        self._status = status
        for callback in self._callbacks:
            callback(self)

    async def code(self) -> grpc.StatusCode:
        return self._status.code

    async def details(self) -> str:
        return "Internal error from Core" if self._status is FAILED_WRITE else "refused"

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        return grpc.aio.Metadata(*self._status.trailing_metadata)


def status_of(call: EndingCall) -> CallStatus:
    return CallStatus(cast("grpc.aio.Call", call))


async def test_a_refusal_that_a_failed_write_covers_is_found() -> None:
    call = EndingCall()
    status = status_of(call)
    call.set_status(SUPERSEDED)
    call.set_status(FAILED_WRITE)

    assert isinstance(await status.error(FAILED_WRITE_SEEN), SessionSupersededError)


async def test_a_refusal_that_comes_after_a_failed_write_is_waited_for() -> None:
    call = EndingCall()
    status = status_of(call)
    call.set_status(FAILED_WRITE)
    call.set_status(SUPERSEDED)

    assert isinstance(await status.error(FAILED_WRITE_SEEN), SessionSupersededError)


async def test_a_failed_write_without_a_refusal_is_a_lost_connection() -> None:
    call = EndingCall()
    status = status_of(call)
    call.set_status(FAILED_WRITE)

    assert (await status.error(FAILED_WRITE_SEEN)).code is grpc.StatusCode.INTERNAL
