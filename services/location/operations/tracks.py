"""Tells the way that a trip took: from history while it runs, kept once it is over."""

import asyncio

from services.location.domain.track import Track, track_of
from services.location.domain.trips import TrackedTrip
from services.location.ports.history import HistoryStore

# Longer than positions wait for history, so that the last ones are in it.
SETTLE_SECONDS = 10.0


class Tracks:
    """Reads the ways of trips."""

    def __init__(self, history: HistoryStore) -> None:
        """Read from `history`."""
        self._history = history

    async def of_trip(self, trip: TrackedTrip, *, is_settled: bool) -> tuple[Track, bool]:
        """Return the way of a trip, and whether it is complete.

        Once a trip is over and its last positions are in history, its way is kept for good.
        """
        if trip.stopped:
            kept = await self._history.track(trip.tenant_id, trip.trip_id)
            if kept is not None:
                return kept, True
        fixes = await self._history.fixes_of_trip(trip.tenant_id, trip.trip_id)
        # A day's positions take a moment: not on the loop.
        track = await asyncio.to_thread(track_of, fixes)
        complete = trip.stopped and is_settled
        if complete:
            await self._history.keep_track(trip.tenant_id, trip.trip_id, track)
        return track, complete
