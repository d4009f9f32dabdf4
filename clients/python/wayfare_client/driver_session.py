"""A driver's session over as many streams as it takes. Made by WayfareClient.drive.

The app sends; the session numbers, keeps what is not acknowledged, reconnects, resumes, and leaves
in good order.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

from wayfare.location.v1 import driver_stream_pb2, position_pb2, trip_pb2
from wayfare.location.v1.location_service_pb2_grpc import LocationServiceStub
from wayfare_client.clock import Clock
from wayfare_client.driver_listener import DriverListener
from wayfare_client.driver_statistics import DriverStatistics
from wayfare_client.driver_stream import DriverStream
from wayfare_client.errors import SessionClosedError, UnacknowledgedError, WayfareError, lost
from wayfare_client.pacing import Pacing, PositionPacer
from wayfare_client.positions import make_position, timestamp
from wayfare_client.reconnecting import Reconnector
from wayfare_client.send_buffer import SendBuffer
from wayfare_client.settings import ClientSettings
from wayfare_client.signals import Signal
from wayfare_client.tokens import AccessTokens


class DriverSession:
    """Publishes a vehicle's positions, status and passenger counts. An async context manager.

    Every method raises the WayfareError with which the session ended, once it has ended for good:
    the trip is not the driver's, the trip is over, another phone took over, the log-in was revoked.
    What passes, it waits out.
    """

    def __init__(
        self,
        stub: LocationServiceStub,
        tokens: AccessTokens,
        *,
        vehicle_id: str,
        trip_id: str,
        pacing: Pacing,
        listener: DriverListener,
        settings: ClientSettings,
        clock: Clock,
        reconnector: Reconnector,
    ) -> None:
        self._stub = stub
        self._tokens = tokens
        self._vehicle_id = vehicle_id
        self._trip_id = trip_id
        self._listener = listener
        self._settings = settings
        self._clock = clock
        self._reconnector = reconnector
        self._buffer = SendBuffer(settings.max_unacknowledged)
        self._pacer = PositionPacer(pacing)
        self._changed = Signal()
        self._outgoing = Signal()
        # Keeps the order of callers who wait for room.
        self._turn = asyncio.Lock()
        self._hold_timer: asyncio.TimerHandle | None = None
        self._runner: asyncio.Task[None] | None = None
        self._streams: set[DriverStream] = set()
        self._failure: BaseException | None = None
        self._leaving = False
        self._numbered = False
        self._welcome_count = 0
        self.connected = False
        self.session_id = ""
        self.throttle_reason = ""
        self.degraded = False
        self.clock_offset = timedelta(0)

    async def __aenter__(self) -> Self:
        """Open the session and wait for its welcome, `connect_seconds` at most.

        Offline it goes on trying afterwards, and what is sent waits in the buffer.

        Raises:
            WayfareError: the server refuses the session.
        """
        self._runner = asyncio.create_task(self._run())
        self._runner.add_done_callback(self._ended)
        try:
            await self.wait_connected(self._settings.connect_seconds)
        except TimeoutError:
            pass
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Say goodbye and wait for acknowledgements, up to `goodbye_seconds`.

        Raises:
            UnacknowledgedError: some messages are still undecided.
            WayfareError: the session had ended, and nobody was told yet.
        """
        told = error is not None
        if not told or isinstance(error, Exception):
            await self._leave()
        await self._stop()
        if told:
            return
        if self._failure is not None:
            raise self._failure
        if len(self._buffer):
            raise UnacknowledgedError(len(self._buffer))

    @property
    def min_interval(self) -> timedelta:
        """Return the interval at which the server wants positions now: measure no more often."""
        return timedelta(seconds=self._pacer.min_interval_seconds)

    @property
    def statistics(self) -> DriverStatistics:
        """Count what became of the messages so far."""
        buffer = self._buffer
        return DriverStatistics(
            sent_count=buffer.last_seq,
            accepted_count=buffer.accepted_count,
            unheard_count=buffer.unheard_count,
            rejected_counts=dict(buffer.rejected_counts),
            thinned_count=buffer.thinned_count,
            conflated_count=self._pacer.conflated_count,
            pending_count=len(buffer),
            resent_count=buffer.resent_count,
            reconnect_count=max(0, self._welcome_count - 1),
        )

    async def send_position(
        self,
        latitude: float,
        longitude: float,
        *,
        capture_time: datetime | None = None,
        speed_meters_per_second: float | None = None,
        heading_degrees: float | None = None,
        accuracy_meters: float | None = None,
    ) -> int | None:
        """Send where the vehicle is; `capture_time` is now by default.

        Returns the message's number, or None when it is held back because it came faster than
        `min_interval`.
        """
        return await self.send_position_message(
            make_position(
                latitude,
                longitude,
                capture_time=capture_time or self._clock.now(),
                speed_meters_per_second=speed_meters_per_second,
                heading_degrees=heading_degrees,
                accuracy_meters=accuracy_meters,
            )
        )

    async def send_position_message(self, position: position_pb2.Position) -> int | None:
        """Send a position as the contract has it. See `send_position`."""
        self._check_open()
        due = self._pacer.offer(position)
        if due is not None:
            return await self._send(driver_stream_pb2.DriverMessage(position=due))
        self._cancel_hold()
        self._hold_timer = asyncio.get_running_loop().call_later(
            self._pacer.hold_seconds(), self._send_held
        )
        return None

    async def send_status(
        self, status: trip_pb2.TripStatus.ValueType, *, capture_time: datetime | None = None
    ) -> int:
        """Send how far the trip is.

        Never dropped: waits for room when the buffer is full. Returns its number.
        """
        report = driver_stream_pb2.StatusReport(
            status=status, capture_time=timestamp(capture_time or self._clock.now())
        )
        self._send_held(early=True)
        return await self._send(driver_stream_pb2.DriverMessage(status=report))

    async def send_boarding(
        self, boarded_count: int, *, capture_time: datetime | None = None
    ) -> int:
        """Send how many passengers are on board. Never dropped. Returns its number."""
        report = driver_stream_pb2.BoardingReport(
            boarded_count=boarded_count, capture_time=timestamp(capture_time or self._clock.now())
        )
        return await self._send(driver_stream_pb2.DriverMessage(boarding=report))

    async def wait_connected(self, timeout_seconds: float | None = None) -> None:
        """Wait until the session has a stream.

        Raises:
            TimeoutError: there was none within `timeout_seconds`.
        """
        await self._wait(lambda: self.connected, timeout_seconds)

    async def wait_acknowledged(self, timeout_seconds: float | None = None) -> None:
        """Wait until the server has decided everything that was sent before this call.

        Raises:
            TimeoutError: it has not within `timeout_seconds`.
        """
        self._send_held(early=True)
        target = self._buffer.last_seq

        def decided() -> bool:
            first = self._buffer.first_seq
            return first is None or first > target

        await self._wait(decided, timeout_seconds)

    def hear(self, reply: driver_stream_pb2.DriverReply) -> None:
        """Take in what the server said. Called by the session's streams."""
        match reply.WhichOneof("reply"):
            case "ack":
                self._buffer.acknowledge(reply.ack.seq, reply.ack.rejected)
                for refusal in reply.ack.rejected:
                    self._tell(self._listener.on_rejected, refusal)
                self._changed.notify()
            case "throttle":
                self._set_interval(reply.throttle.min_interval.ToTimedelta())
                self.throttle_reason = reply.throttle.reason
                self.degraded = reply.throttle.degraded
                self._tell(self._listener.on_throttle, reply.throttle)
            case "assignment":
                self._tell(self._listener.on_assignment, reply.assignment)
            case _:
                # Heartbeats have done their work by arriving; what is newer than this client is not
                # for it.
                pass

    async def _run(self) -> None:
        draining: DriverStream | None = None
        try:
            while True:
                stream = await self._open(draining)
                if draining is not None:
                    await self._close(draining)
                    draining = None
                end = await stream.serve()
                if end.drain is not None:
                    draining = stream
                    if end.drain.reason == "TOKEN_EXPIRED":
                        await self._reconnector.renew(stream.token)
                    continue
                self._set_connected(False)
                await self._close(stream)
                if self._leaving and not len(self._buffer):
                    return
                await self._reconnector.wait_after(end.error, token=stream.token)
        finally:
            self._set_connected(False)
            for stream in list(self._streams):
                await self._close(stream)

    async def _open(self, draining: DriverStream | None) -> DriverStream:
        """Open a stream and take over from the one that drains; tries until it is welcomed."""
        while True:
            token = await self._reconnector.good_token()
            try:
                # What is written from here on to the old stream might be sent again over the new
                # one.
                if draining is not None:
                    draining.pause_writing()
                return await self._open_once(token)
            except WayfareError as error:
                if draining is not None:
                    draining.resume_writing()
                await self._reconnector.wait_after(error, token=token)

    async def _open_once(self, token: str) -> DriverStream:
        stream = DriverStream(
            self._stub.StreamDriver(metadata=self._tokens.metadata_for(token)),
            token=token,
            buffer=self._buffer,
            outgoing=self._outgoing,
            listener=self,
            is_leaving=lambda: self._leaving,
            settings=self._settings,
        )
        self._streams.add(stream)
        try:
            self._take_over(await stream.open(self._hello()))
        except WayfareError:
            await self._close(stream)
            raise
        return stream

    async def _close(self, stream: DriverStream) -> None:
        self._streams.discard(stream)
        await stream.close()

    def _hello(self) -> driver_stream_pb2.DriverHello:
        hello = driver_stream_pb2.DriverHello(vehicle_id=self._vehicle_id, trip_id=self._trip_id)
        # Left out until a server knows this session's numbers.
        if self._numbered:
            hello.resume_seq = self._buffer.decided_seq
        return hello

    def _take_over(self, welcome: driver_stream_pb2.DriverWelcome) -> None:
        if not self._buffer.resume(welcome.resume_seq):
            # Another phone's numbers: begin anew, rather than have messages taken for decided ones.
            self._numbered = False
            raise lost("the server resumes a numbering that is not this session's")
        self._numbered = True
        self._welcome_count += 1
        self.session_id = welcome.session_id
        self.clock_offset = welcome.server_time.ToDatetime() - self._clock.now().replace(
            tzinfo=None
        )
        self.throttle_reason, self.degraded = "", False
        self._set_interval(welcome.min_interval.ToTimedelta())
        self._reconnector.opened()
        self._set_connected(True)

    def _set_interval(self, interval: timedelta) -> None:
        self._pacer.min_interval_seconds = interval.total_seconds()

    def _set_connected(self, connected: bool) -> None:
        self.connected = connected
        self._changed.notify()

    async def _send(self, message: driver_stream_pb2.DriverMessage) -> int:
        async with self._turn:
            self._check_open()
            if not self._buffer.has_room():
                await self._wait(self._buffer.has_room, None)
            seq = self._buffer.add(message)
        self._outgoing.notify()
        return seq

    def _send_held(self, *, early: bool = False) -> None:
        self._cancel_hold()
        position = self._pacer.release(early=early)
        # Without room for a position the buffer is full of reports, and live positions have lost
        # their sense.
        if position is not None and self._buffer.has_room():
            self._buffer.add(driver_stream_pb2.DriverMessage(position=position))
            self._outgoing.notify()

    def _cancel_hold(self) -> None:
        if self._hold_timer is not None:
            self._hold_timer.cancel()
            self._hold_timer = None

    async def _wait(self, condition: Callable[[], bool], timeout_seconds: float | None) -> None:
        self._check_open()
        async with asyncio.timeout(timeout_seconds):
            await self._changed.wait_until(lambda: condition() or self._is_over())
        self._check_open()

    def _is_over(self) -> bool:
        return self._failure is not None or self._leaving

    def _check_open(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._runner is None or self._leaving:
            raise SessionClosedError("enter the session before sending, and send before leaving")

    async def _leave(self) -> None:
        self._send_held(early=True)
        self._leaving = True
        self._changed.notify()
        self._outgoing.notify()
        if self._runner is not None and (self.connected or len(self._buffer)):
            await asyncio.wait({self._runner}, timeout=self._settings.goodbye_seconds)

    async def _stop(self) -> None:
        self._leaving = True
        self._cancel_hold()
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.gather(self._runner, return_exceptions=True)

    def _ended(self, runner: asyncio.Task[None]) -> None:
        if not runner.cancelled():
            self._failure = runner.exception()
        self._changed.notify()

    def _tell(self, callback: Callable[..., object] | None, message: object) -> None:
        # Later and on its own, so that a defect in the app's callback reaches the loop's handler
        # and not the stream.
        if callback is not None:
            asyncio.get_running_loop().call_soon(callback, message)
