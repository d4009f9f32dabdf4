"""Stands before every method: deadline, caller, policy, limits, reading, errors, one log line."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from prometheus_client import Counter, Gauge, Histogram

from services.shared.clock import Clock
from services.shared.errors import DomainError, Kind, OverloadedError
from services.shared.ids import IdSource
from services.shared.rpc.authentication import Authenticator, ip_address_of
from services.shared.rpc.authorization import authorize
from services.shared.rpc.caller import CALLER, DEADLINE_MONOTONIC, REQUEST_ID, Caller
from services.shared.rpc.early_answers import EarlyAnswers
from services.shared.rpc.errors import known_error, status_of
from services.shared.rpc.policy import MethodRule
from services.shared.rpc.rate_limits import RateLimiter
from services.shared.rpc.validation import read_message

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]
else:
    Handler = grpc.RpcMethodHandler
_log = structlog.get_logger()
_CALLS = Counter("wayfare_rpc_total", "Calls that ended", ["method", "code", "reason"])
_SECONDS = Histogram("wayfare_rpc_seconds", "How long unary calls took", ["method"])
_STREAMS = Gauge("wayfare_streams_open", "Streams that are open", ["method"])
# What the way back to the caller may take (after boulder's grpc/interceptors.go).
DEADLINE_SHAVE_SECONDS = 0.020
DEADLINE_LEAST_SECONDS = 0.100


class DeadlineTooShortError(DomainError):
    """Says that the time left is too short to begin with."""

    kind = Kind.DEADLINE
    reason = "DEADLINE_TOO_SHORT"


class DeadlinePassedError(DomainError):
    """Says that the call did not finish in its time."""

    kind = Kind.DEADLINE
    reason = "DEADLINE_PASSED"


class ServerDrainingError(DomainError):
    """Says that the server is about to stop."""

    kind = Kind.UNAVAILABLE
    reason = "SERVER_DRAINING"


@dataclass(slots=True)
class _CallRecord:
    """Is what the log line says of a call."""

    method: str
    request_id: str
    started: float
    caller: str = ""
    code: str = "OK"
    reason: str = ""


class PolicyInterceptor:
    """Wraps every method of the services whose rules it has; health and reflection pass."""

    def __init__(
        self,
        rules: Mapping[str, MethodRule],
        *,
        service_name: str,
        authenticator: Authenticator,
        rate_limiter: RateLimiter,
        clock: Clock,
        ids: IdSource,
        message_bytes_max: int,
        streams_max: int,
        raw_methods: frozenset[str] = frozenset(),
        early_methods: Iterable[str] = (),
    ) -> None:
        """Take what the decisions need; `service_name` is the domain of errors."""
        self._rules = rules
        self._service_name = service_name
        self._authenticator = authenticator
        self._rate_limiter = rate_limiter
        self._clock = clock
        self._ids = ids
        self._message_bytes_max = message_bytes_max
        self._streams_max = streams_max
        self._raw_methods = raw_methods
        self._early = EarlyAnswers(early_methods, rules, rate_limiter=rate_limiter, clock=clock)
        self.draining = False
        self.open_streams = 0

    def wrap(self, path: str, handler: Handler) -> Handler:
        """Return the method's handler with everything before it; asked once per method."""
        rule = self._rules.get(path)
        return handler if rule is None else self._wrap(handler, rule)

    def _wrap(self, handler: Handler, rule: MethodRule) -> Handler:
        # Requests stay bytes until here, so that unreadable ones get a reason; see read_message.
        raw = rule.path.rpartition("/")[2] in self._raw_methods
        serializer = None if raw else handler.response_serializer
        if handler.request_streaming and handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._bidirectional(handler.stream_stream, rule), None, serializer
            )
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._server_stream(handler.unary_stream, rule), None, serializer
            )
        return grpc.unary_unary_rpc_method_handler(
            self._unary(handler.unary_unary, rule), None, handler.response_serializer
        )

    def _unary(self, behavior: Any, rule: MethodRule) -> Any:
        is_early = self._early.takes(rule)

        async def work(data: bytes, context: Any) -> Any:
            return await behavior(self._read(data, rule), context)

        async def call(data: bytes, context: Any) -> Any:
            async with self._call(rule, context) as record:
                seconds = self._seconds_for(rule, context)
                DEADLINE_MONOTONIC.set(self._clock.monotonic() + seconds)
                try:
                    async with asyncio.timeout(seconds):
                        caller = await self._identify(rule, context, record)
                        if is_early:
                            prepare = partial(work, data, context)
                            return await self._early.answer(caller, rule, prepare)
                        await self._rate_limiter.check(caller, rule)
                        return await work(data, context)
                except TimeoutError:
                    raise DeadlinePassedError(
                        f"the call did not finish within {seconds:.1f} seconds",
                        retry_after_seconds=1.0,
                    ) from None

        return call

    def _server_stream(self, behavior: Any, rule: MethodRule) -> Any:
        async def call(data: bytes, context: Any) -> None:
            async with self._call(rule, context) as record, self._stream_place(rule):
                await self._admit(rule, context, record)
                context.forget_metadata()
                answer = behavior(self._read(data, rule), context)
                if inspect.isasyncgen(answer):
                    async for message in answer:
                        await context.write(message)
                else:
                    await answer

        return call

    def _bidirectional(self, behavior: Any, rule: MethodRule) -> Any:
        async def call(requests: Any, context: Any) -> None:
            async with self._call(rule, context) as record, self._stream_place(rule):
                await self._admit(rule, context, record)
                context.forget_metadata()
                await behavior(requests, context)

        return call

    def _read(self, data: bytes, rule: MethodRule) -> Any:
        return read_message(data, rule.request_class, max_bytes=self._message_bytes_max)

    async def _admit(self, rule: MethodRule, context: Any, record: _CallRecord) -> None:
        caller = await self._identify(rule, context, record)
        await self._rate_limiter.check(caller, rule)

    async def _identify(self, rule: MethodRule, context: Any, record: _CallRecord) -> Caller:
        metadata = _metadata_of(context)
        try:
            caller = await self._authenticator.authenticate(metadata)
        except DomainError:
            if not rule.public:
                raise
            # A public method serves whoever asks; a stale token must not lock people out of log-in.
            caller = Caller(ip_address=ip_address_of(metadata))
        record.caller = caller.name
        authorize(caller, rule)
        CALLER.set(caller)
        return caller

    def _seconds_for(self, rule: MethodRule, context: Any) -> float:
        longest = rule.max_seconds or 10.0
        remaining = context.time_remaining()
        if remaining is None:
            return longest
        left: float = remaining - DEADLINE_SHAVE_SECONDS
        if left < DEADLINE_LEAST_SECONDS:
            required = int((DEADLINE_LEAST_SECONDS + DEADLINE_SHAVE_SECONDS) * 1000)
            raise DeadlineTooShortError(
                "the deadline is too short to begin with",
                metadata={
                    "remaining_milliseconds": str(max(0, int(remaining * 1000))),
                    "required_milliseconds": str(required),
                },
            )
        return min(longest, left)

    @asynccontextmanager
    async def _stream_place(self, rule: MethodRule) -> AsyncIterator[None]:
        if self.draining:
            raise ServerDrainingError(
                "this server is about to stop; another one takes the stream",
                retry_after_seconds=0.2,
            )
        if self.open_streams >= self._streams_max:
            raise OverloadedError(
                "this server holds as many streams as it can",
                metadata={"streams_max": str(self._streams_max)},
                retry_after_seconds=2.0,
            )
        self.open_streams += 1
        gauge = _STREAMS.labels(rule.path)
        gauge.inc()
        try:
            yield
        finally:
            self.open_streams -= 1
            gauge.dec()

    @asynccontextmanager
    async def _call(self, rule: MethodRule, context: Any) -> AsyncIterator[_CallRecord]:
        request_id = _metadata_of(context).get("x-request-id", "")[:64] or self._ids.new_id()
        record = _CallRecord(
            method=rule.path, request_id=request_id, started=self._clock.monotonic()
        )
        REQUEST_ID.set(request_id)
        try:
            yield record
        except asyncio.CancelledError:
            record.code = "CANCELLED"
            raise
        except grpc.aio.AbortError:
            record.code = context.code().name if context.code() else "UNKNOWN"
            raise
        except Exception as error:  # noqa: BLE001 - the one place where unknown errors end
            known = known_error(error, request_id=request_id)
            if known is not error and known.kind is Kind.INTERNAL:
                _log.error(
                    "unexpected_error", request_id=request_id, method=rule.path, exc_info=error
                )
            status = status_of(known, service_name=self._service_name)
            record.code, record.reason = status.code.name, known.reason
            await context.abort_with_status(status)
        finally:
            self._finish(record)

    def _finish(self, record: _CallRecord) -> None:
        seconds = self._clock.monotonic() - record.started
        _CALLS.labels(record.method, record.code, record.reason).inc()
        _SECONDS.labels(record.method).observe(seconds)
        _log.info(
            "rpc",
            method=record.method,
            code=record.code,
            reason=record.reason,
            milliseconds=round(seconds * 1000, 1),
            request_id=record.request_id,
            caller=record.caller,
        )


def _metadata_of(context: Any) -> dict[str, str]:
    return {
        key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)
    }
