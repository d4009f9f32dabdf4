"""Is the RPC side of trips and seat layouts."""

from services.booking import convert, search_messages, trip_messages
from services.booking.domain.trips import Trip
from services.booking.layout_messages import layout_message, layout_of
from services.booking.operations.layouts import Layouts
from services.booking.operations.search import Search
from services.booking.operations.trips import TripQuery, Trips
from services.shared.clock import Clock
from services.shared.rpc.caller import Caller, CallerKind, current_caller
from wayfare.booking.v1 import booking_service_pb2 as pb
from wayfare.booking.v1 import layout_pb2, trip_pb2

_STAFF = ("ADMIN", "BUSINESS")
_CREW = ("DRIVER", "CONDUCTOR")


class TripCalls:
    """Serves what makes and finds trips and layouts."""

    def __init__(self, *, trips: Trips, layouts: Layouts, search: Search, clock: Clock) -> None:
        """Take the operations."""
        self._search = search
        self._trips = trips
        self._layouts = layouts
        self._clock = clock

    async def create_seat_layout(
        self, request: pb.CreateSeatLayoutRequest
    ) -> layout_pb2.SeatLayout:
        """Create a seat layout."""
        write = convert.write_request(current_caller(), "CreateSeatLayout", request)
        return layout_message(await self._layouts.create(layout_of(request.seat_layout), write))

    async def get_seat_layout(self, request: pb.GetSeatLayoutRequest) -> layout_pb2.SeatLayout:
        """Get a seat layout."""
        tenant_id = current_caller().tenant_id
        return layout_message(await self._layouts.get(tenant_id, request.seat_layout_id.lower()))

    async def list_seat_layouts(
        self, request: pb.ListSeatLayoutsRequest
    ) -> pb.ListSeatLayoutsResponse:
        """List seat layouts, newest first."""
        page = await self._layouts.page(
            current_caller().tenant_id,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return pb.ListSeatLayoutsResponse(
            seat_layouts=map(layout_message, page.layouts), next_page_token=page.next_page_token
        )

    async def create_trip(self, request: pb.CreateTripRequest) -> trip_pb2.Trip:
        """Create a trip."""
        caller = current_caller()
        draft = trip_messages.trip_draft(request.trip)
        write = convert.write_request(caller, "CreateTrip", request)
        return self._message(await self._trips.create(draft, write), caller)

    async def update_trip(self, request: pb.UpdateTripRequest) -> trip_pb2.Trip:
        """Change a trip."""
        caller = current_caller()
        trip = await self._trips.update(
            request.trip.trip_id.lower(),
            lambda before: trip_messages.merged(before, request.trip, request.update_mask),
            convert.write_request(caller, "UpdateTrip", request),
        )
        return self._message(trip, caller)

    async def cancel_trip(self, request: pb.CancelTripRequest) -> trip_pb2.Trip:
        """Call a trip off."""
        caller = current_caller()
        trip = await self._trips.cancel(
            request.trip_id.lower(),
            request.cancel_reason,
            convert.write_request(caller, "CancelTrip", request),
        )
        return self._message(trip, caller)

    async def get_trip(self, request: pb.GetTripRequest) -> trip_pb2.Trip:
        """Get a trip."""
        caller = current_caller()
        trip = await self._trips.get(caller.tenant_id, request.trip_id.lower())
        return self._message(trip, caller)

    async def list_trips(self, request: pb.ListTripsRequest) -> pb.ListTripsResponse:
        """List trips by departure."""
        caller = current_caller()
        start, end = request.HasField("start_time"), request.HasField("end_time")
        page = await self._trips.page(
            TripQuery(
                tenant_id=caller.tenant_id,
                crew_id=caller.user_id if caller.role in _CREW else request.crew_id.lower(),
                status=trip_messages.status_of(request.status),
                start_time=convert.moment_of(request.start_time, "start_time") if start else None,
                end_time=convert.moment_of(request.end_time, "end_time") if end else None,
                page_size=request.page_size,
                page_token=request.page_token,
            )
        )
        return pb.ListTripsResponse(
            trips=[self._message(trip, caller) for trip in page.trips],
            next_page_token=page.next_page_token,
        )

    async def search_trips(self, request: pb.SearchTripsRequest) -> pb.SearchTripsResponse:
        """Search journeys."""
        query = search_messages.query_of(request, current_caller().tenant_id)
        page = await self._search.page(query)
        now = self._clock.now()
        return pb.SearchTripsResponse(
            options=[
                search_messages.option_message(one, now, accessible=request.accessible)
                for one in page.options
            ],
            next_page_token=page.next_page_token,
        )

    def _message(self, trip: Trip, caller: Caller) -> trip_pb2.Trip:
        sees_crew = (
            caller.kind is CallerKind.API_KEY or caller.role in _STAFF or caller.role in _CREW
        )
        status = trip.status(self._clock.now())
        return trip_messages.trip_message(trip, status=status, with_crew=sees_crew)
