"""Is the RPC side of geofences: from proto to the store and back."""

import base64
import binascii
import json
from datetime import timedelta

from shapely import Polygon, is_valid_reason

from services.location import convert
from services.location.domain.geofences import Circle, Geofence
from services.location.errors import GeofenceShapeInvalidError
from services.location.ports.geofences import GeofenceStore
from services.shared.clock import Clock
from services.shared.errors import FieldViolation, RequestInvalidError
from services.shared.rpc.caller import current_caller
from services.shared.rpc.timestamps import timestamp_of
from wayfare.location.v1 import geofence_pb2, location_service_pb2

_PAGE_SIZE, _PAGE_SIZE_MOST = 50, 500
_CONFIRMATIONS = 2


class GeofenceCalls:
    """Serves CreateGeofence, ListGeofences and DeleteGeofence."""

    def __init__(self, geofences: GeofenceStore, clock: Clock) -> None:
        """Keep them in `geofences`."""
        self._geofences = geofences
        self._clock = clock

    async def create(
        self, request: location_service_pb2.CreateGeofenceRequest
    ) -> geofence_pb2.Geofence:
        """Create a geofence of the caller's tenant."""
        geofence = self._from_proto(request.geofence)
        if geofence.circle is None:
            check_polygon(geofence)
        kept = await self._geofences.create(
            geofence,
            request_id=request.request_id.lower(),
            body_hash=convert.hash_of(request),
        )
        return _to_proto(kept)

    async def list(
        self, request: location_service_pb2.ListGeofencesRequest
    ) -> location_service_pb2.ListGeofencesResponse:
        """List the geofences of the caller's tenant, by name."""
        page_size = min(request.page_size or _PAGE_SIZE, _PAGE_SIZE_MOST)
        found = await self._geofences.page(
            current_caller().tenant_id,
            kind=request.kind,
            after=_after(request.page_token, request.kind),
            most=page_size + 1,
        )
        response = location_service_pb2.ListGeofencesResponse(
            geofences=[_to_proto(one) for one in found[:page_size]]
        )
        if len(found) > page_size:
            response.next_page_token = _token(found[page_size - 1], request.kind)
        return response

    async def delete(self, request: location_service_pb2.DeleteGeofenceRequest) -> None:
        """Delete a geofence of the caller's tenant; deleting what is gone is in order."""
        tenant_id = current_caller().tenant_id
        await self._geofences.delete(request.geofence_id.lower(), tenant_id=tenant_id)

    def _from_proto(self, message: geofence_pb2.Geofence) -> Geofence:
        circle = None
        if message.HasField("circle"):
            circle = Circle(
                latitude=message.circle.center.latitude,
                longitude=message.circle.center.longitude,
                radius_meters=message.circle.radius_meters,
            )
        policy = message.policy
        dwell = message.dwell_duration.ToTimedelta().total_seconds()
        defaults = Geofence(geofence_id="", tenant_id="", display_name="", kind=0)
        return Geofence(
            geofence_id="",
            tenant_id=current_caller().tenant_id,
            display_name=message.display_name,
            kind=message.kind,
            circle=circle,
            corners=tuple((one.latitude, one.longitude) for one in message.polygon.corners),
            dwell_seconds=dwell if message.HasField("dwell_duration") else None,
            exit_margin_meters=(
                policy.exit_margin_meters
                if policy.HasField("exit_margin_meters")
                else defaults.exit_margin_meters
            ),
            confirmation_count=policy.confirmation_count or _CONFIRMATIONS,
            accuracy_limit_meters=(
                policy.accuracy_limit_meters
                if policy.HasField("accuracy_limit_meters")
                else defaults.accuracy_limit_meters
            ),
            create_time=self._clock.now(),
        )


def check_polygon(geofence: Geofence) -> None:
    """Raise GeofenceShapeInvalidError when the border crosses itself or has no inside."""
    polygon = Polygon(geofence.border)
    if polygon.is_valid and polygon.area > 1.0:
        return
    reason = is_valid_reason(polygon)
    raise GeofenceShapeInvalidError(_corner_near(geofence, reason))


def _corner_near(geofence: Geofence, reason: str) -> int:
    """Return the corner that is nearest to the place that shapely names, or the first."""
    _, _, place = reason.rstrip("]").partition("[")
    words = place.split()
    if len(words) < 2:
        return 0
    x, y = float(words[0]), float(words[1])
    distances = [(px - x) ** 2 + (py - y) ** 2 for px, py in geofence.border]
    return distances.index(min(distances))


def _to_proto(geofence: Geofence) -> geofence_pb2.Geofence:
    message = geofence_pb2.Geofence(
        geofence_id=geofence.geofence_id,
        display_name=geofence.display_name,
        kind=geofence.kind,  # type: ignore[arg-type]
        create_time=timestamp_of(geofence.create_time),
        policy=geofence_pb2.GeofencePolicy(
            exit_margin_meters=geofence.exit_margin_meters,
            confirmation_count=geofence.confirmation_count,
            accuracy_limit_meters=geofence.accuracy_limit_meters,
        ),
    )
    if geofence.dwell_seconds is not None:
        message.dwell_duration.FromTimedelta(timedelta(seconds=geofence.dwell_seconds))
    if geofence.circle is not None:
        message.circle.center.latitude = geofence.circle.latitude
        message.circle.center.longitude = geofence.circle.longitude
        message.circle.radius_meters = geofence.circle.radius_meters
    for latitude, longitude in geofence.corners:
        message.polygon.corners.add(latitude=latitude, longitude=longitude)
    return message


def _token(last: Geofence, kind: int) -> str:
    packed = json.dumps([last.display_name, last.geofence_id, kind])
    return base64.urlsafe_b64encode(packed.encode()).decode()


def _after(token: str, kind: int) -> tuple[str, str] | None:
    if not token:
        return None
    try:
        name, geofence_id, of_kind = json.loads(base64.urlsafe_b64decode(token))
    except (binascii.Error, ValueError, TypeError):
        name, geofence_id, of_kind = "", "", -1
    if of_kind != kind or not isinstance(name, str) or len(geofence_id) != 36:
        description = "must be the next_page_token of a page with the same filter"
        raise RequestInvalidError(
            f"page_token: {description}",
            fields=[FieldViolation(field="page_token", description=description)],
        )
    return name, geofence_id
