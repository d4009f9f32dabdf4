"""Events while processes and Valkey die: nothing is lost, done twice or out of order."""

import asyncio
import random
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.shared.events.inbox import KEPT_SECONDS, Inbox
from services.shared.events.log import EventLog
from services.shared.events.streams import PARTITIONS, partition_of, stream_key
from services.shared.postgres import Session
from services.stack.valkey import ValkeyServer
from tests.style.contract import PROJECT
from tests.support.event_sample import Sample, open_sample, published, running, until_dead
from tests.support.stack_fixtures import TestDatabase
from wayfare.event.v1.envelope_pb2 import Envelope

pytestmark = pytest.mark.integration

NAMES = [f"thing-{number}" for number in range(30)]
SWEEPER = Session(role="SWEEPER")
# At once, as when the last second of an append-only file is missing.
_DELETE_TAIL = """
for _, entry in ipairs(redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 3)) do
  redis.call('XDEL', KEYS[1], entry[1])
end
"""


@pytest.fixture
async def valkey(short_folder: Path) -> AsyncIterator[ValkeyServer]:
    """Start a Valkey of the test's own, to break."""
    home = Path(tempfile.mkdtemp(dir=short_folder))
    server = ValkeyServer(
        data_folder=home / "data", socket_path=home / "valkey.sock", log_path=home / "valkey.log"
    )
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@pytest.fixture
async def sample(migrated_database: TestDatabase, valkey: ValkeyServer) -> AsyncIterator[Sample]:
    async with open_sample(migrated_database.admin_dsn, valkey.url) as opened:
        yield opened


async def write_all(sample: Sample, first: int, last: int) -> None:
    for version in range(first, last + 1):
        await asyncio.gather(*(sample.write(name, [version]) for name in NAMES))


@asynccontextmanager
async def consuming_process(sample: Sample, valkey: ValkeyServer) -> AsyncIterator[None]:
    """Run a consumer as a process of its own, and kill it, whatever it does, at the end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.event_sample", sample.dsn, valkey.url),
        cwd=PROJECT,
    )
    try:
        yield
        assert process.returncode is None
    finally:
        process.kill()
        assert await process.wait() == -signal.SIGKILL


async def count(sample: Sample, of: str) -> int:
    found: int = await sample.admin.fetchval(f"SELECT count(*) FROM sample.{of}")
    return found


async def until_more(sample: Sample, than: int) -> None:
    async with asyncio.timeout(20):
        while await count(sample, "effects") <= than:
            await asyncio.sleep(0.002)


async def test_a_consumer_that_is_killed_again_and_again_does_everything_once(
    sample: Sample, valkey: ValkeyServer
) -> None:
    async with running(sample.relay()):
        for start in (1, 5, 9):
            await write_all(sample, start, start + 3)
            done = await count(sample, "effects")
            async with consuming_process(sample, valkey):
                await until_more(sample, done)
                await asyncio.sleep(random.uniform(0, 0.05))
        left = len(NAMES) * 12 - await count(sample, "effects")
        async with consuming_process(sample, valkey):
            await sample.until_effects_of(NAMES, 12)
    assert left > 0


async def lose_everything(valkey: ValkeyServer, sample: Sample) -> None:
    await sample.valkey.flushall()
    await valkey.kill()
    await asyncio.sleep(0.3)
    await valkey.start()


async def lose_the_tail(valkey: ValkeyServer, sample: Sample) -> None:
    for partition in range(PARTITIONS):
        key = stream_key("sample", partition)
        await sample.valkey.eval(_DELETE_TAIL, 1, key)


async def die_and_come_back(valkey: ValkeyServer, sample: Sample) -> None:
    await valkey.kill()
    await asyncio.sleep(0.3)
    await valkey.start()


@pytest.mark.parametrize("fault", [lose_everything, lose_the_tail, die_and_come_back])
async def test_whatever_valkey_loses_in_the_middle_comes_again_in_order(
    sample: Sample,
    valkey: ValkeyServer,
    fault: Callable[[ValkeyServer, Sample], Awaitable[None]],
) -> None:
    async with running(sample.relay(), sample.consumer(pause_seconds=0.01)):
        writing = asyncio.create_task(write_all(sample, 1, 20))
        await until_more(sample, 100)
        await fault(valkey, sample)
        await writing

        await sample.until_effects_of(NAMES, 20)


async def test_what_valkey_lost_before_anybody_read_it_comes_again(
    sample: Sample, valkey: ValkeyServer
) -> None:
    async with running(sample.relay()):
        await sample.write("a", [1, 2])
        await published(sample, 2)
        await lose_the_tail(valkey, sample)
        # Nothing new happens: the relay looks by itself.
        async with running(sample.consumer()):
            await sample.until_effects({"a": [1, 2]})


async def test_a_valkey_whose_clock_is_behind_does_not_hide_events(
    sample: Sample, valkey: ValkeyServer
) -> None:
    async with running(sample.relay(), sample.consumer()):
        await sample.write("a", [1])
        await sample.until_effects({"a": [1]})
    # What was published came from a Valkey that is an hour ahead.
    future = f"{int(time.time() + 3600) * 1000}-0"
    await sample.admin.execute("UPDATE sample.event_positions SET stream_id = $1", future)
    await sample.admin.execute(
        "UPDATE sample.event_cursor SET stream_ids = array_fill($1::text, ARRAY[8])", future
    )

    async with running(sample.relay(), sample.consumer()):
        await sample.write("a", [2])
        await sample.until_effects({"a": [1, 2]})


async def test_a_poisoned_event_of_a_large_batch_is_found_by_halves(sample: Sample) -> None:
    def fails(event: Envelope) -> bool:
        return (event.aggregate_id, event.aggregate_version) == ("bad", 2)

    neighbour = next(
        name for name in NAMES if partition_of(f"thing/{name}") == partition_of("thing/bad")
    )
    many = list(range(1, 257))
    async with running(sample.relay()):
        await sample.write(neighbour, many)
        await sample.write("bad", [1, 2, 3])
        await sample.write(neighbour, [257])
        await published(sample, 260)
    async with running(sample.consumer(fails)):
        await sample.until_effects({neighbour: [*many, 257], "bad": [1]})
        tries = sample.handle_count
        await until_dead(sample, 1)
        await sample.until_effects({neighbour: [*many, 257], "bad": [1, 3]})
    # One by one it would have been 260.
    assert tries < 40


async def test_the_words_of_an_error_are_not_kept(sample: Sample) -> None:
    async with running(sample.relay(), sample.consumer(lambda _: True)):
        await sample.write("a", [1])
        await until_dead(sample, 1)

    error = await sample.admin.fetchval("SELECT error FROM sample.event_failures")
    assert error.startswith("ValueError in event_sample.py:")
    assert "poisoned" not in error


async def test_old_entries_of_the_inbox_are_deleted_and_young_ones_are_not(sample: Sample) -> None:
    consumer = sample.consumer()
    async with running(sample.relay(), consumer):
        await sample.write("a", [1, 2])
        await sample.until_effects({"a": [1, 2]})
    await sample.admin.execute(
        "UPDATE sample.event_inbox SET create_time = now() - $1 * interval '1 second'",
        KEPT_SECONDS - 60,
    )
    assert await consumer.prune() == 0
    await sample.admin.execute(
        "UPDATE sample.event_inbox SET create_time = create_time - interval '2 minutes'"
        " WHERE ctid = (SELECT min(ctid) FROM sample.event_inbox)"
    )

    assert await consumer.prune() == 1
    assert await count(sample, "event_inbox") == 1


async def test_pruning_is_bounded(sample: Sample) -> None:
    await sample.admin.execute(
        "INSERT INTO sample.event_inbox (consumer, event_id, create_time)"
        " SELECT 'c', gen_random_uuid(), now() - interval '1 year' FROM generate_series(1, 20500)"
    )
    inbox = Inbox("sample", "c")
    pruned = []
    for _ in range(3):
        async with sample.database.transaction(SWEEPER) as connection:
            pruned.append(await inbox.prune(connection))

    assert pruned == [20_000, 500, 0]


async def test_events_older_than_the_inbox_knows_do_not_come_again(sample: Sample) -> None:
    log = EventLog(sample.database, "sample")
    async with running(sample.relay()):
        await sample.write("a", [1, 2])
        await sample.write("b", [1, 2])
        await published(sample, 4)
    await sample.write("c", [1])

    async with log.turn() as turn:
        assert turn is not None
        await turn.rewind(1_000, since=time.time() + 60)
        assert [event.aggregate for event in await turn.next_events(10)] == ["thing/c"]
        await turn.rewind(2, since=0)
        assert [event.aggregate for event in await turn.next_events(10)] == ["thing/b", "thing/c"]
        await turn.rewind(1_000, since=0)
        assert len(await turn.next_events(10)) == 5


async def test_the_lag_is_that_of_the_oldest_event_not_taken(sample: Sample) -> None:
    consumer = sample.consumer()
    assert await consumer.look_behind() == 0.0
    async with running(sample.relay()):
        await sample.write("a", [1])
        await published(sample, 1)
        began = time.time()
        await sample.write("b", [1])
        await published(sample, 2)
        await asyncio.sleep(0.05)
        lag = await consumer.look_behind()
        assert time.time() - began <= lag < time.time() - began + 2

        async with running(consumer):
            await sample.until_effects({"a": [1], "b": [1]})
        assert await consumer.look_behind() == 0.0
