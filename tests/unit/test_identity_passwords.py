"""argon2id in its own threads."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from services.identity.passwords import Argon2Cost, Argon2PasswordHasher
from services.shared.errors import OverloadedError
from tests.support.waiting import until

CHEAP = Argon2Cost(memory_kibibytes=64, passes=1)


@pytest.fixture
async def hasher() -> AsyncIterator[Argon2PasswordHasher]:
    hasher = Argon2PasswordHasher(CHEAP, threads=1, waiting_max=2)
    yield hasher
    hasher.close()


async def test_a_password_matches_its_own_hash_only(hasher: Argon2PasswordHasher) -> None:
    password_hash = await hasher.hash("a password of mine")

    assert password_hash.startswith("$argon2id$")
    assert await hasher.verify(password_hash, "a password of mine")
    assert not await hasher.verify(password_hash, "a password of yours")
    assert await hasher.hash("a password of mine") != password_hash


async def test_one_character_typed_in_two_ways_is_the_same(hasher: Argon2PasswordHasher) -> None:
    assert await hasher.verify(await hasher.hash("cafe\u0301 au lait"), "caf\u00e9 au lait")


async def test_no_password_matches_an_account_that_is_not_there(
    hasher: Argon2PasswordHasher,
) -> None:
    assert not await hasher.verify(None, "a password of mine")


async def test_a_hash_of_another_cost_wants_to_be_replaced(hasher: Argon2PasswordHasher) -> None:
    dearer = Argon2PasswordHasher(
        Argon2Cost(memory_kibibytes=128, passes=1), threads=1, waiting_max=0
    )

    assert dearer.needs_rehash(await hasher.hash("a password of mine"))
    assert not dearer.needs_rehash(await dearer.hash("a password of mine"))
    dearer.close()


async def test_beyond_the_bound_callers_are_told_to_come_again() -> None:
    hasher = Argon2PasswordHasher(Argon2Cost(), threads=1, waiting_max=2)

    answers = await asyncio.gather(
        *(hasher.hash(f"password {number}") for number in range(10)), return_exceptions=True
    )

    refused = [answer for answer in answers if isinstance(answer, OverloadedError)]
    # One runs and two wait; a fast thread may have ended some before the last came.
    assert 1 <= len(refused) <= 7
    assert all(refusal.retry_after_seconds for refusal in refused)
    await hasher.hash("there is room again")
    hasher.close()


async def test_a_call_that_went_away_gives_its_place_back(hasher: Argon2PasswordHasher) -> None:
    for _ in range(5):
        task = asyncio.create_task(hasher.hash("a password of mine"))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def has_room() -> bool:
        try:
            return bool(await hasher.hash("a password of mine"))
        except OverloadedError:
            return False

    async with asyncio.timeout(5):
        while not await has_room():
            await asyncio.sleep(0.01)


async def test_the_event_loop_goes_on_while_a_hash_is_made() -> None:
    hasher = Argon2PasswordHasher(Argon2Cost(passes=5), threads=1, waiting_max=0)
    task = asyncio.create_task(hasher.hash("a password of mine"))

    await until(lambda: any(t.name.startswith("argon2") for t in threading.enumerate()))

    assert not task.done()
    await task
    hasher.close()
