"""Tickets online: shown, verified, revoked, signed by keys that change, and refused to others."""

import io
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from services.booking.domain.tickets import qr_text, read_text, token
from tests.support.booking_process import BookingProcess, money
from tests.support.booking_tickets import CHECK, Bus, bus_of, scan
from tests.support.location_values import OTHER_TENANT, new_id
from tests.support.waiting import until
from wayfare.booking.v1 import booking_service_pb2 as pb
from wayfare.booking.v1 import events_pb2, ticket_pb2
from wayfare_client.tickets import TripScanner

pytestmark = pytest.mark.integration


@pytest.fixture
async def bus(booking: BookingProcess) -> AsyncIterator[Bus]:
    async with bus_of(booking) as made:
        yield made


async def test_a_passenger_gets_their_ticket_with_its_code(bus: Bus) -> None:
    user_id = new_id()
    (issued,) = await bus.book("2A", from_stop=1, to_stop=3, user_id=user_id, pays_cash=True)

    ticket: ticket_pb2.Ticket = await bus.process.call(
        "GetTicket",
        pb.GetTicketRequest(
            ticket_id=issued.ticket_id, include_qr_png=True, include_qr_drawing=True
        ),
        bus.process.bearer("PASSENGER", user_id),
    )

    assert ticket.state == ticket_pb2.TICKET_STATE_VALID
    assert read_text(ticket.qr_text) == read_text(ticket.token) == issued.code
    assert (ticket.seat_number, ticket.booking_code) == ("2A", issued.booking_code)
    assert ticket.journey.from_stop.stop_id == "B"
    assert ticket.journey.to_stop.stop_id == "D"
    assert ticket.cash_due == money(3_000)
    assert ticket.qr_png.startswith(b"\x89PNG")
    assert len({len(line) for line in io.StringIO(ticket.qr_drawing).read().splitlines()}) == 1


async def test_another_users_ticket_is_nobody_elses_but_the_staffs(bus: Bus) -> None:
    (issued,) = await bus.book("2A")
    request = pb.GetTicketRequest(ticket_id=issued.ticket_id)

    stranger = await bus.process.refused("GetTicket", request, bus.process.passenger)
    unknown = await bus.process.refused(
        "GetTicket", pb.GetTicketRequest(ticket_id=new_id()), bus.process.passenger
    )
    elsewhere = await bus.process.refused(
        "GetTicket", request, bus.process.bearer("ADMIN", new_id(), tenant_id=OTHER_TENANT)
    )

    assert stranger.reason == unknown.reason == elsewhere.reason == "TICKET_NOT_YOURS"
    shown = await bus.process.call("GetTicket", request)
    assert shown.ticket_id == issued.ticket_id
    assert shown.qr_png == b""


async def test_a_scan_lets_the_passenger_on_once(bus: Bus) -> None:
    (issued,) = await bus.book("2A", names=["Nour Aziz"])
    wanted = scan(issued)
    request = pb.VerifyTicketRequest(trip_id=bus.trip_id, device_id="phone-1", scan=wanted)

    first = await bus.process.call("VerifyTicket", request, bus.conductor)
    again = await bus.process.call("VerifyTicket", request, bus.conductor)
    other = await bus.verify(issued, device_id="phone-2")
    looked_at = await bus.verify(token(issued.code), kind=CHECK)

    assert first.accepted
    assert (first.passenger_name, first.seat_number) == ("Nour Aziz", "2A")
    assert again == first
    assert (other.accepted, other.reason) == (False, "TICKET_ALREADY_USED")
    assert other.counted_scan.scan_id == wanted.scan_id
    assert other.counted_scan.device_id == "phone-1"
    assert looked_at.accepted
    used = await bus.process.events("booking", issued.booking_id)
    assert [event.scan_id for event in used if isinstance(event, events_pb2.TicketUsed)] == [
        wanted.scan_id
    ]


async def test_what_is_no_good_ticket_is_answered_with_its_reason(bus: Bus) -> None:
    (issued,) = await bus.book("2A", from_stop=1, to_stop=2)
    (revoked,) = await bus.book("2B")
    assert await bus.revoke(revoked) == [revoked.ticket_id]
    other_trip = await bus.process.trip(bus.trip.seat_layout_id)
    (elsewhere,) = await bus.book("2A", trip_id=other_trip.trip_id, names=["Hidden Name"])
    tampered = bytearray(issued.code)
    tampered[39] ^= 1

    answers = [
        await bus.verify("https://cola.example/4711"),
        await bus.verify(qr_text(issued.code[:1] + b"\0\0\0\0" + issued.code[5:])),
        await bus.verify(qr_text(bytes(tampered))),
        await bus.verify(elsewhere),
        await bus.verify(issued, stop_index=0),
        await bus.verify(issued, stop_index=2),
        await bus.verify(revoked),
        await bus.verify(issued, stop_index=1),
    ]

    assert [answer.reason for answer in answers] == [
        "TICKET_MALFORMED",
        "TICKET_KEY_UNKNOWN",
        "TICKET_SIGNATURE_INVALID",
        "TICKET_OTHER_TRIP",
        "TICKET_OTHER_LEG",
        "TICKET_OTHER_LEG",
        "TICKET_REVOKED",
        "",
    ]
    assert [answer.accepted for answer in answers] == [False] * 7 + [True]
    assert [answer.ticket_id for answer in answers[:3]] == ["", "", ""]
    assert answers[3].passenger_name == ""
    assert answers[3].ticket_id == elsewhere.ticket_id


async def test_only_the_crew_of_the_trip_scans_its_tickets(bus: Bus) -> None:
    (issued,) = await bus.book("2A")
    request = pb.VerifyTicketRequest(
        trip_id=bus.trip_id, device_id="phone-1", scan=scan(issued, kind=CHECK)
    )
    colleague = bus.process.bearer("CONDUCTOR", new_id())

    refusal = await bus.process.refused("VerifyTicket", request, colleague)
    nowhere = pb.VerifyTicketRequest(trip_id=new_id(), device_id="phone-1", scan=scan(issued))
    unknown = await bus.process.refused("VerifyTicket", nowhere)
    passenger = await bus.process.refused("VerifyTicket", request, bus.process.passenger)
    driver = await bus.process.call(
        "VerifyTicket", request, bus.process.bearer("DRIVER", bus.driver_id)
    )

    assert refusal.reason == unknown.reason == "NOT_THE_TRIP_CREW"
    assert passenger.reason == "ROLE_NOT_ALLOWED"
    assert driver.accepted


async def test_bad_scans_are_refused_with_their_reason(bus: Bus) -> None:
    (issued,) = await bus.book("2A")
    wanted = scan(issued, stop_index=7)
    beyond = await bus.process.refused(
        "VerifyTicket",
        pb.VerifyTicketRequest(trip_id=bus.trip_id, device_id="phone-1", scan=wanted),
        bus.conductor,
    )
    wanted.stop_index = 0
    await bus.process.call(
        "VerifyTicket",
        pb.VerifyTicketRequest(trip_id=bus.trip_id, device_id="phone-1", scan=wanted),
        bus.conductor,
    )
    wanted.stop_index = 1
    reused = await bus.process.refused(
        "VerifyTicket",
        pb.VerifyTicketRequest(trip_id=bus.trip_id, device_id="phone-1", scan=wanted),
        bus.conductor,
    )

    assert beyond.reason == "STOP_INDEX_UNKNOWN"
    assert reused.reason == "REQUEST_ID_REUSED"


async def test_cash_is_taken_once_a_booking_by_the_first_scan_that_counts(bus: Bus) -> None:
    first, second = await bus.book("2A", "2B", pays_cash=True)
    wanted = scan(first)

    looked_at = await bus.verify(first, kind=CHECK)
    request = pb.VerifyTicketRequest(trip_id=bus.trip_id, device_id="phone-1", scan=wanted)
    paid = await bus.process.call("VerifyTicket", request, bus.conductor)
    repeated = await bus.process.call("VerifyTicket", request, bus.conductor)
    beside = await bus.verify(second)

    assert not looked_at.HasField("cash_due")
    assert paid.cash_due == repeated.cash_due == money(6_000)
    assert beside.accepted
    assert not beside.HasField("cash_due")


async def test_a_rotated_key_is_published_before_it_signs_and_the_old_one_remains_good(
    bus: Bus,
) -> None:
    admin = bus.process.bearer("ADMIN", new_id())
    (old,) = await bus.book("2A")
    request = pb.RotateTicketKeyRequest(sign_after=Duration(seconds=0), request_id=new_id())

    made = await bus.process.call("RotateTicketKey", request, admin)
    again = await bus.process.call("RotateTicketKey", request, admin)
    later = await bus.process.call(
        "RotateTicketKey", pb.RotateTicketKeyRequest(request_id=new_id()), admin
    )
    request.sign_after.seconds = 60
    reused = await bus.process.refused("RotateTicketKey", request, admin)
    listed = await bus.process.call("ListTicketKeys", pb.ListTicketKeysRequest(), bus.conductor)

    assert again == made
    assert reused.reason == "REQUEST_ID_REUSED"
    ids = [key.key_id for key in listed.ticket_keys]
    assert ids[:3] == [later.key_id, made.key_id, old.key_id]
    ends = [key.sign_end_time for key in listed.ticket_keys[:3]]
    assert not listed.ticket_keys[0].HasField("sign_end_time")
    assert ends[1:] == [later.sign_start_time, made.sign_start_time]
    start = made.sign_start_time.ToDatetime(UTC)
    assert timedelta(seconds=2) < start - datetime.now(UTC) < timedelta(seconds=7)
    # Still the old one signs; after the moment the new one does, and both verify.
    scanner = TripScanner(bus.trip_id)
    scanner.learn_keys(listed.ticket_keys)
    await until(lambda: datetime.now(UTC) > start + timedelta(seconds=1), seconds=15)
    (new,) = await bus.book("2B")
    assert (old.key_id, new.key_id) == (ids[2], ids[1])
    assert scanner.scan(qr_text(old.code), stop_index=0).accepted
    assert scanner.scan(qr_text(new.code), stop_index=0).accepted
    assert (await bus.verify(old)).accepted
    assert (await bus.verify(new)).accepted


async def test_keys_come_in_pages(bus: Bus) -> None:
    admin = bus.process.bearer("ADMIN", new_id())
    for _ in range(2):
        await bus.process.call(
            "RotateTicketKey", pb.RotateTicketKeyRequest(request_id=new_id()), admin
        )

    ids: list[str] = []
    page_token = ""
    while True:
        page = await bus.process.call(
            "ListTicketKeys", pb.ListTicketKeysRequest(page_size=1, page_token=page_token), admin
        )
        ids += [key.key_id for key in page.ticket_keys]
        page_token = page.next_page_token
        if not page_token:
            break

    whole = await bus.process.call("ListTicketKeys", pb.ListTicketKeysRequest(), admin)
    assert ids == [key.key_id for key in whole.ticket_keys]
    assert len(ids) >= 3
    wrong = pb.ListTicketKeysRequest(page_token="AAAA")
    assert (await bus.process.refused("ListTicketKeys", wrong, admin)).reason == (
        "PAGE_TOKEN_INVALID"
    )


async def test_revocations_are_listed_once_each_from_a_token_on(bus: Bus) -> None:
    tickets = await bus.book("2A", "2B", "2C")
    await bus.revoke(tickets[0])
    await bus.revoke(tickets[1])

    async def listed(**values: Any) -> pb.ListTicketRevocationsResponse:
        answer: pb.ListTicketRevocationsResponse = await bus.process.call(
            "ListTicketRevocations",
            pb.ListTicketRevocationsRequest(trip_id=bus.trip_id, **values),
            bus.conductor,
        )
        return answer

    page = await listed()
    while len(page.ticket_revocations) < 2:
        page = await listed()  # somebody else's transaction still runs
    first = await listed(page_size=1)
    second = await listed(page_size=1, page_token=first.next_page_token)
    await bus.revoke(tickets[2], tickets[0])
    news = await listed(sync_token=page.sync_token)
    while not news.ticket_revocations:
        news = await listed(sync_token=page.sync_token)
    nothing = await listed(sync_token=news.sync_token)

    def ids(answer: pb.ListTicketRevocationsResponse) -> list[str]:
        return [one.ticket_id for one in answer.ticket_revocations]

    assert ids(page) == [tickets[0].ticket_id, tickets[1].ticket_id]
    assert ids(first) + ids(second) == ids(page)
    assert second.next_page_token == ""
    assert ids(news) == [tickets[2].ticket_id]
    assert (ids(nothing), nothing.sync_token) == ([], news.sync_token)


async def test_revocations_of_all_trips_are_for_staff(bus: Bus) -> None:
    every = pb.ListTicketRevocationsRequest()
    foreign = pb.ListTicketRevocationsRequest(trip_id=bus.trip_id)
    wrong = pb.ListTicketRevocationsRequest(trip_id=bus.trip_id, sync_token="AAAA")

    crew = await bus.process.refused("ListTicketRevocations", every, bus.conductor)
    colleague = await bus.process.refused(
        "ListTicketRevocations", foreign, bus.process.bearer("CONDUCTOR", new_id())
    )
    broken = await bus.process.refused("ListTicketRevocations", wrong, bus.conductor)

    assert crew.reason == colleague.reason == "NOT_THE_TRIP_CREW"
    assert broken.reason == "PAGE_TOKEN_INVALID"
    await bus.process.call("ListTicketRevocations", every)
