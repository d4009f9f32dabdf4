"""Is the RPC side of FollowFleet, FollowNearby and FollowAlerts: opens views and writes them."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from services.location import view_messages
from services.location.errors import ViewportInvalidError
from services.location.nearby_calls import RADIUS_METERS, place_of
from services.location.operations.alerts import AlertHub
from services.location.operations.fleet import FleetHub
from services.location.operations.nearby import Nearby
from services.location.operations.view_stream import ViewStream
from services.location.settings import LocationSettings
from services.shared.clock import Clock
from services.shared.rpc.caller import current_caller
from wayfare.location.v1 import location_service_pb2
from wayfare.type.v1 import geo_pb2

_NEARBY_SECONDS = 1.0
_NEARBY_MOST = 50
# A stream that waits for news looks this often whether it must end.
_LOOK_SECONDS = 1.0


@dataclass(slots=True)
class ViewStreams:
    """Serves every view of this process."""

    fleets: FleetHub
    alerts: AlertHub
    nearby: Nearby
    clock: Clock
    settings: LocationSettings
    random: Callable[[], float]
    _open: set[ViewStream] = field(default_factory=set)

    def _begin(self) -> ViewStream:
        stream = ViewStream(
            clock=self.clock,
            random=self.random,
            heartbeat_seconds=self.settings.location_heartbeat_seconds,
            token_expire_time=current_caller().token_expire_time,
        )
        self._open.add(stream)
        return stream

    async def drain_all(self) -> None:
        """Ask every client to open a new stream elsewhere."""
        for stream in list(self._open):
            stream.drain("SERVER_DRAINING")

    async def follow_fleet(
        self, request: location_service_pb2.FollowFleetRequest, context: Any
    ) -> None:
        """Write frames until the client leaves, or the stream must."""
        if request.HasField("viewport"):
            check_viewport(request.viewport)
        tenant_id = current_caller().tenant_id
        stream = self._begin()
        try:
            viewer = await self.fleets.attach(
                tenant_id, view_messages.fleet_filter(request), stream.wake
            )
            try:
                while True:
                    notice = stream.drain_notice()
                    if notice is not None:
                        await context.write(view_messages.fleet_drain(notice))
                    frame = viewer.take()
                    if frame is None and stream.heartbeat_due:
                        frame = viewer.heartbeat()
                    if frame is None:
                        await stream.rest(_LOOK_SECONDS)
                        continue
                    await context.write(frame)
                    stream.spoke()
            finally:
                self.fleets.detach(tenant_id, viewer)
        finally:
            self._open.discard(stream)

    async def follow_nearby(
        self, request: location_service_pb2.FollowNearbyRequest, context: Any
    ) -> None:
        """Write the drivers near a point, at most once a second and only when they changed."""
        place = place_of(
            request.location,
            radius_meters=request.radius_meters or RADIUS_METERS,
            vehicle_class=request.vehicle_class,
            tenant_id=current_caller().tenant_id,
        )
        most = request.max_results or _NEARBY_MOST
        # The same driver keeps its handle as long as the stream lives, and has another in the next.
        handle_key = secrets.token_bytes(16)
        stream = self._begin()
        shown: list[tuple[str, bytes]] | None = None
        was_degraded = False
        try:
            while True:
                notice = stream.drain_notice()
                if notice is not None:
                    await context.write(view_messages.nearby_drain(notice))
                found, degraded = await self.nearby.search(place, most=most)
                seen = [(one.driver.driver_id, one.driver.payload) for one in found]
                if seen != shown or degraded != was_degraded or stream.heartbeat_due:
                    shown, was_degraded = seen, degraded
                    frame = view_messages.nearby_frame(
                        found, handle_key, degraded=degraded, now=self.clock.now()
                    )
                    await context.write(frame.SerializeToString())
                    stream.spoke()
                await stream.rest(_NEARBY_SECONDS)
        finally:
            self._open.discard(stream)

    async def follow_alerts(
        self, request: location_service_pb2.FollowAlertsRequest, context: Any
    ) -> None:
        """Write alerts, none left out, until the client leaves, or the stream must."""
        tenant_id = current_caller().tenant_id
        stream = self._begin()
        try:
            viewer = await self.alerts.attach(tenant_id, request.resume_token, stream.wake)
            was_degraded = False
            try:
                while True:
                    notice = stream.drain_notice()
                    if notice is not None:
                        await context.write(view_messages.alert_drain(notice))
                    alerts = viewer.take()
                    for alert in alerts:
                        payload = view_messages.with_alert_token(alert.token, alert.payload)
                        await context.write(payload)
                    if alerts:
                        stream.spoke()
                    elif stream.heartbeat_due or viewer.degraded != was_degraded:
                        was_degraded = viewer.degraded
                        now = self.clock.now()
                        await context.write(
                            view_messages.alert_heartbeat(now, degraded=was_degraded)
                        )
                        stream.spoke()
                    else:
                        await stream.rest(_LOOK_SECONDS)
            finally:
                self.alerts.detach(tenant_id, viewer)
        finally:
            self._open.discard(stream)


def check_viewport(viewport: geo_pb2.Viewport) -> None:
    """Raise ViewportInvalidError when the corners are swapped or outside the world."""
    corners = (viewport.southwest, viewport.northeast)
    outside = any(abs(one.latitude) > 90 or abs(one.longitude) > 180 for one in corners)
    if outside or viewport.southwest.latitude > viewport.northeast.latitude:
        raise ViewportInvalidError
