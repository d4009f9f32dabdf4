"""Is the RPC side of manifests and boarding."""

from services.booking import convert
from services.booking.operations.manifests import Manifests
from services.booking.operations.scans import Scans
from services.booking.ticket_messages import (
    attendant_of,
    counts_message,
    manifest_message,
    mark_of,
)
from services.shared.rpc.caller import current_caller
from wayfare.booking.v1 import booking_service_pb2 as pb
from wayfare.booking.v1 import manifest_pb2


class ManifestCalls:
    """Serves who travels, and who is on board."""

    def __init__(self, *, manifests: Manifests, scans: Scans) -> None:
        """Take the operations."""
        self._manifests = manifests
        self._scans = scans

    async def get_manifest(self, request: pb.GetManifestRequest) -> manifest_pb2.Manifest:
        """Get who travels on a trip."""
        trip_id = request.trip_id.lower()
        shown = await self._manifests.page(
            attendant_of(current_caller()),
            trip_id,
            from_stop_id=request.from_stop_id,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return manifest_message(shown, trip_id=trip_id)

    async def report_boarding(
        self, request: pb.ReportBoardingRequest
    ) -> manifest_pb2.BoardingCounts:
        """Report by hand who got on."""
        caller = current_caller()
        counts = await self._scans.report_boarding(
            attendant_of(caller),
            request.trip_id.lower(),
            stop_index=request.stop_index,
            marks=[mark_of(mark, index) for index, mark in enumerate(request.marks)],
            unbooked_count=request.unbooked_count if request.HasField("unbooked_count") else None,
            request=convert.write_request(caller, "ReportBoarding", request),
        )
        return counts_message(counts)
