"""A passenger's view of a trip's seats over as many streams as it takes.

Made by WayfareClient.watch_seats.
"""

from typing import Any

from wayfare.booking.v1 import booking_service_pb2, seat_map_pb2
from wayfare.booking.v1.booking_service_pb2_grpc import BookingServiceStub
from wayfare_client.errors import WayfareError
from wayfare_client.reconnecting import Reconnector
from wayfare_client.resuming import OpenStream, ResumingStream
from wayfare_client.settings import ClientSettings
from wayfare_client.tokens import AccessTokens


class SeatWatcher(ResumingStream[seat_map_pb2.SeatUpdate]):
    """Iterates over the seats of a journey, and ends when the vehicle has left its first stop.

    Yields a snapshot first, then every change once and in order, over lost connections, servers
    that stop and tokens that end; another snapshot only when the server cannot tell what was missed
    (`gap_count`). A heartbeat only when it changes `degraded`: then changes may be a second late.
    Raises a WayfareError when there is no such journey, or, also later, when the trip is cancelled.

    `states` has the newest state of each seat by its number, `free_seat_count` how many are free.
    """

    def __init__(
        self,
        stub: BookingServiceStub,
        tokens: AccessTokens,
        *,
        trip_id: str,
        from_stop_id: str,
        to_stop_id: str,
        settings: ClientSettings,
        reconnector: Reconnector,
    ) -> None:
        super().__init__(tokens, resume_token="", settings=settings, reconnector=reconnector)
        self._stub = stub
        self._trip_id = trip_id
        self._from_stop_id = from_stop_id
        self._to_stop_id = to_stop_id
        self.states: dict[str, seat_map_pb2.SeatState.ValueType] = {}
        self.free_seat_count = 0
        self.seat_version = -1
        self.degraded = False
        self.gap_count = 0

    def _call(self, metadata: tuple[tuple[str, str], ...]) -> Any:
        request = booking_service_pb2.WatchSeatsRequest(
            trip_id=self._trip_id,
            from_stop_id=self._from_stop_id,
            to_stop_id=self._to_stop_id,
            resume_token=self.resume_token,
        )
        return self._stub.WatchSeats(request, metadata=metadata)

    def _is_over(self, error: WayfareError) -> bool:
        return error.reason == "TRIP_DEPARTED"

    def _take(
        self, update: seat_map_pb2.SeatUpdate, stream: OpenStream[seat_map_pb2.SeatUpdate]
    ) -> bool:
        """Note what an update says; False if it is not for the app."""
        if update.resume_token:
            self.resume_token = update.resume_token
        match update.WhichOneof("update"):
            case "drain":
                stream.drain(update.drain)
                return False
            case "heartbeat":
                was_degraded, self.degraded = self.degraded, update.heartbeat.degraded
                return self.degraded != was_degraded
            case "snapshot":
                self._take_snapshot(update.snapshot)
                return True
            case "changes":
                return self._take_changes(update.changes)
            case _:
                # Newer than this client.
                return False

    def _take_snapshot(self, snapshot: seat_map_pb2.SeatMap) -> None:
        self.states = {seat.seat_number: seat.state for seat in snapshot.seats}
        self.free_seat_count = snapshot.free_seat_count
        self.seat_version = snapshot.seat_version
        self.degraded = snapshot.degraded
        self.gap_count += snapshot.gap

    def _take_changes(self, changes: seat_map_pb2.SeatChanges) -> bool:
        if changes.seat_version <= self.seat_version:
            return False
        self.seat_version = changes.seat_version
        self.free_seat_count = changes.free_seat_count
        for seat in changes.seats:
            self.states[seat.seat_number] = seat.state
        return True
