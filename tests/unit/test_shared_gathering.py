"""What many ask together is answered together, each with its own answer."""

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar

import pytest

from services.shared.gathering import Gathering

ASKER: ContextVar[str] = ContextVar("asker", default="nobody")


class Doubler:
    """Answers when it is let, and says what it was asked together."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.askers: list[str] = []
        self.let = asyncio.Event()
        self.let.set()

    async def answer(self, questions: Sequence[int]) -> list[int]:
        self.asked.append(list(questions))
        self.askers.append(ASKER.get())
        await self.let.wait()
        if 13 in questions:
            raise LookupError("13")
        return [2 * one for one in questions]


async def test_questions_of_one_turn_go_together_and_each_gets_its_answer() -> None:
    doubler = Doubler()
    gathering = Gathering(doubler.answer)

    answers = await asyncio.gather(*(gathering.ask(number) for number in range(5)))

    assert answers == [0, 2, 4, 6, 8]
    assert doubler.asked == [[0, 1, 2, 3, 4]]


async def test_what_comes_while_all_ways_are_taken_waits_and_goes_together() -> None:
    doubler = Doubler()
    doubler.let.clear()
    gathering = Gathering(doubler.answer, ways=1, most=3)
    first = asyncio.create_task(gathering.ask(0))
    while not doubler.asked:
        await asyncio.sleep(0)
    others = [asyncio.create_task(gathering.ask(number)) for number in range(1, 6)]
    await asyncio.sleep(0)
    others[1].cancel()
    doubler.let.set()

    answers = await asyncio.gather(first, *others, return_exceptions=True)

    assert [one for one in answers if isinstance(one, int)] == [0, 2, 6, 8, 10]
    assert doubler.asked == [[0], [1, 3], [4, 5]]


async def test_a_failure_is_told_to_those_who_asked_together_and_to_nobody_else() -> None:
    doubler = Doubler()
    gathering = Gathering(doubler.answer)

    failed = await asyncio.gather(gathering.ask(13), gathering.ask(1), return_exceptions=True)

    assert [type(one) for one in failed] == [LookupError, LookupError]
    assert await gathering.ask(1) == 2


async def test_what_is_asked_together_is_asked_for_none_of_the_callers() -> None:
    doubler = Doubler()
    gathering = Gathering(doubler.answer)
    ASKER.set("ada")

    assert await gathering.ask(4) == 8

    assert doubler.askers == ["nobody"]


# On a loop of its own: servers that other tests share lose no task.
@pytest.mark.asyncio(loop_scope="function")
async def test_when_the_asking_is_cancelled_nobody_waits_for_ever() -> None:
    doubler = Doubler()
    doubler.let.clear()
    gathering = Gathering(doubler.answer)
    asking = asyncio.create_task(gathering.ask(1))
    while not doubler.asked:
        await asyncio.sleep(0)

    for task in asyncio.all_tasks() - {asking, asyncio.current_task()}:
        task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_a_question_that_comes_alone_waits_for_nothing() -> None:
    gathering = Gathering(Doubler().answer, gather_seconds=3_600)

    async with asyncio.timeout(30):
        assert await gathering.ask(0) == 0


async def test_what_comes_soon_after_a_way_began_goes_together() -> None:
    doubler = Doubler()
    gathering = Gathering(doubler.answer, gather_seconds=0.3)
    await gathering.ask(0)

    first = asyncio.create_task(gathering.ask(1))
    for _ in range(5):
        await asyncio.sleep(0)
    answers = await asyncio.gather(first, gathering.ask(2))

    assert list(answers) == [2, 4]
    assert doubler.asked == [[0], [1, 2]]
