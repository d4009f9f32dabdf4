"""Decides what an ADMIN changes by hand: against the rules of the sale, never against a seat's."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from services.booking.domain.holding import check_free
from services.booking.domain.seats import (
    Cause,
    Claim,
    Hold,
    HoldState,
    SeatState,
    legs_between,
)
from services.booking.domain.trips import Journey, Trip
from services.booking.domain.turns import Happening, TripTurn, WantedChange
from services.booking.errors.holds import SeatOverrideNotPossibleError, SeatUnknownError
from services.booking.errors.trips import StopNotOnTripError, TripCancelledError, TripDepartedError
from services.shared.errors import RequestIdReusedError

OVERRIDES = "seat_overrides"


class OverrideAction(StrEnum):
    """Says what an ADMIN does to a seat."""

    BLOCK = "BLOCK"
    UNBLOCK = "UNBLOCK"
    RELEASE = "RELEASE"
    MOVE = "MOVE"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeatOverride:
    """Is what was changed by hand, by whom and why, for the audit trail."""

    override_id: str
    trip_id: str
    seat_number: str
    from_stop_index: int
    to_stop_index: int
    action: OverrideAction
    target_seat_number: str
    reason: str
    user_id: str
    hold_ids: Sequence[str]
    booking_ids: Sequence[str]
    body_hash: bytes
    create_time: datetime


class BookedSeats(Protocol):
    """Changes bookings in the turn at a trip: seats, tickets and money of one go together."""

    def cancel(self, turn: TripTurn, booking_id: str, override_id: str, /) -> None:
        """Cancel a booking whole, with all the money back; frees all its seats."""
        ...

    def move(
        self,
        turn: TripTurn,
        booking_id: str,
        /,
        *,
        seat_number: str,
        target: str,
        override_id: str,
    ) -> None:
        """Say in the booking that the passenger of the seat has another; the claim is moved."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Override(WantedChange):
    """Wants a change by hand. Stops may be "" for the first and the last."""

    override_id: str
    user_id: str
    seat_number: str
    from_stop_id: str
    to_stop_id: str
    action: OverrideAction
    target_seat_number: str
    reason: str
    request_id: str
    body_hash: bytes
    bookings: BookedSeats

    def decide(self, turn: TripTurn) -> SeatOverride:
        """Change the seat. Raises the refusals of OverrideSeat."""
        again = turn.known.parts[OVERRIDES].get(self.override_id)
        if isinstance(again, SeatOverride):
            if again.body_hash != self.body_hash:
                raise RequestIdReusedError(self.request_id)
            return again
        trip = turn.trip
        if trip.cancel_time is not None:
            raise TripCancelledError(trip.trip_id)
        if turn.now >= trip.stops[-1].arrival_time:
            raise TripDepartedError(trip.trip_id, departure_time=trip.stops[-1].arrival_time)
        journey = stretch_of(trip, self.from_stop_id, self.to_stop_id)
        if self.seat_number not in turn.layout.seats:
            raise SeatUnknownError(trip.trip_id, [self.seat_number])
        legs = legs_between(journey.from_index, journey.to_index)
        hold_ids, booking_ids = self._change(turn, legs)
        made = SeatOverride(
            override_id=self.override_id,
            trip_id=self.trip_id,
            seat_number=self.seat_number,
            from_stop_index=journey.from_index,
            to_stop_index=journey.to_index,
            action=self.action,
            target_seat_number=self.target_seat_number,
            reason=self.reason,
            user_id=self.user_id,
            hold_ids=hold_ids,
            booking_ids=booking_ids,
            body_hash=self.body_hash,
            create_time=turn.now,
        )
        turn.known.parts[OVERRIDES][self.override_id] = made
        turn.write(OVERRIDES, made)
        turn.tell(Happening("seat_override", self.override_id, 1, made))
        return made

    def _change(self, turn: TripTurn, legs: int) -> tuple[list[str], list[str]]:
        """Change the seat; return the holds that ended, and the bookings that changed."""
        match self.action:
            case OverrideAction.BLOCK:
                return self._block(turn, legs)
            case OverrideAction.UNBLOCK:
                return self._unblock(turn, legs)
            case OverrideAction.RELEASE:
                return self._release(turn, legs)
            case OverrideAction.MOVE:
                return self._move(turn, legs)

    def _block(self, turn: TripTurn, legs: int) -> tuple[list[str], list[str]]:
        check_free(turn, [self.seat_number], legs)
        turn.seats.take(
            self.seat_number,
            legs,
            SeatState.BLOCKED,
            owner_id=self.override_id,
            cause=Cause.OVERRIDDEN,
        )
        return [], []

    def _unblock(self, turn: TripTurn, legs: int) -> tuple[list[str], list[str]]:
        blocked = [one for one in self._claims(turn, legs) if one.state is SeatState.BLOCKED]
        if not blocked:
            raise self._not_possible()
        for claim in blocked:
            turn.seats.free(
                self.seat_number,
                claim.legs & legs,
                owner_id=claim.owner_id,
                cause=Cause.OVERRIDDEN,
                cause_id=self.override_id,
            )
        return [], []

    def _release(self, turn: TripTurn, legs: int) -> tuple[list[str], list[str]]:
        owners = {one.owner_id: one for one in self._claims(turn, legs)}
        holds = [turn.seats.holds[owner_id] for owner_id in owners if owner_id in turn.seats.holds]
        booking_ids = [
            owner_id for owner_id, one in owners.items() if one.state is SeatState.BOOKED
        ]
        if not holds and not booking_ids:
            raise self._not_possible()
        booking_ids += [one.booking_id for one in holds if one.state is HoldState.PAYING]
        for booking_id in booking_ids:
            self.bookings.cancel(turn, booking_id, self.override_id)
        for hold in holds:
            self._end(turn, hold)
        return [hold.hold_id for hold in holds], booking_ids

    def _end(self, turn: TripTurn, hold: Hold) -> None:
        """End a hold, unless it ended with its booking."""
        if hold.hold_id in turn.seats.holds:
            turn.seats.end_hold(
                hold, HoldState.RELEASED, Cause.OVERRIDDEN, cause_id=self.override_id
            )

    def _move(self, turn: TripTurn, legs: int) -> tuple[list[str], list[str]]:
        booked = [one for one in self._claims(turn, legs) if one.state is SeatState.BOOKED]
        if len(booked) != 1:
            raise self._not_possible()
        (claim,) = booked
        check_free(turn, [self.target_seat_number], claim.legs)
        turn.seats.free(
            self.seat_number,
            claim.legs,
            owner_id=claim.owner_id,
            cause=Cause.OVERRIDDEN,
            cause_id=self.override_id,
        )
        turn.seats.take(
            self.target_seat_number,
            claim.legs,
            SeatState.BOOKED,
            owner_id=claim.owner_id,
            cause=Cause.OVERRIDDEN,
        )
        self.bookings.move(
            turn,
            claim.owner_id,
            seat_number=self.seat_number,
            target=self.target_seat_number,
            override_id=self.override_id,
        )
        return [], [claim.owner_id]

    def _claims(self, turn: TripTurn, legs: int) -> list[Claim]:
        return [one for one in turn.seats.claims(self.seat_number) if one.legs & legs]

    def _not_possible(self) -> SeatOverrideNotPossibleError:
        return SeatOverrideNotPossibleError(
            self.trip_id, seat_number=self.seat_number, action=self.action
        )


def stretch_of(trip: Trip, from_stop_id: str, to_stop_id: str) -> Journey:
    """Return the legs between two stops, also where nobody may get on or off.

    "" is the first stop and the last. Raises StopNotOnTripError.
    """
    last = len(trip.stops) - 1
    for start in range(last):
        if from_stop_id and trip.stops[start].stop_id != from_stop_id:
            continue
        if not to_stop_id:
            return Journey(start, last)
        for end in range(start + 1, last + 1):
            if trip.stops[end].stop_id == to_stop_id:
                return Journey(start, end)
        if not from_stop_id:
            break
    raise StopNotOnTripError(trip.trip_id, from_stop_id=from_stop_id, to_stop_id=to_stop_id)
