"""Puts rows that belong together beside each other, by counting; memory is one number per row."""

import itertools
from array import array


def group(
    owners: "array[int]", sequences: "array[int]", count: int
) -> tuple["array[int]", "array[int]"]:
    """Return where the rows of each owner begin, and the rows by owner and sequence.

    `owners` are numbers below `count`. Rows of one sequence keep their order.
    """
    starts = array("q", bytes(8 * (count + 1)))
    for owner in owners:
        starts[owner + 1] += 1
    for number in range(count):
        starts[number + 1] += starts[number]
    free = array("q", starts)
    order = array("q", bytes(8 * len(owners)))
    for row, owner in enumerate(owners):
        order[free[owner]] = row
        free[owner] += 1
    for number in range(count):
        begin, end = starts[number], starts[number + 1]
        rows = order[begin:end]
        if any(sequences[one] > sequences[two] for one, two in itertools.pairwise(rows)):
            order[begin:end] = array("q", sorted(rows, key=sequences.__getitem__))
    return starts, order
