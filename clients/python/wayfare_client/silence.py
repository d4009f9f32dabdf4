"""Notices that nothing comes over a stream any more.

The driver's stream and the trip follower use it.
"""

import asyncio
from collections.abc import Callable


class SilenceWatch:
    """Calls back once when a read has waited for too long.

    One timer, no task, whatever the traffic.
    """

    def __init__(self, on_silence: Callable[[], object], *, seconds: float) -> None:
        self._on_silence = on_silence
        self.seconds = seconds
        self.fired = False
        self._waiting_since: float | None = None
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def waiting(self) -> None:
        """Note that a read begins to wait."""
        self._waiting_since = self._loop.time()
        # One timer serves all reads until it goes off: restarting it for each would fill the loop's
        # heap.
        if self._timer is None:
            self._timer = self._loop.call_later(self.seconds, self._check)

    def heard(self) -> None:
        """Note that the read got something; a consumer that thinks about it is no silence."""
        self._waiting_since = None

    def stop(self) -> None:
        """Never call back."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        self._timer = None
        if self._waiting_since is None:
            # Nobody reads. The next read starts the timer again; one that never comes must not keep
            # the call alive.
            return
        silent = self._loop.time() - self._waiting_since
        if silent >= self.seconds:
            self.fired = True
            self._on_silence()
        else:
            self._timer = self._loop.call_later(self.seconds - silent, self._check)
