"""Scans of tickets come to one verdict, whatever order phones report them in."""

import random
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.booking.domain.issuing import IssuedTicket
from services.booking.domain.scanning import (
    MadeScan,
    ScanDecision,
    ScanKind,
    Ticket,
    WantedScan,
    decide,
    with_heirs,
)
from services.booking.domain.tickets import ScanReason, TicketContent, Verdict
from services.shared.errors import RequestIdReusedError
from tests.support.location_values import new_id

ISSUED_AT = datetime(2026, 1, 1, tzinfo=UTC)
NOW = ISSUED_AT + timedelta(hours=1)
TRIP = new_id()
_MOVED_AT = ISSUED_AT + timedelta(minutes=30)


def _ticket(number: int, revoke_time: datetime | None = None) -> Ticket:
    issued = IssuedTicket(
        ticket_id=f"ticket-{number}",
        booking_id="booking",
        booking_code="7KQ2M4XP",
        trip_id=TRIP,
        passenger_id=f"passenger-{number}",
        user_id="user",
        seat_number="1A",
        from_stop_index=0,
        to_stop_index=1,
        key_id="00000000",
        code=b"",
        cash_due_minor=0,
        currency_code="EGP",
        issue_time=ISSUED_AT,
        end_time=NOW,
    )
    return Ticket(issued=issued, revoke_time=revoke_time)


def _content(ticket_id: str) -> TicketContent:
    return TicketContent(
        key_id="00000000",
        ticket_id=ticket_id,
        trip_id=TRIP,
        from_stop_index=0,
        to_stop_index=1,
        seat_number="1A",
        passenger_key=bytes(8),
        issue_time=ISSUED_AT,
        cash_due=False,
    )


def _wanted(
    number: int,
    *,
    ticket: int,
    minute: int,
    kind: ScanKind = ScanKind.BOARD,
    reason: ScanReason | None = None,
    lets_on: bool = True,
) -> WantedScan:
    return WantedScan(
        scan_id=f"scan-{number:02}",
        kind=kind,
        stop_index=0,
        scan_time=ISSUED_AT + timedelta(minutes=minute),
        lets_on=lets_on,
        body_hash=bytes([number]),
        verdict=Verdict(content=_content(f"ticket-{ticket}"), reason=reason),
    )


class _Store:
    """Applies decisions as the store does."""

    def __init__(self, tickets: Mapping[str, Ticket]) -> None:
        self.tickets = dict(tickets)
        self.made: dict[str, MadeScan] = {}

    def report(self, device_id: str, scans: list[WantedScan]) -> ScanDecision:
        decision = decide(scans, device_id=device_id, made=self.made, tickets=self.tickets, now=NOW)
        self.made |= {scan.scan_id: scan for scan in decision.made}
        for ticket_id, use in decision.uses.items():
            self.tickets[ticket_id] = replace(self.tickets[ticket_id], use=use)
        return decision

    def verdicts(self, scans: list[tuple[str, WantedScan]]) -> dict[str, str]:
        """Return the reason of every scan as each phone would be told by now."""
        return {
            scan.scan_id: self.report(device_id, [scan]).answers[0].reason
            for device_id, scan in scans
        }


_scans = st.lists(
    st.tuples(
        st.sampled_from(["phone-a", "phone-b", "phone-c"]),
        st.integers(0, 2),
        st.integers(-5, 70),
        st.sampled_from([ScanKind.BOARD, ScanKind.BOARD, ScanKind.CHECK]),
        st.sampled_from([None, None, None, ScanReason.OTHER_LEG]),
        st.sampled_from([True, True, False]),
    ),
    min_size=1,
    max_size=14,
)


@given(scans=_scans, revoked_minute=st.integers(0, 60), seed=st.integers())
def test_every_order_and_every_split_of_reports_ends_in_the_same_verdicts(
    scans: list[tuple[str, int, int, ScanKind, ScanReason | None, bool]],
    revoked_minute: int,
    seed: int,
) -> None:
    tickets = {
        "ticket-0": _ticket(0),
        "ticket-1": _ticket(1),
        "ticket-2": _ticket(2, ISSUED_AT + timedelta(minutes=revoked_minute)),
    }
    made = [
        (
            device,
            _wanted(
                number, ticket=ticket, minute=minute, kind=kind, reason=reason, lets_on=lets_on
            ),
        )
        for number, (device, ticket, minute, kind, reason, lets_on) in enumerate(scans)
    ]
    in_order, shuffled = _Store(tickets), _Store(tickets)
    for device_id, scan in made:
        in_order.report(device_id, [scan])
    rng = random.Random(seed)
    for device_id in rng.sample(["phone-a", "phone-b", "phone-c"], 3):
        own = [scan for device, scan in made if device == device_id]
        rng.shuffle(own)
        while own:
            size = rng.randint(1, len(own))
            shuffled.report(device_id, own[:size])
            own = own[size:]

    verdicts = in_order.verdicts(made)
    assert shuffled.verdicts(made) == verdicts
    for ticket_id in tickets:
        accepted = [
            scan.scan_id
            for _, scan in made
            if scan.kind is ScanKind.BOARD
            and scan.lets_on
            and scan.verdict.content is not None
            and scan.verdict.content.ticket_id == ticket_id
            and verdicts[scan.scan_id] == ""
        ]
        assert len(accepted) <= 1


@given(minutes=st.lists(st.integers(0, 50), min_size=2, max_size=8, unique=True))
def test_what_counted_before_is_named_when_an_earlier_scan_comes(minutes: list[int]) -> None:
    store = _Store({"ticket-0": _ticket(0)})
    latest_first = sorted(minutes, reverse=True)
    overturned = [
        [
            (one.scan_id, one.reason, one.counted.scan_id if one.counted else "")
            for one in store.report(
                f"phone-{number}", [_wanted(number, ticket=0, minute=minute)]
            ).overturned
        ]
        for number, minute in enumerate(latest_first)
    ]

    assert overturned == [[]] + [
        [(f"scan-{number - 1:02}", "TICKET_ALREADY_USED", f"scan-{number:02}")]
        for number in range(1, len(minutes))
    ]


@given(
    minutes=st.lists(st.integers(0, 58), min_size=1, max_size=8, unique=True),
    known_before=st.integers(0, 8),
    seed=st.integers(),
)
def test_a_passenger_who_is_moved_boards_once_whenever_phones_report(
    minutes: list[int], known_before: int, seed: int
) -> None:
    """Moved after half an hour: whoever scans before sees ticket 0, later its heir, ticket 1."""
    old = _ticket(0)
    heir = Ticket(issued=replace(old.issued, ticket_id="ticket-1"))
    scans = [
        (f"phone-{number}", _wanted(number, ticket=int(minute >= 30), minute=minute))
        for number, minute in enumerate(minutes)
    ]
    early = [(device, scan) for device, scan in scans if scan.scan_time < _MOVED_AT]
    store = _Store({"ticket-0": old})
    for device, scan in early[:known_before]:
        store.report(device, [scan])
    moved = replace(store.tickets["ticket-0"], revoke_time=_MOVED_AT)
    store.tickets = with_heirs({"ticket-0": moved}, [replace(heir, use=moved.use)])
    rest = early[known_before:] + [one for one in scans if one not in early]
    random.Random(seed).shuffle(rest)
    for device, scan in rest:
        store.report(device, [scan])

    first = min(scans, key=lambda one: one[1].scan_time)[1]
    assert store.verdicts(scans) == {
        scan.scan_id: "" if scan is first else "TICKET_ALREADY_USED" for _, scan in scans
    }
    used = store.tickets["ticket-1"].use
    assert used is not None
    assert used.scan_id == first.scan_id


def test_the_device_decides_between_scans_of_one_moment() -> None:
    store = _Store({"ticket-0": _ticket(0)})

    later_name = store.report("phone-b", [_wanted(0, ticket=0, minute=5)])
    first_name = store.report("phone-a", [_wanted(1, ticket=0, minute=5)])

    assert [one.reason for one in later_name.answers + first_name.answers] == ["", ""]
    assert [one.scan_id for one in first_name.overturned] == ["scan-00"]


def test_a_phone_that_turned_a_passenger_away_used_nothing() -> None:
    store = _Store({"ticket-0": _ticket(0)})

    away = store.report("phone-a", [_wanted(0, ticket=0, minute=1, lets_on=False)])
    used = store.report("phone-b", [_wanted(1, ticket=0, minute=5)])
    after = store.report("phone-c", [_wanted(2, ticket=0, minute=9, lets_on=False)])

    assert [one.answers[0].reason for one in (away, used, after)] == [
        "",
        "",
        "TICKET_ALREADY_USED",
    ]
    assert away.uses == after.uses == {}
    assert after.overturned == []


def test_a_ticket_that_is_revoked_later_was_good_when_it_was_scanned() -> None:
    store = _Store({"ticket-0": _ticket(0, ISSUED_AT + timedelta(minutes=30))})

    before = store.report("phone-a", [_wanted(0, ticket=0, minute=29)])
    after = store.report("phone-a", [_wanted(1, ticket=0, minute=30)])

    assert before.answers[0].reason == ""
    assert after.answers[0].reason == "TICKET_REVOKED"


def test_who_waits_for_the_answer_is_told_what_is_known_by_now() -> None:
    store = _Store({"ticket-0": _ticket(0, ISSUED_AT + timedelta(minutes=30))})
    waiting = replace(_wanted(0, ticket=0, minute=29), is_online=True)

    assert store.report("phone-a", [waiting]).answers[0].reason == "TICKET_REVOKED"


def test_a_signed_ticket_that_nobody_keeps_is_not_accepted() -> None:
    decision = _Store({}).report("phone-a", [_wanted(0, ticket=7, minute=1)])

    assert [one.reason for one in decision.answers] == ["TICKET_REVOKED"]
    assert decision.uses == {}


def test_clocks_that_are_wrong_are_held_between_issue_and_now() -> None:
    store = _Store({"ticket-0": _ticket(0), "ticket-1": _ticket(1)})

    decision = store.report(
        "phone-a", [_wanted(0, ticket=0, minute=-900), _wanted(1, ticket=1, minute=900)]
    )

    assert [scan.scan_time for scan in decision.made] == [ISSUED_AT, NOW]


def test_an_id_that_came_with_another_body_is_refused() -> None:
    store = _Store({"ticket-0": _ticket(0)})
    scan = _wanted(0, ticket=0, minute=1)
    store.report("phone-a", [scan])

    with pytest.raises(RequestIdReusedError):
        store.report("phone-a", [replace(scan, body_hash=b"other")])
