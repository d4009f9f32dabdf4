"""Is the RPC side of bookings."""

from services.booking import convert
from services.booking.booking_messages import booking_message, state_of, wish_of
from services.booking.operations.bookings import Bookings
from services.booking.ports.bookings import BookingReader
from services.shared.money import money_from_proto
from services.shared.rpc.caller import Caller, current_caller
from wayfare.booking.v1 import booking_pb2
from wayfare.booking.v1 import booking_service_pb2 as pb


class BookingCalls:
    """Serves bookings."""

    def __init__(self, *, bookings: Bookings) -> None:
        """Take the operations."""
        self._bookings = bookings

    async def create_booking(self, request: pb.CreateBookingRequest) -> booking_pb2.Booking:
        """Book and pay what a hold keeps."""
        caller = current_caller()
        write = convert.write_request(caller, "CreateBooking", request)
        return booking_message(await self._bookings.create(wish_of(request), caller.user_id, write))

    async def get_booking(self, request: pb.GetBookingRequest) -> booking_pb2.Booking:
        """Get a booking."""
        reader = _reader_of(current_caller())
        return booking_message(await self._bookings.get(reader, request.booking_id.lower()))

    async def list_bookings(self, request: pb.ListBookingsRequest) -> pb.ListBookingsResponse:
        """List bookings, newest first."""
        page = await self._bookings.page(
            _reader_of(current_caller()),
            user_id=request.user_id.lower(),
            trip_id=request.trip_id.lower(),
            state=state_of(request.state),
            booking_code=request.booking_code,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return pb.ListBookingsResponse(
            bookings=map(booking_message, page.bookings), next_page_token=page.next_page_token
        )

    async def cancel_booking(self, request: pb.CancelBookingRequest) -> booking_pb2.Booking:
        """Cancel a booking."""
        caller = current_caller()
        max_fee = money_from_proto(request.max_fee) if request.HasField("max_fee") else None
        shown = await self._bookings.cancel(
            _reader_of(caller),
            request.booking_id.lower(),
            convert.write_request(caller, "CancelBooking", request),
            reason=request.reason,
            max_fee_minor=None if max_fee is None else max_fee.amount_minor,
        )
        return booking_message(shown)


def _reader_of(caller: Caller) -> BookingReader:
    return BookingReader(tenant_id=caller.tenant_id, user_id=caller.user_id, role=caller.role)
