"""A view over as many streams as it takes. TripFollower and SeatWatcher are such views."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

import grpc.aio
from google.protobuf.duration_pb2 import Duration

from wayfare_client.call_status import CallStatus
from wayfare_client.errors import WayfareError, lost
from wayfare_client.reading import read_from
from wayfare_client.reconnecting import Reconnector
from wayfare_client.settings import ClientSettings
from wayfare_client.silence import SilenceWatch
from wayfare_client.tokens import AccessTokens

UpdateT = TypeVar("UpdateT")


class DrainNotice(Protocol):
    """Is how a server asks for a new stream, in every contract."""

    @property
    def reconnect_after(self) -> Duration:
        """Return how long to wait."""
        ...

    @property
    def reason(self) -> str:
        """Return why."""
        ...


class ResumingStream(AsyncIterator[UpdateT], ABC, Generic[UpdateT]):
    """Iterates over the updates of a server's stream, and of those that come after it.

    Lost connections, servers that stop and tokens that end are waited out; `resume_token` makes the
    new stream go on where the last update was. Ends when the server ends a stream in good order.
    """

    def __init__(
        self,
        tokens: AccessTokens,
        *,
        resume_token: str,
        settings: ClientSettings,
        reconnector: Reconnector,
    ) -> None:
        self._tokens = tokens
        self._settings = settings
        self._reconnector = reconnector
        self._stream: OpenStream[UpdateT] | None = None
        self._closed = False
        self._open_count = 0
        self.resume_token = resume_token

    @abstractmethod
    def _call(self, metadata: tuple[tuple[str, str], ...]) -> Any:
        """Open a stream that goes on after `resume_token`."""

    @abstractmethod
    def _take(self, update: UpdateT, stream: "OpenStream[UpdateT]") -> bool:
        """Note what an update says; False if it is not for the app."""

    @abstractmethod
    def _is_over(self, error: WayfareError) -> bool:
        """Say whether an error, after a first stream, means that there is no more to come."""

    def _softened(self, error: WayfareError | None) -> WayfareError | None:
        """Return the error by which the next stream is waited for."""
        return error

    @property
    def reconnect_count(self) -> int:
        """Return how many streams came after the first one."""
        return max(0, self._open_count - 1)

    async def __aenter__(self) -> Self:
        """Return the view; the stream opens with the first update that is asked for."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the stream."""
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> UpdateT:
        """Return the next update.

        Raises:
            StopAsyncIteration: there is no more to come, or the view was closed.
            WayfareError: the caller may not see this.
        """
        while not self._closed:
            stream = self._stream or await self._open()
            try:
                update = await stream.read()
            except WayfareError as error:
                await self._end_stream(stream, error)
                continue
            except asyncio.CancelledError:
                # Ends the call, not the view: asked again, it goes on after the last update.
                self._drop_stream()
                raise
            if update is None and stream.was_drained:
                await self._end_stream(stream, None)
            elif update is None:
                await self.aclose()
            else:
                self._heard(stream)
                if self._take(update, stream):
                    return update
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End the stream now. Iterating again ends at once."""
        self._closed = True
        self._drop_stream()

    def _drop_stream(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    async def _open(self) -> "OpenStream[UpdateT]":
        token = await self._reconnector.good_token()
        call = self._call(self._tokens.metadata_for(token))
        self._stream = OpenStream(call, token=token, settings=self._settings)
        return self._stream

    def _heard(self, stream: "OpenStream[UpdateT]") -> None:
        if not stream.was_heard:
            stream.was_heard = True
            self._open_count += 1
            self._reconnector.opened()

    async def _end_stream(self, stream: "OpenStream[UpdateT]", error: WayfareError | None) -> None:
        self._drop_stream()
        if error is not None and self._open_count and self._is_over(error):
            self._closed = True
        elif stream.is_drain_due:
            if stream.drain_reason == "TOKEN_EXPIRED":
                await self._reconnector.renew(stream.token)
        else:
            await self._reconnector.wait_after(self._softened(error), token=stream.token)


class OpenStream(Generic[UpdateT]):
    """Reads one call, until it ends, is silent for too long, or its drain notice is due."""

    def __init__(
        self,
        call: grpc.aio.UnaryStreamCall[Any, UpdateT],
        *,
        token: str,
        settings: ClientSettings,
    ) -> None:
        self.token = token
        self.was_heard = False
        self.was_drained = False
        self.is_drain_due = False
        self.drain_reason = ""
        self._call = call
        self._status = CallStatus(call)
        self._drain_timer: asyncio.TimerHandle | None = None
        self._watch = SilenceWatch(
            self._call.cancel, seconds=settings.silent_heartbeats * settings.heartbeat_seconds
        )

    async def read(self) -> UpdateT | None:
        """Read an update; None when the server ended the stream in good order."""
        if self.is_drain_due:
            raise lost("the server asked for a new stream")
        self._watch.waiting()
        update = await read_from(self._call, self._status)
        self._watch.heard()
        return update

    def drain(self, notice: DrainNotice) -> None:
        """Go on reading until it is time for a new stream."""
        if self.was_drained:
            # A reminder: the first notice decides.
            return
        self.was_drained = True
        self.drain_reason = notice.reason
        self._drain_timer = asyncio.get_running_loop().call_later(
            notice.reconnect_after.ToTimedelta().total_seconds(), self._drain_due
        )

    def close(self) -> None:
        """End the call."""
        self._watch.stop()
        if self._drain_timer is not None:
            self._drain_timer.cancel()
        self._call.cancel()

    def _drain_due(self) -> None:
        self.is_drain_due = True
        self._call.cancel()
