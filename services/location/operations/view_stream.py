"""Is what every stream of a view needs: heartbeats, the notice to leave, the end of its token."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

from services.location.errors import DrainedError, StreamTokenExpiredError
from services.location.operations.follower import Drained
from services.shared.clock import Clock
from services.shared.errors import DomainError

# How long a client that was asked to leave may keep its stream.
_LEAVE_SECONDS = 10.0


class ViewStream:
    """Says when one open stream must say something although there is no news.

    Its coroutine sleeps by `rest` and asks `drain_notice` and `heartbeat_due` each time around.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        random: Callable[[], float],
        heartbeat_seconds: float,
        token_expire_time: datetime | None,
    ) -> None:
        """Begin with a heartbeat due a whole period from now."""
        self._clock = clock
        self._random = random
        self._heartbeat_seconds = heartbeat_seconds
        self._token_expire_time = token_expire_time
        self._spoke_at = clock.monotonic()
        self._drain: Drained | None = None
        self._drained = False
        self._leave_at = float("inf")
        self._woken = asyncio.Event()

    def spoke(self) -> None:
        """Take that something was written: the next heartbeat is a period away."""
        self._spoke_at = self._clock.monotonic()

    @property
    def heartbeat_due(self) -> bool:
        """Say whether the stream was silent for a heartbeat."""
        return self._clock.monotonic() - self._spoke_at >= self._heartbeat_seconds

    def drain(self, reason: str) -> None:
        """Ask the client to open a new stream. Said once."""
        if self._drained:
            return
        self._drained = True
        self._drain = (2 * self._random(), reason)
        if reason == DrainedError.reason:
            self._leave_at = self._clock.monotonic() + self._drain[0] + _LEAVE_SECONDS
        self.wake()

    def drain_notice(self) -> Drained | None:
        """Return the notice to leave, once. Raises the error with which the stream must end."""
        error = self._ending()
        if error is not None:
            raise error
        notice, self._drain = self._drain, None
        return notice

    def _ending(self) -> DomainError | None:
        if self._clock.monotonic() >= self._leave_at:
            return DrainedError(
                "this server stops; open a new stream to go on", retry_after_seconds=0.2
            )
        if self._token_expire_time is None:
            return None
        left = self._token_expire_time - self._clock.now()
        if left <= timedelta(0):
            return StreamTokenExpiredError("the access token of this stream has expired")
        if left <= timedelta(seconds=2 * self._heartbeat_seconds):
            self.drain(StreamTokenExpiredError.reason)
        return None

    def wake(self) -> None:
        """Let the stream's coroutine look what there is."""
        self._woken.set()

    async def rest(self, seconds: float) -> None:
        """Sleep until woken, at most `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            pass
        self._woken.clear()
