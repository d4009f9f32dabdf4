"""Turns bookings into rows and back. Many travel as one JSON text, which PostgreSQL unfolds."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from services.booking.domain.booking import (
    BookingState,
    CancellationCause,
    PaymentState,
    Saga,
    Step,
)
from services.booking.domain.bookings import Booking, Cancellation, Checkout
from services.booking.domain.passengers import BookedSeat
from services.booking.domain.trips import CancellationFee, PaymentMethod

_NO_TICKET = "-"
_MINUTE = timedelta(minutes=1)
_FIXED = {
    "booking_id": "uuid",
    "booking_code": "text",
    "trip_id": "uuid",
    "user_id": "uuid",
    "hold_id": "uuid",
    "payment_method": "text",
    "currency_code": "text",
    "amount_minor": "bigint",
    "passenger_count": "smallint",
    "from_stop_index": "smallint",
    "to_stop_index": "smallint",
    "fees": "text",
    "gateway": "text",
    "return_url": "text",
    "allow_other_seats": "boolean",
    "pending_seconds": "integer",
    "create_time": "timestamptz",
}
_CHANGING = {
    "state": "text",
    "payment_state": "text",
    "step": "text",
    "attempt": "smallint",
    "is_deposited": "boolean",
    "fee_minor": "bigint",
    "refund_minor": "bigint",
    "refunded_minor": "bigint",
    "seats": "text",
    "is_reseated": "boolean",
    "deposit_id": "uuid",
    "checkout": "text",
    "failure_reason": "text",
    "expire_time": "timestamptz",
    "confirm_time": "timestamptz",
    "cancel_cause": "text",
    "cancel_reason": "text",
    "cancel_time": "timestamptz",
    "event_version": "bigint",
    "next_time": "timestamptz",
    "try_count": "integer",
}
_ALL = _FIXED | _CHANGING
COLUMNS = ", ".join(
    f"b.{name}::text" if kind == "uuid" else f"b.{name}" for name, kind in _ALL.items()
)
COLUMNS += ", b.tenant_id::text, b.deposit_state"


def insert_from(rows: str, tenant_id: str) -> str:
    """Return the statement that inserts the bookings of a text; both are names of parameters."""
    columns = ", ".join(_ALL)
    return f"""
      INSERT INTO booking.bookings (tenant_id, {columns}) SELECT {tenant_id}, {columns}
      FROM json_to_recordset({rows}::json) AS n ({", ".join(f"{n} {k}" for n, k in _ALL.items())})
    """  # noqa: S608 - constants of ours


def rows_text(bookings: Iterable[Booking]) -> str:
    """Return bookings as the text that `insert_from` and booking.write_bookings unfold."""
    return json.dumps([_row_of(booking) for booking in bookings])


def _row_of(booking: Booking) -> dict[str, Any]:
    saga, checkout, cancelled = booking.saga, booking.checkout, booking.cancellation
    return {
        "booking_id": booking.booking_id,
        "booking_code": booking.booking_code,
        "trip_id": booking.trip_id,
        "user_id": booking.user_id,
        "hold_id": booking.hold_id,
        "payment_method": saga.method,
        "currency_code": booking.currency_code,
        "amount_minor": saga.amount_minor,
        "passenger_count": len(booking.seats),
        "from_stop_index": booking.from_stop_index,
        "to_stop_index": booking.to_stop_index,
        "fees": " ".join(
            f"{fee.before_departure // _MINUTE}/{fee.fee_basis_points}" for fee in booking.fees
        ),
        "gateway": booking.gateway,
        "return_url": booking.return_url,
        "allow_other_seats": booking.allow_other_seats,
        "pending_seconds": booking.pending_seconds,
        "create_time": _text(booking.create_time),
        "state": saga.state,
        "payment_state": saga.payment_state,
        "step": saga.step,
        "attempt": saga.attempt,
        "is_deposited": saga.deposited,
        "fee_minor": 0 if cancelled is None else cancelled.fee_minor,
        "refund_minor": saga.refund_minor,
        "refunded_minor": saga.refunded_minor,
        "seats": " ".join(
            f"{one[0]}/{one[1]}/{one[2]}/{one[3]}/{one[4] or _NO_TICKET}" for one in booking.seats
        ),
        "is_reseated": booking.reseated,
        "deposit_id": None if checkout is None else checkout.deposit_id,
        "checkout": _checkout_text(checkout),
        "failure_reason": booking.failure_reason,
        "expire_time": _text(booking.expire_time),
        "confirm_time": _text(booking.confirm_time),
        "cancel_cause": None if cancelled is None else cancelled.cause,
        "cancel_reason": "" if cancelled is None else cancelled.reason,
        "cancel_time": None if cancelled is None else _text(cancelled.cancel_time),
        "event_version": booking.event_version,
        "next_time": _text(booking.next_time),
        "try_count": booking.try_count,
    }


def booking_of(row: Mapping[str, Any]) -> Booking:
    """Return the booking of a row that has all of COLUMNS."""
    return Booking(
        booking_id=row["booking_id"],
        tenant_id=row["tenant_id"],
        booking_code=row["booking_code"],
        trip_id=row["trip_id"],
        user_id=row["user_id"],
        hold_id=row["hold_id"],
        saga=Saga(
            state=BookingState(row["state"]),
            method=PaymentMethod(row["payment_method"]),
            payment_state=PaymentState(row["payment_state"]),
            step=Step(row["step"]),
            amount_minor=row["amount_minor"],
            refund_minor=row["refund_minor"],
            refunded_minor=row["refunded_minor"],
            attempt=row["attempt"],
            deposited=row["is_deposited"],
        ),
        seats=_seats_of(row["seats"]),
        currency_code=row["currency_code"],
        from_stop_index=row["from_stop_index"],
        to_stop_index=row["to_stop_index"],
        fees=_fees_of(row["fees"]),
        gateway=row["gateway"],
        return_url=row["return_url"],
        allow_other_seats=row["allow_other_seats"],
        reseated=row["is_reseated"],
        pending_seconds=row["pending_seconds"],
        checkout=_checkout_of(row),
        deposit_state=row["deposit_state"],
        failure_reason=row["failure_reason"],
        expire_time=row["expire_time"],
        create_time=row["create_time"],
        confirm_time=row["confirm_time"],
        cancellation=_cancellation_of(row),
        event_version=row["event_version"],
        next_time=row["next_time"],
        try_count=row["try_count"],
    )


def _seats_of(text: str) -> Sequence[BookedSeat]:
    seats = []
    for one in text.split():
        number, code, price, passenger_id, ticket_id = one.split("/")
        ticket = "" if ticket_id == _NO_TICKET else ticket_id
        seats.append(BookedSeat(number, code, int(price), passenger_id, ticket))
    return tuple(seats)


def _fees_of(text: str) -> Sequence[CancellationFee]:
    pairs = (one.split("/") for one in text.split())
    return tuple(
        CancellationFee(before_departure=int(minutes) * _MINUTE, fee_basis_points=int(points))
        for minutes, points in pairs
    )


def _checkout_text(checkout: Checkout | None) -> str:
    if checkout is None:
        return ""
    return json.dumps([checkout.checkout_url, dict(checkout.form_fields)])


def _checkout_of(row: Mapping[str, Any]) -> Checkout | None:
    if row["deposit_id"] is None:
        return None
    url, fields = json.loads(row["checkout"])
    return Checkout(deposit_id=row["deposit_id"], checkout_url=url, form_fields=fields)


def _cancellation_of(row: Mapping[str, Any]) -> Cancellation | None:
    if row["cancel_cause"] is None:
        return None
    return Cancellation(
        cause=CancellationCause(row["cancel_cause"]),
        fee_minor=row["fee_minor"],
        reason=row["cancel_reason"],
        cancel_time=row["cancel_time"],
    )


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
