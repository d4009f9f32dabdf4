"""One StreamDriver call of a driver session: hello, messages out, replies in, until it ends.

DriverSession opens one after the other, and two at once while a server drains.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import grpc.aio

from wayfare.location.v1 import driver_stream_pb2
from wayfare_client.call_status import CallStatus
from wayfare_client.errors import WayfareError, lost
from wayfare_client.reading import read_from
from wayfare_client.send_buffer import SendBuffer
from wayfare_client.settings import ClientSettings
from wayfare_client.signals import Signal
from wayfare_client.silence import SilenceWatch

Call = grpc.aio.StreamStreamCall[driver_stream_pb2.DriverMessage, driver_stream_pb2.DriverReply]


class ReplyListener(Protocol):
    """Is told what the server said."""

    def hear(self, reply: driver_stream_pb2.DriverReply) -> None:
        """Take in a reply that is neither welcome nor drain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEnd:
    """Says why a stream is not to be used any more.

    `drain` is set when the server asked for a new stream while this one goes on; otherwise it has
    ended, with `error`, or in good order when that is None.
    """

    error: WayfareError | None = None
    drain: driver_stream_pb2.DriverDrain | None = None


class DriverStream:
    """Writes what the buffer holds and passes on what comes back."""

    def __init__(
        self,
        call: Call,
        *,
        token: str,
        buffer: SendBuffer,
        outgoing: Signal,
        listener: ReplyListener,
        is_leaving: Callable[[], bool],
        settings: ClientSettings,
    ) -> None:
        self.token = token
        self._call = call
        self._status = CallStatus(call)
        self._buffer = buffer
        self._outgoing = outgoing
        self._listener = listener
        self._is_leaving = is_leaving
        self._settings = settings
        self._writing = True
        self._closed = False
        self._outcome: asyncio.Future[StreamEnd] = asyncio.get_running_loop().create_future()
        self._tasks: list[asyncio.Task[Any]] = []
        self._drain_timer: asyncio.TimerHandle | None = None
        self._watch = SilenceWatch(self._call.cancel, seconds=settings.welcome_seconds)

    async def open(self, hello: driver_stream_pb2.DriverHello) -> driver_stream_pb2.DriverWelcome:
        """Say hello and wait for the answer.

        Raises:
            WayfareError: there was no welcome.
        """
        await self._write(driver_stream_pb2.DriverMessage(hello=hello))
        reply = await self._read()
        if reply is None or not reply.HasField("welcome"):
            raise lost("the stream ended before welcome" if reply is None else "welcome expected")
        welcome = reply.welcome
        heartbeat = welcome.heartbeat_interval.ToTimedelta().total_seconds()
        self._watch.stop()
        self._watch = SilenceWatch(
            self._call.cancel,
            seconds=self._settings.silent_heartbeats
            * (heartbeat or self._settings.heartbeat_seconds),
        )
        return welcome

    async def serve(self) -> StreamEnd:
        """Write and read until the stream ends or is to be replaced."""
        reader = asyncio.create_task(self._read_replies())
        reader.add_done_callback(self._reader_ended)
        self._tasks = [reader, asyncio.create_task(self._write_messages())]
        return await self._outcome

    def pause_writing(self) -> None:
        """Write nothing more for now, and go on reading: a newer stream is about to say hello."""
        self._writing = False

    def resume_writing(self) -> None:
        """Write again: the newer stream did not come about."""
        self._writing = True
        self._outgoing.notify()

    async def close(self) -> None:
        """End the call now."""
        self._closed = True
        self._watch.stop()
        if self._drain_timer is not None:
            self._drain_timer.cancel()
        for task in self._tasks:
            task.cancel()
        self._call.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _write_messages(self) -> None:
        said_goodbye = False
        while True:
            while self._writing and (message := self._buffer.take_unsent()) is not None:
                if not await self._write(message):
                    return
            if self._writing and self._is_leaving() and not said_goodbye:
                said_goodbye = True
                goodbye = driver_stream_pb2.DriverGoodbye()
                await self._write(driver_stream_pb2.DriverMessage(goodbye=goodbye))
            await self._outgoing.wait()

    async def _write(self, message: driver_stream_pb2.DriverMessage) -> bool:
        """Write a message; False if the call has ended, and reading says how."""
        try:
            await self._call.write(message)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return False
        return True

    async def _read_replies(self) -> StreamEnd:
        try:
            while (reply := await self._read()) is not None:
                if reply.HasField("drain"):
                    self._drain(reply.drain)
                else:
                    self._listener.hear(reply)
        except WayfareError as error:
            return StreamEnd(error=error)
        return StreamEnd()

    async def _read(self) -> driver_stream_pb2.DriverReply | None:
        """Read a reply; None when the server ended the stream in good order."""
        self._watch.waiting()
        reply = await read_from(self._call, self._status)
        self._watch.heard()
        return reply

    def _drain(self, drain: driver_stream_pb2.DriverDrain) -> None:
        if self._drain_timer is not None:
            # A reminder. The first notice decides, or a server that repeats itself would put it off
            # for ever.
            return
        wait_seconds = drain.reconnect_after.ToTimedelta().total_seconds()
        self._drain_timer = asyncio.get_running_loop().call_later(
            wait_seconds, self._end, StreamEnd(drain=drain)
        )

    def _reader_ended(self, reader: asyncio.Task[StreamEnd]) -> None:
        if reader.cancelled() or self._outcome.done():
            return
        error = reader.exception()
        if error is not None:
            self._outcome.set_exception(error)
        else:
            self._end(reader.result())

    def _end(self, end: StreamEnd) -> None:
        if not self._outcome.done():
            self._outcome.set_result(end)
