"""What looking for fraud needs of the outside, as Protocols."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from services.ledger.domain.fraud import Flag, Profile
from services.ledger.ports import NewEvent

Person = tuple[str, str]
"""Is tenant and user."""


class FraudTurn(Protocol):
    """Is the turn to look at what comes next. What it did commits when it ends."""

    async def next_envelopes(self, most: int) -> Sequence[bytes]:
        """Return the envelopes of the events that come next, in the order of commits."""
        ...

    async def profiles(self, people: Collection[Person]) -> Mapping[Person, Profile]:
        """Return what is remembered of these people, as far as anything is."""
        ...

    async def keep(
        self,
        profiles: Mapping[Person, Profile],
        flags: Sequence[tuple[Flag, NewEvent]],
    ) -> None:
        """Remember people, write flags with their events; what was read does not come again."""
        ...


class FraudStore(Protocol):
    """Keeps flags, and what is remembered of people."""

    def turn(self) -> AbstractAsyncContextManager[FraudTurn | None]:
        """Take the turn, which one process has at a time; None if another has it."""
        ...
