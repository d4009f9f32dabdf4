"""Positions of a trip that very many follow: fewer of them, and always the last."""

import asyncio
from collections.abc import AsyncIterator, Iterable

import pytest

from services.location import convert
from services.location.operations.follow_hub import FollowHub
from services.location.operations.follower import Follower
from services.location.ports.live import Tick
from tests.support.location_fakes import MemoryLiveStore
from tests.support.location_values import a_position, a_status
from tests.support.waiting import until
from wayfare.location.v1 import trip_pb2

MANY, INTERVAL_SECONDS = 3, 0.2
POSITION = convert.position_payload(a_position())
STARTED = convert.status_payload(a_status(trip_pb2.TRIP_STATUS_STARTED))


def stored(payload: bytes, version: int) -> bytes:
    return b"\x0a\x10" + f"0000abcd{version:08x}".encode() + payload


class Crowd:
    """A hub with followers of one trip."""

    def __init__(self) -> None:
        self.hub = FollowHub(
            live=MemoryLiveStore(),
            events_max=8,
            ends_trip=convert.ends_trip,
            many_followers=MANY,
            many_followers_seconds=INTERVAL_SECONDS,
        )
        self.followers: list[Follower] = []
        self.taken: list[int] = []

    async def gather(self, count: int) -> None:
        for _ in range(count):
            follower = await self.hub.attach("one", bucket=0, token_expire_time=None)
            self.followers.append(follower)

    def tell(self, kind: bytes, versions: Iterable[int]) -> None:
        payload = STARTED if kind == b"s" else POSITION
        for version in versions:
            fields = (kind + b"one", stored(payload, version))
            self.hub.deliver([Tick(stream_id=b"1-0", fields=fields)])

    def heard(self) -> list[int]:
        """Return the versions that all followers heard; they hear the same."""
        lists = [[int(p[10:18], 16) for p in follower.take()] for follower in self.followers]
        assert all(versions == lists[0] for versions in lists)
        self.taken += lists[0]
        return self.taken


@pytest.fixture
async def crowd() -> AsyncIterator[Crowd]:
    crowd = Crowd()
    running = asyncio.create_task(crowd.hub.run())
    await asyncio.sleep(0)
    yield crowd
    running.cancel()
    await asyncio.wait([running])


async def test_few_followers_hear_every_position(crowd: Crowd) -> None:
    await crowd.gather(MANY)
    crowd.tell(b"p", range(1, 6))

    assert crowd.heard() == [1, 2, 3, 4, 5]


async def test_many_followers_hear_the_first_and_the_newest_of_an_interval(crowd: Crowd) -> None:
    await crowd.gather(MANY + 1)
    crowd.tell(b"p", range(1, 6))
    assert crowd.heard() == [1]

    await until(lambda: crowd.heard() == [1, 5], seconds=2 * INTERVAL_SECONDS)
    # The next interval begins with what was told.
    crowd.tell(b"p", range(6, 9))
    assert crowd.heard() == [1, 5]
    await until(lambda: crowd.heard() == [1, 5, 8], seconds=2 * INTERVAL_SECONDS)


async def test_an_event_comes_at_once_and_after_the_position_before_it(crowd: Crowd) -> None:
    await crowd.gather(MANY + 1)
    crowd.tell(b"p", range(1, 4))
    crowd.tell(b"s", [4])

    assert crowd.heard() == [1, 3, 4]


async def test_expected_arrivals_are_thinned_out_beside_positions(crowd: Crowd) -> None:
    await crowd.gather(MANY + 1)
    crowd.tell(b"p", [1])
    crowd.tell(b"e", [2])
    crowd.tell(b"p", [3])
    crowd.tell(b"e", [4])
    crowd.tell(b"p", [5])

    await until(lambda: crowd.heard() == [1, 4, 5], seconds=2 * INTERVAL_SECONDS)


async def test_a_crowd_that_shrinks_hears_everything_again_and_misses_nothing_new(
    crowd: Crowd,
) -> None:
    await crowd.gather(MANY + 1)
    crowd.tell(b"p", range(1, 4))
    crowd.hub.detach(crowd.followers.pop())
    crowd.tell(b"p", [4, 5])

    assert crowd.heard() == [1, 3, 4, 5]


async def test_a_trip_without_followers_is_forgotten(crowd: Crowd) -> None:
    await crowd.gather(MANY + 1)
    crowd.tell(b"p", range(1, 4))
    for follower in crowd.followers:
        crowd.hub.detach(follower)

    await asyncio.sleep(2 * INTERVAL_SECONDS)
    assert [follower.take() for follower in crowd.followers] == [[stored(POSITION, 1)]] * (MANY + 1)
