"""Events from the transaction of a change to the effect at a consumer, over real servers."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.shared.events.streams import partition_of
from tests.support.event_sample import (
    Sample,
    open_sample,
    published,
    running,
    until_dead,
    until_some,
)
from tests.support.stack_fixtures import TestDatabase
from wayfare.event.v1.envelope_pb2 import Envelope

pytestmark = pytest.mark.integration


@pytest.fixture
async def sample(migrated_database: TestDatabase, valkey_url: str) -> AsyncIterator[Sample]:
    async with open_sample(migrated_database.admin_dsn, valkey_url) as opened:
        yield opened


async def test_events_take_effect_in_the_order_of_their_aggregate(sample: Sample) -> None:
    async with running(sample.relay(), sample.consumer()):
        await sample.write("a", [1, 2])
        await sample.write("b", [1])
        await sample.write("a", [3])

        await sample.until_effects({"a": [1, 2, 3], "b": [1]})


async def test_an_event_whose_transaction_commits_late_is_not_passed_over(sample: Sample) -> None:
    async with running(sample.relay(), sample.consumer()):
        late = asyncio.create_task(sample.write("late", [1], hold=0.5))
        await asyncio.sleep(0.1)
        await sample.write("quick", [1])
        await late

        await sample.until_effects({"late": [1], "quick": [1]})


async def test_two_relays_and_two_consumers_give_each_event_effect_once(sample: Sample) -> None:
    works = (sample.relay(), sample.relay(), sample.consumer(), sample.consumer())
    async with running(*works):
        names = [f"thing-{number}" for number in range(40)]
        for version in range(1, 6):
            await asyncio.gather(*(sample.write(name, [version]) for name in names))

        await sample.until_effects_of(names, 5)


async def test_a_poisoned_event_ends_in_the_dead_letters_while_others_go_on(
    sample: Sample,
) -> None:
    def fails(event: Envelope) -> bool:
        return event.aggregate_id == "bad" and event.aggregate_version == 2

    async with running(sample.relay(), sample.consumer(fails)):
        await sample.write("bad", [1, 2, 3])
        await sample.write("good", [1, 2])
        await sample.until_effects({"bad": [1], "good": [1, 2]})
        # What waited behind it goes on after its last try.
        await until_dead(sample, 1)
        await sample.until_effects({"bad": [1, 3], "good": [1, 2]})


async def test_a_passing_fault_is_tried_again_until_it_is_gone(sample: Sample) -> None:
    tries: list[int] = []

    def fails(event: Envelope) -> bool:
        tries.append(event.aggregate_version)
        return tries.count(1) < 3

    async with running(sample.relay(), sample.consumer(fails)):
        await sample.write("a", [1])
        await sample.until_effects({"a": [1]})
        await sample.write("a", [2])
        await sample.until_effects({"a": [1, 2]})


async def test_what_was_published_comes_again_when_valkey_was_emptied(sample: Sample) -> None:
    async with running(sample.relay()):
        await sample.write("a", [1, 2])
        await published(sample, 2)
    await sample.valkey.flushall()

    async with running(sample.relay(), sample.consumer()):
        await sample.write("a", [3])

        await sample.until_effects({"a": [1, 2, 3]})


async def test_what_comes_twice_takes_effect_once(sample: Sample) -> None:
    async with running(sample.relay(), sample.consumer()):
        await sample.write("a", [1, 2])
        await sample.until_effects({"a": [1, 2]})
        await sample.valkey.flushall()
        await sample.write("a", [3])

        await sample.until_effects({"a": [1, 2, 3]})


async def test_what_is_there_twice_when_it_is_read_takes_effect_once(sample: Sample) -> None:
    async with running(sample.relay()):
        await sample.write("a", [1, 2])
        await published(sample, 2)
        # As a relay leaves it that dies before its commit.
        await sample.admin.execute(
            "UPDATE sample.event_cursor SET transaction_id = '0', event_number = 0"
        )
        await published(sample, 2)
    async with running(sample.consumer()):
        await sample.until_effects({"a": [1, 2]})


async def test_a_consumer_that_is_cut_in_the_middle_goes_on_where_it_was(sample: Sample) -> None:
    names = [f"thing-{number}" for number in range(200)]
    async with running(sample.relay()):
        await asyncio.gather(*(sample.write(name, [1, 2, 3]) for name in names[:50]))
        async with running(sample.consumer()):
            await until_some(sample)
        await asyncio.gather(*(sample.write(name, [1, 2, 3]) for name in names[50:100]))
        async with running(sample.consumer()):
            await sample.until_effects_of(names[:100], 3)


async def test_a_consumer_goes_on_after_what_nobody_foresaw(sample: Sample) -> None:
    defects = [ZeroDivisionError("once")]

    def wants(_event: Envelope) -> bool:
        if defects:
            raise defects.pop()
        return True

    async with running(sample.relay(), sample.consumer(wants=wants)):
        await sample.write("thing", [1, 2])

        await sample.until_effects({"thing": [1, 2]})


async def test_what_a_consumer_does_not_want_is_passed_over_and_not_remembered(
    sample: Sample,
) -> None:
    consumer = sample.consumer(wants=lambda event: event.aggregate_id == "mine")
    async with running(sample.relay(), consumer):
        await sample.write("other", [1, 2])
        await sample.write("mine", [1])
        await sample.write("other", [3])
        await sample.write("mine", [2])

        await sample.until_effects({"mine": [1, 2]})

    assert await sample.admin.fetchval("SELECT count(*) FROM sample.event_inbox") == 2


async def test_what_nobody_wants_costs_no_transaction_until_nothing_more_comes(
    sample: Sample,
) -> None:
    consumer = sample.consumer(wants=lambda event: event.aggregate_id == "mine")
    partition = partition_of("thing/other")

    async def kept() -> str:
        return str(
            await sample.admin.fetchval(
                "SELECT stream_id FROM sample.event_positions WHERE partition = $1", partition
            )
        )

    relay = sample.relay()
    await sample.write("other", [1, 2])
    while not await relay.publish():
        await asyncio.sleep(0.01)

    after = await consumer.read(partition)
    assert after not in (None, "0-0")
    assert await kept() == "0-0"

    assert await consumer.read(partition, after, wait_milliseconds=1) == after
    assert await kept() == after
    assert await sample.effects() == {}
