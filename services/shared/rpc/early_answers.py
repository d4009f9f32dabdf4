"""Works on a read while Valkey counts the call. Used by interceptor.py for methods that ask for it.

Counting is a way to Valkey, and so is the work: together they take the time of one. Nobody gets an
answer before the limits let the call pass. Who was refused lately is counted first, so that a
flood of calls costs hardly more than counting them.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import TypeVar

from services.shared.clock import Clock
from services.shared.rpc.caller import Caller
from services.shared.rpc.policy import Idempotency, MethodRule
from services.shared.rpc.rate_limits import RateLimitedError, RateLimiter

Answer = TypeVar("Answer")
_REFUSED_MAX = 10_000


class EarlyAnswers:
    """Prepares answers that may turn out to be nobody's."""

    def __init__(
        self,
        methods: Iterable[str],
        rules: Mapping[str, MethodRule],
        *,
        rate_limiter: RateLimiter,
        clock: Clock,
    ) -> None:
        """Work early on `methods`, named as in the contract.

        Raises ValueError where one of them changes anything: it would, of a refused caller.
        """
        early = frozenset(methods)
        self._paths = {path for path in rules if path.rpartition("/")[2] in early}
        if any(rules[path].idempotency is not Idempotency.READ for path in self._paths):
            raise ValueError(
                "only methods that change nothing may begin before the call is counted"
            )
        self._rate_limiter = rate_limiter
        self._clock = clock
        # Until when a caller of a method was told to stay away.
        self._refused: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._given_up: set[asyncio.Future[None]] = set()

    def takes(self, rule: MethodRule) -> bool:
        """Say whether the method is one of those."""
        return rule.path in self._paths

    async def answer(
        self, caller: Caller, rule: MethodRule, work: Callable[[], Awaitable[Answer]]
    ) -> Answer:
        """Return what `work` returns, once the limits let the call pass.

        Raises RateLimitedError, whatever the work came to, or what the work raises.
        """
        who = (rule.path, caller.name)
        try:
            if self._is_refused(who):
                await self._rate_limiter.check(caller, rule)
                return await work()
            return await self._answer_while_counting(caller, rule, work)
        except RateLimitedError as error:
            self._note(who, error.retry_after_seconds or 0.0)
            raise

    async def _answer_while_counting(
        self, caller: Caller, rule: MethodRule, work: Callable[[], Awaitable[Answer]]
    ) -> Answer:
        counting = asyncio.ensure_future(self._rate_limiter.check(caller, rule))
        try:
            answer = await work()
        except asyncio.CancelledError:
            # It counts all the same: else work that is given up would cost its caller nothing.
            self._given_up.add(counting)
            counting.add_done_callback(partial(self._counted, (rule.path, caller.name)))
            raise
        except Exception:
            await counting
            raise
        await counting
        return answer

    def _counted(self, who: tuple[str, str], counting: "asyncio.Future[None]") -> None:
        """Hear what became of a call that was given up, in the place of its caller."""
        self._given_up.discard(counting)
        error = None if counting.cancelled() else counting.exception()
        if isinstance(error, RateLimitedError):
            self._note(who, error.retry_after_seconds or 0.0)

    def _is_refused(self, who: tuple[str, str]) -> bool:
        return self._refused.get(who, float("-inf")) > self._clock.monotonic()

    def _note(self, who: tuple[str, str], seconds: float) -> None:
        self._refused[who] = self._clock.monotonic() + seconds
        self._refused.move_to_end(who)
        if len(self._refused) > _REFUSED_MAX:
            self._refused.popitem(last=False)
