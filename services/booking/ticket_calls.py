"""Is the RPC side of tickets: shown, scanned, revoked, and the keys that sign them."""

import asyncio
from datetime import datetime

from services.booking import convert
from services.booking.errors.lists import PageTokenInvalidError
from services.booking.operations.paging import read_token, write_token
from services.booking.operations.scans import Scans
from services.booking.operations.ticket_keys import SIGN_AFTER_DEFAULT, TicketKeys
from services.booking.operations.tickets import Tickets
from services.booking.ports.tickets import ListedKey
from services.booking.ticket_messages import (
    attendant_of,
    counts_message,
    key_message,
    result_message,
    results,
    revocation_message,
    seen_code,
    ticket_message,
)
from services.booking.ticket_qr import qr_drawing, qr_png
from services.shared.clock import Clock
from services.shared.rpc.caller import current_caller
from wayfare.booking.v1 import booking_service_pb2 as pb
from wayfare.booking.v1 import ticket_pb2


class TicketCalls:
    """Serves tickets."""

    def __init__(self, *, tickets: Tickets, scans: Scans, keys: TicketKeys, clock: Clock) -> None:
        """Take the operations."""
        self._tickets = tickets
        self._scans = scans
        self._keys = keys
        self._clock = clock

    async def get_ticket(self, request: pb.GetTicketRequest) -> ticket_pb2.Ticket:
        """Get a ticket, with its QR code as asked for."""
        attendant = attendant_of(current_caller())
        shown = await self._tickets.get(attendant, request.ticket_id.lower())
        message = ticket_message(shown, now=self._clock.now())
        # Each takes some 20 ms of computing: others go on meanwhile.
        if request.include_qr_png:
            message.qr_png = await asyncio.to_thread(
                qr_png, message.qr_text, module_size=request.qr_module_size
            )
        if request.include_qr_drawing:
            message.qr_drawing = await asyncio.to_thread(qr_drawing, message.qr_text)
        return message

    async def verify_ticket(self, request: pb.VerifyTicketRequest) -> ticket_pb2.ScanResult:
        """Verify a ticket on board and use it."""
        trip_id = request.trip_id.lower()
        code = seen_code(
            request.scan, trip_id=trip_id, device_id=request.device_id, field="scan", online=True
        )
        report = await self._scans.scan(
            attendant_of(current_caller()), trip_id, [code], device_id=request.device_id
        )
        return result_message(report.results[0], now=report.now)

    async def report_scans(self, request: pb.ReportScansRequest) -> pb.ReportScansResponse:
        """Report scans that a phone made without a network."""
        caller = current_caller()
        trip_id = request.trip_id.lower()
        codes = [
            seen_code(
                scan,
                trip_id=trip_id,
                device_id=request.device_id,
                field=f"scans[{index}]",
                online=False,
            )
            for index, scan in enumerate(request.scans)
        ]
        report = await self._scans.scan(
            attendant_of(caller),
            trip_id,
            codes,
            device_id=request.device_id,
            request=convert.write_request(caller, "ReportScans", request),
        )
        return pb.ReportScansResponse(
            results=results(report, report.results),
            overturned_results=results(report, report.overturned),
            boarding_counts=counts_message(report.counts),
        )

    async def list_ticket_keys(
        self, request: pb.ListTicketKeysRequest
    ) -> pb.ListTicketKeysResponse:
        """List the public keys."""
        tenant_id = current_caller().tenant_id
        filters = ("ListTicketKeys", tenant_id)
        before = _key_place(request.page_token, filters) if request.page_token else None
        keys, more = await self._keys.page(tenant_id, before=before, page_size=request.page_size)
        token = ""
        if more:
            last = keys[-1].published
            token = write_token(filters, (last.sign_start_time.isoformat(), last.key_id))
        return pb.ListTicketKeysResponse(ticket_keys=map(key_message, keys), next_page_token=token)

    async def rotate_ticket_key(self, request: pb.RotateTicketKeyRequest) -> ticket_pb2.TicketKey:
        """Make a new key."""
        after = SIGN_AFTER_DEFAULT
        if request.HasField("sign_after"):
            after = request.sign_after.ToTimedelta()
        write = convert.write_request(current_caller(), "RotateTicketKey", request)
        return key_message(ListedKey(await self._keys.rotate(write, sign_after=after), None))

    async def list_ticket_revocations(
        self, request: pb.ListTicketRevocationsRequest
    ) -> pb.ListTicketRevocationsResponse:
        """List what was revoked, from a token on."""
        attendant = attendant_of(current_caller())
        page = await self._tickets.revocations(
            attendant,
            request.trip_id.lower(),
            sync_token=request.sync_token,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return pb.ListTicketRevocationsResponse(
            ticket_revocations=map(revocation_message, page.revocations),
            next_page_token=page.next_page_token,
            sync_token=page.sync_token,
        )


def _key_place(page_token: str, filters: tuple[str, str]) -> tuple[datetime, str]:
    start, key_id = read_token(page_token, filters, 2)
    try:
        moment = datetime.fromisoformat(start)
    except ValueError as error:
        raise PageTokenInvalidError from error
    if moment.tzinfo is None:
        raise PageTokenInvalidError
    return moment, key_id
