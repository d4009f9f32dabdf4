"""Decides scans: which code is good, and which of several scans of one ticket counts. Pure.

Of several boarding scans of a ticket the earliest counts, whatever order they arrive in, so that
all phones and servers come to the same verdict.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from services.booking.domain.issuing import IssuedTicket
from services.booking.domain.tickets import Precedence, ScanReason, Verdict, counted
from services.shared.errors import RequestIdReusedError


class ScanKind(StrEnum):
    """Says what a scan is for."""

    BOARD = "BOARD"
    CHECK = "CHECK"


class TicketState(StrEnum):
    """Says whether a ticket can be used."""

    VALID = "VALID"
    USED = "USED"
    REVOKED = "REVOKED"


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedScan:
    """Is the boarding scan of a ticket that counts."""

    scan_id: str
    device_id: str
    stop_index: int
    scan_time: datetime

    @property
    def precedence(self) -> Precedence:
        """Return its place among the scans of its ticket."""
        return Precedence(scan_time=self.scan_time, device_id=self.device_id, scan_id=self.scan_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """Is a ticket with what became of it.

    `heir_id` is the good ticket that its passenger got instead of this one; "" without any.
    """

    issued: IssuedTicket
    revoke_time: datetime | None = None
    use: CountedScan | None = None
    heir_id: str = ""

    @property
    def counting_id(self) -> str:
        """Return the ticket at which its scans count: a passenger boards once, by whichever."""
        return self.heir_id or self.issued.ticket_id

    @property
    def state(self) -> TicketState:
        """Return whether it can be used."""
        if self.revoke_time is not None:
            return TicketState.REVOKED
        return TicketState.VALID if self.use is None else TicketState.USED


def with_heirs(named: Mapping[str, Ticket], heirs: Iterable[Ticket]) -> dict[str, Ticket]:
    """Return these tickets and the good ones that their passengers have, each knowing its heir."""
    good = {heir.issued.passenger_id: heir for heir in heirs}
    tickets = {heir.issued.ticket_id: heir for heir in good.values()}
    for ticket_id, ticket in named.items():
        heir = good.get(ticket.issued.passenger_id)
        if heir is None or ticket.revoke_time is None:
            tickets[ticket_id] = ticket
        else:
            tickets[ticket_id] = replace(ticket, heir_id=heir.issued.ticket_id)
    return tickets


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedScan:
    """Is a scan as a phone reports it, with what its code is worth.

    `is_online` says that the passenger waits for the answer: what is known by now counts. Offline
    `lets_on` is what the phone decided by itself. `body_hash` stands for what makes it the same
    scan again.
    """

    scan_id: str
    kind: ScanKind
    stop_index: int
    scan_time: datetime
    is_online: bool = False
    lets_on: bool = True
    body_hash: bytes
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeScan:
    """Is a scan as it is kept. `reason` is why the code was not good then; "" when it was."""

    scan_id: str
    ticket_id: str
    device_id: str
    kind: ScanKind
    stop_index: int
    scan_time: datetime
    lets_on: bool
    reason: str
    body_hash: bytes

    @property
    def competes(self) -> bool:
        """Return whether it may be the scan of its ticket that counts."""
        return self.kind is ScanKind.BOARD and self.lets_on and not self.reason

    def loses_to(self, use: CountedScan) -> bool:
        """Return whether the ticket was used before it.

        A phone that turned the passenger away used nothing, and was right if the other was earlier.
        """
        if self.kind is not ScanKind.BOARD or self.reason or use.scan_id == self.scan_id:
            return False
        earlier = (use.scan_time, use.device_id) <= (self.scan_time, self.device_id)
        return self.lets_on or earlier


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanAnswer:
    """Says what became of a scan. `counted` is the scan that counts instead of it."""

    scan_id: str
    kind: ScanKind
    ticket_id: str
    reason: str
    counted: CountedScan | None = None


@dataclass(slots=True, kw_only=True)
class ScanDecision:
    """Is what follows from scans: what to keep, and what to answer."""

    made: list[MadeScan] = field(default_factory=list)
    uses: dict[str, CountedScan] = field(default_factory=dict)
    answers: list[ScanAnswer] = field(default_factory=list)
    overturned: list[ScanAnswer] = field(default_factory=list)


def decide(
    wanted: Sequence[WantedScan],
    *,
    device_id: str,
    made: Mapping[str, MadeScan],
    tickets: Mapping[str, Ticket],
    now: datetime,
) -> ScanDecision:
    """Decide scans of one phone on one trip.

    `made` are those of them that came before, `tickets` those that their codes name, and their
    heirs: a phone that was away may report that somebody boarded who was given another seat since.
    Raises RequestIdReusedError for an id that came before with another body.
    """
    decision = ScanDecision()
    known = dict(made)
    for scan in wanted:
        before = known.get(scan.scan_id)
        if before is None:
            new = _made(scan, device_id=device_id, tickets=tickets, now=now)
            known[scan.scan_id] = new
            decision.made.append(new)
        elif before.body_hash != scan.body_hash:
            raise RequestIdReusedError(scan.scan_id)
    for new in decision.made:
        if new.competes:
            _let_compete(new, tickets[tickets[new.ticket_id].counting_id], decision)
    decision.answers = [
        _answer(known[scan.scan_id], tickets=tickets, decision=decision) for scan in wanted
    ]
    asked = {scan.scan_id for scan in wanted}
    for ticket_id, use in decision.uses.items():
        before_use = tickets[ticket_id].use
        if before_use is not None and before_use.scan_id not in asked:
            decision.overturned.append(
                ScanAnswer(
                    scan_id=before_use.scan_id,
                    kind=ScanKind.BOARD,
                    ticket_id=ticket_id,
                    reason=ScanReason.ALREADY_USED,
                    counted=use,
                )
            )
    return decision


def _made(
    scan: WantedScan, *, device_id: str, tickets: Mapping[str, Ticket], now: datetime
) -> MadeScan:
    content = scan.verdict.content
    scan_time = min(scan.scan_time, now)
    reason = str(scan.verdict.reason or "")
    if content is not None:
        # A clock that is far behind does not make a scan earlier than its ticket.
        scan_time = max(scan_time, content.issue_time)
        if not reason:
            at = None if scan.is_online else scan_time
            reason = _reason_of(tickets.get(content.ticket_id), at)
    return MadeScan(
        scan_id=scan.scan_id,
        ticket_id="" if content is None else content.ticket_id,
        device_id=device_id,
        kind=scan.kind,
        stop_index=scan.stop_index,
        scan_time=scan_time,
        lets_on=scan.is_online or scan.lets_on,
        reason=reason,
        body_hash=scan.body_hash,
    )


def _reason_of(ticket: Ticket | None, at: datetime | None) -> str:
    """Return why a good code was not good at that time, or by now; unkept ones were taken back."""
    revoked = ticket is None or (
        ticket.revoke_time is not None and (at is None or ticket.revoke_time <= at)
    )
    return ScanReason.REVOKED if revoked else ""


def _let_compete(new: MadeScan, ticket: Ticket, decision: ScanDecision) -> None:
    ticket_id = ticket.issued.ticket_id
    candidate = CountedScan(
        scan_id=new.scan_id,
        device_id=new.device_id,
        stop_index=new.stop_index,
        scan_time=new.scan_time,
    )
    standing = decision.uses.get(ticket_id, ticket.use)
    rivals = [scan.precedence for scan in (candidate, standing) if scan is not None]
    if counted(rivals) == candidate.precedence:
        decision.uses[ticket_id] = candidate


def _answer(scan: MadeScan, *, tickets: Mapping[str, Ticket], decision: ScanDecision) -> ScanAnswer:
    ticket = tickets.get(scan.ticket_id)
    use = None
    if ticket is not None:
        counting = tickets[ticket.counting_id]
        use = decision.uses.get(ticket.counting_id, counting.use)
    lost = use is not None and scan.loses_to(use)
    return ScanAnswer(
        scan_id=scan.scan_id,
        kind=scan.kind,
        ticket_id=scan.ticket_id,
        reason=ScanReason.ALREADY_USED if lost else scan.reason,
        counted=use if lost else None,
    )
