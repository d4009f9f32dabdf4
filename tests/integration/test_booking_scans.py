"""Scans that race, scans that phones made without a network, manifests and counts on board."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest

from services.booking.domain.issuing import IssuedTicket
from services.booking.domain.tickets import passenger_key_of, qr_text
from tests.support.booking_process import BookingProcess, money, running_booking, timestamp
from tests.support.booking_tickets import BOARD, CHECK, Bus, bus_of, scan
from tests.support.identity_process import refusal_of
from tests.support.location_tokens import TokenMint
from tests.support.location_values import OTHER_TENANT, TENANT, new_id
from tests.support.stack_fixtures import TestDatabase
from wayfare.booking.v1 import booking_pb2, events_pb2, manifest_pb2, ticket_pb2
from wayfare.booking.v1 import booking_service_pb2 as pb
from wayfare_client.tickets import TripScanner

pytestmark = pytest.mark.integration
BOARDED = booking_pb2.BOARDING_STATE_BOARDED
NO_SHOW = booking_pb2.BOARDING_STATE_NO_SHOW
ALIGHTED = booking_pb2.BOARDING_STATE_ALIGHTED


@pytest.fixture
async def bus(booking: BookingProcess) -> AsyncIterator[Bus]:
    async with bus_of(booking) as made:
        yield made


def _counts(counts: manifest_pb2.BoardingCounts) -> tuple[int, int, int, int]:
    return (
        counts.boarded_count,
        counts.expected_count,
        counts.no_show_count,
        counts.unbooked_count,
    )


async def test_of_twenty_phones_on_two_processes_one_lets_the_passenger_on(
    migrated_database: TestDatabase, valkey_url: str, short_folder: Path
) -> None:
    dsn, mint = migrated_database.dsn_for("booking"), TokenMint()
    values: dict[str, Any] = {"dsn": dsn, "valkey_url": valkey_url, "mint": mint}
    async with (
        running_booking(short_folder, **values) as one,
        running_booking(short_folder, **values) as two,
        bus_of(one) as bus,
    ):
        tickets = await bus.book("2A", "2B", "2C", pays_cash=True)
        answers = await asyncio.gather(
            *(
                bus.verify(ticket, device_id=f"phone-{number:02}", process=(one, two)[number % 2])
                for number in range(20)
                for ticket in tickets
            )
        )
        used = await one.events("booking", tickets[0].booking_id)
        counted = await one.events("trip", bus.trip_id)

    for ticket in tickets:
        here = [answer for answer in answers if answer.ticket_id == ticket.ticket_id]
        (accepted,) = [answer for answer in here if answer.accepted]
        others = [answer for answer in here if not answer.accepted]
        assert len(others) == 19
        assert {answer.reason for answer in others} == {"TICKET_ALREADY_USED"}
        assert {answer.counted_scan.scan_id for answer in others} == {accepted.scan_id}
    taken = [answer.cash_due for answer in answers if answer.HasField("cash_due")]
    assert taken == [money(9_000)]
    assert sorted(
        event.ticket_id for event in used if isinstance(event, events_pb2.TicketUsed)
    ) == (sorted(ticket.ticket_id for ticket in tickets))
    last = [event for event in counted if isinstance(event, events_pb2.BoardingCounted)][-1]
    assert _counts(last.counts) == (3, 3, 0, 0)


async def test_phones_without_a_network_agree_once_all_have_reported(bus: Bus) -> None:
    tickets = await bus.book("2A", "2B", "2C")
    begin = datetime.now(UTC) - timedelta(minutes=5)
    early, late = TripScanner(bus.trip_id), TripScanner(bus.trip_id)
    keys = await bus.process.call("ListTicketKeys", pb.ListTicketKeysRequest(), bus.conductor)
    for scanner in (early, late):
        scanner.learn_keys(keys.ticket_keys)
    shared = qr_text(tickets[0].code)
    # The tickets were issued just now: scans are held to that, and the later minute stays later.
    assert late.scan(shared, stop_index=0, now=datetime.now(UTC)).accepted
    assert late.scan(qr_text(tickets[1].code), stop_index=0, now=begin).accepted
    assert early.scan(shared, stop_index=0, now=begin).accepted
    assert early.scan(shared, stop_index=0, now=begin).reason == "TICKET_ALREADY_USED"
    assert early.scan("nonsense", stop_index=0, now=begin).reason == "TICKET_MALFORMED"

    first = await bus.report(*late.pending, device_id="phone-late")
    second = await bus.report(*early.pending, device_id="phone-early")
    late_shared = late.pending[0].scan_id
    repeated = await bus.report(*late.pending, device_id="phone-late")
    late.reported(repeated.results)

    assert [result.accepted for result in first.results] == [True, True]
    assert _counts(first.boarding_counts) == (2, 3, 0, 0)
    assert [result.reason for result in second.results] == [
        "",
        "TICKET_ALREADY_USED",
        "TICKET_MALFORMED",
    ]
    (overturned,) = second.overturned_results
    assert (overturned.scan_id, overturned.reason) == (late_shared, "TICKET_ALREADY_USED")
    assert overturned.counted_scan.device_id == "phone-early"
    assert [result.accepted for result in repeated.results] == [False, True]
    assert repeated.overturned_results == []
    assert late.pending == []
    used = await bus.process.events("booking", tickets[0].booking_id)
    assert len([one for one in used if isinstance(one, events_pb2.TicketUsed)]) == 3


async def test_a_scan_that_got_no_answer_is_the_same_one_when_it_is_reported(bus: Bus) -> None:
    (issued,) = await bus.book("2A")
    wanted = scan(issued)
    online = pb.VerifyTicketRequest(trip_id=bus.trip_id, device_id="phone-1", scan=wanted)
    await bus.process.call("VerifyTicket", online, bus.conductor)
    wanted.accepted_offline = True
    wanted.scan_time.CopyFrom(timestamp(datetime.now(UTC) - timedelta(seconds=3)))

    report = await bus.report(wanted)

    assert [result.accepted for result in report.results] == [True]


async def test_a_scan_belongs_to_one_trip_also_when_two_claim_it_at_once(bus: Bus) -> None:
    (issued,) = await bus.book("2A")
    other = await bus.process.trip(bus.trip.seat_layout_id)
    request = pb.VerifyTicketRequest(
        trip_id=bus.trip_id, device_id="phone-1", scan=scan(issued, kind=CHECK)
    )
    elsewhere = pb.VerifyTicketRequest()
    elsewhere.CopyFrom(request)
    elsewhere.trip_id = other.trip_id

    async def reason(wanted: pb.VerifyTicketRequest) -> str:
        try:
            await bus.process.call("VerifyTicket", wanted)
        except grpc.aio.AioRpcError as error:
            return refusal_of(error).reason
        return ""

    reasons = await asyncio.gather(reason(request), reason(elsewhere))

    assert sorted(reasons) == ["", "REQUEST_ID_REUSED"]


async def test_a_report_is_refused_as_a_whole_with_its_reason(bus: Bus) -> None:
    now = datetime.now(UTC)
    (issued,) = await bus.book("2A")
    good, beyond = scan(issued, at=now), scan(issued, at=now, stop_index=9)
    request_id = new_id()

    def request(*scans: ticket_pb2.Scan, request_id: str) -> pb.ReportScansRequest:
        return pb.ReportScansRequest(
            trip_id=bus.trip_id, scans=scans, device_id="phone-1", request_id=request_id
        )

    refusal = await bus.process.refused(
        "ReportScans", request(good, beyond, request_id=new_id()), bus.conductor
    )
    await bus.report(good, request_id=request_id)
    reused = await bus.process.refused(
        "ReportScans",
        request(scan(issued, at=now), request_id=request_id),
        bus.conductor,
    )
    stranger = await bus.process.refused(
        "ReportScans", request(good, request_id=new_id()), bus.process.bearer("DRIVER", new_id())
    )

    assert refusal.reason == "STOP_INDEX_UNKNOWN"
    assert reused.reason == "REQUEST_ID_REUSED"
    assert stranger.reason == "NOT_THE_TRIP_CREW"


async def test_five_hundred_scans_are_decided_in_one_report(bus: Bus) -> None:
    now = datetime.now(UTC)
    tickets: list[IssuedTicket] = []
    for row in range(2, 10):
        tickets += await bus.book(*(f"{row}{letter}" for letter in "ABCD"))
    scans = [scan(tickets[number % 32], at=now) for number in range(500)]

    report = await bus.report(*scans)

    assert len(report.results) == 500
    assert sum(result.accepted for result in report.results) == 32
    assert _counts(report.boarding_counts) == (32, 32, 0, 0)


async def test_the_manifest_names_who_travels_for_the_crew_alone(bus: Bus) -> None:
    (later,) = await bus.book("1A", from_stop=1, to_stop=2, names=["Zeinab Ali"])
    first, second = await bus.book(
        "3B", "3A", from_stop=0, to_stop=3, names=["Omar Said", "Mona Said"], pays_cash=True
    )
    (gone,) = await bus.book("9D")
    await bus.revoke(gone)
    await bus.verify(second)
    request = pb.GetManifestRequest(trip_id=bus.trip_id)

    manifest = await bus.process.call("GetManifest", request, bus.conductor)
    from_b = await bus.process.call(
        "GetManifest", pb.GetManifestRequest(trip_id=bus.trip_id, from_stop_id="B"), bus.conductor
    )

    entries = list(manifest.entries)
    assert [(one.full_name, one.seat_number) for one in entries] == [
        ("Mona Said", "3A"),
        ("Omar Said", "3B"),
        ("Zeinab Ali", "1A"),
    ]
    assert entries[0].boarding_state == BOARDED
    assert entries[0].HasField("board_time")
    assert not entries[0].HasField("cash_due")  # taken with the first of the booking
    assert entries[2].passenger_key == passenger_key_of(later.passenger_id)
    assert entries[2].document_number == "A1234567"
    assert [(one.pickup_count, one.drop_off_count) for one in manifest.stop_counts] == [
        (2, 0),
        (1, 0),
        (0, 1),
        (0, 2),
    ]
    assert _counts(manifest.boarding_counts) == (1, 3, 0, 0)
    assert [one.ticket_id for one in from_b.entries] == [later.ticket_id]
    assert first.ticket_id == entries[1].ticket_id
    for metadata in (
        bus.process.bearer("CONDUCTOR", new_id()),
        bus.process.bearer("ADMIN", new_id(), tenant_id=OTHER_TENANT),
    ):
        refusal = await bus.process.refused("GetManifest", request, metadata)
        assert refusal.reason == "NOT_THE_TRIP_CREW"
    refusal = await bus.process.refused("GetManifest", request, bus.process.passenger)
    assert refusal.reason == "ROLE_NOT_ALLOWED"
    request.from_stop_id = "Z"
    refusal = await bus.process.refused("GetManifest", request, bus.conductor)
    assert refusal.reason == "STOP_NOT_ON_TRIP"


async def test_a_manifest_comes_in_pages_and_is_closed_to_the_crew_a_day_after_the_trip(
    bus: Bus,
) -> None:
    await bus.book(*(f"{row}A" for row in range(2, 9)))
    names: list[str] = []
    page_token = ""
    while True:
        page = await bus.process.call(
            "GetManifest",
            pb.GetManifestRequest(trip_id=bus.trip_id, page_size=3, page_token=page_token),
            bus.conductor,
        )
        names += [entry.seat_number for entry in page.entries]
        page_token = page.next_page_token
        if not page_token:
            break
    request = pb.GetManifestRequest(trip_id=bus.trip_id)
    await _delay(bus, timedelta(days=-2))
    closed = await bus.process.refused("GetManifest", request, bus.conductor)
    whole = await bus.process.call("GetManifest", request)
    wrong = pb.GetManifestRequest(trip_id=bus.trip_id, page_token="AAAA")

    assert names == [f"{row}A" for row in range(2, 9)]
    assert closed.reason == "NOT_THE_TRIP_CREW"
    assert len(whole.entries) == 7
    refusal = await bus.process.refused("GetManifest", wrong)
    assert refusal.reason == "PAGE_TOKEN_INVALID"


async def _delay(bus: Bus, delay: timedelta) -> None:
    """Move the times of a trip, as if it had been made earlier."""
    dsn = bus.process.settings.database_url.get_secret_value()
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(
            "SELECT set_config('app.tenant_id', $1, false),"
            " set_config('app.role', 'SERVICE', false)",
            TENANT,
        )
        await connection.execute(
            "UPDATE booking.trip_stops SET arrival_time = arrival_time + $2,"
            " departure_time = departure_time + $2 WHERE trip_id = $1",
            bus.trip_id,
            delay,
        )
    finally:
        await connection.close()


async def test_counts_on_board_follow_scans_marks_and_stops(bus: Bus) -> None:
    (short,) = await bus.book("2A", from_stop=0, to_stop=1)
    (long,) = await bus.book("2B", from_stop=0, to_stop=3)
    (absent,) = await bus.book("2C", from_stop=0, to_stop=3)
    now = datetime.now(UTC)

    async def report(stop_index: int, **values: Any) -> manifest_pb2.BoardingCounts:
        request = pb.ReportBoardingRequest(
            **{
                "trip_id": bus.trip_id,
                "stop_index": stop_index,
                "request_id": new_id(),
                **values,
            }
        )
        answer: manifest_pb2.BoardingCounts = await bus.process.call(
            "ReportBoarding", request, bus.conductor
        )
        return answer

    def mark(
        ticket: IssuedTicket, state: booking_pb2.BoardingState.ValueType, seconds: int
    ) -> manifest_pb2.BoardingMark:
        return manifest_pb2.BoardingMark(
            passenger_id=ticket.passenger_id,
            boarding_state=state,
            mark_time=timestamp(now + timedelta(seconds=seconds)),
        )

    await bus.verify(short)
    marked = await report(
        0, marks=[mark(long, BOARDED, -60), mark(absent, NO_SHOW, -60)], unbooked_count=2
    )
    at_next_stop = await report(1)
    again = await report(1, marks=[mark(absent, BOARDED, -120)])  # earlier than what is known
    off = await report(2, marks=[mark(long, ALIGHTED, -30)], unbooked_count=0)

    assert _counts(marked) == (4, 3, 1, 2)
    assert _counts(at_next_stop) == (3, 3, 1, 2)
    assert _counts(again) == (3, 3, 1, 2)
    assert _counts(off) == (0, 3, 1, 0)
    told = [
        event
        for event in await bus.process.events("trip", bus.trip_id)
        if isinstance(event, events_pb2.BoardingCounted)
    ]
    assert [_counts(event.counts) for event in told] == [
        (1, 3, 0, 0),
        (4, 3, 1, 2),
        (3, 3, 1, 2),
        (0, 3, 1, 0),
    ]
    assert [event.counts.stop_index for event in told] == [0, 0, 1, 2]


async def test_marks_are_refused_with_their_reason_and_repeat_safely(bus: Bus) -> None:
    (issued,) = await bus.book("2A")
    known = manifest_pb2.BoardingMark(
        passenger_id=issued.passenger_id,
        boarding_state=BOARDED,
        mark_time=timestamp(datetime.now(UTC)),
    )
    stranger = manifest_pb2.BoardingMark()
    stranger.CopyFrom(known)
    stranger.passenger_id = new_id()
    request = pb.ReportBoardingRequest(trip_id=bus.trip_id, marks=[known], request_id=new_id())

    counts = await bus.process.call("ReportBoarding", request, bus.conductor)
    again = await bus.process.call("ReportBoarding", request, bus.conductor)
    request.unbooked_count = 4
    reused = await bus.process.refused("ReportBoarding", request, bus.conductor)
    request = pb.ReportBoardingRequest(
        trip_id=bus.trip_id, marks=[known, stranger], unbooked_count=9, request_id=new_id()
    )
    unknown = await bus.process.refused("ReportBoarding", request, bus.conductor)
    request = pb.ReportBoardingRequest(trip_id=bus.trip_id, stop_index=9, request_id=new_id())
    beyond = await bus.process.refused("ReportBoarding", request, bus.conductor)
    foreign = await bus.process.refused(
        "ReportBoarding", request, bus.process.bearer("CONDUCTOR", new_id())
    )

    assert _counts(counts) == _counts(again) == (1, 1, 0, 0)
    assert reused.reason == "REQUEST_ID_REUSED"
    assert unknown.reason == "PASSENGER_NOT_ON_TRIP"
    assert beyond.reason == "STOP_INDEX_UNKNOWN"
    assert foreign.reason == "NOT_THE_TRIP_CREW"


async def test_a_revocation_counts_from_its_moment_on(bus: Bus) -> None:
    first, second = await bus.book("2A", "2B")
    before = datetime.now(UTC)
    await bus.revoke(first, second)
    report = await bus.report(
        scan(first, at=before - timedelta(seconds=1)),
        scan(second, at=datetime.now(UTC) + timedelta(hours=1), kind=CHECK),
        scan(second, kind=BOARD, at=datetime.now(UTC)),
    )

    assert [result.reason for result in report.results] == ["", "TICKET_REVOKED", "TICKET_REVOKED"]
