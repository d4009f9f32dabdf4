"""A read is worked on while its caller is counted, and answered only to who may have the answer."""

import asyncio
import gc
from datetime import UTC, datetime

import pytest

from services.shared.errors import DependencyUnavailableError
from services.shared.rpc.caller import Caller, CallerKind
from services.shared.rpc.early_answers import EarlyAnswers
from services.shared.rpc.policy import LimitSubject, MethodRule, RateLimitRule, load_rules
from services.shared.rpc.rate_limits import RateLimitedError
from wayfare.location.v1 import location_service_pb2

RULES = load_rules(location_service_pb2.DESCRIPTOR.services_by_name["LocationService"])
NEARBY = RULES["/wayfare.location.v1.LocationService/ListNearbyDrivers"]
CALLER = Caller(kind=CallerKind.USER, user_id="ada")
LIMIT = RateLimitRule(max_requests=1, window_seconds=60, subject=LimitSubject.USER)


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)

    def monotonic(self) -> float:
        return self.seconds


class Counter:
    """Counts when it is let; refuses those whom it is told to refuse."""

    def __init__(self) -> None:
        self.refuses = False
        self.let = asyncio.Event()
        self.counted: list[str] = []

    async def check(self, caller: Caller, rule: MethodRule) -> None:
        await self.let.wait()
        self.counted.append(caller.user_id)
        if self.refuses:
            raise RateLimitedError(LIMIT, retry_after_seconds=10.0)


class Work:
    """Is done when it is let, or fails."""

    def __init__(self) -> None:
        self.begun = 0
        self.let = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> str:
        self.begun += 1
        await self.let.wait()
        if self.error is not None:
            raise self.error
        return "answer"


class Scene:
    """Is one early method with its counter and its work."""

    def __init__(self) -> None:
        self.clock, self.counter, self.work = Clock(), Counter(), Work()
        self.early = EarlyAnswers(
            ["ListNearbyDrivers"], RULES, rate_limiter=self.counter, clock=self.clock
        )

    def call(self) -> asyncio.Task[str]:
        return asyncio.ensure_future(self.early.answer(CALLER, NEARBY, self.work))


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_work_begins_before_the_call_is_counted(scene: Scene) -> None:
    call = scene.call()
    await turns()
    assert scene.work.begun == 1
    assert scene.counter.counted == []

    scene.work.let.set()
    await turns()
    assert not call.done()

    scene.counter.let.set()
    assert await call == "answer"
    assert scene.counter.counted == ["ada"]


async def test_who_is_refused_gets_no_answer_though_it_is_there(scene: Scene) -> None:
    scene.counter.refuses = True
    call = scene.call()
    scene.work.let.set()
    await turns()
    scene.counter.let.set()

    with pytest.raises(RateLimitedError):
        await call


async def test_a_refusal_goes_before_what_the_work_came_to(scene: Scene) -> None:
    scene.counter.refuses = True
    scene.counter.let.set()
    scene.work.error = DependencyUnavailableError("valkey")
    scene.work.let.set()

    with pytest.raises(RateLimitedError):
        await scene.call()


async def test_what_the_work_raises_reaches_who_may_call_and_is_counted(scene: Scene) -> None:
    scene.work.error = DependencyUnavailableError("valkey")
    scene.work.let.set()
    scene.counter.let.set()

    with pytest.raises(DependencyUnavailableError):
        await scene.call()

    assert scene.counter.counted == ["ada"]


async def test_who_was_refused_lately_is_counted_before_any_work(scene: Scene) -> None:
    scene.counter.let.set()
    scene.work.let.set()
    scene.counter.refuses = True
    for _ in range(3):
        with pytest.raises(RateLimitedError):
            await scene.call()
    assert scene.work.begun == 1

    # Told to come again after ten seconds: who comes then is served as before.
    scene.counter.refuses = False
    scene.clock.seconds += 10.0
    assert await scene.call() == "answer"


async def test_who_was_refused_and_may_call_again_gets_the_answer(scene: Scene) -> None:
    scene.counter.let.set()
    scene.work.let.set()
    scene.counter.refuses = True
    with pytest.raises(RateLimitedError):
        await scene.call()
    scene.counter.refuses = False

    assert await scene.call() == "answer"


# On a loop of its own: what servers that other tests share do on theirs is none of ours.
@pytest.mark.asyncio(loop_scope="function")
@pytest.mark.parametrize("counted_first", [True, False])
async def test_who_goes_away_leaves_nothing_behind(scene: Scene, counted_first: bool) -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, about: complaints.append(about))
    scene.counter.refuses = True
    call = scene.call()
    if counted_first:
        scene.counter.let.set()
    await turns()
    call.cancel()
    await asyncio.wait([call])
    assert call.cancelled()
    scene.counter.let.set()
    await turns()
    # A task whose error nobody asked for complains when it is thrown away.
    del call
    gc.collect()
    await turns()

    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert complaints == []


async def test_calls_that_are_given_up_count_and_are_refused_like_others(scene: Scene) -> None:
    """Else a flood of calls that nobody waits for would be worked on for nothing."""
    scene.counter.refuses = True
    for _ in range(3):
        call = scene.call()
        await turns()
        call.cancel()
        await asyncio.wait([call])
        scene.counter.let.set()
        await turns()

    assert scene.counter.counted == [CALLER.user_id] * 3
    assert scene.work.begun == 1


def test_only_what_changes_nothing_may_begin_early() -> None:
    with pytest.raises(ValueError, match="change nothing"):
        EarlyAnswers(["StartTracking"], RULES, rate_limiter=Counter(), clock=Clock())


def test_methods_that_did_not_ask_for_it_are_not_taken(scene: Scene) -> None:
    assert [path for path in RULES if scene.early.takes(RULES[path])] == [NEARBY.path]
