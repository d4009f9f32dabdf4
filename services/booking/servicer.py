"""RPC in and out: one method per RPC, which hands over to the calls of its part.

Policy and errors are the interceptor's.
"""

from typing import TYPE_CHECKING, Any

from services.booking.trip_calls import TripCalls
from wayfare.booking.v1 import booking_service_pb2 as pb
from wayfare.booking.v1.booking_service_pb2_grpc import BookingServiceServicer
from wayfare.booking.v1.layout_pb2 import SeatLayout
from wayfare.booking.v1.trip_pb2 import Trip

if TYPE_CHECKING:
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]


class BookingServicer(BookingServiceServicer):
    """Answers BookingService."""

    def __init__(self, *, trip_calls: TripCalls) -> None:
        """Take the calls of each part."""
        self._trips = trip_calls

    async def CreateSeatLayout(
        self, request: pb.CreateSeatLayoutRequest, context: "Context"
    ) -> SeatLayout:
        """Create a seat layout."""
        return await self._trips.create_seat_layout(request)

    async def GetSeatLayout(
        self, request: pb.GetSeatLayoutRequest, context: "Context"
    ) -> SeatLayout:
        """Get a seat layout."""
        return await self._trips.get_seat_layout(request)

    async def ListSeatLayouts(
        self, request: pb.ListSeatLayoutsRequest, context: "Context"
    ) -> pb.ListSeatLayoutsResponse:
        """List seat layouts."""
        return await self._trips.list_seat_layouts(request)

    async def CreateTrip(self, request: pb.CreateTripRequest, context: "Context") -> Trip:
        """Create a trip."""
        return await self._trips.create_trip(request)

    async def UpdateTrip(self, request: pb.UpdateTripRequest, context: "Context") -> Trip:
        """Change a trip."""
        return await self._trips.update_trip(request)

    async def CancelTrip(self, request: pb.CancelTripRequest, context: "Context") -> Trip:
        """Call a trip off."""
        return await self._trips.cancel_trip(request)

    async def GetTrip(self, request: pb.GetTripRequest, context: "Context") -> Trip:
        """Get a trip."""
        return await self._trips.get_trip(request)

    async def ListTrips(
        self, request: pb.ListTripsRequest, context: "Context"
    ) -> pb.ListTripsResponse:
        """List trips."""
        return await self._trips.list_trips(request)
