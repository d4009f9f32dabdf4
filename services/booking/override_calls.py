"""Is the RPC side of changes of seats by hand."""

from services.booking import convert
from services.booking.domain.overriding import OverrideAction
from services.booking.operations.overrides import Overrides, OverrideWish
from services.booking.seat_messages import seat_override_message
from services.shared.rpc.caller import current_caller
from wayfare.booking.v1 import booking_service_pb2 as pb
from wayfare.booking.v1 import manifest_pb2


class OverrideCalls:
    """Serves what an ADMIN does to seats."""

    def __init__(self, overrides: Overrides) -> None:
        """Take the operations."""
        self._overrides = overrides

    async def override_seat(self, request: pb.OverrideSeatRequest) -> manifest_pb2.SeatOverride:
        """Change a seat by hand."""
        caller = current_caller()
        name = manifest_pb2.SeatOverrideAction.Name(request.action)
        wish = OverrideWish(
            trip_id=request.trip_id.lower(),
            seat_number=request.seat_number,
            from_stop_id=request.from_stop_id,
            to_stop_id=request.to_stop_id,
            action=OverrideAction(name.removeprefix("SEAT_OVERRIDE_ACTION_")),
            target_seat_number=request.target_seat_number,
            reason=request.reason,
            user_id=caller.user_id,
        )
        write = convert.write_request(caller, "OverrideSeat", request)
        return seat_override_message(await self._overrides.override(wish, write))

    async def list_seat_overrides(
        self, request: pb.ListSeatOverridesRequest
    ) -> pb.ListSeatOverridesResponse:
        """List what was changed by hand."""
        page = await self._overrides.page(
            current_caller().tenant_id,
            trip_id=request.trip_id.lower(),
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return pb.ListSeatOverridesResponse(
            seat_overrides=map(seat_override_message, page.overrides),
            next_page_token=page.next_page_token,
        )
