"""Whatever is asked of a trip's seats: nobody has what somebody else has on a leg."""

import dataclasses
import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from services.booking.domain.choosing import PlanSeat, choose, runs_of_seats
from services.booking.domain.layouts import Deck, Seat, SeatClass, SeatLayout
from services.booking.domain.seat_maps import SeatStates, ToldChanges
from services.booking.domain.seats import (
    Cause,
    Claim,
    HeldSeat,
    Hold,
    HoldState,
    SeatState,
    TripSeats,
    legs_between,
    runs_of,
)

STOPS = 7
SEATS = ("1A", "1B", "2A")
LAYOUT = SeatLayout(
    seat_layout_id="layout",
    display_name="Small",
    vehicle_class="BUS",
    seat_classes=(SeatClass(seat_class_code="STANDARD", display_name="Standard"),),
    decks=(
        Deck(
            display_name="",
            row_count=3,
            column_count=1,
            seats=tuple(
                Seat(seat_number=number, seat_class_code="STANDARD", row_index=row, column_index=0)
                for row, number in enumerate(SEATS)
            ),
        ),
    ),
)
START = datetime(2026, 5, 1, tzinfo=UTC)
journeys = st.tuples(st.integers(0, STOPS - 1), st.integers(0, STOPS - 1)).filter(
    lambda pair: pair[0] < pair[1]
)


def hold_of(hold_id: str, seats: Sequence[str], journey: tuple[int, int], seconds: int) -> Hold:
    return Hold(
        hold_id=hold_id,
        tenant_id="t",
        trip_id="trip",
        user_id="u",
        state=HoldState.ACTIVE,
        from_stop_id=str(journey[0]),
        to_stop_id=str(journey[1]),
        from_stop_index=journey[0],
        to_stop_index=journey[1],
        seats=[HeldSeat(seat, "STANDARD", 100) for seat in seats],
        currency_code="EGP",
        expire_time=START + timedelta(seconds=seconds),
        extension_count=0,
        together=False,
        booking_id="",
        body_hash=b"",
        create_time=START,
    )


@given(journeys, journeys)
def test_two_journeys_share_legs_exactly_when_they_overlap(
    one: tuple[int, int], other: tuple[int, int]
) -> None:
    shared = legs_between(*one) & legs_between(*other)

    assert bool(shared) == (one[0] < other[1] and other[0] < one[1])


@given(st.integers(0, 2**63 - 1))
def test_runs_of_legs_make_up_the_legs_and_never_touch(legs: int) -> None:
    runs = list(runs_of(legs))

    assert sum(legs_between(first, first + count) for first, count in runs) == legs
    assert all(one[0] + one[1] < other[0] for one, other in itertools.pairwise(runs))


@pytest.mark.parametrize("journey", [(1, 1), (2, 1), (-1, 1), (0, 64)])
def test_what_is_no_journey_has_no_legs(journey: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="no legs"):
        legs_between(*journey)


class Seats(RuleBasedStateMachine):
    """Compares TripSeats with a table of one owner per seat and leg."""

    def __init__(self) -> None:
        super().__init__()
        self.table: dict[tuple[str, int], tuple[str, SeatState]] = {}
        self.stored = dict(self.table)
        self.seats = TripSeats(version=0)
        self.map = SeatStates(LAYOUT, 0, {})
        self.holds: dict[str, Hold] = {}
        self.now = 0

    @rule(
        wanted=st.lists(st.sampled_from(SEATS), min_size=1, unique=True),
        journey=journeys,
        seconds=st.integers(1, 50),
    )
    def hold(self, wanted: list[str], journey: tuple[int, int], seconds: int) -> None:
        """Hold all or none, taking back what was taken before the first that cannot be had."""
        hold = hold_of(f"h{len(self.holds)}", wanted, journey, self.now + seconds)
        self.holds[hold.hold_id] = hold
        mark = self.seats.mark()
        try:
            for seat in wanted:
                self.seats.take(
                    seat, hold.legs, SeatState.HELD, owner_id=hold.hold_id, cause=Cause.HELD
                )
            self.seats.put_hold(hold)
        except ValueError:
            self.seats.undo(mark)
            assert any((seat, leg) in self.table for seat in wanted for leg in range(*journey))
            return
        for seat, leg in itertools.product(wanted, range(*journey)):
            assert (seat, leg) not in self.table
            self.table[seat, leg] = (hold.hold_id, SeatState.HELD)

    @rule(data=st.data())
    def book(self, data: st.DataObject) -> None:
        if not self.seats.holds:
            return
        hold = self.seats.holds[data.draw(st.sampled_from(sorted(self.seats.holds)))]
        booking_id = hold.hold_id.replace("h", "b")
        for seat in hold.seats:
            self.seats.hand_over(
                seat.seat_number,
                hold.legs,
                SeatState.BOOKED,
                owner_ids=(hold.hold_id, booking_id),
                cause=Cause.BOOKED,
            )
            for leg in range(hold.from_stop_index, hold.to_stop_index):
                self.table[seat.seat_number, leg] = (booking_id, SeatState.BOOKED)
        self.seats.put_hold(hold_of_state(hold, HoldState.BOOKED))

    @rule(data=st.data())
    def cancel_a_seat(self, data: st.DataObject) -> None:
        booked = sorted({(s, o[0]) for (s, _), o in self.table.items() if o[0].startswith("b")})
        if not booked:
            return
        seat, owner = data.draw(st.sampled_from(booked))
        legs = next(c.legs for c in self.seats.claims(seat) if c.owner_id == owner)
        self.seats.free(seat, legs, owner_id=owner, cause=Cause.CANCELLED)
        self.drop(owner, seat)

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if not self.seats.holds:
            return
        hold = self.seats.holds[data.draw(st.sampled_from(sorted(self.seats.holds)))]
        self.seats.end_hold(hold, HoldState.RELEASED, Cause.RELEASED)
        self.drop(hold.hold_id)

    @rule(seconds=st.integers(1, 30))
    def expire(self, seconds: int) -> None:
        self.now += seconds
        now = START + timedelta(seconds=self.now)
        ended = [hold.hold_id for hold in self.seats.holds.values() if hold.expire_time <= now]
        self.seats.expire(now)
        for hold_id in ended:
            self.drop(hold_id)
        assert all(hold.expire_time > now for hold in self.seats.holds.values())

    @rule()
    def commit(self) -> None:
        """Follow the changes by a map, and take them back; store the differences, as is done."""
        before = dict(self.map.masks)
        told = ToldChanges(self.map.version + 1, list(self.seats.changes), 0)
        self.map.apply(told)
        for seat, leg in itertools.product(SEATS, range(STOPS)):
            state = self.table.get((seat, leg), ("", SeatState.FREE))[1]
            assert self.map.state(seat, 1 << leg) is state
        back = self.map.rewound([told])
        free = (0, 0, 0)
        assert {seat: back.masks.get(seat, free) for seat in SEATS} == {
            seat: before.get(seat, free) for seat in SEATS
        }
        for seat, legs, old, new in self.seats.claim_writes():
            for leg in (leg for leg in range(STOPS) if legs >> leg & 1):
                assert self.stored.get((seat, leg)) == (old and (old.owner_id, old.state))
                if new is None:
                    del self.stored[seat, leg]
                else:
                    self.stored[seat, leg] = (new.owner_id, new.state)
        self.seats.settle(self.seats.version + 1)
        assert self.stored == self.table

    def drop(self, owner: str, seat: str = "") -> None:
        self.table = {
            key: value
            for key, value in self.table.items()
            if value[0] != owner or (seat and key[0] != seat)
        }

    @invariant()
    def the_table_agrees(self) -> None:
        found: dict[tuple[str, int], tuple[str, SeatState]] = {}
        for seat in SEATS:
            for claim in self.seats.claims(seat):
                for leg in (leg for leg in range(STOPS) if claim.legs >> leg & 1):
                    assert (seat, leg) not in found
                    found[seat, leg] = (claim.owner_id, claim.state)
        assert found == self.table


def hold_of_state(hold: Hold, state: HoldState) -> Hold:
    return dataclasses.replace(hold, state=state)


TestSeats = Seats.TestCase


def test_a_seat_is_sold_to_one_on_each_leg_and_freed_on_some() -> None:
    seats = TripSeats(version=4, claims=[("1A", Claim(0b0111, SeatState.BOOKED, "b1"))])

    seats.free("1A", 0b0010, owner_id="b1", cause=Cause.OVERRIDDEN, cause_id="o1")
    seats.take("1A", 0b1010, SeatState.HELD, owner_id="h2", cause=Cause.HELD)

    assert seats.in_the_way("1A", 0b0001) is SeatState.BOOKED
    assert seats.in_the_way("1A", 0b1011) is SeatState.BOOKED
    assert seats.in_the_way("1A", 0b1010) is SeatState.HELD
    assert seats.in_the_way("1A", 0b10000) is SeatState.FREE
    with pytest.raises(ValueError, match="not that of"):
        seats.free("1A", 0b0010, owner_id="b1", cause=Cause.CANCELLED)


layouts = st.sets(
    st.tuples(st.integers(0, 1), st.integers(0, 5), st.sampled_from([0, 1, 3, 4])), max_size=30
)


def plan(places: set[tuple[int, int, int]]) -> list[PlanSeat]:
    return [
        PlanSeat(f"{deck}-{row}{'ABCDE'[column]}", "STANDARD", deck, row, column)
        for deck, row, column in sorted(places)
    ]


@given(layouts, st.integers(1, 8))
def test_best_available_is_together_if_it_can_be_and_leaves_no_seat_alone_if_it_can(
    places: set[tuple[int, int, int]], count: int
) -> None:
    free = plan(places)

    choice = choose(free, count)

    if len(free) < count:
        assert choice is None
        return
    assert choice is not None
    assert len(set(choice.seats)) == count
    assert set(choice.seats) <= set(free)
    possible = [
        run[first : first + count]
        for run in runs_of_seats(free)
        for first in range(len(run) - count + 1)
    ]
    assert choice.together == bool(possible)
    if possible:
        assert len(runs_of_seats(choice.seats)) == 1
        assert new_alone(free, choice.seats) == min(new_alone(free, one) for one in possible)


def new_alone(free: Sequence[PlanSeat], taken: Sequence[PlanSeat]) -> int:
    """Count the seats that are alone after and were not before."""
    before = {run[0] for run in runs_of_seats(free) if len(run) == 1}
    after = [run[0] for run in runs_of_seats(set(free) - set(taken)) if len(run) == 1]
    return sum(seat not in before for seat in after)


@given(layouts, st.integers(1, 8))
def test_who_needs_to_sit_together_does_or_gets_nothing(
    places: set[tuple[int, int, int]], count: int
) -> None:
    free = plan(places)

    choice = choose(free, count, together_required=True)

    assert (choice is None) == (max(map(len, runs_of_seats(free)), default=0) < count)


@given(layouts, st.sets(st.integers(0, 29)), st.integers(1, 6))
def test_accessible_seats_are_for_others_only_when_nothing_else_is_left(
    places: set[tuple[int, int, int]], marked: set[int], count: int
) -> None:
    free = [seat._replace(accessible=i in marked) for i, seat in enumerate(plan(places))]

    anybody, asking = choose(free, count), choose(free, count, accessible=True)

    plain = sum(not seat.accessible for seat in free)
    if anybody is not None and plain >= count:
        assert not any(seat.accessible for seat in anybody.seats)
    assert (anybody is None) == (len(free) < count)
    assert (asking is None) == (len(free) - plain < count)
    assert asking is None or all(seat.accessible for seat in asking.seats)


def test_three_who_cannot_sit_together_sit_near_each_other_and_nobody_alone_needs_be() -> None:
    free = plan({(0, 0, 0), (0, 3, 0), (0, 3, 1), (0, 3, 3), (0, 3, 4), (0, 5, 4)})

    choice = choose(free, 4)

    assert choice is not None
    assert not choice.together
    assert {seat.row_index for seat in choice.seats} == {3}


def test_a_seat_that_is_sold_on_other_legs_is_taken_first() -> None:
    free = plan({(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1)})

    choice = choose(free, 2, used_legs=lambda seat: 3 if seat.row_index == 1 else 0)

    assert choice is not None
    assert [seat.seat_number for seat in choice.seats] == ["0-1A", "0-1B"]
