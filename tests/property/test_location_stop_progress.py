"""Stop progress over real trips of Cairns' timetable, with all that goes wrong on the way."""

from collections.abc import Iterable
from random import Random

import pytest

from services.location.domain.eta import Pace, expect, observed_pace
from services.location.domain.positions import Fix
from services.location.domain.route import Route
from services.location.domain.stop_progress import Progress, StopEvent, StopKind, advance, finish
from tests.support.timetable_drives import Drive, Faults, cairns_trips, drive, with_faults

TRIPS = 60


def drives(count: int = TRIPS) -> list[Drive]:
    trips = cairns_trips("06:00", "22:00")
    chosen = Random(3).sample(trips, count)
    return [drive(trip, seed) for seed, trip in enumerate(chosen)]


def events_of(route: Route, fixes: Iterable[Fix], *, ended: int) -> list[StopEvent]:
    progress = Progress()
    events: list[StopEvent] = []
    for fix in fixes:
        progress, told = advance(route, progress, fix)
        events.extend(told)
    return [*events, *finish(route, progress, ended)]


def stops_told(events: Iterable[StopEvent]) -> list[tuple[int, StopKind]]:
    return [
        (event.stop_index, event.kind) for event in events if event.kind is not StopKind.APPROACHING
    ]


def each_stop_once(one: Drive) -> list[tuple[int, StopKind]]:
    both = (StopKind.ARRIVED, StopKind.DEPARTED)
    return [(index, kind) for index in range(len(one.trip.stops)) for kind in both]


@pytest.mark.parametrize(
    "faults",
    [
        Faults(spikes=0, duplicates=0, gaps=0, shuffled_batches=0),
        Faults(),
        Faults(spikes=0.1, gaps=6, gap_seconds=180, shuffled_batches=0.3),
    ],
    ids=["as it was", "faults", "many faults"],
)
def test_each_stop_is_arrived_at_and_departed_from_once_and_in_order(faults: Faults) -> None:
    for seed, one in enumerate(drives()):
        ended = one.fixes[-1].capture_milliseconds
        events = events_of(one.route, with_faults(one, seed, faults), ended=ended)

        assert stops_told(events) == each_stop_once(one), one.trip.timetable_trip_id
        captures = [event.capture_milliseconds for event in events]
        assert max(captures) <= ended
        approached = [e.stop_index for e in events if e.kind is StopKind.APPROACHING]
        assert approached == sorted(set(approached))


def test_no_event_is_told_before_its_time() -> None:
    for seed, one in enumerate(drives()):
        fixes = with_faults(one, seed, Faults(gaps=0))
        for event in events_of(one.route, fixes, ended=one.fixes[-1].capture_milliseconds):
            call = one.calls[event.stop_index]
            told = event.capture_milliseconds / 1000
            if event.kind is StopKind.ARRIVED:
                # 40 m before the stop a bus that brakes needs half a minute at most.
                assert -60 <= told - call.arrival_time.timestamp() <= 60
            if event.kind is StopKind.DEPARTED:
                assert -60 <= told - call.departure_time.timestamp() <= 120


def test_a_trip_that_is_found_in_its_middle_tells_what_lies_ahead_only() -> None:
    for one in drives(15):
        half = one.fixes[len(one.fixes) // 2 :]
        told = stops_told(events_of(one.route, half, ended=half[-1].capture_milliseconds))

        # From some stop on, each once.
        assert told == each_stop_once(one)[-len(told) :]
        assert told


def test_a_vehicle_that_drives_elsewhere_reaches_no_stop() -> None:
    one = drives(1)[0]
    elsewhere = [fix._replace(longitude=fix.longitude + 0.5) for fix in one.fixes]

    assert not events_of(one.route, elsewhere, ended=elsewhere[-1].capture_milliseconds)


def test_fixes_that_are_not_accurate_move_nothing() -> None:
    one = drives(1)[0]
    vague = [fix._replace(accuracy_meters=101.0) for fix in one.fixes]

    assert not events_of(one.route, vague, ended=vague[-1].capture_milliseconds)


def test_expected_arrivals_are_near_and_the_early_ones_are_rarely_missed() -> None:
    missed, late, count = 0, [], 0
    for seed, one in enumerate(drives()):
        progress, pace = Progress(), Pace()
        random = Random(seed)
        for fix in one.fixes:
            progress, _ = advance(one.route, progress, fix)
            pace = observed_pace(one.route, pace, progress)
            if random.random() > 0.03:
                continue
            now = fix.capture_milliseconds
            for stop in expect(one.route, progress, pace, now_milliseconds=now):
                actual = one.calls[stop.stop_index].arrival_time.timestamp() * 1000
                if actual < now:
                    continue
                assert now <= stop.earliest_milliseconds <= stop.expected_milliseconds
                count += 1
                missed += actual < stop.earliest_milliseconds
                late.append(abs(actual - stop.expected_milliseconds) / 1000)
    late.sort()
    assert count > 2_000
    assert missed / count <= 0.10
    assert late[len(late) // 2] <= 60
