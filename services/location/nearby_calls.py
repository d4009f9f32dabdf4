"""Is the RPC side of ListNearbyDrivers."""

import base64
import binascii
import hashlib
import secrets

from google.type import latlng_pb2

from services.location import view_messages
from services.location.operations.nearby import Nearby, Place
from services.location.tenants import tenant_asked_for
from services.shared.errors import FieldViolation, RequestInvalidError
from wayfare.location.v1 import location_service_pb2

RADIUS_METERS = 3_000.0
_PAGE_SIZE = 50
_PAGE_SIZE_MOST = 200
# Nobody pages through a whole city: who wants more drivers narrows the radius.
_OFFSET_MOST = 2_000
_HASH_BYTES = 8


class NearbyCalls:
    """Serves ListNearbyDrivers."""

    def __init__(self, nearby: Nearby) -> None:
        """Search by `nearby`."""
        self._nearby = nearby

    async def list(
        self, request: location_service_pb2.ListNearbyDriversRequest
    ) -> location_service_pb2.ListNearbyDriversResponse:
        """List the free drivers near a point, the nearest first."""
        place = place_of(
            request.location,
            radius_meters=request.radius_meters or RADIUS_METERS,
            vehicle_class=request.vehicle_class,
            tenant_id=tenant_asked_for(request.tenant_id),
        )
        page_size = min(request.page_size or _PAGE_SIZE, _PAGE_SIZE_MOST)
        offset = _offset_of(request.page_token, place)
        found, degraded = await self._nearby.search(place, most=offset + page_size + 1)
        handle_key = secrets.token_bytes(16)
        page = found[offset : offset + page_size]
        response = location_service_pb2.ListNearbyDriversResponse(degraded=degraded)
        view_messages.add_nearby(response, page, handle_key)
        following = offset + page_size
        if len(found) > following and following < _OFFSET_MOST:
            response.next_page_token = _token_of(following, place)
        return response


def place_of(
    location: latlng_pb2.LatLng, *, radius_meters: float, vehicle_class: int, tenant_id: str
) -> Place:
    """Return where the caller looks. Raises RequestInvalidError outside the world."""
    if abs(location.latitude) > 90 or abs(location.longitude) > 180:
        description = "latitude must be from -90 to 90 and longitude from -180 to 180 degrees"
        raise RequestInvalidError(
            f"location: {description}",
            fields=[FieldViolation(field="location", description=description)],
        )
    return Place(
        tenant_id=tenant_id,
        latitude=location.latitude,
        longitude=location.longitude,
        radius_meters=radius_meters,
        vehicle_class=vehicle_class,
    )


def _token_of(offset: int, place: Place) -> str:
    packed = offset.to_bytes(4, "big") + _hash_of(place)
    return base64.urlsafe_b64encode(packed).decode()


def _offset_of(token: str, place: Place) -> int:
    if not token:
        return 0
    try:
        packed = base64.urlsafe_b64decode(token)
    except (binascii.Error, ValueError):
        packed = b""
    offset = int.from_bytes(packed[:4], "big")
    if packed[4:] != _hash_of(place) or not 0 < offset < _OFFSET_MOST:
        description = "must be the next_page_token of a page with the same filter"
        raise RequestInvalidError(
            f"page_token: {description}",
            fields=[FieldViolation(field="page_token", description=description)],
        )
    return offset


def _hash_of(place: Place) -> bytes:
    return hashlib.sha256(repr(place).encode()).digest()[:_HASH_BYTES]
