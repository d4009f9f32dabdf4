"""Observes a trip's stops and a driver's geofences: state in, events out. Used by the watch."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from services.location.domain.eta import Pace, StopExpectation, expect, observed_pace
from services.location.domain.geofences import (
    OUTSIDE,
    FenceEvent,
    FenceIndex,
    Geofence,
    Presence,
    observe,
)
from services.location.domain.positions import Fix
from services.location.domain.route import Route
from services.location.domain.stop_progress import Progress, StopEvent, advance, finish
from services.location.operations.watch import Told
from services.location.ports.live import ALERT, ETA, STOP_PROGRESS

# An expectation is told again when it has moved by so much, or a stop was reached.
_ETA_MOVES_SECONDS = 15.0
_ETA_EVERY_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """Says that a vehicle entered or left an area, or stayed in it."""

    geofence: Geofence
    kind: FenceEvent
    vehicle_id: str
    trip_id: str
    capture_milliseconds: int


class TripObserver:
    """Observes the stops of one trip."""

    def __init__(
        self,
        route: Route,
        *,
        encode_event: Callable[[StopEvent], bytes],
        encode_expectations: Callable[[Sequence[StopExpectation]], bytes],
    ) -> None:
        """Begin before the first stop."""
        self.trip_id = ""
        self._route = route
        self._encode_event = encode_event
        self._encode_expectations = encode_expectations
        self._progress = Progress()
        self._pace = Pace()
        self._told_at = 0
        self._told_expected = 0
        self._told_index = -1

    def observe(self, fix: Fix, now_milliseconds: int) -> Sequence[Told]:
        """Take the next fix; return what is to be told."""
        before = self._progress
        progress, events = advance(self._route, before, fix)
        if progress is before:
            return ()
        self._progress = progress
        self._pace = observed_pace(self._route, self._pace, progress)
        told = [(STOP_PROGRESS, self._encode_event(event)) for event in events]
        expected = self._expectations(now_milliseconds, anew=bool(events))
        if expected:
            told.append((ETA, self._encode_expectations(expected)))
        return told

    def finish(self, capture_milliseconds: int) -> Sequence[Told]:
        """Take that the trip has ended."""
        events = finish(self._route, self._progress, capture_milliseconds)
        if not events:
            return ()
        # Whatever comes now is after the end.
        self._progress = Progress(
            capture_milliseconds=max(capture_milliseconds, self._progress.capture_milliseconds),
            along=self._route.length_meters,
            next_index=len(self._route.stops),
        )
        return [(STOP_PROGRESS, self._encode_event(event)) for event in events]

    def _expectations(self, now_milliseconds: int, *, anew: bool) -> Sequence[StopExpectation]:
        if not anew and now_milliseconds - self._told_at < _ETA_EVERY_SECONDS * 1000:
            return ()
        expected = expect(
            self._route, self._progress, self._pace, now_milliseconds=now_milliseconds
        )
        if not expected:
            return ()
        first = expected[0]
        moved = abs(first.expected_milliseconds - self._told_expected)
        if first.stop_index == self._told_index and moved < _ETA_MOVES_SECONDS * 1000:
            return ()
        self._told_at = now_milliseconds
        self._told_expected = first.expected_milliseconds
        self._told_index = first.stop_index
        return expected

    def save(self) -> bytes:
        """Return the state."""
        state = {"progress": asdict(self._progress), "pace": asdict(self._pace)}
        return json.dumps(state, separators=(",", ":")).encode()

    def restore(self, state: bytes) -> None:
        """Go on from a state that `save` returned."""
        kept = json.loads(state) if state else {}
        self._progress = Progress(**kept.get("progress", {}))
        self._pace = Pace(**kept.get("pace", {}))
        self._told_at, self._told_expected, self._told_index = 0, 0, -1


class FenceObserver:
    """Observes one driver and the areas of the driver's tenant."""

    def __init__(
        self,
        fences: Callable[[], FenceIndex],
        *,
        vehicle_id: str,
        encode: Callable[[Transition], bytes],
    ) -> None:
        """Look at `fences`, whatever they are at the time."""
        self._fences = fences
        self._vehicle_id = vehicle_id
        self.trip_id = ""
        self._encode = encode
        self._known: dict[str, Presence] = {}
        self._last: Fix | None = None
        self._believed: Fix | None = None

    def observe(self, fix: Fix, now_milliseconds: int) -> Sequence[Told]:  # noqa: ARG002 - asked of every observer
        """Take the next fix; return what is to be told."""
        last = self._last
        if last is not None and fix.capture_milliseconds <= last.capture_milliseconds:
            return ()
        index = self._fences()
        near = {fence.geofence_id: fence for fence in index.near(fix)}
        if last is not None:
            near.update((fence.geofence_id, fence) for fence in index.near(last))
        # Also those in which the vehicle was, wherever it is now.
        for geofence_id in list(self._known):
            fence = index.by_id.get(geofence_id)
            if fence is None:
                del self._known[geofence_id]
            else:
                near[geofence_id] = fence
        told: list[Told] = []
        for fence in near.values():
            told.extend(self._observe_one(fence, last, fix))
        self._believed, self._last = last, fix
        return told

    def _observe_one(self, fence: Geofence, last: Fix | None, fix: Fix) -> list[Told]:
        known = self._known.get(fence.geofence_id, OUTSIDE)
        after, events = observe(fence, known, self._believed, last, fix)
        if after == OUTSIDE:
            self._known.pop(fence.geofence_id, None)
        else:
            self._known[fence.geofence_id] = after
        return [
            (
                ALERT,
                self._encode(
                    Transition(
                        geofence=fence,
                        kind=kind,
                        vehicle_id=self._vehicle_id,
                        trip_id=self.trip_id,
                        capture_milliseconds=capture,
                    )
                ),
            )
            for kind, capture in events
        ]

    def finish(self, capture_milliseconds: int) -> Sequence[Told]:  # noqa: ARG002 - asked of every observer
        """Take that the trip has ended: an area is left by driving."""
        return ()

    def save(self) -> bytes:
        """Return the state."""
        state = {
            "known": {key: asdict(value) for key, value in self._known.items()},
            "last": self._last,
            "believed": self._believed,
        }
        return json.dumps(state, separators=(",", ":")).encode()

    def restore(self, state: bytes) -> None:
        """Go on from a state that `save` returned."""
        kept = json.loads(state) if state else {}
        self._known = {key: Presence(**value) for key, value in kept.get("known", {}).items()}
        self._last = Fix(*kept["last"]) if kept.get("last") else None
        self._believed = Fix(*kept["believed"]) if kept.get("believed") else None
