"""Spreads what every open stream needs now and then over time, with one timer for all of them."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from services.shared.clock import Clock

Member = TypeVar("Member")
_SLOTS = 64


class Ring(Generic[Member]):
    """Visits every member once per period, a 64th of them at a time."""

    def __init__(
        self, *, period_seconds: float, visit: Callable[[Member], None], clock: Clock
    ) -> None:
        """Call `visit` for each member once in `period_seconds`."""
        self._period_seconds = period_seconds
        self._visit = visit
        self._clock = clock
        self._slots: list[set[Member]] = [set() for _ in range(_SLOTS)]
        self._slot_of: dict[Member, int] = {}
        self._next = 0

    def __len__(self) -> int:
        """Count the members."""
        return len(self._slot_of)

    def add(self, member: Member) -> None:
        """Begin to visit `member`, for the first time a whole period from now."""
        slot = (self._next - 1) % _SLOTS
        self._slots[slot].add(member)
        self._slot_of[member] = slot

    def discard(self, member: Member) -> None:
        """Stop visiting `member`."""
        slot = self._slot_of.pop(member, None)
        if slot is not None:
            self._slots[slot].discard(member)

    def members(self) -> list[Member]:
        """List all members."""
        return list(self._slot_of)

    def turn(self) -> None:
        """Visit the members of the next slot."""
        slot = self._slots[self._next]
        self._next = (self._next + 1) % _SLOTS
        for member in list(slot):
            self._visit(member)

    async def run(self) -> None:
        """Turn until cancelled."""
        pause = self._period_seconds / _SLOTS
        turn_at = self._clock.monotonic() + pause
        while True:
            await asyncio.sleep(max(0.0, turn_at - self._clock.monotonic()))
            self.turn()
            turn_at += pause
