"""A passenger's view of a trip over as many streams as it takes.

Made by WayfareClient.follow_trip.
"""

from typing import Any

from wayfare.location.v1 import location_service_pb2, position_pb2, trip_update_pb2
from wayfare.location.v1.location_service_pb2_grpc import LocationServiceStub
from wayfare_client.errors import WayfareError, lost
from wayfare_client.reconnecting import Reconnector
from wayfare_client.resuming import OpenStream, ResumingStream
from wayfare_client.settings import ClientSettings
from wayfare_client.tokens import AccessTokens


class TripFollower(ResumingStream[trip_update_pb2.TripUpdate]):
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
        super().__init__(
            tokens, resume_token=resume_token, settings=settings, reconnector=reconnector
        )
        self._stub = stub
        self._trip_id = trip_id
        self._last_position: position_pb2.Position | None = None
        self.degraded = False
        self.gap_count = 0

    def _call(self, metadata: tuple[tuple[str, str], ...]) -> Any:
        request = location_service_pb2.FollowTripRequest(
            trip_id=self._trip_id, resume_token=self.resume_token
        )
        return self._stub.FollowTrip(request, metadata=metadata)

    def _is_over(self, error: WayfareError) -> bool:
        return error.reason == "TRIP_NOT_TRACKED"

    def _softened(self, error: WayfareError | None) -> WayfareError | None:
        """Wait out a limit that the follower's own lost stream may still count against."""
        if self._open_count and error is not None and error.reason == "TOO_MANY_FOLLOWED_TRIPS":
            return lost(error.message)
        return error

    def _take(
        self, update: trip_update_pb2.TripUpdate, stream: OpenStream[trip_update_pb2.TripUpdate]
    ) -> bool:
        """Note what an update says; False if it is not for the app."""
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
