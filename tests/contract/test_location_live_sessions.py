"""What every LiveStore does with sessions and updates: in memory, Valkey alone, a cluster."""

import asyncio
import random

from services.location.ports.live import LiveStore
from tests.support.location_drive import Drive, opened
from tests.support.location_values import (
    TENANT,
    capture_of,
    new_id,
    now_milliseconds,
    position_update,
)


async def test_a_new_session_begins_at_zero(live: LiveStore) -> None:
    grant = await opened(live, new_id())

    assert (grant.seq, grant.capture_milliseconds, grant.live_payload) == (0, 0, b"")


async def test_a_session_goes_on_where_the_last_one_was(live: LiveStore) -> None:
    drive = await Drive.begun(live)
    await drive.position(7)

    grant = await opened(live, drive.trip.driver_id, trip_id=drive.trip.trip_id, resume_seq=3)

    assert grant.seq == 7
    assert grant.capture_milliseconds == capture_of(grant.live_payload) == drive.start + 7000


async def test_a_session_that_the_store_lost_goes_on_where_the_phone_says(live: LiveStore) -> None:
    assert (await opened(live, new_id(), resume_seq=41)).seq == 41


async def test_a_session_without_a_number_to_resume_counts_anew(live: LiveStore) -> None:
    drive = await Drive.begun(live)
    await drive.position(7)

    grant = await opened(live, drive.trip.driver_id)

    assert grant.seq == 0
    assert grant.capture_milliseconds == drive.start + 7000


async def test_a_session_says_how_far_its_trip_is(live: LiveStore) -> None:
    drive = await Drive.begun(live)
    await drive.status(1, "PAUSED")

    grant = await opened(live, drive.trip.driver_id, trip_id=drive.trip.trip_id)

    assert grant.trip_status == "PAUSED"


async def test_a_newer_session_fences_off_the_older(live: LiveStore) -> None:
    drive = await Drive.begun(live)
    newer = await opened(live, drive.trip.driver_id, trip_id=drive.trip.trip_id)

    assert newer.session != drive.session
    assert await drive.position(1) == "S"
    assert await drive.status(2, "STARTED") == "S"


async def test_joining_fences_nobody_off(live: LiveStore) -> None:
    drive = await Drive.begun(live)
    await drive.position(1)
    joined = await live.join_session(
        driver_id=drive.trip.driver_id,
        tenant_id=TENANT,
        vehicle_id="bus-14",
        trip_id=drive.trip.trip_id,
    )

    assert joined.session == drive.session
    assert joined.capture_milliseconds == drive.start + 1000
    assert await drive.position(2) == "A"


async def test_a_number_is_taken_once(live: LiveStore) -> None:
    drive = await Drive.begun(live)

    assert await drive.position(1) == "A"
    assert await drive.position(1, after_seconds=2) == "D"
    assert await drive.status(1, "STARTED") == "D"
    assert await drive.status(2, "STARTED") == "A"


async def test_a_capture_that_is_not_newer_never_becomes_live(live: LiveStore) -> None:
    drive = await Drive.begun(live)
    await drive.position(1, after_seconds=5)

    assert await drive.position(2, after_seconds=5) == "O"
    assert await drive.position(3, after_seconds=4) == "O"
    state = await live.snapshot(drive.trip, with_events=False)
    assert capture_of(state.position_payload) == drive.start + 5000


async def test_an_update_of_an_unknown_driver_finds_no_state(live: LiveStore) -> None:
    driver_id = new_id()
    update = position_update(driver_id, seq=1, capture=now_milliseconds(), session="1")

    assert await live.apply(live.bucket_of(driver_id), [update]) == "M"


async def test_an_update_of_an_unknown_trip_finds_no_state(live: LiveStore) -> None:
    driver_id = new_id()
    grant = await opened(live, driver_id)
    update = position_update(
        driver_id, seq=1, capture=now_milliseconds(), session=grant.session, trip_id=new_id()
    )

    assert await live.apply(live.bucket_of(driver_id), [update]) == "M"


async def test_nothing_is_taken_after_ended(live: LiveStore) -> None:
    drive = await Drive.begun(live)
    await drive.status(1, "ENDED")

    assert await drive.position(2) == "N"
    assert await drive.status(3, "STARTED") == "N"
    assert await drive.boarding(4, 5) == "N"
    assert (await live.snapshot(drive.trip, with_events=False)).status == "ENDED"


async def test_nothing_is_taken_after_tracking_was_stopped(live: LiveStore) -> None:
    drive = await Drive.begun(live)
    await live.untrack(drive.trip)

    assert await drive.position(1) == "N"
    assert not (await live.snapshot(drive.trip, with_events=False)).tracked


async def test_each_update_of_a_batch_gets_its_verdict(live: LiveStore) -> None:
    drive = await Drive.begun(live)
    captures = [1, 2, 2, 3]
    updates = [
        position_update(
            drive.trip.driver_id,
            seq=seq,
            capture=drive.start + capture * 1000,
            session=drive.session,
            trip_id=drive.trip.trip_id,
        )
        for seq, capture in zip([1, 2, 3, 3], captures, strict=True)
    ]

    assert await live.apply(drive.bucket, updates) == "AAOD"


async def test_the_newest_capture_is_live_whoever_writes_it(live: LiveStore) -> None:
    drive = await Drive.begun(live)
    captures = list(range(1, 201))
    random.Random(14).shuffle(captures)

    async def write(share: list[int]) -> list[str]:
        # As batches of positions do: no session, capture time alone decides.
        return [
            await live.apply(
                drive.bucket,
                [
                    position_update(
                        drive.trip.driver_id,
                        seq=0,
                        capture=drive.start + capture,
                        trip_id=drive.trip.trip_id,
                    )
                ],
            )
            for capture in share
        ]

    verdicts = await asyncio.gather(*(write(captures[n::20]) for n in range(20)))

    state = await live.snapshot(drive.trip, with_events=False)
    accepted = sum(verdict.count("A") for verdict in verdicts)
    assert capture_of(state.position_payload) == drive.start + 200
    assert state.version == accepted
