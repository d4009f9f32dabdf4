"""A way to wait until something changed. Driver sessions and their streams use it."""

import asyncio
from collections.abc import Callable


class Signal:
    """Wakes everybody who waits, each time that something changed."""

    def __init__(self) -> None:
        self._waiters: list[asyncio.Future[None]] = []

    def notify(self) -> None:
        """Wake those who wait now."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self) -> None:
        """Wait for the next change."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds; it is asked after each change."""
        while not condition():
            await self.wait()
