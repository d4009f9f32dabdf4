"""Asks for what many callers want together: one way to a store instead of one each.

Used where a question is cheap and the way is not: rate limits in Valkey, single rows in PostgreSQL.
"""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")


@dataclass(slots=True)
class _Waiting(Generic[Question, Answer]):
    question: Question
    answered: "asyncio.Future[Answer]" = field(repr=False)


class Gathering(Generic[Question, Answer]):
    """Lets questions wait while others are under way, and for the rest of the loop's turn."""

    def __init__(
        self,
        answer: Callable[[Sequence[Question]], Awaitable[Sequence[Answer]]],
        *,
        most: int = 500,
        ways: int = 2,
        gather_seconds: float = 0.0,
    ) -> None:
        """Ask by `answer`, which returns the answers in the order of the questions.

        At most `most` questions go together, at most so many `ways` are taken at once, and one
        begins at most every `gather_seconds`: a question that comes alone waits for nothing.
        """
        self._answer = answer
        self._most = most
        self._ways = ways
        self._gather_seconds = gather_seconds
        self._departed_at = float("-inf")
        self._waiting: list[_Waiting[Question, Answer]] = []
        self._under_way: set[asyncio.Task[None]] = set()
        self._scheduled = False
        # Nobody's call: what is asked together has the deadline and the id of none of them.
        self._context = contextvars.copy_context()

    async def ask(self, question: Question) -> Answer:
        """Return the answer. Raises what asking raises, to all who asked together."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting[Question, Answer](question, loop.create_future())
        self._waiting.append(waiting)
        self._schedule(loop)
        return await waiting.answered

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._scheduled or len(self._under_way) >= self._ways:
            return
        self._scheduled = True
        departs_at = self._departed_at + self._gather_seconds
        if departs_at > loop.time():
            loop.call_at(departs_at, self._depart, context=self._context)
        else:
            # Not at once: others of this turn of the loop come along.
            loop.call_soon(self._depart, context=self._context)

    def _depart(self) -> None:
        self._scheduled = False
        self._departed_at = asyncio.get_running_loop().time()
        taken, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
        # Who went away while waiting wants to know nothing any more.
        wanted = [one for one in taken if not one.answered.done()]
        if wanted:
            way = asyncio.get_running_loop().create_task(self._go(wanted))
            self._under_way.add(way)
            way.add_done_callback(self._returned, context=self._context)

    def _returned(self, way: "asyncio.Task[None]") -> None:
        self._under_way.discard(way)
        if self._waiting:
            self._schedule(asyncio.get_running_loop())

    async def _go(self, wanted: Sequence[_Waiting[Question, Answer]]) -> None:
        try:
            answers = await self._answer([one.question for one in wanted])
        except asyncio.CancelledError:
            for one in wanted:
                one.answered.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - it is for those who asked
            for one in wanted:
                if not one.answered.done():
                    one.answered.set_exception(error)
            return
        for one, answer in zip(wanted, answers, strict=True):
            if not one.answered.done():
                one.answered.set_result(answer)
