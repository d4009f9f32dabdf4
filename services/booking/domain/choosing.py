"""Chooses the best seats that are free. Pure; called while holds are decided.

Seats next to each other in one row come first, in a place that leaves no single seat over where
that can be. Where no row has enough, the seats are taken from as few neighbouring rows as can be,
so that nobody sits alone and none is left over alone where that can be avoided.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

_WINDOWS_MAX = 8


class PlanSeat(NamedTuple):
    """Is one seat of a layout. Seats of one row whose columns follow each other are neighbours."""

    seat_number: str
    seat_class_code: str
    deck_index: int
    row_index: int
    column_index: int
    accessible: bool = False
    blocked: bool = False


class Choice(NamedTuple):
    """Is which seats were chosen, and whether all are next to each other."""

    seats: Sequence[PlanSeat]
    together: bool


Run = Sequence[PlanSeat]
Used = Callable[[PlanSeat], int]


def choose(
    free: Iterable[PlanSeat],
    count: int,
    *,
    accessible: bool = False,
    together_required: bool = False,
    used_legs: Used = lambda _: 0,
) -> Choice | None:
    """Choose `count` of the free seats of one class, or return None.

    Accessible seats go to those who ask for them, and to others when nothing else is left. Of
    equally good places the one whose seats are sold on most other legs (`used_legs`) is taken:
    what is free all the way stays so for those who go all the way.
    """
    seats = list(free)
    suited = [seat for seat in seats if seat.accessible == accessible]
    pools = [suited] if accessible else [suited, seats]
    for pool in pools:
        choice = _choose_from(pool, count, together_required, used_legs)
        if choice is not None:
            return choice
    return None


def runs_of_seats(seats: Iterable[PlanSeat]) -> list[Run]:
    """Return the seats as runs of neighbours, the foremost and leftmost first."""
    runs: list[list[PlanSeat]] = []
    for seat in sorted(seats, key=_place):
        last = runs[-1][-1] if runs else None
        if last is not None and _place(seat) == (*_place(last)[:2], last.column_index + 1):
            runs[-1].append(seat)
        else:
            runs.append([seat])
    return list(runs)


def _choose_from(
    pool: Collection[PlanSeat], count: int, together_required: bool, used_legs: Used
) -> Choice | None:
    if len(pool) < count:
        return None
    runs = runs_of_seats(pool)
    together = _together(runs, count, used_legs)
    if together is not None:
        return Choice(together, together=True)
    if together_required:
        return None
    return Choice(_near(runs, count), together=False)


def _together(runs: Iterable[Run], count: int, used_legs: Used) -> Run | None:
    """Return the best place in one run; at one of its ends, which never leaves more over alone."""
    best: tuple[tuple[object, ...], Run] | None = None
    for run in runs:
        left_over = len(run) - count
        if left_over < 0:
            continue
        for place in (run[:count], run[left_over:]):
            used = sum(map(used_legs, place))
            score = (left_over == 1, -used, left_over, _place(place[0]))
            if best is None or score < best[0]:
                best = (score, place)
    return None if best is None else best[1]


def _near(runs: Sequence[Run], count: int) -> Sequence[PlanSeat]:
    """Return seats of as few neighbouring rows as can be."""
    best: tuple[tuple[int, int], Sequence[PlanSeat]] | None = None
    for window in _windows(runs, count):
        cost, places = _split(window, count)
        span = window[-1][0].row_index - window[0][0].row_index
        if best is None or (span, cost) < best[0]:
            best = ((span, cost), places)
    if best is not None:
        return best[1]
    # No deck has enough: the largest runs of all decks.
    largest = sorted(runs, key=len, reverse=True)
    return sorted([seat for run in largest for seat in run][:count], key=_place)


def _windows(runs: Sequence[Run], count: int) -> list[Sequence[Run]]:
    """Return the narrowest stretches of rows of one deck that have enough seats, eight at most."""
    found: list[tuple[int, Sequence[Run]]] = []
    for _, group in groupby(runs, key=lambda run: run[0].deck_index):
        rows = [list(row) for _, row in groupby(group, key=lambda run: run[0].row_index)]
        sizes = [sum(map(len, row)) for row in rows]
        first = total = 0
        for last, size in enumerate(sizes):
            total += size
            while total - sizes[first] >= count:
                total -= sizes[first]
                first += 1
            if total >= count:
                window = [run for row in rows[first : last + 1] for run in row]
                span = rows[last][0][0].row_index - rows[first][0][0].row_index
                found.append((span, window))
    narrowest = min((span for span, _ in found), default=0)
    return [window for span, window in found if span == narrowest][:_WINDOWS_MAX]


def _split(window: Sequence[Run], count: int) -> tuple[int, Sequence[PlanSeat]]:
    """Take `count` seats of the runs; return how many sit or are left over alone, and the seats.

    `best[n]` is the least cost of n seats of the runs so far, and how many of each run.
    """
    best: dict[int, tuple[int, tuple[int, ...]]] = {0: (0, ())}
    for run in window:
        nexts: dict[int, tuple[int, tuple[int, ...]]] = {}
        for so_far, (cost, takes) in best.items():
            for take in range(min(len(run), count - so_far) + 1):
                alone = (take == 1) + (take > 0 and len(run) - take == 1)
                candidate = (cost + alone, (*takes, take))
                known = nexts.get(so_far + take)
                if known is None or candidate[0] < known[0]:
                    nexts[so_far + take] = candidate
        best = nexts
    cost, takes = best[count]
    return cost, [seat for run, take in zip(window, takes, strict=True) for seat in run[:take]]


def _place(seat: PlanSeat) -> tuple[int, int, int]:
    return seat.deck_index, seat.row_index, seat.column_index
