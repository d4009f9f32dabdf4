"""Pure conversion of tickets, scans and manifests between the contract and the domain."""

import hashlib
from collections.abc import Sequence
from datetime import datetime

from services.booking import convert
from services.booking.domain.boarding import BoardingCounts, BoardingMark, BoardingState
from services.booking.domain.issuing import IssuedTicket
from services.booking.domain.passengers import Traveller
from services.booking.domain.scanning import CountedScan, ScanKind, Ticket, TicketState
from services.booking.domain.tickets import passenger_key_of, qr_text, token
from services.booking.journey_messages import journey_message
from services.booking.operations.crew import Attendant
from services.booking.operations.manifests import ShownManifest
from services.booking.operations.scans import ScanReport, ScanResult, SeenCode
from services.booking.operations.tickets import ShownTicket
from services.booking.ports.tickets import ListedKey, ManifestLine, Revocation
from services.booking.ports.trips import NewEvent
from services.shared.ids import IdSource
from services.shared.rpc.caller import Caller, CallerKind
from services.shared.rpc.timestamps import timestamp_of
from wayfare.booking.v1 import booking_pb2, events_pb2, manifest_pb2, ticket_pb2

_KINDS = {
    ticket_pb2.SCAN_KIND_BOARD: ScanKind.BOARD,
    ticket_pb2.SCAN_KIND_CHECK: ScanKind.CHECK,
}
_NO_TRAVELLER = Traveller(full_name="")
_STAFF = ("ADMIN", "BUSINESS")


def attendant_of(caller: Caller) -> Attendant:
    """Return who asks, as the operations know them."""
    is_staff = caller.role in _STAFF or caller.kind is CallerKind.API_KEY
    return Attendant(tenant_id=caller.tenant_id, user_id=caller.user_id, is_staff=is_staff)


def ticket_message(shown: ShownTicket, *, now: datetime) -> ticket_pb2.Ticket:
    """Return a ticket without its drawings."""
    ticket, issued = shown.ticket, shown.ticket.issued
    due = issued.cash_due_minor if ticket.state is TicketState.VALID else 0
    return ticket_pb2.Ticket(
        ticket_id=issued.ticket_id,
        booking_id=issued.booking_id,
        booking_code=issued.booking_code,
        trip_id=issued.trip_id,
        journey=journey_message(
            shown.trip,
            from_stop_index=issued.from_stop_index,
            to_stop_index=issued.to_stop_index,
            now=now,
        ),
        passenger_id=issued.passenger_id,
        seat_number=issued.seat_number,
        state=ticket_pb2.TicketState.Value(f"TICKET_STATE_{ticket.state}"),
        key_id=issued.key_id,
        qr_text=qr_text(issued.code),
        token=token(issued.code),
        cash_due=convert.money_message(due, issued.currency_code) if due else None,
        issue_time=timestamp_of(issued.issue_time),
        revoke_time=timestamp_of(ticket.revoke_time),
        use_time=timestamp_of(ticket.use.scan_time) if ticket.use else None,
    )


def key_message(listed: ListedKey) -> ticket_pb2.TicketKey:
    """Return a key as phones take it."""
    key = listed.published
    return ticket_pb2.TicketKey(
        key_id=key.key_id,
        public_key=key.public_key,
        sign_start_time=timestamp_of(key.sign_start_time),
        sign_end_time=timestamp_of(key.sign_end_time),
        forget_time=timestamp_of(listed.forget_time),
    )


def revocation_message(revocation: Revocation) -> ticket_pb2.TicketRevocation:
    """Return a revocation."""
    return ticket_pb2.TicketRevocation(
        ticket_id=revocation.ticket_id,
        trip_id=revocation.trip_id,
        revoke_time=timestamp_of(revocation.revoke_time),
    )


def seen_code(
    scan: ticket_pb2.Scan, *, trip_id: str, device_id: str, field: str, online: bool
) -> SeenCode:
    """Return a scan; `field` is where it stands. Raises RequestInvalidError for its time.

    It is the same scan again, whatever the phone says of its time and of its own verdict: who got
    no answer decides by itself and reports it later.
    """
    same = (trip_id, device_id, scan.ticket, str(scan.kind), str(scan.stop_index))
    timed = scan.HasField("scan_time")
    return SeenCode(
        scan_id=scan.scan_id.lower(),
        text=scan.ticket,
        kind=_KINDS[scan.kind],
        stop_index=scan.stop_index,
        scan_time=convert.moment_of(scan.scan_time, f"{field}.scan_time") if timed else None,
        is_online=online,
        lets_on=scan.accepted_offline,
        body_hash=hashlib.sha256("\n".join(same).encode()).digest(),
    )


def result_message(result: ScanResult, *, now: datetime) -> ticket_pb2.ScanResult:
    """Return what became of a scan."""
    answer = result.answer
    message = ticket_pb2.ScanResult(
        scan_id=answer.scan_id, accepted=not answer.reason, reason=answer.reason
    )
    if result.ticket is None:
        return message
    issued, taken = result.ticket.issued, result.cash_due
    message.ticket_id = issued.ticket_id
    message.booking_id = issued.booking_id
    message.booking_code = issued.booking_code
    message.seat_number = issued.seat_number
    message.passenger_name = result.passenger_name
    if result.trip is not None:
        journey = journey_message(
            result.trip,
            from_stop_index=issued.from_stop_index,
            to_stop_index=issued.to_stop_index,
            now=now,
        )
        message.journey.CopyFrom(journey)
    if taken is not None:
        message.cash_due.CopyFrom(convert.money_message(taken.amount_minor, taken.currency_code))
    if answer.counted is not None:
        message.counted_scan.CopyFrom(_counted(answer.counted))
    return message


def results(report: ScanReport, found: Sequence[ScanResult]) -> list[ticket_pb2.ScanResult]:
    """Return what became of some scans of a report."""
    return [result_message(result, now=report.now) for result in found]


def _counted(scan: CountedScan) -> ticket_pb2.CountedScan:
    return ticket_pb2.CountedScan(
        scan_id=scan.scan_id,
        device_id=scan.device_id,
        stop_index=scan.stop_index,
        scan_time=timestamp_of(scan.scan_time),
    )


def mark_of(message: manifest_pb2.BoardingMark, index: int) -> BoardingMark:
    """Return a mark made by hand. Raises RequestInvalidError for its time."""
    name = booking_pb2.BoardingState.Name(message.boarding_state)
    return BoardingMark(
        passenger_id=message.passenger_id.lower(),
        state=BoardingState(name.removeprefix("BOARDING_STATE_")),
        mark_time=convert.moment_of(message.mark_time, f"marks[{index}].mark_time"),
    )


def boarding_state_number(
    state: BoardingState | None,
) -> booking_pb2.BoardingState.ValueType:
    """Return the number of a state; unspecified when nothing is known."""
    return booking_pb2.BoardingState.Value(f"BOARDING_STATE_{state or 'UNSPECIFIED'}")


def counts_message(counts: BoardingCounts) -> manifest_pb2.BoardingCounts:
    """Return counts."""
    return manifest_pb2.BoardingCounts(
        trip_id=counts.trip_id,
        boarded_count=counts.boarded_count,
        expected_count=counts.expected_count,
        no_show_count=counts.no_show_count,
        unbooked_count=counts.unbooked_count,
        stop_index=counts.stop_index,
        count_time=timestamp_of(counts.count_time),
    )


def manifest_message(shown: ShownManifest, *, trip_id: str) -> manifest_pb2.Manifest:
    """Return a page of a manifest."""
    page = shown.page
    return manifest_pb2.Manifest(
        trip_id=trip_id,
        seat_version=page.seat_version,
        entries=[
            _entry(line, shown.travellers.get(line.ticket.issued.passenger_id, _NO_TRAVELLER))
            for line in page.lines
        ],
        stop_counts=[
            manifest_pb2.StopCount(
                stop_index=load.stop_index,
                pickup_count=load.pickup_count,
                drop_off_count=load.drop_off_count,
            )
            for load in page.loads
        ],
        boarding_counts=counts_message(page.counts),
        read_time=timestamp_of(shown.read_time),
        next_page_token=shown.next_page_token,
    )


def _entry(line: ManifestLine, traveller: Traveller) -> manifest_pb2.ManifestEntry:
    issued = line.ticket.issued
    due = 0 if line.cash_taken else issued.cash_due_minor
    document = traveller.document_kind or "UNSPECIFIED"
    return manifest_pb2.ManifestEntry(
        booking_id=issued.booking_id,
        booking_code=issued.booking_code,
        passenger_id=issued.passenger_id,
        passenger_key=passenger_key_of(issued.passenger_id),
        ticket_id=issued.ticket_id,
        seat_number=issued.seat_number,
        full_name=traveller.full_name,
        document_kind=booking_pb2.DocumentKind.Value(f"DOCUMENT_KIND_{document}"),
        document_number=traveller.document_number,
        from_stop_index=issued.from_stop_index,
        to_stop_index=issued.to_stop_index,
        boarding_state=boarding_state_number(line.boarding_state),
        board_time=timestamp_of(line.board_time),
        cash_due=convert.money_message(due, issued.currency_code) if due else None,
    )


class TicketEventMessages:
    """Says in events what happened to tickets. Implements ports.tickets.TicketEvents."""

    def __init__(self, ids: IdSource) -> None:
        """Take where the ids of events come from."""
        self._ids = ids

    def used(
        self, tenant_id: str, ticket: Ticket, use: CountedScan, *, version: int, now: datetime
    ) -> NewEvent:
        """Return the event of a ticket that was used."""
        issued: IssuedTicket = ticket.issued
        payload = events_pb2.TicketUsed(
            booking_id=issued.booking_id,
            trip_id=issued.trip_id,
            ticket_id=issued.ticket_id,
            scan_id=use.scan_id,
            scan_time=timestamp_of(use.scan_time),
        )
        return convert.new_event(
            payload,
            event_id=self._ids.new_id(),
            tenant_id=tenant_id,
            aggregate_type="booking",
            aggregate_id=issued.booking_id,
            aggregate_version=version,
            occur_time=now,
        )

    def counted(self, tenant_id: str, counts: BoardingCounts, *, version: int) -> NewEvent:
        """Return the event of a trip's counts."""
        return convert.new_event(
            events_pb2.BoardingCounted(counts=counts_message(counts)),
            event_id=self._ids.new_id(),
            tenant_id=tenant_id,
            aggregate_type="trip",
            aggregate_id=counts.trip_id,
            aggregate_version=version,
            occur_time=counts.count_time,
        )
