"""What a wanted change of seats is, and what it decides on: the turn at a trip.

Everything that changes who has a seat is a `WantedChange`. The SeatBatcher locks the trips of a
batch, brings each its `TripTurn`, and lets the changes decide one after the other; a change that
raises a DomainError leaves nothing behind. Pure.
"""

from collections import Counter
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from services.booking.domain.layouts import SeatLayout
from services.booking.domain.seats import Hold, TripSeats
from services.booking.domain.trips import Trip


class RequestKey(NamedTuple):
    """Is a call that may be repeated: the same key with another hash is another call's."""

    caller_id: str
    method: str
    request_id: str
    body_hash: bytes


class Happening(NamedTuple):
    """Is an event to be kept with the change; `body` is what the converter knows to convert."""

    aggregate_type: str
    aggregate_id: str
    aggregate_version: int
    body: object


@dataclass(slots=True, kw_only=True)
class BatchKnown:
    """Is what was read for a whole batch, after its trips were locked.

    `holds` are those that changes name and that keep nothing any more, as far as there are any;
    `live_hold_counts` counts by user the holds on all trips that keep seats; `parts` holds what the
    parts of the store read, by their names.
    """

    now: datetime
    holds: dict[str, Hold] = field(default_factory=dict)
    live_hold_counts: Counter[str] = field(default_factory=Counter)
    requests: dict[tuple[str, str, str], tuple[bytes, str]] = field(default_factory=dict)
    parts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class TripTurn:
    """Is one locked trip within a batch. `rows` and `events` are written with the batch.

    `batch_count` counts the batches that changed it before. `notes` is what parts of the store know
    of the trip, by their names, as long as its seats do not change; whoever changes them keeps the
    notes right.
    """

    trip: Trip
    layout: SeatLayout
    seats: TripSeats
    event_version: int
    batch_count: int
    known: BatchKnown
    rows: list[tuple[str, object]] = field(default_factory=list)
    events: list[Happening] = field(default_factory=list)
    requests: list[tuple[RequestKey, str]] = field(default_factory=list)
    notes: dict[str, Sized] = field(default_factory=dict)
    undone: bool = False

    @property
    def now(self) -> datetime:
        """Return the time of the batch."""
        return self.known.now

    @property
    def is_changed(self) -> bool:
        """Say whether there is anything to write."""
        seats = self.seats
        return bool(seats.changes or seats.hold_writes or self.rows or self.events or self.requests)

    def hold(self, hold_id: str) -> Hold | None:
        """Return a hold that the change named, as it is now."""
        seats = self.seats
        return (
            seats.holds.get(hold_id)
            or seats.hold_writes.get(hold_id)
            or self.known.holds.get(hold_id)
        )

    def write(self, part: str, row: object) -> None:
        """Have a part of the store write a row in the batch's transaction."""
        self.rows.append((part, row))

    def tell(self, happening: Happening) -> None:
        """Keep an event of an aggregate whose version the caller counts."""
        self.events.append(happening)

    def tell_of_trip(self, body: object) -> None:
        """Keep an event of the aggregate `trip`."""
        self.event_version += 1
        self.events.append(
            Happening("trip", self.trip.trip_id, self.event_version, body),
        )

    def mark(self) -> tuple[Any, ...]:
        """Return where `undo` goes back to."""
        return (
            self.seats.mark(),
            len(self.rows),
            len(self.events),
            self.event_version,
        )

    def undo(self, mark: tuple[Any, ...]) -> None:
        """Take back all that was changed since the mark; notes may be wrong from now on."""
        self.undone = True
        seats, rows, events, self.event_version = mark
        self.seats.undo(seats)
        del self.rows[rows:]
        del self.events[events:]


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedChange:
    """Is what somebody wants of a trip's seats.

    `hold_ids` are holds to know also when they keep nothing any more, `new_hold_ids` those that it
    makes; `limited_user_id` is whose live holds are counted over all trips (empty: nobody's). With
    `request`, the same call again does not decide again but gets `repeated`.
    """

    tenant_id: str
    trip_id: str
    hold_ids: Sequence[str] = ()
    new_hold_ids: Sequence[str] = ()
    limited_user_id: str = ""
    request: RequestKey | None = None

    def decide(self, turn: TripTurn) -> Any:
        """Decide, change `turn`, and return the answer; or raise a DomainError."""
        raise NotImplementedError

    def repeated(self, turn: TripTurn, resource_id: str) -> Any:
        """Return the answer to a repeated call, whose first one was about `resource_id`."""
        return turn.hold(resource_id)

    def resource_id(self, answer: Any) -> str:
        """Return what a repeated call will be about."""
        return str(answer.hold_id)
