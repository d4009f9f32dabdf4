"""When and whether to open a stream again.

DriverSession, TripFollower and SeatWatcher ask after each stream that ended.
"""

import asyncio
from random import Random
from typing import Final

import grpc

from wayfare_client.clock import Clock
from wayfare_client.errors import WayfareError
from wayfare_client.settings import ClientSettings
from wayfare_client.tokens import AccessTokens

# Reconnecting cannot heal these.
_FINAL_CODES: Final = frozenset(
    {
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)


def is_final(error: WayfareError) -> bool:
    """Say whether a stream that ended so is not worth opening again.

    Ended tokens are another matter.
    """
    if error.code in _FINAL_CODES or error.reason == "SESSION_SUPERSEDED":
        return True
    if error.code is grpc.StatusCode.UNAUTHENTICATED:
        return error.reason != "TOKEN_EXPIRED"
    if error.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        # A limit without a time after which to come again is one that waiting does not lift.
        return bool(error.reason) and error.retry_after_seconds is None
    return False


class Reconnector:
    """Waits between streams.

    with backoff, as long as the server asked for, and with a token that is good.
    """

    def __init__(
        self, tokens: AccessTokens, *, settings: ClientSettings, clock: Clock, random: Random
    ) -> None:
        self._tokens = tokens
        self._settings = settings
        self._clock = clock
        self._random = random
        self._attempt = 0
        self._opened_at: float | None = None

    async def good_token(self) -> str:
        """Return an access token, however long identity is away.

        Raises:
            WayfareError: the session cannot be refreshed any more.
        """
        while True:
            try:
                return await self._tokens.current()
            except WayfareError as error:
                await self.wait_after(error, token="")

    def opened(self) -> None:
        """Note that a stream was welcomed."""
        self._opened_at = self._clock.monotonic()

    async def wait_after(self, error: WayfareError | None, *, token: str) -> None:
        """Wait until a new stream may be opened; `token` is what the last one was opened with.

        Raises:
            WayfareError: the same, when a new stream would end so too; or why the session
                cannot be refreshed.
        """
        if error is not None and is_final(error):
            raise error
        if self._opened_at is not None:
            lived = self._clock.monotonic() - self._opened_at
            self._opened_at = None
            if lived >= self._settings.stable_seconds:
                self._attempt = 0
        if error is not None and error.reason == "TOKEN_EXPIRED":
            await self.renew(token, refusal=error)
            # The first time at once: nothing is wrong with the server.
            if self._attempt == 0:
                self._attempt = 1
                return
        asked = error.retry_after_seconds if error is not None else None
        delay = self._settings.reconnect.delay_seconds(
            self._attempt, self._random, at_least_seconds=asked or 0.0
        )
        self._attempt += 1
        await asyncio.sleep(delay)

    async def renew(self, token: str, *, refusal: WayfareError | None = None) -> None:
        """Replace a token that has ended or is about to; goes on when that fails for now.

        Raises:
            WayfareError: there is nothing to refresh with, and `refusal` says that the token is
                not taken any more; or
                the session was revoked.
        """
        try:
            renewed = await self._tokens.renew(token)
        except WayfareError as error:
            if is_final(error):
                raise
            return
        if not renewed and refusal is not None:
            raise refusal
