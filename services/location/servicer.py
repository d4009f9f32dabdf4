"""Serves LocationService's methods: from proto to operations and back. Decides nothing."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from google.api import httpbody_pb2
from google.protobuf import empty_pb2

from services.location import convert
from services.location.driver_stream import DriverStreams, gate_for
from services.location.feeds import FeedCalls
from services.location.follow_stream import FollowStreams
from services.location.geofence_calls import GeofenceCalls
from services.location.history_calls import HistoryCalls
from services.location.nearby_calls import NearbyCalls
from services.location.operations.feeds import FeedKind
from services.location.operations.reports import ReportedPosition, Reports
from services.location.operations.tracking import Tracking
from services.location.ports.live import LiveStore, Publisher
from services.location.settings import LocationSettings
from services.location.view_streams import ViewStreams
from services.shared.clock import Clock
from services.shared.rpc.caller import current_caller
from services.shared.rpc.timestamps import timestamp_of
from wayfare.location.v1 import (
    geofence_pb2,
    location_service_pb2,
    location_service_pb2_grpc,
    position_pb2,
    trip_pb2,
)

_pb = location_service_pb2


class LocationServicer(location_service_pb2_grpc.LocationServiceServicer):
    """Is LocationService on the wire."""

    def __init__(
        self,
        *,
        settings: LocationSettings,
        clock: Clock,
        live: LiveStore,
        tracking: Tracking,
        reports: Reports,
        driver_streams: DriverStreams,
        follow_streams: FollowStreams,
        view_streams: ViewStreams,
        nearby_calls: NearbyCalls,
        history_calls: HistoryCalls,
        geofence_calls: GeofenceCalls,
        feeds: FeedCalls,
        on_offline: Callable[[str, str], Awaitable[None]],
    ) -> None:
        """Serve by the given operations; `on_offline` is told tenant and driver who are gone."""
        self._on_offline = on_offline
        self._settings = settings
        self._clock = clock
        self._live = live
        self._tracking = tracking
        self._reports = reports
        self._driver_streams = driver_streams
        self._follow_streams = follow_streams
        self._view_streams = view_streams
        self._nearby_calls = nearby_calls
        self._history_calls = history_calls
        self._geofence_calls = geofence_calls
        self._feeds = feeds

    async def StreamDriver(self, _request_iterator: AsyncIterator[Any], context: Any) -> None:  # type: ignore[override]  # written, not yielded
        """Stream a driver's positions in; both sides are bytes here, see driver_stream.py."""
        await self._driver_streams.serve(context)

    async def FollowTrip(self, request: _pb.FollowTripRequest, context: Any) -> None:  # type: ignore[override]  # written, not yielded
        """Stream a trip's updates out as bytes, see follow_stream.py."""
        await self._follow_streams.serve(request, context)

    async def ReportPositions(
        self, request: _pb.ReportPositionsRequest, _context: Any
    ) -> _pb.ReportPositionsResponse:
        """Take up to 500 positions at once."""
        caller = current_caller()
        body_hash = convert.hash_of(request)
        request_key = f"{caller.user_id}:{request.request_id}" if request.request_id else ""
        if request_key:
            answer = await self._live.replay_answer(request_key, body_hash)
            if answer is not None:
                return _pb.ReportPositionsResponse.FromString(answer)
        # A UUID may come in capitals; keys are in small letters.
        trip_id = request.trip_id.lower()
        if trip_id:
            await self._tracking.authorize_driver(
                trip_id,
                tenant_id=caller.tenant_id,
                driver_id=caller.user_id,
                vehicle_id=request.vehicle_id,
            )
        known = await self._live.join_session(
            driver_id=caller.user_id,
            tenant_id=caller.tenant_id,
            vehicle_id=request.vehicle_id,
            trip_id=trip_id,
            vehicle_class=request.vehicle_class,
        )
        outcome = await self._reports.report(
            [
                ReportedPosition(fix=convert.fix_of(p), payload=convert.position_payload(p))
                for p in request.positions
            ],
            publisher=Publisher(
                driver_id=caller.user_id,
                tenant_id=caller.tenant_id,
                vehicle_id=request.vehicle_id,
                vehicle_class=request.vehicle_class,
            ),
            trip_id=trip_id,
            gate=gate_for(self._settings, known.capture_milliseconds, known.live_payload),
            now_milliseconds=int(self._clock.now().timestamp() * 1000),
        )
        response = _pb.ReportPositionsResponse(accepted_count=outcome.accepted_count)
        for index, refusal in sorted(outcome.refusals.items()):
            response.rejected.add(index=index, reason=refusal.value)
        interval = timedelta(seconds=self._settings.location_interval_seconds)
        response.min_interval.FromTimedelta(interval)
        if request_key:
            await self._live.keep_answer(request_key, body_hash, response.SerializeToString())
        return response

    async def GetVehiclePosition(
        self, request: _pb.GetVehiclePositionRequest, _context: Any
    ) -> position_pb2.VehiclePosition:
        """Get the newest position of a vehicle."""
        caller = current_caller()
        state, degraded = await self._reports.vehicle_position(caller.tenant_id, request.vehicle_id)
        received = datetime.fromtimestamp(state.received_milliseconds / 1000, UTC)
        return position_pb2.VehiclePosition(
            vehicle_id=state.vehicle_id,
            trip_id=state.trip_id,
            position=convert.position_of_payload(state.position_payload),
            receive_time=timestamp_of(received),
            degraded=degraded,
        )

    async def SetPresence(self, request: _pb.SetPresenceRequest, _context: Any) -> _pb.Presence:
        """Say that the driver is online or offline."""
        caller = current_caller()
        body_hash = convert.hash_of(request)
        request_key = f"{caller.user_id}:{request.request_id}" if request.request_id else ""
        if request_key:
            answer = await self._live.replay_answer(request_key, body_hash)
            if answer is not None:
                return _pb.Presence.FromString(answer)
        if not request.online:
            # First, so that a driver is gone even where live state is away.
            await self._on_offline(caller.tenant_id, caller.user_id)
        await self._live.set_presence(
            driver_id=caller.user_id,
            tenant_id=caller.tenant_id,
            vehicle_id=request.vehicle_id,
            online=request.online,
            vehicle_class=request.vehicle_class,
        )
        presence = _pb.Presence(online=request.online)
        if request.online:
            lasts = timedelta(seconds=self._settings.location_live_seconds)
            presence.expire_time.FromDatetime(self._clock.now() + lasts)
        if request_key:
            await self._live.keep_answer(request_key, body_hash, presence.SerializeToString())
        return presence

    async def StartTracking(
        self, request: _pb.StartTrackingRequest, _context: Any
    ) -> trip_pb2.TrackedTrip:
        """Begin to track a trip, or change who drives and follows it."""
        trip = await self._tracking.start(
            convert.trip_from_proto(request.trip),
            request_id=request.request_id,
            body_hash=convert.hash_of(request),
        )
        return convert.trip_to_proto(trip)

    async def StopTracking(
        self, request: _pb.StopTrackingRequest, _context: Any
    ) -> trip_pb2.TrackedTrip:
        """Stop tracking a trip."""
        trip = await self._tracking.stop(
            request.trip_id,
            tenant_id=request.tenant_id,
            request_id=request.request_id,
            body_hash=convert.hash_of(request),
        )
        return convert.trip_to_proto(trip)

    async def FollowFleet(self, request: _pb.FollowFleetRequest, context: Any) -> None:  # type: ignore[override]  # written, not yielded
        """Stream a fleet's frames out as bytes, see view_streams.py."""
        await self._view_streams.follow_fleet(request, context)

    async def FollowNearby(self, request: _pb.FollowNearbyRequest, context: Any) -> None:  # type: ignore[override]  # written, not yielded
        """Stream the drivers near a point as bytes."""
        await self._view_streams.follow_nearby(request, context)

    async def FollowAlerts(self, request: _pb.FollowAlertsRequest, context: Any) -> None:  # type: ignore[override]  # written, not yielded
        """Stream a tenant's alerts as bytes."""
        await self._view_streams.follow_alerts(request, context)

    async def ListNearbyDrivers(
        self, request: _pb.ListNearbyDriversRequest, _context: Any
    ) -> _pb.ListNearbyDriversResponse:
        """List the free drivers near a point."""
        return await self._nearby_calls.list(request)

    async def GetTripTrack(self, request: _pb.GetTripTrackRequest, _context: Any) -> _pb.TripTrack:
        """Get the way that a trip took."""
        return await self._history_calls.track(request)

    async def ListPositionHistory(
        self, request: _pb.ListPositionHistoryRequest, _context: Any
    ) -> _pb.ListPositionHistoryResponse:
        """List a vehicle's past positions."""
        return await self._history_calls.list(request)

    async def CreateGeofence(
        self, request: _pb.CreateGeofenceRequest, _context: Any
    ) -> geofence_pb2.Geofence:
        """Create a geofence."""
        return await self._geofence_calls.create(request)

    async def ListGeofences(
        self, request: _pb.ListGeofencesRequest, _context: Any
    ) -> _pb.ListGeofencesResponse:
        """List geofences."""
        return await self._geofence_calls.list(request)

    async def DeleteGeofence(
        self, request: _pb.DeleteGeofenceRequest, _context: Any
    ) -> empty_pb2.Empty:
        """Delete a geofence."""
        await self._geofence_calls.delete(request)
        return empty_pb2.Empty()

    async def GetVehiclePositionsFeed(
        self, request: _pb.GetVehiclePositionsFeedRequest, context: Any
    ) -> httpbody_pb2.HttpBody:
        """Get where the tenant's vehicles are."""
        return await self._feeds.get(request.tenant_id, FeedKind.VEHICLE_POSITIONS, context)

    async def GetTripUpdatesFeed(
        self, request: _pb.GetTripUpdatesFeedRequest, context: Any
    ) -> httpbody_pb2.HttpBody:
        """Get when the tenant's trips are expected."""
        return await self._feeds.get(request.tenant_id, FeedKind.TRIP_UPDATES, context)

    async def GetAlertsFeed(
        self, request: _pb.GetAlertsFeedRequest, context: Any
    ) -> httpbody_pb2.HttpBody:
        """Get the tenant's alerts."""
        return await self._feeds.get(request.tenant_id, FeedKind.ALERTS, context)
