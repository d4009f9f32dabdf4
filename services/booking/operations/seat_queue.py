"""Keeps the changes of seats that wait, by tenant and trip, and takes out what makes a batch.

Used by the SeatBatcher.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import Gauge

from services.booking.domain.turns import WantedChange

_WAITING = Gauge("wayfare_booking_seat_changes_waiting", "Changes that wait to be committed")


@dataclass(slots=True)
class SeatCall:
    """Is what one caller wants, made in one batch."""

    wanted: WantedChange
    done: "asyncio.Future[Any]" = field(repr=False)


class SeatQueue:
    """Holds the calls that wait."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._tenants: OrderedDict[str, OrderedDict[str, deque[SeatCall]]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        """Count the calls that wait."""
        return self._count

    def put(self, call: SeatCall) -> None:
        """Let a call wait behind those of its trip."""
        trips = self._tenants.setdefault(call.wanted.tenant_id, OrderedDict())
        trips.setdefault(call.wanted.trip_id, deque()).append(call)
        self._count += 1

    def take(self, *, busy: Collection[str], most: int) -> tuple[str, list[SeatCall]]:
        """Take at most so many calls of one tenant; tenants take turns.

        None of a `busy` trip: a trip is in one batch at a time, another one would only wait for its
        lock.
        """
        for tenant_id in list(self._tenants):
            trips = self._tenants[tenant_id]
            calls: list[SeatCall] = []
            taken = 0
            for trip_id in [one for one in trips if one not in busy]:
                queue = trips[trip_id]
                while queue and taken < most:
                    call = queue.popleft()
                    taken += 1
                    # A caller who went away before the start wants nothing any more.
                    if not call.done.done():
                        calls.append(call)
                if not queue:
                    del trips[trip_id]
                if taken >= most:
                    break
            self._count -= taken
            _WAITING.set(self._count)
            if not trips:
                del self._tenants[tenant_id]
            if taken:
                if trips:
                    self._tenants.move_to_end(tenant_id)
                return tenant_id, calls
        return "", []

    def fail(self, error: Exception) -> None:
        """Refuse all that wait."""
        for trips in self._tenants.values():
            for queue in trips.values():
                fail(queue, error)
        self._tenants.clear()
        self._count = 0


def fail(calls: Iterable[SeatCall], error: Exception) -> None:
    """Refuse what has no answer yet."""
    for call in calls:
        if not call.done.done():
            call.done.set_exception(error)
