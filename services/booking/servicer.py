"""RPC in and out: one method per RPC, which hands over to the calls of its part.

Policy and errors are the interceptor's.
"""

from typing import TYPE_CHECKING, Any

from services.booking.booking_calls import BookingCalls
from services.booking.hold_calls import HoldCalls
from services.booking.manifest_calls import ManifestCalls
from services.booking.override_calls import OverrideCalls
from services.booking.seat_map_calls import SeatMapCalls
from services.booking.ticket_calls import TicketCalls
from services.booking.trip_calls import TripCalls
from wayfare.booking.v1 import booking_service_pb2 as pb
from wayfare.booking.v1.booking_pb2 import Booking
from wayfare.booking.v1.booking_service_pb2_grpc import BookingServiceServicer
from wayfare.booking.v1.hold_pb2 import Hold
from wayfare.booking.v1.layout_pb2 import SeatLayout
from wayfare.booking.v1.manifest_pb2 import BoardingCounts, Manifest, SeatOverride
from wayfare.booking.v1.seat_map_pb2 import SeatMap
from wayfare.booking.v1.ticket_pb2 import ScanResult, Ticket, TicketKey
from wayfare.booking.v1.trip_pb2 import Trip

if TYPE_CHECKING:
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]


class BookingServicer(BookingServiceServicer):
    """Answers BookingService."""

    def __init__(
        self,
        *,
        trip_calls: TripCalls,
        hold_calls: HoldCalls,
        ticket_calls: TicketCalls,
        manifest_calls: ManifestCalls,
        seat_map_calls: SeatMapCalls,
        override_calls: OverrideCalls,
        booking_calls: BookingCalls,
    ) -> None:
        """Take the calls of each part."""
        self._trips = trip_calls
        self._holds = hold_calls
        self._tickets = ticket_calls
        self._manifests = manifest_calls
        self._seat_maps = seat_map_calls
        self._overrides = override_calls
        self._bookings = booking_calls

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

    async def SearchTrips(
        self, request: pb.SearchTripsRequest, context: "Context"
    ) -> pb.SearchTripsResponse:
        """Search journeys."""
        return await self._trips.search_trips(request)

    async def ListTrips(
        self, request: pb.ListTripsRequest, context: "Context"
    ) -> pb.ListTripsResponse:
        """List trips."""
        return await self._trips.list_trips(request)

    async def GetTicket(self, request: pb.GetTicketRequest, context: "Context") -> Ticket:
        """Get a ticket."""
        return await self._tickets.get_ticket(request)

    async def VerifyTicket(self, request: pb.VerifyTicketRequest, context: "Context") -> ScanResult:
        """Verify a ticket on board."""
        return await self._tickets.verify_ticket(request)

    async def ReportScans(
        self, request: pb.ReportScansRequest, context: "Context"
    ) -> pb.ReportScansResponse:
        """Report scans that were made without a network."""
        return await self._tickets.report_scans(request)

    async def ListTicketKeys(
        self, request: pb.ListTicketKeysRequest, context: "Context"
    ) -> pb.ListTicketKeysResponse:
        """List the keys that verify tickets."""
        return await self._tickets.list_ticket_keys(request)

    async def RotateTicketKey(
        self, request: pb.RotateTicketKeyRequest, context: "Context"
    ) -> TicketKey:
        """Make a new key."""
        return await self._tickets.rotate_ticket_key(request)

    async def ListTicketRevocations(
        self, request: pb.ListTicketRevocationsRequest, context: "Context"
    ) -> pb.ListTicketRevocationsResponse:
        """List revoked tickets."""
        return await self._tickets.list_ticket_revocations(request)

    async def GetManifest(self, request: pb.GetManifestRequest, context: "Context") -> Manifest:
        """Get who travels on a trip."""
        return await self._manifests.get_manifest(request)

    async def ReportBoarding(
        self, request: pb.ReportBoardingRequest, context: "Context"
    ) -> BoardingCounts:
        """Report by hand who got on."""
        return await self._manifests.report_boarding(request)

    async def HoldSeats(self, request: pb.HoldSeatsRequest, context: "Context") -> Hold:
        """Hold seats."""
        return await self._holds.hold_seats(request)

    async def ExtendHold(self, request: pb.ExtendHoldRequest, context: "Context") -> Hold:
        """Let a hold last longer."""
        return await self._holds.extend_hold(request)

    async def ReleaseHold(self, request: pb.ReleaseHoldRequest, context: "Context") -> Hold:
        """Free the seats of a hold."""
        return await self._holds.release_hold(request)

    async def ListHolds(
        self, request: pb.ListHoldsRequest, context: "Context"
    ) -> pb.ListHoldsResponse:
        """List the caller's holds that keep seats."""
        return await self._holds.list_holds(request)

    async def GetSeatMap(self, request: pb.GetSeatMapRequest, context: "Context") -> SeatMap:
        """Get the seat map of a journey."""
        return await self._seat_maps.get_seat_map(request)

    async def WatchSeats(self, request: pb.WatchSeatsRequest, context: "Context") -> None:  # type: ignore[override]  # written, not yielded
        """Stream the seats of a journey out as bytes."""
        await self._seat_maps.watch_seats(request, context)

    async def OverrideSeat(
        self, request: pb.OverrideSeatRequest, context: "Context"
    ) -> SeatOverride:
        """Change a seat by hand."""
        return await self._overrides.override_seat(request)

    async def ListSeatOverrides(
        self, request: pb.ListSeatOverridesRequest, context: "Context"
    ) -> pb.ListSeatOverridesResponse:
        """List what was changed by hand."""
        return await self._overrides.list_seat_overrides(request)

    async def CreateBooking(self, request: pb.CreateBookingRequest, context: "Context") -> Booking:
        """Book and pay what a hold keeps."""
        return await self._bookings.create_booking(request)

    async def GetBooking(self, request: pb.GetBookingRequest, context: "Context") -> Booking:
        """Get a booking."""
        return await self._bookings.get_booking(request)

    async def ListBookings(
        self, request: pb.ListBookingsRequest, context: "Context"
    ) -> pb.ListBookingsResponse:
        """List bookings."""
        return await self._bookings.list_bookings(request)

    async def CancelBooking(self, request: pb.CancelBookingRequest, context: "Context") -> Booking:
        """Cancel a booking."""
        return await self._bookings.cancel_booking(request)
