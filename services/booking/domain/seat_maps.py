"""Says of every seat of a trip whether it can be had on some legs, and follows changes. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from services.booking.domain.layouts import SeatLayout
from services.booking.domain.seats import WORST_FIRST, SeatChange, SeatState

_PLACES = {state: place for place, state in enumerate(WORST_FIRST)}

Masks = tuple[int, int, int]
"""Are the legs on which a seat is BLOCKED, BOOKED and HELD; no leg is in two of them."""

_FREE: Masks = (0, 0, 0)


class ToldChanges(NamedTuple):
    """Is what one event says of a trip's seats: the changes that lead to a version."""

    seat_version: int
    changes: Sequence[SeatChange]
    milliseconds: int


class SeatStates:
    """Is the state of every seat of a trip on every leg, as of a version."""

    __slots__ = ("_blocked", "masks", "seat_numbers", "version")

    def __init__(self, layout: SeatLayout, version: int, masks: Mapping[str, Masks]) -> None:
        """Take the legs of the seats that are not free; what the layout blocks need not be in."""
        self.seat_numbers = tuple(layout.seats)
        self._blocked = frozenset(layout.seats.keys() - layout.sellable_seats.keys())
        self.version = version
        self.masks = dict(masks)

    def state(self, seat_number: str, legs: int) -> SeatState:
        """Return the worst state of a seat on these legs."""
        if seat_number in self._blocked:
            return SeatState.BLOCKED
        for mask, state in zip(self.masks.get(seat_number, _FREE), WORST_FIRST, strict=True):
            if mask & legs:
                return state
        return SeatState.FREE

    def states(self, legs: int) -> dict[str, SeatState]:
        """Return the state of every seat on these legs, in the order of the layout."""
        return {number: self.state(number, legs) for number in self.seat_numbers}

    def apply(self, told: ToldChanges) -> None:
        """Go on to the next version."""
        for change in told.changes:
            self._put(change.seat_number, change.legs, change.state)
        self.version = told.seat_version

    def rewound(self, told: Sequence[ToldChanges]) -> "SeatStates":
        """Return the states before these changes, which are the last ones that led here."""
        earlier = SeatStates.__new__(SeatStates)
        earlier.seat_numbers = self.seat_numbers
        earlier._blocked = self._blocked
        earlier.masks = dict(self.masks)
        for one in reversed(told):
            for change in reversed(one.changes):
                earlier._put(change.seat_number, change.legs, change.before)
        earlier.version = told[0].seat_version - 1 if told else self.version
        return earlier

    def _put(self, seat_number: str, legs: int, state: SeatState) -> None:
        kept = [mask & ~legs for mask in self.masks.get(seat_number, _FREE)]
        if state is not SeatState.FREE:
            kept[_PLACES[state]] |= legs
        self.masks[seat_number] = (kept[0], kept[1], kept[2])


class JourneyStates:
    """Is what watchers of one journey see: one state for each seat, and how many are free."""

    __slots__ = ("_states", "free_count", "legs")

    def __init__(self, states: SeatStates, legs: int) -> None:
        """Begin with what is now."""
        self.legs = legs
        self._states = states.states(legs)
        self.free_count = sum(state is SeatState.FREE for state in self._states.values())

    def follow(
        self, states: SeatStates, changes: Iterable[SeatChange]
    ) -> list[tuple[str, SeatState]]:
        """Return which seats are different after these changes, which are applied already."""
        different = []
        for seat_number in dict.fromkeys(
            change.seat_number for change in changes if change.legs & self.legs
        ):
            before = self._states.get(seat_number)
            state = states.state(seat_number, self.legs)
            if before is None or before is state:
                continue
            self._states[seat_number] = state
            self.free_count += (state is SeatState.FREE) - (before is SeatState.FREE)
            different.append((seat_number, state))
        return different
