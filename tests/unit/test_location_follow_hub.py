"""A follower's slot and queue, and how the hub fills them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from services.location import convert
from services.location.errors import FollowerTooSlowError
from services.location.operations.follow_hub import FollowHub
from services.location.operations.follower import (
    POSITIONS_MAX,
    Follower,
    ResumeToken,
    parse_token,
    token_of,
)
from services.location.ports.live import Tick
from tests.support.location_fakes import MemoryLiveStore
from tests.support.location_values import a_position, a_status, a_trip, status_update
from tests.support.waiting import until
from wayfare.location.v1 import trip_pb2

EPOCH, LATER = "0000abcd", "0000ef01"
ENDED = convert.status_payload(a_status(trip_pb2.TRIP_STATUS_ENDED))
STARTED = convert.status_payload(a_status(trip_pb2.TRIP_STATUS_STARTED))
POSITION = convert.position_payload(a_position())
MANY, INTERVAL_SECONDS = 3, 0.2


def stored(payload: bytes, version: int, epoch: str = EPOCH) -> bytes:
    """Return the payload as the store writes it."""
    return b"\x0a\x10" + f"{epoch}{version:08x}".encode() + payload


def a_follower(events_max: int = 8) -> Follower:
    return Follower("trip", events_max=events_max, token_expire_time=None)


def test_of_too_many_positions_that_wait_the_oldest_are_left_out() -> None:
    follower = a_follower()
    for version in range(1, POSITIONS_MAX + 3):
        follower.put_position(EPOCH, version, b"position-%d" % version)

    newest = range(3, POSITIONS_MAX + 3)
    assert follower.take() == [b"position-%d" % version for version in newest]
    assert follower.take() == []


def test_a_moments_delay_loses_no_position() -> None:
    follower = a_follower()
    follower.put_position(EPOCH, 1, b"position-1")
    follower.put_position(EPOCH, 2, b"position-2")

    assert follower.take() == [b"position-1", b"position-2"]


def test_positions_are_left_out_and_events_between_them_are_kept() -> None:
    follower = a_follower()
    follower.put_position(EPOCH, 1, b"position")
    follower.put_event(EPOCH, 2, b"event")
    for version in range(3, POSITIONS_MAX + 4):
        follower.put_position(EPOCH, version, b"position")

    taken = follower.take()
    assert taken[0] == b"event"
    assert taken.count(b"position") == POSITIONS_MAX


def test_events_are_all_kept_and_the_position_stands_where_its_version_puts_it() -> None:
    follower = a_follower()
    follower.put_event(EPOCH, 1, b"event-1")
    follower.put_position(EPOCH, 2, b"position-2")
    follower.put_event(EPOCH, 3, b"event-3")

    assert follower.take() == [b"event-1", b"position-2", b"event-3"]


def test_positions_and_events_come_in_the_order_of_their_versions() -> None:
    follower = a_follower()
    follower.put_position(EPOCH, 1, b"position-1")
    follower.put_event(EPOCH, 2, b"event-2")
    follower.put_position(EPOCH, 3, b"position-3")

    assert follower.take() == [b"position-1", b"event-2", b"position-3"]


def test_what_the_snapshot_held_is_not_taken_again() -> None:
    follower = a_follower()
    follower.begin_after(ResumeToken(epoch=EPOCH, version=5))
    follower.put_event(EPOCH, 5, b"event-5")
    follower.put_position(EPOCH, 4, b"position-4")
    follower.put_event(EPOCH, 6, b"event-6")

    assert follower.take() == [b"event-6"]


def test_what_came_between_attaching_and_the_snapshot_is_not_said_twice() -> None:
    follower = a_follower()
    follower.put_event(EPOCH, 4, b"event-4")
    follower.put_position(EPOCH, 5, b"position-5")
    follower.put_event(EPOCH, 6, b"event-6")
    follower.begin_after(ResumeToken(epoch=EPOCH, version=5))

    assert follower.take() == [b"event-6"]


def test_a_tick_that_was_read_before_an_older_snapshot_is_said_once() -> None:
    follower = a_follower()
    follower.put_event(EPOCH, 6, b"event-6")
    follower.begin_after(ResumeToken(epoch=EPOCH, version=5))
    follower.put_event(EPOCH, 6, b"event-6")

    assert follower.take() == [b"event-6"]


def test_a_new_epoch_begins_a_new_counting() -> None:
    follower = a_follower()
    follower.begin_after(ResumeToken(epoch=EPOCH, version=900))
    follower.put_event(LATER, 1, b"event-1")
    follower.put_position(LATER, 2, b"position-2")

    assert follower.take() == [b"event-1", b"position-2"]


def test_a_position_of_the_old_epoch_never_follows_an_event_of_the_new() -> None:
    follower = a_follower()
    follower.put_position(EPOCH, 900, b"position-900")
    follower.put_event(LATER, 1, b"event-1")

    assert follower.take() == [b"position-900", b"event-1"]


def test_a_follower_that_reads_too_slowly_must_come_again() -> None:
    follower = a_follower(events_max=8)
    for version in range(1, 10):
        follower.put_event(EPOCH, version, b"event-%d" % version)

    assert follower.take() == [b"event-%d" % version for version in range(1, 9)]
    assert follower.take_drain() == (0.0, "FOLLOWER_TOO_SLOW")
    assert isinstance(follower.error, FollowerTooSlowError)


def test_after_its_queue_was_full_a_follower_gets_nothing_that_leaves_a_gap() -> None:
    follower = a_follower(events_max=8)
    for version in range(1, 10):
        follower.put_event(EPOCH, version, b"event-%d" % version)
    follower.take()
    follower.put_event(EPOCH, 10, b"event-10")
    follower.put_position(EPOCH, 11, b"position-11")

    assert follower.take() == []


def test_positions_alone_never_make_a_follower_too_slow() -> None:
    follower = a_follower(events_max=8)
    for version in range(1, 1000):
        follower.put_position(EPOCH, version, b"position")

    assert follower.error is None
    assert len(follower.take()) == POSITIONS_MAX


def test_a_drain_notice_is_said_once() -> None:
    follower = a_follower()
    follower.drain((1.0, "SERVER_DRAINING"))
    assert follower.take_drain() == (1.0, "SERVER_DRAINING")
    follower.drain((1.0, "SERVER_DRAINING"))

    assert follower.take_drain() is None


def test_a_heartbeat_is_due_after_a_silence_only() -> None:
    follower = a_follower()
    follower.said_something = True
    follower.beat()
    assert not follower.heartbeat_due
    follower.beat()

    assert follower.heartbeat_due


async def test_a_follower_wakes_when_something_comes() -> None:
    follower = a_follower()
    waiting = asyncio.create_task(follower.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    follower.put_position(EPOCH, 1, b"position")

    await asyncio.wait_for(waiting, 5)


@pytest.mark.parametrize(
    "text", ["", "x", "0" * 15, "0" * 17, "g" * 16, "0000abcd0000000g", "0000 bcd00000001 "]
)
def test_a_text_that_is_no_token_is_none(text: str) -> None:
    assert parse_token(text) is None


def test_a_token_is_read_as_the_store_wrote_it() -> None:
    token = token_of(stored(STARTED, 258))

    assert token == ResumeToken(epoch=EPOCH, version=258)
    assert parse_token(f"{EPOCH}00000102") == token


class Following:
    """A hub that runs on a store in memory."""

    def __init__(self) -> None:
        self.live = MemoryLiveStore()
        self.hub = FollowHub(
            live=self.live,
            events_max=8,
            ends_trip=convert.ends_trip,
            many_followers=MANY,
            many_followers_seconds=INTERVAL_SECONDS,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.hub.run())
        await asyncio.sleep(0)
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def tick(*fields: bytes) -> Tick:
    return Tick(stream_id=b"1-0", fields=fields)


async def test_a_tick_reaches_the_followers_of_its_trips_only() -> None:
    following = Following()
    async with following.running():
        one = await following.hub.attach("one", bucket=0, token_expire_time=None)
        other = await following.hub.attach("other", bucket=0, token_expire_time=None)
        payload = stored(POSITION, 1)
        following.hub.deliver([tick(b"pone", payload, b"pnobody", payload)])

    assert one.take() == [payload]
    assert other.take() == []


async def test_a_follower_that_left_gets_nothing() -> None:
    following = Following()
    async with following.running():
        follower = await following.hub.attach("one", bucket=0, token_expire_time=None)
        following.hub.detach(follower)
        following.hub.deliver([tick(b"pone", stored(POSITION, 1))])

    assert follower.take() == []


async def test_the_last_status_ends_the_stream_after_it_was_said() -> None:
    following = Following()
    async with following.running():
        follower = await following.hub.attach("one", bucket=0, token_expire_time=None)
        following.hub.deliver([tick(b"sone", stored(STARTED, 1)), tick(b"sone", stored(ENDED, 2))])

        # What follows from the end is told after it.
        following.hub.deliver([tick(b"gone", stored(STARTED, 3))])
        assert follower.take() == [stored(STARTED, 1), stored(ENDED, 2), stored(STARTED, 3)]
        await until(lambda: follower.ended)
    assert follower.error is None


async def test_a_trip_that_is_no_longer_tracked_ends_the_stream_in_good_order() -> None:
    following = Following()
    async with following.running():
        follower = await following.hub.attach("one", bucket=0, token_expire_time=None)
        following.hub.deliver([tick(b"xone", b"")])

    assert (follower.ended, follower.error) == (True, None)


async def test_a_trip_that_moved_away_asks_its_followers_to_come_again() -> None:
    following = Following()
    async with following.running():
        follower = await following.hub.attach("one", bucket=0, token_expire_time=None)
        following.hub.deliver([tick(b"rone", b"")])

    assert follower.take_drain() == (0.0, "SERVER_DRAINING")


async def test_what_the_store_writes_reaches_a_follower() -> None:
    following = Following()
    trip = a_trip()
    await following.live.track(trip)
    grant = await following.live.open_session(
        driver_id=trip.driver_id,
        tenant_id=trip.tenant_id,
        vehicle_id=trip.vehicle_id,
        trip_id=trip.trip_id,
        resume_seq=None,
    )
    bucket = following.live.bucket_of(trip.driver_id)
    update = status_update(
        trip.driver_id, seq=1, status="STARTED", session=grant.session, trip_id=trip.trip_id
    )
    async with following.running():
        follower = await following.hub.attach(trip.trip_id, bucket=bucket, token_expire_time=None)
        assert await following.live.apply(bucket, [update]) == "A"
        await asyncio.wait_for(follower.wait(), 5)

    (payload,) = follower.take()
    assert payload.endswith(update.payload)


async def test_followers_are_told_that_the_store_is_away_and_back() -> None:
    following = Following()
    async with following.running():
        follower = await following.hub.attach("one", bucket=0, token_expire_time=None)
        following.live.away = True
        await until(lambda: follower.degraded)
        assert follower.heartbeat_due
        following.live.away = False

        await until(lambda: not follower.degraded)

    assert follower.take_drain() is None


class Line:
    """Is a stream that takes what it has room for."""

    def __init__(self) -> None:
        self.room = 0
        self.sent: list[bytes] = []

    def send(self, payload: bytes) -> bool:
        if not self.room:
            return False
        self.room -= 1
        self.sent.append(payload)
        return True


async def test_what_comes_while_the_stream_rests_is_written_at_once() -> None:
    follower, line = a_follower(), Line()
    follower.send, line.room = line.send, 2
    resting = asyncio.create_task(follower.wait())
    await asyncio.sleep(0)
    follower.put_position(EPOCH, 1, b"position-1")
    follower.put_event(EPOCH, 2, b"event-2")
    assert (line.sent, resting.done()) == ([b"position-1", b"event-2"], False)

    follower.put_position(EPOCH, 3, b"position-3")
    await asyncio.sleep(0)
    assert resting.done()
    assert follower.take() == [b"position-3"]


async def test_nothing_overtakes_what_waits() -> None:
    follower, line = a_follower(), Line()
    follower.send = line.send
    resting = asyncio.create_task(follower.wait())
    await asyncio.sleep(0)
    follower.put_position(EPOCH, 1, b"position-1")
    # There is room again, but the stream's coroutine has not yet written what waits.
    line.room = 5
    follower.put_position(EPOCH, 2, b"position-2")
    await resting
    follower.put_event(EPOCH, 3, b"event-3")

    assert line.sent == []
    assert follower.take() == [b"position-1", b"position-2", b"event-3"]


async def test_a_follower_that_was_told_something_needs_no_heartbeat() -> None:
    follower, line = a_follower(), Line()
    follower.send, line.room = line.send, 1
    resting = asyncio.create_task(follower.wait())
    await asyncio.sleep(0)
    follower.put_position(EPOCH, 1, b"position-1")
    due = []
    for _ in range(2):
        follower.beat()
        due.append(follower.heartbeat_due)

    assert due == [False, True]
    await resting
