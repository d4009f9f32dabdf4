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
    ) -> None:
        """Ask by `answer`, which returns the answers in the order of the questions.

        At most `most` questions go together, and at most so many `ways` are taken at once.
        """
        self._answer = answer
        self._most = most
        self._ways = ways
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
        if not self._scheduled and len(self._under_way) < self._ways:
            # Not at once: others of this turn of the loop come along.
            self._scheduled = True
            loop.call_soon(self._depart, context=self._context)
        return await waiting.answered

    def _depart(self) -> None:
        self._scheduled = False
        taken, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
        # Who went away while waiting wants to know nothing any more.
        wanted = [one for one in taken if not one.answered.done()]
        if wanted:
            way = asyncio.get_running_loop().create_task(self._go(wanted))
            self._under_way.add(way)
            way.add_done_callback(self._returned, context=self._context)

    def _returned(self, way: "asyncio.Task[None]") -> None:
        self._under_way.discard(way)
        if self._waiting and not self._scheduled:
            self._depart()

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
