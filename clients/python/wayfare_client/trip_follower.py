"""A passenger's view of a trip over as many streams as it takes.

Made by WayfareClient.follow_trip.
"""

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

import grpc
import grpc.aio

from wayfare.location.v1 import location_service_pb2, position_pb2, trip_update_pb2
from wayfare.location.v1.location_service_pb2_grpc import LocationServiceStub
from wayfare_client.call_status import CallStatus
from wayfare_client.errors import WayfareError, lost
from wayfare_client.reading import read_from
from wayfare_client.reconnecting import Reconnector
from wayfare_client.settings import ClientSettings
from wayfare_client.silence import SilenceWatch
from wayfare_client.tokens import AccessTokens

Call = grpc.aio.UnaryStreamCall[location_service_pb2.FollowTripRequest, trip_update_pb2.TripUpdate]


class TripFollower(AsyncIterator[trip_update_pb2.TripUpdate]):
    """Iterates over what happens on a trip, and ends when the trip does.

    Lost connections, servers that stop and tokens that end are waited out; `resume_token` makes the
    new stream go on where the last update was. Yields snapshots, positions, status, stop progress,
    ETA and boarding; a heartbeat only when it changes `degraded`. Raises a WayfareError when the
    caller may not follow the trip.

    `gap_count` counts the snapshots before which updates may be missing; `degraded` says that
    positions may be late.
    """

    def __init__(
        self,
        stub: LocationServiceStub,
        tokens: AccessTokens,
        *,
        trip_id: str,
        resume_token: str,
        settings: ClientSettings,
        reconnector: Reconnector,
    ) -> None:
        self._stub = stub
        self._tokens = tokens
        self._trip_id = trip_id
        self._settings = settings
        self._reconnector = reconnector
        self._stream: _FollowStream | None = None
        self._last_position: position_pb2.Position | None = None
        self._closed = False
        self._open_count = 0
        self.resume_token = resume_token
        self.degraded = False
        self.gap_count = 0

    @property
    def reconnect_count(self) -> int:
        """Return how many streams came after the first one."""
        return max(0, self._open_count - 1)

    async def __aenter__(self) -> Self:
        """Return the follower; the stream opens with the first update that is asked for."""
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

    async def __anext__(self) -> trip_update_pb2.TripUpdate:
        """Return the next update.

        Raises:
            StopAsyncIteration: the trip has ended, tracking was stopped, or the follower was
                closed.
            WayfareError: the caller may not follow the trip.
        """
        while not self._closed:
            stream = self._stream or await self._open()
            try:
                update = await stream.read()
            except WayfareError as error:
                await self._end_stream(stream, error)
                continue
            except asyncio.CancelledError:
                # Ends the call, not the follower: asked again, it goes on after the last update.
                self._drop_stream()
                raise
            if update is None and stream.was_drained:
                await self._end_stream(stream, None)
            elif update is None:
                await self.aclose()
            elif self._take(update, stream):
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

    async def _open(self) -> "_FollowStream":
        token = await self._reconnector.good_token()
        request = location_service_pb2.FollowTripRequest(
            trip_id=self._trip_id, resume_token=self.resume_token
        )
        call = self._stub.FollowTrip(request, metadata=self._tokens.metadata_for(token))
        self._stream = _FollowStream(call, token=token, settings=self._settings)
        return self._stream

    async def _end_stream(self, stream: "_FollowStream", error: WayfareError | None) -> None:
        self._drop_stream()
        if error is not None and self._open_count and _is_over(error):
            self._closed = True
        elif stream.is_drain_due:
            if stream.drain_reason == "TOKEN_EXPIRED":
                await self._reconnector.renew(stream.token)
        else:
            await self._reconnector.wait_after(self._softened(error), token=stream.token)

    def _softened(self, error: WayfareError | None) -> WayfareError | None:
        """Wait out a limit that the follower's own lost stream may still count against."""
        if self._open_count and error is not None and error.reason == "TOO_MANY_FOLLOWED_TRIPS":
            return lost(error.message)
        return error

    def _take(self, update: trip_update_pb2.TripUpdate, stream: "_FollowStream") -> bool:
        """Note what an update says; False if it is not for the app."""
        if not stream.was_heard:
            stream.was_heard = True
            self._open_count += 1
            self._reconnector.opened()
        if update.resume_token:
            self.resume_token = update.resume_token
        was_degraded = self.degraded
        match update.WhichOneof("update"):
            case "drain":
                stream.drain(update.drain)
                return False
            case "heartbeat":
                self.degraded = update.heartbeat.degraded
                return self.degraded != was_degraded
            case "snapshot":
                self.degraded = update.snapshot.degraded
                self.gap_count += update.snapshot.gap
                self._last_position = update.snapshot.position
            case "position":
                # A stream that resumes begins with the newest position, which may be known.
                if update.position == self._last_position:
                    return False
                self._last_position = update.position
            case None:
                # Newer than this client.
                return False
            case _:
                pass
        return True


class _FollowStream:
    """Reads one FollowTrip call."""

    def __init__(self, call: Call, *, token: str, settings: ClientSettings) -> None:
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

    async def read(self) -> trip_update_pb2.TripUpdate | None:
        """Read an update; None when the server ended the stream in good order."""
        if self.is_drain_due:
            raise lost("the server asked for a new stream")
        self._watch.waiting()
        update = await read_from(self._call, self._status)
        self._watch.heard()
        return update

    def drain(self, notice: trip_update_pb2.StreamDrain) -> None:
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


def _is_over(error: WayfareError) -> bool:
    return error.reason == "TRIP_NOT_TRACKED"
