"""Pure conversion of bookings between the contract and the domain, and the events that tell."""

from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.message import Message
from google.type import money_pb2

from services.booking import convert
from services.booking.domain.booking import PaymentState
from services.booking.domain.bookings import (
    Booking,
    BookingChanged,
    PassengerCarried,
    PassengerMoved,
    TicketsRevoked,
)
from services.booking.domain.charges import pending_id, posting_id, reference_of
from services.booking.domain.passengers import BookedSeat, Traveller
from services.booking.domain.trips import PaymentMethod
from services.booking.journey_messages import journey_message
from services.booking.operations.bookings import BookingWish, ShownBooking
from services.shared.rpc.timestamps import timestamp_of
from wayfare.booking.v1 import booking_pb2, events_pb2, trip_pb2
from wayfare.booking.v1 import booking_service_pb2 as pb
from wayfare.event.v1 import trip_completed_pb2

_NO_TRAVELLER = Traveller(full_name="")
_DOCUMENT = "DOCUMENT_KIND_"
_MOVED_MONEY = (PaymentState.PAID, PaymentState.REFUND_PENDING, PaymentState.REFUNDED)


def wish_of(request: pb.CreateBookingRequest) -> BookingWish:
    """Return what somebody wants to book."""
    method = trip_pb2.PaymentMethod.Name(request.payment_method)
    return BookingWish(
        hold_id=request.hold_id.lower(),
        travellers=[(one.seat_number, _traveller_of(one)) for one in request.passengers],
        method=PaymentMethod(method.removeprefix("PAYMENT_METHOD_")),
        gateway=request.gateway,
        return_url=request.return_url,
        allow_other_seats=request.allow_other_seats,
    )


def _traveller_of(passenger: booking_pb2.Passenger) -> Traveller:
    kind = ""
    if passenger.document_kind:
        kind = booking_pb2.DocumentKind.Name(passenger.document_kind).removeprefix(_DOCUMENT)
    return Traveller(
        full_name=passenger.full_name,
        document_kind=kind,
        document_number=passenger.document_number,
    )


def state_of(number: int) -> str:
    """Return the name of a booking's state, "" for unspecified."""
    name = booking_pb2.BookingState.Name(number) if number else ""  # type: ignore[arg-type]
    return name.removeprefix("BOOKING_STATE_")


def booking_message(shown: ShownBooking) -> booking_pb2.Booking:
    """Return a booking as the contract has it."""
    booking, now = shown.booking, shown.now
    message = booking_pb2.Booking(
        booking_id=booking.booking_id,
        booking_code=booking.booking_code,
        trip_id=booking.trip_id,
        journey=journey_message(
            shown.trip,
            from_stop_index=booking.from_stop_index,
            to_stop_index=booking.to_stop_index,
            now=now,
        ),
        user_id=booking.user_id,
        hold_id=booking.hold_id,
        state=_state_number(booking),
        passengers=[_passenger_message(shown, seat) for seat in booking.seats],
        amount=convert.money_message(booking.saga.amount_minor, booking.currency_code),
        payment=_payment_message(booking),
        reseated=booking.reseated,
        create_time=timestamp_of(booking.create_time),
        confirm_time=timestamp_of(booking.confirm_time),
        degraded=shown.degraded,
    )
    if shown.offer is not None:
        message.cancellation_offer.fee.CopyFrom(_money(booking, shown.offer.fee_minor))
        message.cancellation_offer.refund.CopyFrom(_money(booking, shown.offer.refund_minor))
        message.cancellation_offer.expire_time.FromDatetime(shown.offer.expire_time)
    if booking.cancellation is not None:
        message.cancellation.CopyFrom(_cancellation_message(booking))
    return message


def _passenger_message(shown: ShownBooking, seat: BookedSeat) -> booking_pb2.Passenger:
    traveller = shown.travellers.get(seat.passenger_id, _NO_TRAVELLER)
    message = booking_pb2.Passenger(
        passenger_id=seat.passenger_id,
        seat_number=seat.seat_number,
        full_name=traveller.full_name,
        document_number=traveller.masked_document_number,
        seat_class_code=seat.seat_class_code,
        price=_money(shown.booking, seat.price_minor),
        ticket_id=seat.ticket_id,
    )
    if traveller.document_kind:
        message.document_kind = booking_pb2.DocumentKind.Value(
            f"{_DOCUMENT}{traveller.document_kind}"
        )
    boarding = shown.boarding.get(seat.passenger_id)
    if boarding:
        message.boarding_state = booking_pb2.BoardingState.Value(f"BOARDING_STATE_{boarding}")
    return message


def _payment_message(booking: Booking) -> booking_pb2.Payment:
    saga, checkout = booking.saga, booking.checkout
    message = booking_pb2.Payment(
        method=_method_number(booking),
        state=_payment_number(booking),
        amount=_money(booking, saga.amount_minor),
        refunded_amount=_money(booking, saga.refunded_minor),
        failure_reason=booking.failure_reason,
        transfer_id=_transfer_id(booking),
    )
    if saga.payment_state is PaymentState.PENDING:
        message.expire_time.FromDatetime(booking.expire_time)
    if checkout is not None:
        message.deposit_id = checkout.deposit_id
        if saga.payment_state is PaymentState.PENDING and not saga.deposited:
            message.checkout.gateway = booking.gateway
            message.checkout.checkout_url = checkout.checkout_url
            message.checkout.form_fields.update(checkout.form_fields)
    return message


def _transfer_id(booking: Booking) -> str:
    saga = booking.saga
    if saga.amount_minor == 0:
        return ""
    if saga.payment_state in _MOVED_MONEY:
        return posting_id(booking.booking_id, saga.attempt)
    if booking.confirm_time is not None:
        return pending_id(booking.booking_id, saga.attempt)
    return ""


def _cancellation_message(booking: Booking) -> booking_pb2.Cancellation:
    cancelled = booking.cancellation
    if cancelled is None:
        raise ValueError("the booking is not cancelled")
    cause = booking_pb2.CancellationCause.Value(f"CANCELLATION_CAUSE_{cancelled.cause}")
    return booking_pb2.Cancellation(
        cause=cause,
        fee=_money(booking, cancelled.fee_minor),
        refund=_money(booking, booking.saga.refund_minor),
        reason=cancelled.reason,
        cancel_time=timestamp_of(cancelled.cancel_time),
    )


def _money(booking: Booking, amount_minor: int) -> money_pb2.Money:
    return convert.money_message(amount_minor, booking.currency_code)


def _state_number(booking: Booking) -> "booking_pb2.BookingState.ValueType":
    return booking_pb2.BookingState.Value(f"BOOKING_STATE_{booking.state}")


def _payment_number(booking: Booking) -> "booking_pb2.PaymentState.ValueType":
    return booking_pb2.PaymentState.Value(f"PAYMENT_STATE_{booking.saga.payment_state}")


def _method_number(booking: Booking) -> "trip_pb2.PaymentMethod.ValueType":
    return trip_pb2.PaymentMethod.Value(f"PAYMENT_METHOD_{booking.saga.method}")


def changed_message(body: BookingChanged) -> Message:
    """Return the event of a booking that came to another state."""
    booking = body.booking
    keeps = booking.state in ("PENDING_PAYMENT", "CONFIRMED")
    return events_pb2.BookingChanged(
        booking_id=booking.booking_id,
        trip_id=booking.trip_id,
        user_id=booking.user_id,
        state=_state_number(booking),
        payment_method=_method_number(booking),
        payment_state=_payment_number(booking),
        amount=_money(booking, booking.saga.amount_minor),
        refunded_amount=_money(booking, booking.saga.refunded_minor),
        seat_numbers=booking.seat_numbers if keeps else (),
        from_stop_index=booking.from_stop_index,
        to_stop_index=booking.to_stop_index,
        ticket_ids=booking.ticket_ids,
        reseated=booking.reseated,
    )


def revoked_message(body: TicketsRevoked) -> Message:
    """Return the event of tickets that cannot be used any more."""
    return events_pb2.TicketsRevoked(
        booking_id=body.booking_id, trip_id=body.trip_id, ticket_ids=body.ticket_ids
    )


def moved_message(body: PassengerMoved) -> Message:
    """Return the event of a user who may follow a trip, or may no more."""
    kind = events_pb2.PassengerJoined if body.joined else events_pb2.PassengerLeft
    return kind(trip_id=body.trip_id, user_id=body.user_id, expected_count=body.expected_count)


def carried_message(body: PassengerCarried) -> Message:
    """Return the event of a trip that ended for somebody."""
    booking = body.booking
    message = trip_completed_pb2.TripCompleted(
        trip_id=booking.trip_id,
        passenger_user_id=booking.user_id,
        payment_reference=reference_of(booking.booking_id),
        complete_time=timestamp_of(body.complete_time),
    )
    if body.amount_minor:
        message.amount.CopyFrom(_money(booking, body.amount_minor))
    return message


CONVERSIONS: Mapping[type, Callable[[Any], Message]] = {
    BookingChanged: changed_message,
    TicketsRevoked: revoked_message,
    PassengerMoved: moved_message,
    PassengerCarried: carried_message,
}
"""Says how each thing that is told of a booking becomes an event."""
