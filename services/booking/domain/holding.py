"""Decides about holds: who may keep which seats until when. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

from services.booking.domain.choosing import Choice, PlanSeat, choose
from services.booking.domain.layouts import SeatLayout
from services.booking.domain.seats import (
    Cause,
    HeldSeat,
    Hold,
    HoldState,
    SeatState,
    TripSeats,
    legs_between,
)
from services.booking.domain.trips import HELD_SEATS_MAX, Journey, Trip
from services.booking.domain.turns import TripTurn, WantedChange
from services.booking.errors.holds import (
    HoldExpiredError,
    HoldExtensionsUsedError,
    HoldNotActiveError,
    HoldNotYoursError,
    SeatBlockedError,
    SeatBookedError,
    SeatHeldError,
    SeatsNotAvailableError,
    SeatUnknownError,
    TooManyHoldsError,
    TooManySeatsError,
)
from services.booking.errors.trips import TripCancelledError, TripNotOnSaleError
from services.shared.errors import RequestIdReusedError


class BestAvailable(NamedTuple):
    """Leaves the choice to us: so many seats of a class ("" the cheapest that has enough)."""

    seat_count: int
    seat_class_code: str = ""
    accessible: bool = False
    together_required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NewHold(WantedChange):
    """Wants these seats, or the best ones, all or none; `request_id` is what its id is made of."""

    hold_id: str
    user_id: str
    staff: bool
    from_stop_id: str
    to_stop_id: str
    seat_numbers: Sequence[str] = ()
    best: BestAvailable | None = None
    replaced_hold_id: str = ""
    holds_max: int
    request_id: str
    body_hash: bytes

    def decide(self, turn: TripTurn) -> Hold:
        """Hold the seats. Raises the refusals of HoldSeats."""
        again = turn.hold(self.hold_id)
        if again is not None:
            if again.body_hash != self.body_hash:
                raise RequestIdReusedError(self.request_id)
            return again
        trip, seats = turn.trip, turn.seats
        journey = trip.journey(self.from_stop_id, self.to_stop_id)
        trip.check_on_sale(journey, turn.now)
        replaced = self._replace(turn)
        self._check_limits(turn, replaced)
        if self.best is None:
            chosen, together = _named(turn, journey, self.seat_numbers), False
        else:
            chosen, together = choose_best(turn, journey, self.best)
        legs = legs_between(journey.from_index, journey.to_index)
        for seat in chosen:
            seats.take(
                seat.seat_number, legs, SeatState.HELD, owner_id=self.hold_id, cause=Cause.HELD
            )
        hold = Hold(
            hold_id=self.hold_id,
            tenant_id=self.tenant_id,
            trip_id=self.trip_id,
            user_id=self.user_id,
            state=HoldState.ACTIVE,
            from_stop_id=trip.stops[journey.from_index].stop_id,
            to_stop_id=trip.stops[journey.to_index].stop_id,
            from_stop_index=journey.from_index,
            to_stop_index=journey.to_index,
            seats=_priced(trip, turn.layout, journey, chosen),
            currency_code=trip.currency_code,
            expire_time=_expire_time(trip, journey, turn.now, replaced),
            extension_count=0 if replaced is None else replaced.extension_count,
            together=together,
            booking_id="",
            body_hash=self.body_hash,
            create_time=turn.now,
        )
        seats.put_hold(hold, new=True)
        turn.known.live_hold_counts[self.user_id] += replaced is None
        return hold

    def _replace(self, turn: TripTurn) -> Hold | None:
        """End the hold to replace, so that its seats are free for this one."""
        if not self.replaced_hold_id:
            return None
        replaced = own_hold(turn, self.replaced_hold_id, self.user_id)
        if replaced.trip_id != self.trip_id:
            raise HoldNotYoursError(self.replaced_hold_id)
        check_active(replaced)
        turn.seats.end_hold(replaced, HoldState.RELEASED, Cause.RELEASED)
        return replaced

    def _check_limits(self, turn: TripTurn, replaced: Hold | None) -> None:
        seats_max = HELD_SEATS_MAX if self.staff else turn.trip.terms.held_seat_max_count
        requested = len(self.seat_numbers) if self.best is None else self.best.seat_count
        held = turn.seats.held_by(self.user_id)
        if held + requested > seats_max:
            raise TooManySeatsError(max_seats=seats_max, held_seats=held, requested_seats=requested)
        if replaced is None and turn.known.live_hold_counts[self.user_id] >= self.holds_max:
            raise TooManyHoldsError(max_holds=self.holds_max)


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension(WantedChange):
    """Wants a hold to last the trip's hold duration from now."""

    hold_id: str
    user_id: str
    extensions_max: int

    def decide(self, turn: TripTurn) -> Hold:
        """Extend the hold. Raises the refusals of ExtendHold."""
        hold = own_hold(turn, self.hold_id, self.user_id)
        check_active(hold)
        if hold.extension_count >= self.extensions_max:
            raise HoldExtensionsUsedError(hold.hold_id, max_extensions=self.extensions_max)
        trip = turn.trip
        journey = Journey(hold.from_stop_index, hold.to_stop_index)
        if trip.cancel_time is not None:
            raise TripCancelledError(trip.trip_id)
        if not trip.is_on_sale(journey, turn.now):
            raise TripNotOnSaleError(
                trip.trip_id,
                open_time=trip.terms.open_time,
                close_time=trip.close_time(journey),
            )
        until = min(turn.now + trip.terms.hold_duration, trip.close_time(journey))
        extended = replace(
            hold,
            expire_time=max(hold.expire_time, until),
            extension_count=hold.extension_count + 1,
        )
        turn.seats.put_hold(extended)
        return extended


@dataclass(frozen=True, slots=True, kw_only=True)
class Release(WantedChange):
    """Wants the seats of a hold to be free."""

    hold_id: str
    user_id: str

    def decide(self, turn: TripTurn) -> Hold:
        """Release the hold, or say that it keeps nothing. Raises the refusals of ReleaseHold."""
        hold = own_hold(turn, self.hold_id, self.user_id)
        if hold.state in (HoldState.RELEASED, HoldState.EXPIRED):
            return hold
        check_active(hold)
        turn.known.live_hold_counts[self.user_id] -= 1
        return turn.seats.end_hold(hold, HoldState.RELEASED, Cause.RELEASED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep(WantedChange):
    """Wants nothing but the turn: what has run out ends with it; so do holds of a cancelled trip.

    Holds that are being paid are their bookings' to end.
    """

    def decide(self, turn: TripTurn) -> int:
        """Return how many holds ended."""
        if turn.trip.cancel_time is not None:
            for hold in list(turn.seats.holds.values()):
                if hold.state is HoldState.ACTIVE:
                    turn.seats.end_hold(hold, HoldState.RELEASED, Cause.RELEASED)
        return sum(not hold.live for hold in turn.seats.hold_writes.values())


def own_hold(turn: TripTurn, hold_id: str, user_id: str) -> Hold:
    """Return the user's hold. Raises HoldNotYoursError if there is none."""
    hold = turn.hold(hold_id)
    if hold is None or hold.user_id != user_id:
        raise HoldNotYoursError(hold_id)
    return hold


def check_active(hold: Hold) -> None:
    """Raise HoldExpiredError or HoldNotActiveError unless the hold is ACTIVE."""
    if hold.state is HoldState.EXPIRED:
        raise HoldExpiredError(hold.hold_id, expire_time=hold.expire_time)
    if hold.state is not HoldState.ACTIVE:
        raise HoldNotActiveError(hold.hold_id, state=hold.state, booking_id=hold.booking_id)


def check_free(turn: TripTurn, seat_numbers: Sequence[str], legs: int) -> None:
    """Raise the refusal of seats that cannot be had on all of these legs.

    SeatUnknownError, then the first of SeatHeldError, SeatBookedError and SeatBlockedError that is
    true of any of them, with all such seats.
    """
    trip_id, layout = turn.trip.trip_id, turn.layout
    unknown = [number for number in seat_numbers if number not in layout.seats]
    if unknown:
        raise SeatUnknownError(trip_id, unknown)
    found: dict[SeatState, list[str]] = {}
    for number in seat_numbers:
        for state in _states(turn.seats, layout, number, legs):
            found.setdefault(state, []).append(number)
    if SeatState.HELD in found:
        raise SeatHeldError(trip_id, found[SeatState.HELD])
    if SeatState.BOOKED in found:
        raise SeatBookedError(trip_id, found[SeatState.BOOKED])
    if SeatState.BLOCKED in found:
        raise SeatBlockedError(trip_id, found[SeatState.BLOCKED])


def choose_best(turn: TripTurn, journey: Journey, best: BestAvailable) -> Choice:
    """Choose seats. Raises SeatsNotAvailableError if there are too few of the kind."""
    trip, seats, layout = turn.trip, turn.seats, turn.layout
    legs = legs_between(journey.from_index, journey.to_index)
    codes = [fare.seat_class_code for fare in trip.fares]
    if best.seat_class_code:
        codes = [code for code in codes if code == best.seat_class_code]
    free_most = 0
    for code in sorted(codes, key=lambda code: trip.price_minor(code, journey)):
        free = [
            seat
            for seat in plan_of(layout)
            if seat.seat_class_code == code
            and not seat.blocked
            and not seats.claimed(seat.seat_number) & legs
        ]
        suited = sum(seat.accessible for seat in free) if best.accessible else len(free)
        free_most = max(free_most, suited)
        choice = choose(
            free,
            best.seat_count,
            accessible=best.accessible,
            together_required=best.together_required,
            used_legs=lambda seat: seats.claimed(seat.seat_number).bit_count(),
        )
        if choice is not None:
            return choice
    raise SeatsNotAvailableError(
        trip.trip_id, requested_seats=best.seat_count, free_seats=free_most
    )


def plan_of(layout: SeatLayout) -> list[PlanSeat]:
    """Return the seats of a layout as the choice needs them."""
    return [
        PlanSeat(
            seat.seat_number,
            seat.seat_class_code,
            deck_index,
            seat.row_index,
            seat.column_index,
            seat.accessible,
            seat.blocked,
        )
        for deck_index, deck in enumerate(layout.decks)
        for seat in deck.seats
    ]


def _states(seats: TripSeats, layout: SeatLayout, number: str, legs: int) -> set[SeatState]:
    states = {claim.state for claim in seats.claims(number) if claim.legs & legs}
    if layout.seats[number].blocked:
        states.add(SeatState.BLOCKED)
    return states


def _named(turn: TripTurn, journey: Journey, seat_numbers: Sequence[str]) -> Sequence[PlanSeat]:
    check_free(turn, seat_numbers, legs_between(journey.from_index, journey.to_index))
    return [PlanSeat(number, "", 0, 0, 0) for number in seat_numbers]


def _priced(
    trip: Trip, layout: SeatLayout, journey: Journey, chosen: Sequence[PlanSeat]
) -> Sequence[HeldSeat]:
    """Return the seats with their prices, in the order of the layout."""
    numbers = {seat.seat_number for seat in chosen}
    prices: dict[str, int] = {}
    held = []
    for number, seat in layout.seats.items():
        if number not in numbers:
            continue
        code = seat.seat_class_code
        if code not in prices:
            prices[code] = trip.price_minor(code, journey)
        held.append(HeldSeat(number, code, prices[code]))
    return tuple(held)


def _expire_time(trip: Trip, journey: Journey, now: datetime, replaced: Hold | None) -> datetime:
    """Return until when: as long as a hold lasts, but not after the passenger's own departure."""
    if replaced is not None:
        return replaced.expire_time
    return min(now + trip.terms.hold_duration, trip.departure_time(journey))
