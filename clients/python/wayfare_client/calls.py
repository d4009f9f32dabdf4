"""Unary calls as the contract wants them: credentials, deadline, retries by class, typed errors.

WayfareClient wraps its channel in a PolicyChannel, so that the generated stubs, with their types,
do all of this by themselves. Streaming methods pass through unchanged: DriverSession, TripFollower
and SeatWatcher look after those.
"""

import asyncio
import uuid
from collections.abc import Callable
from random import Random
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from wayfare_client.clock import Clock
from wayfare_client.errors import WayfareError, error_from_rpc
from wayfare_client.policy import MethodRules, RetryClass, rules_of
from wayfare_client.settings import ClientSettings
from wayfare_client.tokens import AccessTokens

Request = TypeVar("Request", bound=Message)

# Servers refuse to begin with less (DEADLINE_TOO_SHORT).
_LEAST_SECONDS = 0.1


class UnaryMethod:
    """Calls one unary method. Stands where generated stubs keep their UnaryUnaryMultiCallable."""

    def __init__(
        self,
        call: Callable[..., Any],
        path: str,
        *,
        tokens: AccessTokens | None,
        settings: ClientSettings,
        clock: Clock,
        random: Random,
    ) -> None:
        self._call = call
        self._rules: MethodRules = rules_of(path)
        self._tokens = tokens
        self._settings = settings
        self._clock = clock
        self._random = random

    async def __call__(self, request: Message, *, timeout: float | None = None) -> Any:  # noqa: ASYNC109  # as generated stubs have it
        """Call the method; `timeout` in seconds covers all attempts.

        Raises:
            WayfareError: the call was refused or failed, as a subclass by its reason.
        """
        seconds = timeout if timeout is not None else self._default_seconds()
        deadline = self._clock.monotonic() + seconds
        request = self._repeatable(request)
        attempt, renewed = 0, False
        while True:
            token = await self._token()
            try:
                left = max(0.0, deadline - self._clock.monotonic())
                return await self._call(request, timeout=left, metadata=self._metadata(token))
            except grpc.aio.AioRpcError as failure:
                error = error_from_rpc(failure)
            if error.reason == "TOKEN_EXPIRED" and not renewed and await self._renew(token):
                renewed = True
                continue
            delay = self._settings.retry.delay_seconds(
                attempt, self._random, at_least_seconds=error.retry_after_seconds or 0.0
            )
            attempt += 1
            left = deadline - self._clock.monotonic() - delay
            if not self._may_retry(error, attempt) or left < _LEAST_SECONDS:
                raise error
            await asyncio.sleep(delay)

    def _default_seconds(self) -> float:
        # Every unary method of the contract has a maximum; a style test holds it to that.
        return (self._rules.max_seconds or 0.0) + self._settings.network_seconds

    def _repeatable(self, request: Message) -> Message:
        """Give a write without a request id one, so that it may be repeated."""
        if self._rules.retry_class is not RetryClass.IDEMPOTENT:
            return request
        if getattr(request, "request_id", None) != "":
            return request
        copy = type(request)()
        copy.CopyFrom(request)
        # Not every message has one, so mypy knows of none.
        setattr(copy, "request_id", str(uuid.uuid4()))  # noqa: B010
        return copy

    def _may_retry(self, error: WayfareError, attempt: int) -> bool:
        return (
            self._rules.retry_class is not RetryClass.UNSAFE
            and error.code is grpc.StatusCode.UNAVAILABLE
            and attempt < self._settings.max_attempts
        )

    async def _token(self) -> str:
        if self._tokens is None or not self._rules.needs_credentials:
            return ""
        return await self._tokens.current()

    async def _renew(self, token: str) -> bool:
        if self._tokens is None or not self._rules.needs_credentials:
            return False
        return await self._tokens.renew(token)

    def _metadata(self, token: str) -> tuple[tuple[str, str], ...]:
        if self._tokens is None:
            return ()
        if not self._rules.needs_credentials:
            return self._tokens.public_metadata
        return self._tokens.metadata_for(token)


class PolicyChannel:
    """Makes the methods of generated stubs; hands streaming ones to the channel as they are."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        *,
        settings: ClientSettings,
        clock: Clock,
        random: Random,
    ) -> None:
        self._channel = channel
        self._settings = settings
        self._clock = clock
        self._random = random
        # Set once the client that owns both has made them; None calls without credentials.
        self.tokens: AccessTokens | None = None

    def unary_unary(self, path: str, *arguments: Any, **options: Any) -> UnaryMethod:
        """Make a unary method."""
        return UnaryMethod(
            self._channel.unary_unary(path, *arguments, **options),
            path,
            tokens=self.tokens,
            settings=self._settings,
            clock=self._clock,
            random=self._random,
        )

    def unary_stream(self, path: str, *arguments: Any, **options: Any) -> Any:
        """Make a method that streams answers."""
        return self._channel.unary_stream(path, *arguments, **options)

    def stream_unary(self, path: str, *arguments: Any, **options: Any) -> Any:
        """Make a method that streams requests."""
        return self._channel.stream_unary(path, *arguments, **options)

    def stream_stream(self, path: str, *arguments: Any, **options: Any) -> Any:
        """Make a method that streams both ways."""
        return self._channel.stream_stream(path, *arguments, **options)
