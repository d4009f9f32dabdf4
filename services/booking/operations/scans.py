"""Scans of tickets, online and reported later, and what is marked by hand on board."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from services.booking.domain.boarding import BoardingCounts, BoardingMark, latest_marks
from services.booking.domain.scanning import (
    CountedScan,
    ScanAnswer,
    ScanDecision,
    ScanKind,
    Ticket,
    WantedScan,
    decide,
)
from services.booking.domain.tickets import Verdict, key_id_in, verify
from services.booking.domain.trips import Trip
from services.booking.errors.tickets import PassengerNotOnTripError
from services.booking.operations.crew import Attendant, check_stop, trip_of
from services.booking.operations.ticket_keys import TicketKeys
from services.booking.ports.requests import WriteRequest
from services.booking.ports.tickets import (
    BoardingStore,
    BoardingTurn,
    CashTaking,
    TicketEvents,
    Travellers,
)
from services.booking.ports.trips import TripStore
from services.shared.clock import Clock

# Signatures that are checked before others have a turn: some 4 ms.
_VERIFY_AT_ONCE = 20
_OTHER_TRIPS_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenCode:
    """Is a code that a phone saw, on which the server has not looked yet.

    `scan_time` is None for now. `body_hash` stands for what makes it the same scan again.
    """

    scan_id: str
    text: str
    kind: ScanKind
    stop_index: int
    scan_time: datetime | None
    is_online: bool
    lets_on: bool
    body_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanResult:
    """Says what became of a scan, with all that a conductor needs to see."""

    answer: ScanAnswer
    ticket: Ticket | None = None
    trip: Trip | None = None
    passenger_name: str = ""
    cash_due: CashTaking | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanReport:
    """Says what became of the scans of a phone."""

    results: Sequence[ScanResult]
    overturned: Sequence[ScanResult]
    counts: BoardingCounts
    now: datetime


class Scans:
    """Uses tickets. All scans and marks of a trip follow each other, in whatever process."""

    def __init__(
        self,
        *,
        trips: TripStore,
        store: BoardingStore,
        keys: TicketKeys,
        travellers: Travellers,
        events: TicketEvents,
        clock: Clock,
    ) -> None:
        """Take what is needed."""
        self._trips = trips
        self._store = store
        self._keys = keys
        self._travellers = travellers
        self._events = events
        self._clock = clock

    async def scan(
        self,
        attendant: Attendant,
        trip_id: str,
        seen: Sequence[SeenCode],
        *,
        device_id: str,
        request: WriteRequest | None = None,
    ) -> ScanReport:
        """Decide the scans of one phone on one trip.

        Raises NotTheTripCrewError, StopIndexUnknownError, RequestIdReusedError.
        """
        trip = await trip_of(self._trips, attendant, trip_id)
        for index, code in enumerate(seen):
            field = f"scans[{index}].stop_index" if request else "scan.stop_index"
            check_stop(trip, code.stop_index, field=field)
        wanted = await self._verified(attendant.tenant_id, trip_id, seen)
        async with self._store.turn(attendant.tenant_id, trip_id) as turn:
            if request is not None:
                await turn.claim(request)
            # Read in the turn: what is revoked by now, was revoked before.
            now = self._clock.now()
            tickets = await turn.tickets(_ticket_ids(wanted))
            decision = decide(
                [_at(scan, now) for scan in wanted],
                device_id=device_id,
                made=await turn.made_scans([scan.scan_id for scan in seen]),
                tickets=tickets,
                now=now,
            )
            counts = await self._record(turn, attendant, decision, tickets=tickets, now=now)
            asked = [*decision.answers, *decision.overturned]
            booking_ids = {
                tickets[one.ticket_id].issued.booking_id
                for one in asked
                if one.ticket_id in tickets
            }
            takings = await turn.takings(booking_ids)
        results = await self._results(attendant.tenant_id, trip, asked, tickets, takings)
        return ScanReport(
            results=results[: len(decision.answers)],
            overturned=results[len(decision.answers) :],
            counts=counts,
            now=now,
        )

    async def report_boarding(
        self,
        attendant: Attendant,
        trip_id: str,
        *,
        stop_index: int,
        marks: Sequence[BoardingMark],
        unbooked_count: int | None,
        request: WriteRequest,
    ) -> BoardingCounts:
        """Take marks made by hand; return how many are on board.

        Raises NotTheTripCrewError, StopIndexUnknownError, PassengerNotOnTripError,
        RequestIdReusedError.
        """
        trip = await trip_of(self._trips, attendant, trip_id)
        check_stop(trip, stop_index, field="stop_index")
        async with self._store.turn(attendant.tenant_id, trip_id) as turn:
            now = self._clock.now()
            if not await turn.claim(request):
                return await self._count(
                    turn,
                    attendant.tenant_id,
                    stop_index=None,
                    stop_time=now,
                    unbooked_count=None,
                )
            strangers = await turn.mark(latest_marks(marks, now=now), user_id=attendant.user_id)
            if strangers:
                raise PassengerNotOnTripError(trip_id, min(strangers))
            return await self._count(
                turn,
                attendant.tenant_id,
                stop_index=stop_index,
                stop_time=now,
                unbooked_count=unbooked_count,
            )

    async def _verified(
        self, tenant_id: str, trip_id: str, seen: Sequence[SeenCode]
    ) -> list[tuple[SeenCode, Verdict]]:
        named = {key_id for code in seen if (key_id := key_id_in(code.text))}
        keys = await self._keys.published(tenant_id, named)
        verified = []
        for index, code in enumerate(seen, start=1):
            verdict = verify(code.text, keys, trip_id=trip_id, stop_index=code.stop_index)
            verified.append((code, verdict))
            if index % _VERIFY_AT_ONCE == 0:
                await asyncio.sleep(0)
        return verified

    async def _record(
        self,
        turn: BoardingTurn,
        attendant: Attendant,
        decision: ScanDecision,
        *,
        tickets: Mapping[str, Ticket],
        now: datetime,
    ) -> BoardingCounts:
        """Keep what was decided; return who is on board then."""
        if decision.made:
            await turn.keep_scans(decision.made, user_id=attendant.user_id, now=now)
        newly = {
            ticket_id: use for ticket_id, use in decision.uses.items() if not tickets[ticket_id].use
        }
        if decision.uses:
            await turn.use(decision.uses)
            paying = [use for ticket_id, use in _by_time(newly) if _owes(tickets[ticket_id])]
            if paying:
                await turn.take_cash(paying, user_id=attendant.user_id, now=now)
            await self._tell_used(turn, attendant.tenant_id, decision.uses, tickets, now)
        latest = max(decision.made, key=lambda scan: scan.scan_time, default=None)
        return await self._count(
            turn,
            attendant.tenant_id,
            stop_index=latest.stop_index if latest else None,
            stop_time=latest.scan_time if latest else now,
            unbooked_count=None,
        )

    async def _count(
        self,
        turn: BoardingTurn,
        tenant_id: str,
        *,
        stop_index: int | None,
        stop_time: datetime,
        unbooked_count: int | None,
    ) -> BoardingCounts:
        counts, changed = await turn.count(
            stop_index=stop_index, stop_time=stop_time, unbooked_count=unbooked_count
        )
        if changed:
            version = await turn.trip_version()
            await turn.keep_events([self._events.counted(tenant_id, counts, version=version)])
        return counts

    async def _tell_used(
        self,
        turn: BoardingTurn,
        tenant_id: str,
        uses: Mapping[str, CountedScan],
        tickets: Mapping[str, Ticket],
        now: datetime,
    ) -> None:
        """Tell of each ticket that was used, and again when another scan of it counts."""
        bookings = [tickets[ticket_id].issued.booking_id for ticket_id in uses]
        versions = await turn.booking_versions(bookings)
        events = []
        for ticket_id, use in uses.items():
            ticket = tickets[ticket_id]
            versions[ticket.issued.booking_id] += 1
            version = versions[ticket.issued.booking_id]
            events.append(self._events.used(tenant_id, ticket, use, version=version, now=now))
        await turn.keep_events(events)

    async def _results(
        self,
        tenant_id: str,
        trip: Trip,
        answers: Sequence[ScanAnswer],
        tickets: Mapping[str, Ticket],
        takings: Mapping[str, CashTaking],
    ) -> list[ScanResult]:
        here = [
            ticket.issued for ticket in tickets.values() if ticket.issued.trip_id == trip.trip_id
        ]
        names = await self._travellers.of(tenant_id, here) if here else {}
        trips = await self._trips_of(tenant_id, trip, tickets.values())
        results = []
        for answer in answers:
            ticket = tickets.get(answer.ticket_id)
            if ticket is None:
                results.append(ScanResult(answer=answer))
                continue
            traveller = names.get(ticket.issued.passenger_id)
            taking = takings.get(ticket.issued.booking_id)
            pays = answer.kind is ScanKind.BOARD and not answer.reason
            results.append(
                ScanResult(
                    answer=answer,
                    ticket=ticket,
                    trip=trips.get(ticket.issued.trip_id),
                    passenger_name=traveller.full_name if traveller else "",
                    cash_due=taking
                    if taking is not None and pays and taking.ticket_id == answer.ticket_id
                    else None,
                )
            )
        return results

    async def _trips_of(
        self, tenant_id: str, trip: Trip, tickets: Collection[Ticket]
    ) -> dict[str, Trip]:
        trips = {trip.trip_id: trip}
        others = {ticket.issued.trip_id for ticket in tickets} - {trip.trip_id}
        for trip_id in sorted(others)[:_OTHER_TRIPS_SHOWN]:
            other = await self._trips.find(tenant_id, trip_id)
            if other is not None:
                trips[trip_id] = other
        return trips


def _at(scan: tuple[SeenCode, Verdict], now: datetime) -> WantedScan:
    code, verdict = scan
    return WantedScan(
        scan_id=code.scan_id,
        kind=code.kind,
        stop_index=code.stop_index,
        scan_time=code.scan_time or now,
        is_online=code.is_online,
        lets_on=code.lets_on,
        body_hash=code.body_hash,
        verdict=verdict,
    )


def _ticket_ids(scans: Sequence[tuple[SeenCode, Verdict]]) -> set[str]:
    return {verdict.content.ticket_id for _, verdict in scans if verdict.content is not None}


def _by_time(uses: Mapping[str, CountedScan]) -> list[tuple[str, CountedScan]]:
    return sorted(uses.items(), key=lambda item: item[1].precedence)


def _owes(ticket: Ticket) -> bool:
    return ticket.issued.cash_due_minor > 0
