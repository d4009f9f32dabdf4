"""Tells bookings what happened outside, many of them in one transaction.

While one transaction is under way the next one gathers: a single booking waits for nobody.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field

import structlog

from services.booking.domain.bookings import Booking, Tell
from services.booking.ports.bookings import BookingStore
from services.shared.errors import DependencyUnavailableError

_log = structlog.get_logger()
_MOST = 500


@dataclass(slots=True)
class _Waiting:
    tell: Tell
    done: "asyncio.Future[Booking | None]" = field(repr=False)


class Teller:
    """Gathers what bookings are told."""

    def __init__(self, *, store: BookingStore, gather_seconds: float) -> None:
        """Write to `store`, after things have gathered for `gather_seconds`."""
        self._store = store
        self._gather_seconds = gather_seconds
        self._queues: OrderedDict[str, list[_Waiting]] = OrderedDict()
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Tell until cancelled; what still waits then is told by another process."""
        try:
            while True:
                await self._wake.wait()
                await asyncio.sleep(self._gather_seconds)
                self._wake.clear()
                while self._queues:
                    tenant_id, queue = self._queues.popitem(last=False)
                    if len(queue) > _MOST:
                        self._queues[tenant_id] = queue[_MOST:]
                        queue = queue[:_MOST]
                    await self._tell(tenant_id, queue)
        finally:
            for queue in self._queues.values():
                _fail(queue, DependencyUnavailableError("booking"))
            self._queues.clear()

    async def tell(self, tenant_id: str, tell: Tell) -> Booking | None:
        """Tell a booking; return it as it is then, None if there is none.

        Raises DependencyUnavailableError; the same again is safe.
        """
        waiting = _Waiting(tell, asyncio.get_running_loop().create_future())
        self._queues.setdefault(tenant_id, []).append(waiting)
        self._wake.set()
        return await waiting.done

    async def _tell(self, tenant_id: str, queue: list[_Waiting]) -> None:
        try:
            after = await self._store.tell(tenant_id, [one.tell for one in queue])
        except DependencyUnavailableError as error:
            _fail(queue, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, who waits may ask again
            _log.error("bookings_not_told", count=len(queue), exc_info=error)
            _fail(queue, DependencyUnavailableError("booking"))
        except BaseException:
            _fail(queue, DependencyUnavailableError("booking"))
            raise
        else:
            for one in queue:
                if not one.done.done():
                    one.done.set_result(after.get(one.tell.booking_id))


def _fail(queue: list[_Waiting], error: Exception) -> None:
    for one in queue:
        if not one.done.done():
            one.done.set_exception(error)
