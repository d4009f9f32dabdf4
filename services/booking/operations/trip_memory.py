"""Remembers trips between batches, so that most batches read nothing but versions.

What is remembered is only used while PostgreSQL says, under the trip's lock, that it is still of
the newest version. Called by the SeatBatcher.
"""

from collections import OrderedDict
from collections.abc import Sized
from dataclasses import dataclass, field

from services.booking.domain.layouts import SeatLayout
from services.booking.domain.seats import TripSeats
from services.booking.domain.trips import Trip


@dataclass(slots=True)
class KnownTrip:
    """Is a trip as it was at its `update_time`, and its seats after so many batches.

    `notes` are those of its last turn, as good as the seats are.
    """

    trip: Trip
    layout: SeatLayout
    seats: TripSeats
    batch_count: int
    notes: dict[str, Sized] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Count what it remembers, about."""
        return len(self.trip.stops) + self.seats.size + sum(map(len, self.notes.values()))


class TripMemory:
    """Keeps the trips that were used last, about `size_max` stops and seats in all."""

    def __init__(self, size_max: int) -> None:
        """Remember nothing yet."""
        self._size_max = size_max
        self._size = 0
        self._trips: OrderedDict[str, tuple[KnownTrip, int]] = OrderedDict()

    def take(self, trip_id: str) -> KnownTrip | None:
        """Return a trip and forget it: whoever has it may change it, and gives it back if right."""
        known = self._trips.pop(trip_id, None)
        if known is None:
            return None
        self._size -= known[1]
        return known[0]

    def give(self, known: KnownTrip) -> None:
        """Remember a trip; an older one never takes the place of a newer one."""
        trip_id = known.trip.trip_id
        other = self.take(trip_id)
        if other is not None and other.batch_count > known.batch_count:
            known = other
        self._trips[trip_id] = (known, known.size)
        self._size += known.size
        while self._size > self._size_max and len(self._trips) > 1:
            _, (_, size) = self._trips.popitem(last=False)
            self._size -= size
