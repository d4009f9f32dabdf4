"""Pure conversion of holds and of changes of seats, and the events that tell of them."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.message import Message

from services.booking.convert import duration_message, money_message, new_event
from services.booking.domain.layouts import SeatLayout
from services.booking.domain.overriding import SeatOverride
from services.booking.domain.seat_maps import SeatStates, ToldChanges
from services.booking.domain.seats import (
    Cause,
    Hold,
    HoldState,
    SeatChange,
    SeatsChanged,
    SeatState,
    legs_between,
    runs_of,
)
from services.booking.domain.trips import Journey, Trip
from services.booking.domain.turns import Happening
from services.booking.operations.seat_hub import Told
from services.booking.ports.trips import NewEvent
from services.shared.ids import IdSource
from services.shared.rpc.timestamps import timestamp_of
from wayfare.booking.v1 import events_pb2, hold_pb2, manifest_pb2, seat_map_pb2
from wayfare.event.v1.envelope_pb2 import Envelope

STATE_NUMBERS = {state: seat_map_pb2.SeatState.Value(f"SEAT_STATE_{state}") for state in SeatState}
STATES = {number: state for state, number in STATE_NUMBERS.items()}
_CAUSES = {events_pb2.SeatChangeCause.Value(f"SEAT_CHANGE_CAUSE_{cause}"): cause for cause in Cause}
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
    for seat_number, legs, state, cause, cause_id, before in changed.changes:
        for first, count in runs_of(legs):
            message.changes.add(
                seat_number=seat_number,
                first_leg_index=first,
                leg_count=count,
                state=STATE_NUMBERS[state],
                cause=_CAUSE_NUMBERS[cause],
                cause_id=cause_id,
                previous_state=STATE_NUMBERS[before],
            )
    return message


def told_of(envelope: bytes) -> Told | None:
    """Return what an event says to who watches seats, or None if it is of no interest."""
    event = Envelope.FromString(envelope)
    if event.aggregate_type == "trip":
        return Told(event.tenant_id, event.aggregate_id, None)
    if event.aggregate_type != "trip_seats":
        return None
    message = events_pb2.SeatsChanged.FromString(event.payload.value)
    changes = [
        SeatChange(
            one.seat_number,
            legs_between(one.first_leg_index, one.first_leg_index + one.leg_count),
            STATES[one.state],
            _CAUSES[one.cause],
            one.cause_id,
            STATES[one.previous_state],
        )
        for one in message.changes
    ]
    told = ToldChanges(message.seat_version, changes, event.occur_time.ToMilliseconds())
    return Told(event.tenant_id, event.aggregate_id, told)


def changes_update(
    told: ToldChanges, different: Sequence[tuple[str, SeatState]], free_count: int
) -> bytes:
    """Return a SeatUpdate with what changed on a journey, encoded once for all who watch it."""
    update = seat_map_pb2.SeatUpdate(resume_token=str(told.seat_version))
    changes = update.changes
    changes.seat_version = told.seat_version
    changes.free_seat_count = free_count
    changes.change_time.FromMilliseconds(told.milliseconds)
    for seat_number, state in different:
        changes.seats.add(seat_number=seat_number, state=STATE_NUMBERS[state])
    return update.SerializeToString()


def heartbeat_update(now: datetime, version: int, *, degraded: bool) -> bytes:
    """Return a SeatUpdate that shows that the stream is alive."""
    heartbeat = seat_map_pb2.SeatHeartbeat(
        server_time=timestamp_of(now), seat_version=version, degraded=degraded
    )
    return seat_map_pb2.SeatUpdate(heartbeat=heartbeat).SerializeToString()


def drain_update(after_seconds: float, reason: str) -> bytes:
    """Return a SeatUpdate that asks for a new stream."""
    drain = seat_map_pb2.SeatDrain(
        reconnect_after=duration_message(timedelta(seconds=after_seconds)), reason=reason
    )
    return seat_map_pb2.SeatUpdate(drain=drain).SerializeToString()


def seat_map_message(
    trip: Trip,
    layout: SeatLayout,
    states: SeatStates,
    journey: Journey,
    *,
    now: datetime,
) -> seat_map_pb2.SeatMap:
    """Return the map of a journey, without its layout and without the states of each leg."""
    found = states.states(legs_between(*journey))
    return seat_map_pb2.SeatMap(
        trip_id=trip.trip_id,
        seat_version=states.version,
        from_stop_id=trip.stops[journey.from_index].stop_id,
        to_stop_id=trip.stops[journey.to_index].stop_id,
        from_stop_index=journey.from_index,
        to_stop_index=journey.to_index,
        seats=[
            seat_map_pb2.SeatAvailability(seat_number=number, state=STATE_NUMBERS[state])
            for number, state in found.items()
        ],
        prices=[
            seat_map_pb2.SeatPrice(
                seat_class_code=one.seat_class_code,
                price=money_message(
                    trip.price_minor(one.seat_class_code, journey), trip.currency_code
                ),
            )
            for one in layout.seat_classes
        ],
        free_seat_count=sum(state is SeatState.FREE for state in found.values()),
        on_sale=trip.is_on_sale(journey, now),
        read_time=timestamp_of(now),
    )


def add_leg_states(message: seat_map_pb2.SeatMap, states: SeatStates, journey: Journey) -> None:
    """Say of every seat of a map how it is on each leg of the journey."""
    for seat in message.seats:
        seat.leg_states.extend(
            STATE_NUMBERS[states.state(seat.seat_number, 1 << leg)] for leg in journey.legs
        )


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
