"""Pure conversion of holds and of changes of seats, and the events that tell of them."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.message import Message

from services.booking.convert import duration_message, money_message, new_event
from services.booking.domain.overriding import SeatOverride
from services.booking.domain.seats import (
    Cause,
    Hold,
    HoldState,
    SeatsChanged,
    SeatState,
    runs_of,
)
from services.booking.domain.turns import Happening
from services.booking.ports.trips import NewEvent
from services.shared.ids import IdSource
from services.shared.rpc.timestamps import timestamp_of
from wayfare.booking.v1 import events_pb2, hold_pb2, manifest_pb2, seat_map_pb2

STATE_NUMBERS = {state: seat_map_pb2.SeatState.Value(f"SEAT_STATE_{state}") for state in SeatState}
STATES = {number: state for state, number in STATE_NUMBERS.items()}
_CAUSE_NUMBERS = {
    cause: events_pb2.SeatChangeCause.Value(f"SEAT_CHANGE_CAUSE_{cause}") for cause in Cause
}
_HOLD_STATE_NUMBERS = {
    state: hold_pb2.HoldState.Value(f"HOLD_STATE_{state}") for state in HoldState
}
_NOTHING = timedelta(0)

Convert = Callable[[Any], Message]


class HappeningMessages:
    """Makes the events of changes of seats, as the contract has them.

    Each part that tells of something says how, by the class of what it tells.
    """

    def __init__(self, ids: IdSource, conversions: Mapping[type, Convert]) -> None:
        """Take the conversions besides those of this file."""
        self._ids = ids
        self._conversions: dict[type, Convert] = {
            SeatsChanged: seats_changed_message,
            SeatOverride: seat_overridden_message,
            **conversions,
        }

    def event_of(self, tenant_id: str, happening: Happening, now: datetime) -> NewEvent:
        """Return an event in its envelope."""
        return new_event(
            self._conversions[type(happening.body)](happening.body),
            event_id=self._ids.new_id(),
            tenant_id=tenant_id,
            aggregate_type=happening.aggregate_type,
            aggregate_id=happening.aggregate_id,
            aggregate_version=happening.aggregate_version,
            occur_time=now,
        )


def seats_changed_message(changed: SeatsChanged) -> events_pb2.SeatsChanged:
    """Return which seats changed; legs that follow each other are one change."""
    message = events_pb2.SeatsChanged(trip_id=changed.trip_id, seat_version=changed.seat_version)
    for seat_number, legs, state, cause, cause_id in changed.changes:
        for first, count in runs_of(legs):
            message.changes.add(
                seat_number=seat_number,
                first_leg_index=first,
                leg_count=count,
                state=STATE_NUMBERS[state],
                cause=_CAUSE_NUMBERS[cause],
                cause_id=cause_id,
            )
    return message


def hold_message(
    hold: Hold, now: datetime, *, extensions_max: int, degraded: bool
) -> hold_pb2.Hold:
    """Return a hold as the contract has it."""
    remaining = max(hold.expire_time - now, _NOTHING) if hold.live else _NOTHING
    active = hold.state is HoldState.ACTIVE
    extensions_left = extensions_max - hold.extension_count if active else 0
    message = hold_pb2.Hold(
        hold_id=hold.hold_id,
        trip_id=hold.trip_id,
        user_id=hold.user_id,
        state=_HOLD_STATE_NUMBERS[hold.state],
        from_stop_id=hold.from_stop_id,
        to_stop_id=hold.to_stop_id,
        from_stop_index=hold.from_stop_index,
        to_stop_index=hold.to_stop_index,
        amount=money_message(hold.amount_minor, hold.currency_code),
        expire_time=timestamp_of(hold.expire_time),
        remaining=duration_message(remaining),
        extension_left_count=max(0, extensions_left),
        together=hold.together,
        booking_id=hold.booking_id,
        create_time=timestamp_of(hold.create_time),
        degraded=degraded,
    )
    for seat in hold.seats:
        message.seats.add(
            seat_number=seat.seat_number,
            seat_class_code=seat.seat_class_code,
            price=money_message(seat.price_minor, hold.currency_code),
        )
    return message


def seat_override_message(override: SeatOverride) -> manifest_pb2.SeatOverride:
    """Return what was changed by hand, as the contract has it."""
    return manifest_pb2.SeatOverride(
        override_id=override.override_id,
        trip_id=override.trip_id,
        seat_number=override.seat_number,
        from_stop_index=override.from_stop_index,
        to_stop_index=override.to_stop_index,
        action=manifest_pb2.SeatOverrideAction.Value(f"SEAT_OVERRIDE_ACTION_{override.action}"),
        target_seat_number=override.target_seat_number,
        reason=override.reason,
        user_id=override.user_id,
        hold_ids=override.hold_ids,
        booking_ids=override.booking_ids,
        create_time=timestamp_of(override.create_time.astimezone(UTC)),
    )


def seat_overridden_message(override: SeatOverride) -> events_pb2.SeatOverridden:
    """Return the event of a change by hand."""
    return events_pb2.SeatOverridden(seat_override=seat_override_message(override))
