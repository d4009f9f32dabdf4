"""Is the RPC side of holds."""

from collections.abc import Callable

from services.booking import convert
from services.booking.domain.holding import BestAvailable
from services.booking.domain.seats import Hold
from services.booking.operations.holds import Holds, HoldWish
from services.booking.seat_messages import hold_message
from services.shared.clock import Clock
from services.shared.rpc.caller import current_caller
from wayfare.booking.v1 import booking_service_pb2 as pb
from wayfare.booking.v1 import hold_pb2

_STAFF = ("ADMIN", "BUSINESS", "CONDUCTOR")


class HoldCalls:
    """Serves what keeps seats for a while."""

    def __init__(self, *, holds: Holds, clock: Clock, degraded: Callable[[], bool]) -> None:
        """Take the operations; `degraded` says that the cache is away for now."""
        self._holds = holds
        self._clock = clock
        self._degraded = degraded

    async def hold_seats(self, request: pb.HoldSeatsRequest) -> hold_pb2.Hold:
        """Hold seats."""
        caller = current_caller()
        best = None
        if request.HasField("best_available"):
            asked = request.best_available
            best = BestAvailable(
                seat_count=asked.seat_count,
                seat_class_code=asked.seat_class_code,
                accessible=asked.accessible,
                together_required=asked.together_required,
            )
        wish = HoldWish(
            trip_id=request.trip_id.lower(),
            from_stop_id=request.from_stop_id,
            to_stop_id=request.to_stop_id,
            seat_numbers=tuple(request.seats.seat_numbers),
            best=best,
            replaced_hold_id=request.replaced_hold_id.lower(),
            user_id=caller.user_id,
            staff=caller.role in _STAFF,
        )
        write = convert.write_request(caller, "HoldSeats", request)
        return self._message(await self._holds.hold(wish, write))

    async def extend_hold(self, request: pb.ExtendHoldRequest) -> hold_pb2.Hold:
        """Let a hold last longer."""
        caller = current_caller()
        write = convert.write_request(caller, "ExtendHold", request)
        hold = await self._holds.extend(request.hold_id.lower(), caller.user_id, write)
        return self._message(hold)

    async def release_hold(self, request: pb.ReleaseHoldRequest) -> hold_pb2.Hold:
        """Free the seats of a hold."""
        caller = current_caller()
        write = convert.write_request(caller, "ReleaseHold", request)
        hold = await self._holds.release(request.hold_id.lower(), caller.user_id, write)
        return self._message(hold)

    async def list_holds(self, request: pb.ListHoldsRequest) -> pb.ListHoldsResponse:
        """List the caller's holds that keep seats."""
        caller = current_caller()
        page = await self._holds.page(
            caller.tenant_id,
            caller.user_id,
            trip_id=request.trip_id.lower(),
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return pb.ListHoldsResponse(
            holds=map(self._message, page.holds), next_page_token=page.next_page_token
        )

    def _message(self, hold: Hold) -> hold_pb2.Hold:
        return hold_message(
            hold,
            self._clock.now(),
            extensions_max=self._holds.extensions_max,
            degraded=self._degraded(),
        )
