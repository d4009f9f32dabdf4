"""Is the RPC side of past positions and of the ways of trips."""

import base64
import binascii
import hashlib
from datetime import UTC, datetime, timedelta

from services.location.domain.positions import Fix
from services.location.operations.tracking import Tracking
from services.location.operations.tracks import SETTLE_SECONDS, Tracks
from services.location.ports.history import HistoryStore
from services.location.tenants import tenant_asked_for
from services.shared.clock import Clock
from services.shared.errors import FieldViolation, RequestInvalidError
from services.shared.rpc.caller import CallerKind, current_caller
from services.shared.rpc.timestamps import timestamp_of
from wayfare.location.v1 import location_service_pb2, position_pb2

_PAGE_SIZE, _PAGE_SIZE_MOST = 500, 5_000
_DEFAULT_SPAN = timedelta(hours=24)
_HASH_BYTES = 8
STAFF = "BUSINESS"


class HistoryCalls:
    """Serves ListPositionHistory and GetTripTrack."""

    def __init__(
        self, *, history: HistoryStore, tracks: Tracks, tracking: Tracking, clock: Clock
    ) -> None:
        """Read from `history`; `tracking` says who may see a trip."""
        self._history = history
        self._tracks = tracks
        self._tracking = tracking
        self._clock = clock

    async def list(
        self, request: location_service_pb2.ListPositionHistoryRequest
    ) -> location_service_pb2.ListPositionHistoryResponse:
        """List a vehicle's past positions, the newest first."""
        now = self._clock.now()
        start = _moment(request, "start_time")
        end = _moment(request, "end_time")
        filters = f"{request.vehicle_id}|{start}|{end}"
        before = _before(request.page_token, filters)
        page_size = min(request.page_size or _PAGE_SIZE, _PAGE_SIZE_MOST)
        rows = await self._history.page(
            current_caller().tenant_id,
            request.vehicle_id,
            start=start or now - _DEFAULT_SPAN,
            end=before or end or now,
            most=page_size + 1,
        )
        response = location_service_pb2.ListPositionHistoryResponse()
        for row in rows[:page_size]:
            received = datetime.fromtimestamp(row.receive_milliseconds / 1000, UTC)
            response.positions.add(
                vehicle_id=row.vehicle_id,
                trip_id=row.trip_id,
                position=_position(row.fix),
                receive_time=timestamp_of(received),
            )
        if len(rows) > page_size:
            response.next_page_token = _token(rows[page_size - 1].fix.capture_milliseconds, filters)
        return response

    async def track(
        self, request: location_service_pb2.GetTripTrackRequest
    ) -> location_service_pb2.TripTrack:
        """Get the way that a trip took."""
        caller = current_caller()
        trip_id = request.trip_id.lower()
        trip = await self._tracking.authorize_follower(
            trip_id,
            tenant_id=tenant_asked_for(request.tenant_id),
            user_id=caller.user_id,
            # A service sees of a trip what the tenant's staff sees.
            role=STAFF if caller.kind is CallerKind.SERVICE else caller.role,
        )
        settled = trip.stop_time is not None and (
            self._clock.now() - trip.stop_time >= timedelta(seconds=SETTLE_SECONDS)
        )
        track, complete = await self._tracks.of_trip(trip, is_settled=settled)
        return location_service_pb2.TripTrack(
            trip_id=trip_id,
            positions=[_position(fix) for fix in track.points],
            length_meters=round(track.length_meters, 1),
            complete=complete,
        )


def _position(fix: Fix) -> position_pb2.Position:
    position = position_pb2.Position(
        speed_meters_per_second=fix.speed_meters_per_second,
        heading_degrees=fix.heading_degrees,
        accuracy_meters=fix.accuracy_meters,
    )
    position.location.latitude, position.location.longitude = fix.latitude, fix.longitude
    position.capture_time.FromMilliseconds(fix.capture_milliseconds)
    return position


def _moment(
    request: location_service_pb2.ListPositionHistoryRequest, field: str
) -> datetime | None:
    if not request.HasField(field):  # type: ignore[arg-type]
        return None
    moment: datetime = getattr(request, field).ToDatetime(tzinfo=UTC)
    return moment


def _token(capture_milliseconds: int, filters: str) -> str:
    packed = capture_milliseconds.to_bytes(8, "big") + _hash_of(filters)
    return base64.urlsafe_b64encode(packed).decode()


def _before(token: str, filters: str) -> datetime | None:
    if not token:
        return None
    try:
        packed = base64.urlsafe_b64decode(token)
    except (binascii.Error, ValueError):
        packed = b""
    if packed[8:] != _hash_of(filters):
        description = "must be the next_page_token of a page with the same filter"
        raise RequestInvalidError(
            f"page_token: {description}",
            fields=[FieldViolation(field="page_token", description=description)],
        )
    return datetime.fromtimestamp(int.from_bytes(packed[:8], "big") / 1000, UTC)


def _hash_of(filters: str) -> bytes:
    return hashlib.sha256(filters.encode()).digest()[:_HASH_BYTES]
