"""Decides when a vehicle approaches, arrives at and departs from its stops. Pure.

Events come once per stop and in order. What two fixes in a row agree on is believed: a single one
that is wrong, however sure the phone is of it, moves nothing. Stops that were passed between two
fixes are told with the times at which the vehicle was there, by interpolation.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from services.location.domain.positions import Fix, distance_meters
from services.location.domain.route import Route, RouteStop, first_place, place_after

ACCURACY_WORST_METERS = 100.0
APPROACH_METERS = 300.0
_ARRIVE_METERS = 40.0
_DEPART_METERS = 60.0
# Faster than any bus: such a fix counts once the next ones agree with it.
_SPEED_MOST = 33.0
_ERROR_LEAST_METERS, _ERROR_MOST_METERS = 20.0, 60.0
_JUMP_CONFIRMATIONS = 3
# A trip that is tracked from its middle on: so many fixes must show that it goes forward.
_BEGIN_FIXES = 4
_BEGIN_METERS = 150.0
_BEGIN_NEAR_METERS = 300.0
# On a route whose roads are not known, a stop counts as passed without being seen there only then.
_PASSED_METERS = 200.0


class StopKind(StrEnum):
    """Says what happened at a stop; the values are those of the contract's StopProgressKind."""

    APPROACHING = "APPROACHING"
    ARRIVED = "ARRIVED"
    DEPARTED = "DEPARTED"


@dataclass(frozen=True, slots=True, kw_only=True)
class StopEvent:
    """Says that a vehicle comes to, is at, or has left a stop."""

    stop_id: str
    stop_index: int
    kind: StopKind
    distance_meters: float
    capture_milliseconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Is how far along its stops a vehicle is.

    `next_index` is the stop to arrive at, or at which the vehicle is while `at_stop`. `along` is
    None until the vehicle was found on its route.
    """

    capture_milliseconds: int = 0
    along: float | None = None
    # Of the believed fix before.
    earlier_milliseconds: int = 0
    earlier_along: float = 0.0
    next_index: int = 0
    at_stop: bool = False
    approached: bool = False
    meters_per_second: float = 0.0
    # A fix that jumped, and how many agree with it.
    jump_along: float = 0.0
    jump_milliseconds: int = 0
    jumps: int = 0
    # Of a vehicle that is not yet found: fixes that went forward, and from where.
    begun: int = 0
    begun_from: float = 0.0


def advance(route: Route, before: Progress, fix: Fix) -> tuple[Progress, Sequence[StopEvent]]:
    """Return the progress after a fix, and what happened. Ignores fixes that are not newer."""
    newest = max(before.capture_milliseconds, before.jump_milliseconds)
    if fix.capture_milliseconds <= newest:
        return before, ()
    if fix.accuracy_meters is not None and fix.accuracy_meters > ACCURACY_WORST_METERS:
        return before, ()
    if before.along is None:
        return _find(route, before, fix), ()
    seconds = (fix.capture_milliseconds - before.capture_milliseconds) / 1000
    along = place_after(
        route,
        fix,
        along_meters=before.along,
        seconds=seconds,
        expected_meters=before.along + before.meters_per_second * min(seconds, 60.0),
    )
    if along is None:
        # Off its route: that says nothing about its stops.
        return before, ()
    along = _seen_along(route, before, fix, along)
    error = _error_of(fix)
    if not _plausible(along - before.along, seconds, error) and not _jump_confirmed(
        before, fix, along
    ):
        return _remember_jump(before, fix, along), ()
    after = replace(
        before,
        capture_milliseconds=fix.capture_milliseconds,
        along=along,
        earlier_milliseconds=before.capture_milliseconds,
        earlier_along=before.along,
        meters_per_second=_smoothed(before, (along - before.along) / seconds),
        jumps=0,
        jump_milliseconds=0,
    )
    return _decide(route, before, after)


def _smoothed(before: Progress, speed: float) -> float:
    return min(_SPEED_MOST, max(0.0, 0.5 * before.meters_per_second + 0.5 * speed))


def _error_of(fix: Fix) -> float:
    """Return how far two fixes of a vehicle that stands may be apart, in meters."""
    if fix.accuracy_meters is None:
        return _ERROR_MOST_METERS
    return min(_ERROR_MOST_METERS, max(_ERROR_LEAST_METERS, 4 * fix.accuracy_meters))


def _plausible(meters: float, seconds: float, error_meters: float) -> bool:
    return abs(meters) <= _SPEED_MOST * seconds + error_meters


def _agrees_with_jump(before: Progress, fix: Fix, along: float) -> bool:
    seconds = (fix.capture_milliseconds - before.jump_milliseconds) / 1000
    return before.jumps > 0 and _plausible(along - before.jump_along, seconds, _error_of(fix))


def _jump_confirmed(before: Progress, fix: Fix, along: float) -> bool:
    return _agrees_with_jump(before, fix, along) and before.jumps + 1 >= _JUMP_CONFIRMATIONS


def _remember_jump(before: Progress, fix: Fix, along: float) -> Progress:
    # The time of `before` stays: the next fix is compared with the last one that was believed.
    return replace(
        before,
        jump_along=along,
        jump_milliseconds=fix.capture_milliseconds,
        jumps=before.jumps + 1 if _agrees_with_jump(before, fix, along) else 1,
    )


def _seen_along(route: Route, before: Progress, fix: Fix, along: float) -> float:
    """Return how far a vehicle is, with regard to its next stop where roads are not known.

    Between stops a straight route only guesses; at a stop it does not have to.
    """
    if not route.is_straight or before.next_index >= len(route.stops):
        return along
    stop = route.stops[before.next_index]
    away = distance_meters(Fix(stop.latitude, stop.longitude, 0), fix)
    if before.at_stop:
        if away <= _DEPART_METERS:
            return stop.distance_meters
        return max(along, stop.distance_meters + _DEPART_METERS + 1.0)
    if away <= _ARRIVE_METERS:
        return stop.distance_meters
    if along > stop.distance_meters + _PASSED_METERS:
        return along
    return min(along, stop.distance_meters - _ARRIVE_METERS - 1.0)


def _find(route: Route, before: Progress, fix: Fix) -> Progress:
    """Find a vehicle on its route: near the first stop at once, later only if it goes forward."""
    capture = fix.capture_milliseconds
    seen = replace(before, capture_milliseconds=capture)
    along = first_place(route, fix)
    if along is None:
        return replace(seen, begun=0)
    if along <= route.stops[0].distance_meters + _BEGIN_NEAR_METERS:
        return replace(seen, along=along, earlier_along=along, earlier_milliseconds=capture)
    if not before.begun or along < before.begun_from:
        return replace(seen, begun=1, begun_from=along)
    begun = before.begun + 1
    if begun < _BEGIN_FIXES or along - before.begun_from < _BEGIN_METERS:
        return replace(seen, begun=begun)
    ahead = [
        index
        for index, stop in enumerate(route.stops)
        if stop.distance_meters > along - _ARRIVE_METERS
    ]
    # What was passed before anybody looked is not told.
    return replace(
        seen,
        along=along,
        earlier_along=along,
        earlier_milliseconds=capture,
        next_index=ahead[0] if ahead else len(route.stops),
    )


def _decide(
    route: Route, before: Progress, after: Progress, *, is_sure: bool = False
) -> tuple[Progress, Sequence[StopEvent]]:
    """Tell all that both the last fix and this one have reached; if sure, all that this one has."""
    events: list[StopEvent] = []
    reached = _along(after) if is_sure else min(_along(before), _along(after))
    now = after
    while now.next_index < len(route.stops):
        index = now.next_index
        stop = route.stops[index]
        if now.at_stop:
            leaves_at = stop.distance_meters + _depart_reach(route, index)
            if reached <= leaves_at:
                break
            when = _moment(before, stop.distance_meters)
            events.append(_event(stop, index, StopKind.DEPARTED, now, when))
            now = replace(now, next_index=index + 1, at_stop=False, approached=False)
        elif reached >= stop.distance_meters - _arrive_reach(route, index):
            when = _moment(before, stop.distance_meters)
            events.append(_event(stop, index, StopKind.ARRIVED, now, when))
            now = replace(now, at_stop=True)
        else:
            if not now.approached and stop.distance_meters - reached <= APPROACH_METERS:
                when = after.capture_milliseconds
                events.append(_event(stop, index, StopKind.APPROACHING, now, when))
                now = replace(now, approached=True)
            break
    return now, events


def finish(route: Route, before: Progress, capture_milliseconds: int) -> Sequence[StopEvent]:
    """Return what the end of the trip means: the vehicle has left its last stop.

    A driver who says that the trip is over confirms the last fix.
    """
    if before.along is None:
        return ()
    now, events = _decide(route, before, before, is_sure=True)
    index = now.next_index
    if not now.at_stop or index != len(route.stops) - 1:
        return events
    capture = max(capture_milliseconds, now.capture_milliseconds)
    return [*events, _event(route.stops[index], index, StopKind.DEPARTED, now, capture)]


def _along(progress: Progress) -> float:
    return progress.along if progress.along is not None else 0.0


def _gap_before(route: Route, index: int) -> float:
    if not 0 < index < len(route.stops):
        return float("inf")
    return route.stops[index].distance_meters - route.stops[index - 1].distance_meters


def _arrive_reach(route: Route, index: int) -> float:
    return min(_ARRIVE_METERS, max(5.0, _gap_before(route, index) / 2))


def _depart_reach(route: Route, index: int) -> float:
    return min(_DEPART_METERS, max(5.0, _gap_before(route, index + 1) / 2))


def _moment(before: Progress, target: float) -> int:
    """Return when a vehicle was at a place that it reached with the last fix or passed before."""
    start, end = before.earlier_along, _along(before)
    if not start < target < end:
        return before.capture_milliseconds
    span = before.capture_milliseconds - before.earlier_milliseconds
    return before.earlier_milliseconds + int((target - start) / (end - start) * span)


def _event(
    stop: RouteStop, index: int, kind: StopKind, now: Progress, capture_milliseconds: int
) -> StopEvent:
    return StopEvent(
        stop_id=stop.stop_id,
        stop_index=index,
        kind=kind,
        distance_meters=abs(stop.distance_meters - _along(now)),
        capture_milliseconds=capture_milliseconds,
    )
