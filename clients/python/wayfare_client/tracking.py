"""StartTracking and StopTracking, for tools that stand in for the service that owns trips.

Both are for other services only: the channel must be one to the mesh, with a service's client
certificate.
"""

import uuid
from random import SystemRandom
from typing import cast

import grpc.aio

from wayfare.location.v1 import location_service_pb2, trip_pb2
from wayfare.location.v1.location_service_pb2_grpc import LocationServiceStub
from wayfare_client.calls import PolicyChannel
from wayfare_client.clock import SystemClock
from wayfare_client.settings import ClientSettings


class TripTracking:
    """Starts and stops tracking over a mesh channel, as carefully as a client calls."""

    def __init__(self, channel: grpc.aio.Channel, settings: ClientSettings | None = None) -> None:
        policy_channel = PolicyChannel(
            channel,
            settings=settings or ClientSettings(),
            clock=SystemClock(),
            random=SystemRandom(),
        )
        self._stub = LocationServiceStub(cast("grpc.aio.Channel", policy_channel))

    async def start(
        self, trip: trip_pb2.TrackedTrip, *, request_id: str | None = None
    ) -> trip_pb2.TrackedTrip:
        """Begin to track a trip, or change who drives and who may follow it."""
        return await self._stub.StartTracking(
            location_service_pb2.StartTrackingRequest(
                trip=trip, request_id=request_id or str(uuid.uuid4())
            )
        )

    async def stop(
        self, trip_id: str, tenant_id: str, *, request_id: str | None = None
    ) -> trip_pb2.TrackedTrip:
        """Stop tracking a trip; its followers' iterators end."""
        return await self._stub.StopTracking(
            location_service_pb2.StopTrackingRequest(
                trip_id=trip_id, tenant_id=tenant_id, request_id=request_id or str(uuid.uuid4())
            )
        )
