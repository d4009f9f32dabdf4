"""What is asked twice, late or wrongly through Envoy, by three clients: its reason, and no loss."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from tests.support.booking_seats import FREE
from tests.support.e2e_company import Company
from tests.support.e2e_edge import Edge
from tests.support.e2e_passengers import (
    FARE,
    free_seats,
    in_wallet,
    passengers,
    seats_in,
    somebody,
    until_payment,
    wanted,
)
from tests.support.e2e_seats import fill_wallet
from tests.support.e2e_speakers import Speaker
from tests.support.ledger_process import minor
from wayfare.booking.v1 import booking_pb2, trip_pb2

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

WALLET, CASH = trip_pb2.PAYMENT_METHOD_WALLET, trip_pb2.PAYMENT_METHOD_CASH
CONFIRMED = booking_pb2.BOOKING_STATE_CONFIRMED


async def test_what_is_asked_again_happens_once(
    edge: Edge, speaker: Speaker, company: Company
) -> None:
    nour = somebody(edge, speaker)
    free = trip_pb2.CancellationFee(before_departure=Duration(seconds=0), fee_basis_points=0)
    made = await company.sell(sales_terms=trip_pb2.SalesTerms(cancellation_fees=[free]))
    await fill_wallet(edge, nour.user_id, 2 * FARE)
    hold_fields = {**wanted(company, made, "2A", "2B"), "request_id": str(uuid.uuid4())}

    holds = await asyncio.gather(*(nour.ask("booking", "HoldSeats", **hold_fields) for _ in "123"))
    fields: dict[str, Any] = {
        "hold_id": holds[0].hold_id,
        "passengers": passengers("2A", "2B"),
        "payment_method": WALLET,
        "request_id": str(uuid.uuid4()),
    }
    bookings = await asyncio.gather(
        *(nour.ask("booking", "CreateBooking", **fields) for _ in "123")
    )
    late_hold = await nour.ask("booking", "HoldSeats", **hold_fields)
    late = await nour.ask("booking", "CreateBooking", **fields)
    other_body = await nour.refused(
        "booking", "CreateBooking", **{**fields, "payment_method": CASH}
    )
    other_seat = await nour.refused(
        "booking",
        "HoldSeats",
        **{**wanted(company, made, "3A"), "request_id": hold_fields["request_id"]},
    )
    other_request = await nour.refused(
        "booking", "CreateBooking", **{**fields, "request_id": str(uuid.uuid4())}
    )
    paid = await until_payment(nour, late.booking_id, booking_pb2.PAYMENT_STATE_PAID)
    cancel = {"booking_id": late.booking_id, "request_id": str(uuid.uuid4())}
    cancelled = [await nour.ask("booking", "CancelBooking", **cancel) for _ in "12"]

    assert {one.hold_id for one in (*holds, late_hold)} == {holds[0].hold_id}
    assert {one.booking_id for one in (*bookings, late)} == {late.booking_id}
    assert (other_body, other_seat) == ("REQUEST_ID_REUSED", "REQUEST_ID_REUSED")
    assert other_request == "HOLD_NOT_ACTIVE"
    assert minor(paid.payment.amount) == FARE
    assert {one.state for one in cancelled} == {booking_pb2.BOOKING_STATE_CANCELLED}
    assert await free_seats(nour, made.trip_id) == 40
    # Paid once and given back once.
    await until_payment(nour, late.booking_id, booking_pb2.PAYMENT_STATE_REFUNDED)
    assert await in_wallet(nour) == 2 * FARE


async def test_what_cannot_be_is_refused_with_its_reason_and_costs_nothing(
    edge: Edge, speaker: Speaker, company: Company
) -> None:
    nour, omar = somebody(edge, speaker), somebody(edge, speaker)
    await fill_wallet(edge, nour.user_id, FARE)
    terms = trip_pb2.SalesTerms(held_seat_max_count=2)
    made, gone = await company.sell(sales_terms=terms), await company.sell()
    await company.times_pass(gone, departed=timedelta(minutes=5))
    # It leaves in four seconds, and nothing is held for longer.
    closing = await company.sell(departs=datetime.now(UTC) + timedelta(seconds=4))
    short = await nour.ask("booking", "HoldSeats", **wanted(company, closing, "2A", "2B"))
    held = await omar.ask("booking", "HoldSeats", **wanted(company, made, "2A"))
    theirs: dict[str, Any] = {
        "hold_id": held.hold_id,
        "passengers": passengers("2A"),
        "payment_method": WALLET,
    }
    mine = {**theirs, "hold_id": short.hold_id, "passengers": passengers("2A", "2B")}

    reasons = {
        "another's seat": await nour.refused("booking", "HoldSeats", **wanted(company, made, "2A")),
        "unknown seat": await nour.refused("booking", "HoldSeats", **wanted(company, made, "99Z")),
        "too many": await nour.refused(
            "booking", "HoldSeats", **wanted(company, made, "3A", "3B", "3C")
        ),
        "departed": await nour.refused("booking", "HoldSeats", **wanted(company, gone, "2A")),
        "another's hold": await nour.refused("booking", "CreateBooking", **theirs),
        "extended": await nour.refused("booking", "ExtendHold", hold_id=held.hold_id),
        "released": await nour.refused("booking", "ReleaseHold", hold_id=held.hold_id),
    }
    # Who gets on at the next stop may still watch: the seats are free again on all legs.
    later = {"from_stop_id": company.stop_id("B"), "to_stop_id": company.stop_id("C")}
    async with nour.listen("booking", "WatchSeats", trip_id=closing.trip_id, **later) as watcher:
        await watcher.until(lambda updates: seats_in(updates).get("2A") == FREE)
    expired = [
        await nour.refused("booking", "CreateBooking", **mine),
        await nour.refused("booking", "ExtendHold", hold_id=short.hold_id),
    ]

    assert reasons == {
        "another's seat": "SEAT_HELD",
        "unknown seat": "SEAT_UNKNOWN",
        "too many": "TOO_MANY_SEATS",
        "departed": "TRIP_DEPARTED",
        "another's hold": "HOLD_NOT_YOURS",
        "extended": "HOLD_NOT_YOURS",
        "released": "HOLD_NOT_YOURS",
    }
    assert expired == ["HOLD_EXPIRED", "HOLD_EXPIRED"]
    # Nothing was lost: not a seat, not the other's hold, not a piastre.
    assert await free_seats(nour, closing.trip_id) == 40
    assert await free_seats(nour, made.trip_id) == 39
    booked = await omar.ask("booking", "CreateBooking", **{**theirs, "payment_method": CASH})
    assert booked.state == CONFIRMED
    assert await in_wallet(nour) == FARE
