"""What the indexes over many vehicles do in Valkey, alone and as a cluster."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest

from services.location import convert
from services.location.domain.nearby import OLDEST_MILLISECONDS
from services.location.domain.positions import Fix, distance_meters
from services.location.operations.nearby import Nearby, Place
from services.location.operations.relay import OutboxRelay, PresenceChange, PresenceSweep
from services.location.ports.live import POSITION, Publisher, Update
from services.location.store.live import ValkeyLiveStore
from services.location.store.views import ValkeyViewStore
from services.location.view_messages import fix_of_payload, place_of_payload
from services.shared.clock import SystemClock
from tests.support.location_fakes import BUCKETS
from tests.support.location_stores import opened_live_store
from tests.support.location_values import (
    LATITUDE,
    LONGITUDE,
    OTHER_TENANT,
    TENANT,
    a_position,
    new_id,
    now_milliseconds,
)

LIVE_SECONDS = 1


@dataclass
class Stores:
    """Two processes' stores on one Valkey, and the view of a third."""

    live: list[ValkeyLiveStore]
    views: ValkeyViewStore


@pytest.fixture(params=["valkey", "cluster"])
def stores_place(request: pytest.FixtureRequest) -> tuple[str, str]:
    name = {"valkey": "valkey_url", "cluster": "valkey_cluster_url"}[request.param]
    return request.param, request.getfixturevalue(name)


@pytest.fixture
async def stores(stores_place: tuple[str, str]) -> AsyncIterator[Stores]:
    kind, url = stores_place
    async with AsyncExitStack() as stack:
        live = [
            await opened_live_store(
                stack, url, cluster=kind == "cluster", live_seconds=LIVE_SECONDS
            )
            for _ in range(2)
        ]
        views = ValkeyViewStore(live[0].client, bucket_count=BUCKETS, live_seconds=LIVE_SECONDS)
        yield Stores(live, views)


async def begin(live: ValkeyLiveStore, driver_id: str, **values: object) -> None:
    await live.join_session(
        **{
            "driver_id": driver_id,
            "tenant_id": TENANT,
            "vehicle_id": f"car-{driver_id[:8]}",
            "trip_id": "",
            **values,
        }  # type: ignore[arg-type]
    )


async def report(live: ValkeyLiveStore, driver_id: str, fix: Fix, tenant: str = TENANT) -> str:
    position = a_position(fix.capture_milliseconds)
    position.location.latitude, position.location.longitude = fix.latitude, fix.longitude
    update = Update(
        publisher=Publisher(driver_id=driver_id, tenant_id=tenant, vehicle_id="car"),
        session="",
        seq=0,
        kind=POSITION,
        trip_id="",
        payload=convert.position_payload(position),
        fix=fix,
    )
    return await live.apply(live.bucket_of(driver_id), [update])


async def test_nearby_shows_no_ghosts_while_two_processes_write(stores: Stores) -> None:
    """No hit is outside of the radius by the driver's latest position, or older than the limit.

    What is compared with is the model of each driver before and after the search: a hit must be a
    position that was the driver's newest at some moment in between.
    """
    randomness = random.Random(7)
    drivers = [new_id() for _ in range(30)]
    known: dict[str, list[Fix]] = {driver: [] for driver in drivers}
    for driver in drivers:
        await begin(stores.live[0], driver)
    stop = asyncio.Event()

    async def drive(number: int) -> None:
        rounds = 0
        while not stop.is_set():
            rounds += 1
            driver = randomness.choice(drivers)
            age = randomness.choice([0, 0, 0, 20_000, 59_000, 62_000])
            fix = Fix(
                LATITUDE + randomness.uniform(-0.02, 0.02),
                LONGITUDE + randomness.uniform(-0.03, 0.03),
                now_milliseconds() - age + rounds % 7,
            )
            known[driver].append(fix)
            await report(stores.live[number], driver, fix)

    nearby = Nearby(
        views=stores.views, last_known=stores.views, fix_of=fix_of_payload, clock=SystemClock()
    )
    tasks = [asyncio.create_task(drive(number)) for number in (0, 1)]
    hits = 0
    try:
        for _ in range(300):
            radius = randomness.choice([50.0, 500.0, 1_500.0])
            before = {driver: _newest(fixes) for driver, fixes in known.items()}
            asked_at = now_milliseconds()
            place = Place(
                tenant_id=TENANT,
                latitude=LATITUDE,
                longitude=LONGITUDE,
                radius_meters=radius,
            )
            found, _ = await nearby.search(place, most=20)
            distances = [one.hit.distance_meters for one in found]
            assert distances == sorted(distances)
            assert len({one.driver.driver_id for one in found}) == len(found)
            for one in found:
                fix = fix_of_payload(one.driver.payload)
                assert fix is not None
                here = Fix(LATITUDE, LONGITUDE, 0)
                assert distance_meters(here, fix) <= radius
                assert asked_at - fix.capture_milliseconds <= OLDEST_MILLISECONDS
                # One that was sent before the search began and is newer would make this a ghost,
                # unless it was still on its way: then it is the newest but one.
                newer = [
                    later
                    for later in known[one.driver.driver_id]
                    if later.capture_milliseconds > fix.capture_milliseconds
                    and later.capture_milliseconds < before[one.driver.driver_id]
                ]
                assert len(newer) <= 2
                hits += 1
    finally:
        stop.set()
        await asyncio.gather(*tasks)
    assert hits > 100


def _newest(fixes: list[Fix]) -> int:
    return max((fix.capture_milliseconds for fix in fixes), default=0)


async def test_when_all_is_quiet_nearby_is_exactly_the_model(stores: Stores) -> None:
    randomness = random.Random(11)
    newest: dict[str, Fix] = {}
    now = now_milliseconds()
    for _ in range(40):
        driver = new_id()
        await begin(stores.live[0], driver)
        # In any order, through both: only the newest capture counts.
        fixes = [
            Fix(
                LATITUDE + randomness.uniform(-0.02, 0.02),
                LONGITUDE + randomness.uniform(-0.03, 0.03),
                now - number * 1_000,
            )
            for number in randomness.sample(range(50), 6)
        ]
        await asyncio.gather(
            *(report(stores.live[index % 2], driver, fix) for index, fix in enumerate(fixes))
        )
        newest[driver] = max(fixes, key=lambda fix: fix.capture_milliseconds)
    nearby = Nearby(
        views=stores.views, last_known=stores.views, fix_of=fix_of_payload, clock=SystemClock()
    )
    for radius in (300.0, 900.0, 2_000.0):
        place = Place(
            tenant_id=TENANT, latitude=LATITUDE, longitude=LONGITUDE, radius_meters=radius
        )
        found, _ = await nearby.search(place, most=100)
        here = Fix(LATITUDE, LONGITUDE, 0)
        inside = {key for key, fix in newest.items() if distance_meters(here, fix) <= radius}
        assert {one.driver.driver_id for one in found} == inside


async def test_the_nearest_of_many_are_exactly_those_of_the_model(stores: Stores) -> None:
    """Of more than are asked for, wherever they are: crowded, far apart, too old, on one spot."""
    randomness = random.Random(13)
    now = now_milliseconds()
    fixes: dict[str, Fix] = {}
    for number in range(300):
        # A crowd around a stand, on it, and ever fewer drivers up to 5 km away.
        spread = (0.0, 0.001, 0.004, 0.04)[number % 4]
        age = 70_000 if number % 3 == 0 and spread < 0.04 else randomness.randrange(20_000)
        fixes[new_id()] = Fix(
            LATITUDE + randomness.uniform(-spread, spread),
            LONGITUDE + randomness.uniform(-spread, spread) * 1.6,
            now - age,
        )

    for number, (driver, fix) in enumerate(fixes.items()):
        await begin(stores.live[0], driver, vehicle_class=number % 4)
        await report(stores.live[1], driver, fix)
    nearby = Nearby(
        views=stores.views, last_known=stores.views, fix_of=place_of_payload, clock=SystemClock()
    )
    for number in range(40):
        away = (0.0, 0.002, 0.02, 0.05)[number % 4]
        here = Fix(LATITUDE + randomness.uniform(-away, away), LONGITUDE, 0)
        radius, most = randomness.choice([200.0, 2_000.0, 5_000.0]), randomness.choice([1, 9, 51])
        place = Place(
            tenant_id=TENANT,
            latitude=here.latitude,
            longitude=here.longitude,
            radius_meters=radius,
        )
        found, _ = await nearby.search(place, most=most)
        fresh = (fix for fix in fixes.values() if now - fix.capture_milliseconds < 60_000)
        wanted = sorted(distance_meters(here, fix) for fix in fresh)
        wanted = [distance for distance in wanted if distance <= radius][:most]
        assert [one.hit.distance_meters for one in found] == pytest.approx(wanted, abs=0.001)


async def test_coming_and_going_is_told_once_and_numbered(stores: Stores) -> None:
    told: list[PresenceChange] = []

    def envelope(change: PresenceChange) -> bytes:
        told.append(change)
        return change.driver_id.encode()

    drivers = [new_id() for _ in range(12)]
    for driver in drivers:
        await begin(stores.live[0], driver)
        await report(stores.live[0], driver, Fix(LATITUDE, LONGITUDE, now_milliseconds()))
    leaving = drivers[0]
    await stores.live[1].set_presence(
        driver_id=leaving, tenant_id=TENANT, vehicle_id="car", online=False
    )
    await asyncio.sleep(LIVE_SECONDS + 0.3)
    sweeps = [PresenceSweep(views=stores.views).sweep() for _ in range(2)]
    swept = [one for one, _ in await asyncio.gather(*sweeps)]
    assert sum(swept) == len(drivers) - 1

    relays = [OutboxRelay(views=stores.views, envelope=envelope) for _ in range(2)]
    for bucket in range(BUCKETS):
        await asyncio.gather(*(relay.pass_on(bucket) for relay in relays))
        assert not await stores.views.outbox(bucket, most=10)

    events = []
    for bucket in range(BUCKETS):
        key = f"loc:{{{bucket}}}:domain-events"
        events += [fields[b"envelope"] for _, fields in await stores.live[0].client.xrange(key)]
    assert sorted(events) == sorted(driver.encode() for driver in drivers * 2)
    mine = {(one.number, one.online, one.explicit) for one in told if one.driver_id == leaving}
    assert mine == {(1, True, False), (2, False, True)}


async def test_alerts_are_kept_once_in_order_and_per_tenant(stores: Stores) -> None:
    views = stores.views
    assert await views.raise_alert(TENANT, digest="one", payload=b"1")
    assert not await views.raise_alert(TENANT, digest="one", payload=b"1")
    assert await views.raise_alert(TENANT, digest="two", payload=b"2")
    assert await views.raise_alert(OTHER_TENANT, digest="one", payload=b"3")

    kept = await views.newest_alerts(TENANT, most=10)

    assert [alert.payload for alert in kept] == [b"1", b"2"]
    after = await views.alerts_after(TENANT, kept[0].token, most=10)
    assert [alert.payload for alert in after] == [b"2"]
    assert await views.first_to_say(TENANT, digest="rate", seconds=10)
    assert not await views.first_to_say(TENANT, digest="rate", seconds=10)


async def test_a_fleet_changes_by_what_was_heard_since(stores: Stores) -> None:
    drivers = [new_id() for _ in range(3)]
    for driver in drivers:
        await begin(stores.live[0], driver)
        await report(stores.live[0], driver, Fix(LATITUDE, LONGITUDE, now_milliseconds() - 5_000))
    buckets = range(BUCKETS)
    # A driver heard of in the very millisecond of the answer is told again.
    await asyncio.sleep(0.01)
    first = [await stores.views.fleet_change(TENANT, one, since_milliseconds=0) for one in buckets]
    assert {row.driver_id for one in first for row in one.rows} == set(drivers)

    await report(stores.live[1], drivers[1], Fix(LATITUDE, LONGITUDE, now_milliseconds()))

    later = [
        await stores.views.fleet_change(TENANT, one, since_milliseconds=first[one].now_milliseconds)
        for one in buckets
    ]
    moved = [row.driver_id for one in later for row in one.rows]
    assert moved == [drivers[1]]
    assert sum(one.online_count for one in later) == 3
