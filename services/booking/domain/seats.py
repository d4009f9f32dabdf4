"""Knows who has which seat of a trip on which legs. Pure; used under the lock of the trip.

Legs are the bits of an integer: bit i is the leg from stop i to stop i + 1. Whoever travels from
stop a to stop b has the bits a to b - 1 of a seat, and nobody else may have one of them.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

LEGS_MAX = 63


class SeatState(StrEnum):
    """Says whether a seat can be had. Where the legs differ, the last of these counts."""

    FREE = "FREE"
    HELD = "HELD"
    BOOKED = "BOOKED"
    BLOCKED = "BLOCKED"


WORST_FIRST = (SeatState.BLOCKED, SeatState.BOOKED, SeatState.HELD)


class Cause(StrEnum):
    """Says why a seat changed."""

    HELD = "HELD"
    RELEASED = "RELEASED"
    EXPIRED = "EXPIRED"
    BOOKED = "BOOKED"
    CANCELLED = "CANCELLED"
    OVERRIDDEN = "OVERRIDDEN"


class HoldState(StrEnum):
    """Says what became of a hold. ACTIVE and PAYING keep seats."""

    ACTIVE = "ACTIVE"
    PAYING = "PAYING"
    BOOKED = "BOOKED"
    RELEASED = "RELEASED"
    EXPIRED = "EXPIRED"


LIVE = (HoldState.ACTIVE, HoldState.PAYING)


class Claim(NamedTuple):
    """Is a seat taken on some legs by one hold, booking or override."""

    legs: int
    state: SeatState
    owner_id: str


class SeatChange(NamedTuple):
    """Is what became of a seat on some legs, and which hold, booking or override did it.

    `before` is the state that it had on all of them.
    """

    seat_number: str
    legs: int
    state: SeatState
    cause: Cause
    cause_id: str
    before: SeatState


class SeatsChanged(NamedTuple):
    """Is what one commit did to the seats of a trip; the last change of a seat and leg stands."""

    trip_id: str
    seat_version: int
    changes: Sequence[SeatChange]


class ClaimWrite(NamedTuple):
    """Is one difference between the claims before and after.

    `old` is None where there was none, `new` where there is none any more.
    """

    seat_number: str
    legs: int
    old: Claim | None
    new: Claim | None


class HeldSeat(NamedTuple):
    """Is one seat of a hold, and its price in minor units."""

    seat_number: str
    seat_class_code: str
    price_minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Keeps seats for one user from stop to stop until `expire_time`; `seats` in layout order."""

    hold_id: str
    tenant_id: str
    trip_id: str
    user_id: str
    state: HoldState
    from_stop_id: str
    to_stop_id: str
    from_stop_index: int
    to_stop_index: int
    seats: Sequence[HeldSeat]
    currency_code: str
    expire_time: datetime
    extension_count: int
    together: bool
    booking_id: str
    body_hash: bytes
    create_time: datetime

    @property
    def legs(self) -> int:
        """Return the legs of the journey."""
        return legs_between(self.from_stop_index, self.to_stop_index)

    @property
    def live(self) -> bool:
        """Say whether it keeps seats, as far as is written."""
        return self.state in LIVE

    @property
    def amount_minor(self) -> int:
        """Return the price of all its seats, in minor units."""
        return sum(seat.price_minor for seat in self.seats)


def legs_between(from_stop_index: int, to_stop_index: int) -> int:
    """Return the legs from one stop to another. Raises ValueError if there are none."""
    if not 0 <= from_stop_index < to_stop_index <= LEGS_MAX:
        raise ValueError(f"there are no legs from {from_stop_index} to {to_stop_index}")
    return (1 << to_stop_index) - (1 << from_stop_index)


def runs_of(legs: int) -> Iterator[tuple[int, int]]:
    """Return first leg and number of legs of each unbroken run, in order."""
    first = 0
    while legs:
        gap = (legs & -legs).bit_length() - 1
        legs >>= gap
        first += gap
        count = (~legs & (legs + 1)).bit_length() - 1
        yield first, count
        legs >>= count
        first += count


class TripSeats:
    """Is who has the seats of one trip, and what changes of it within one batch.

    `version` is that of what it was read as. What a batch changes is taken back with `undo`, or
    kept with `settle`.
    """

    def __init__(
        self,
        *,
        version: int,
        claims: Iterable[tuple[str, Claim]] = (),
        holds: Iterable[Hold] = (),
    ) -> None:
        """Take the claims by seat and the holds that keep seats."""
        self.version = version
        self._claims: dict[str, tuple[Claim, ...]] = {}
        for seat_number, claim in claims:
            self._claims[seat_number] = (*self._claims.get(seat_number, ()), claim)
        self.holds: dict[str, Hold] = {}
        self._held: Counter[str] = Counter()
        for hold in holds:
            self._keep(hold.hold_id, hold)
        self.changes: list[SeatChange] = []
        self.hold_writes: dict[str, Hold] = {}
        self._new_ids: set[str] = set()
        self._before: dict[str, tuple[Claim, ...]] = {}
        self._undo: list[tuple[str, tuple[Claim, ...]] | tuple[str, Hold | None, Hold | None]] = []
        self._first_expiry: datetime | None = min(
            (hold.expire_time for hold in self.holds.values()), default=None
        )

    @property
    def size(self) -> int:
        """Count what it remembers, about."""
        return 1 + len(self._claims) + len(self.holds)

    def claims(self, seat_number: str) -> Sequence[Claim]:
        """Return who has the seat, each with their legs; no two share one."""
        return self._claims.get(seat_number, ())

    def claimed(self, seat_number: str) -> int:
        """Return the legs on which somebody has the seat."""
        legs = 0
        for claim in self._claims.get(seat_number, ()):
            legs |= claim.legs
        return legs

    def in_the_way(self, seat_number: str, legs: int) -> SeatState:
        """Return the worst state of the seat on these legs; FREE if nobody has one of them."""
        found = {claim.state for claim in self._claims.get(seat_number, ()) if claim.legs & legs}
        return next((state for state in WORST_FIRST if state in found), SeatState.FREE)

    def seats_of(self, owner_id: str) -> list[tuple[str, Claim]]:
        """Return what one hold, booking or override has."""
        return [
            (seat_number, claim)
            for seat_number, claims in self._claims.items()
            for claim in claims
            if claim.owner_id == owner_id
        ]

    def held_by(self, user_id: str) -> int:
        """Count the seats that a user holds."""
        return self._held[user_id]

    def take(
        self, seat_number: str, legs: int, state: SeatState, *, owner_id: str, cause: Cause
    ) -> None:
        """Give the seat to an owner on these legs. Raises ValueError if one of them is taken."""
        claims = self._claims.get(seat_number, ())
        if any(claim.legs & legs for claim in claims):
            raise ValueError(f"seat {seat_number} is taken")
        self._set(seat_number, (*claims, Claim(legs, state, owner_id)))
        self.changes.append(SeatChange(seat_number, legs, state, cause, owner_id, SeatState.FREE))

    def free(
        self, seat_number: str, legs: int, *, owner_id: str, cause: Cause, cause_id: str = ""
    ) -> None:
        """Take the seat from its owner on these legs; on other legs it stays theirs.

        Raises ValueError if it is not theirs on all of them.
        """
        claims = self._claims.get(seat_number, ())
        theirs = 0
        before = SeatState.FREE
        kept = []
        for claim in claims:
            if claim.owner_id == owner_id:
                theirs |= claim.legs
                before = claim.state
                claim = claim._replace(legs=claim.legs & ~legs)  # noqa: PLW2901 - what is left of it
            if claim.legs:
                kept.append(claim)
        if legs & ~theirs:
            raise ValueError(f"seat {seat_number} is not that of {owner_id}")
        self._set(seat_number, tuple(kept))
        self.changes.append(
            SeatChange(seat_number, legs, SeatState.FREE, cause, cause_id or owner_id, before)
        )

    def hand_over(
        self,
        seat_number: str,
        legs: int,
        state: SeatState,
        *,
        owner_ids: tuple[str, str],
        cause: Cause,
    ) -> None:
        """Give the seat from the first owner to the second, who has it in `state` from now on.

        Raises ValueError if it is not the first one's on exactly these legs.
        """
        old_id, new_id = owner_ids
        claims = self._claims.get(seat_number, ())
        kept = [claim for claim in claims if claim.owner_id != old_id]
        given = [claim for claim in claims if claim.owner_id == old_id]
        if len(given) != 1 or given[0].legs != legs:
            raise ValueError(f"seat {seat_number} is not that of {old_id}")
        self._set(seat_number, (*kept, Claim(legs, state, new_id)))
        self.changes.append(SeatChange(seat_number, legs, state, cause, new_id, given[0].state))

    def put_hold(self, hold: Hold, *, new: bool = False) -> None:
        """Remember a new hold, or what became of one; says nothing about its seats."""
        if new:
            self._new_ids.add(hold.hold_id)
        old = self.holds.get(hold.hold_id)
        self._undo.append((hold.hold_id, old, self.hold_writes.get(hold.hold_id)))
        self.hold_writes[hold.hold_id] = hold
        self._keep(hold.hold_id, hold if hold.live else None)
        if hold.live and (self._first_expiry is None or hold.expire_time < self._first_expiry):
            self._first_expiry = hold.expire_time

    def end_hold(self, hold: Hold, state: HoldState, cause: Cause, *, cause_id: str = "") -> Hold:
        """Free the seats of a hold and say what became of it; return it as it is then."""
        for seat in hold.seats:
            self.free(
                seat.seat_number,
                hold.legs,
                owner_id=hold.hold_id,
                cause=cause,
                cause_id=cause_id,
            )
        ended = replace(hold, state=state)
        self.put_hold(ended)
        return ended

    def expire(self, now: datetime) -> None:
        """End the holds whose time is over: their seats are free for whoever comes next."""
        if self._first_expiry is None or self._first_expiry > now:
            return
        for hold in list(self.holds.values()):
            if hold.expire_time <= now:
                self.end_hold(hold, HoldState.EXPIRED, Cause.EXPIRED)
        self._first_expiry = min((hold.expire_time for hold in self.holds.values()), default=None)

    def mark(self) -> tuple[int, int]:
        """Return where `undo` goes back to."""
        return len(self._undo), len(self.changes)

    def undo(self, mark: tuple[int, int]) -> None:
        """Take back what was changed since the mark."""
        steps, changes = mark
        while len(self._undo) > steps:
            step = self._undo.pop()
            if len(step) == 2:
                self._claims[step[0]] = step[1]
                continue
            hold_id, hold, write = step
            self._keep(hold_id, hold)
            if write is None:
                self.hold_writes.pop(hold_id, None)
            else:
                self.hold_writes[hold_id] = write
        del self.changes[changes:]

    def new_holds(self) -> list[Hold]:
        """Return the holds that this batch made, as they are at its end."""
        return [hold for hold in self.hold_writes.values() if hold.hold_id in self._new_ids]

    def changed_holds(self) -> list[Hold]:
        """Return the older holds that this batch changed, as they are at its end."""
        return [hold for hold in self.hold_writes.values() if hold.hold_id not in self._new_ids]

    def claim_writes(self) -> list[ClaimWrite]:
        """Return how the claims differ from those before the batch. No two are of one seat-leg."""
        writes = []
        for seat_number, before in self._before.items():
            after = self._claims.get(seat_number, ())
            if before == after:
                continue
            was, now_is = _union(before), _union(after)
            for old in before:
                if gone := old.legs & ~now_is:
                    writes.append(ClaimWrite(seat_number, gone, old, None))
                for new in after:
                    legs = old.legs & new.legs
                    if legs and old[1:] != new[1:]:
                        writes.append(ClaimWrite(seat_number, legs, old, new))
            writes += [
                ClaimWrite(seat_number, fresh, None, new)
                for new in after
                if (fresh := new.legs & ~was)
            ]
        return writes

    def settle(self, version: int) -> None:
        """Keep what was changed: it is committed, and this is its version."""
        self.version = version
        self.changes = []
        self.hold_writes = {}
        self._new_ids.clear()
        self._before.clear()
        self._undo.clear()

    def _keep(self, hold_id: str, hold: Hold | None) -> None:
        """Take a hold that keeps seats in the place of the one of this id, or none."""
        old = self.holds.pop(hold_id, None)
        if old is not None:
            self._held[old.user_id] -= len(old.seats)
            if not self._held[old.user_id]:
                del self._held[old.user_id]
        if hold is not None:
            self.holds[hold_id] = hold
            self._held[hold.user_id] += len(hold.seats)

    def _set(self, seat_number: str, claims: tuple[Claim, ...]) -> None:
        old = self._claims.get(seat_number, ())
        self._undo.append((seat_number, old))
        self._before.setdefault(seat_number, old)
        self._claims[seat_number] = claims


def _union(claims: Iterable[Claim]) -> int:
    legs = 0
    for claim in claims:
        legs |= claim.legs
    return legs
