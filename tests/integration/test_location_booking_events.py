"""What BookingService tells becomes what LocationService allows: who drives, and who follows."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import Message

from services.shared.events.streams import partition_of, stream_key
from services.shared.valkey import open_valkey
from tests.support.identity_process import refusal_of
from tests.support.location_process import LocationProcess, running_location
from tests.support.location_tokens import TokenMint
from tests.support.location_values import OTHER_TENANT, TENANT, a_trip, new_id
from tests.support.stack_fixtures import TestDatabase
from wayfare.booking.v1 import events_pb2, manifest_pb2, trip_pb2
from wayfare.event.v1.envelope_pb2 import Envelope
from wayfare.location.v1 import driver_stream_pb2
from wayfare.location.v1 import location_service_pb2 as pb

pytestmark = pytest.mark.integration

Tell = Callable[..., Awaitable[list[bytes]]]


@pytest.fixture
async def location(
    module_database: TestDatabase, valkey_url: str, short_folder: Path
) -> AsyncIterator[LocationProcess]:
    """A process of LocationService, with a trip that it has not heard of."""
    trip = replace(a_trip(), trip_id=new_id(), driver_id=new_id(), follower_ids=frozenset())
    async with running_location(
        short_folder,
        dsn=module_database.dsn_for("location"),
        valkey_url=valkey_url,
        mint=TokenMint(),
        trip=trip,
    ) as process:
        yield process


@pytest.fixture
async def tell(location: LocationProcess, valkey_url: str) -> AsyncIterator[Tell]:
    """Publish events of the trip as BookingService's relay does; return them as published."""
    valkey = open_valkey(valkey_url, cluster=False)
    versions: dict[str, int] = {}

    async def publish(
        *messages: Message, trip_id: str = "", tenant_id: str = TENANT
    ) -> list[bytes]:
        trip_id = trip_id or location.trip.trip_id
        made = []
        for message in messages:
            versions[trip_id] = versions.get(trip_id, 0) + 1
            event = Envelope(
                event_id=new_id(),
                tenant_id=tenant_id,
                aggregate_type="trip",
                aggregate_id=trip_id,
                aggregate_version=versions[trip_id],
            )
            event.occur_time.GetCurrentTime()
            event.payload.Pack(message)
            made.append(event.SerializeToString())
        await again(valkey, trip_id, made)
        return made

    yield publish
    await valkey.aclose()


async def again(valkey: object, trip_id: str, envelopes: list[bytes]) -> None:
    key = stream_key("booking", partition_of(f"trip/{trip_id}"))
    for envelope in envelopes:
        await valkey.xadd(key, {0: envelope})  # type: ignore[attr-defined]


def a_booked_trip(location: LocationProcess, **values: object) -> trip_pb2.Trip:
    trip = trip_pb2.Trip(
        trip_id=location.trip.trip_id,
        display_name="X25",
        vehicle_id=location.trip.vehicle_id,
        driver_id=location.trip.driver_id,
    )
    start = datetime.now(UTC)
    for index in range(3):
        stop = trip.stops.add(stop_id=f"s{index}", display_name=f"Stop {index}")
        stop.location.latitude, stop.location.longitude = 30.0 + index / 10, 31.0
        stop.scheduled_departure_time.FromDatetime(start + timedelta(hours=index))
    for name, value in values.items():
        setattr(trip, name, value)
    return trip


def scheduled(location: LocationProcess, **values: object) -> events_pb2.TripScheduled:
    return events_pb2.TripScheduled(trip=a_booked_trip(location, **values), capacity_count=40)


def updated(location: LocationProcess, **values: object) -> events_pb2.TripUpdated:
    return events_pb2.TripUpdated(trip=a_booked_trip(location, **values), capacity_count=40)


def joined(
    location: LocationProcess, user_id: str, expected: int = 1
) -> events_pb2.PassengerJoined:
    return events_pb2.PassengerJoined(
        trip_id=location.trip.trip_id, user_id=user_id, expected_count=expected
    )


def left(location: LocationProcess, user_id: str, expected: int = 0) -> events_pb2.PassengerLeft:
    return events_pb2.PassengerLeft(
        trip_id=location.trip.trip_id, user_id=user_id, expected_count=expected
    )


async def drive_refusal(location: LocationProcess, user_id: str) -> str:
    """Return why a driver may not publish for the trip, "" if they may."""
    hello = driver_stream_pb2.DriverHello(
        vehicle_id=location.trip.vehicle_id, trip_id=location.trip.trip_id
    )
    stream = location.open_drive(location.bearer("DRIVER", user_id))
    await stream.send(driver_stream_pb2.DriverMessage(hello=hello))
    try:
        await stream.next()
    except grpc.aio.AioRpcError as error:
        return refusal_of(error).reason
    stream.call.cancel()
    return ""


async def refusal(location: LocationProcess, user_id: str, role: str = "PASSENGER") -> str:
    """Return why the user may not see the trip's track, "" if they may."""
    request = pb.GetTripTrackRequest(trip_id=location.trip.trip_id)
    try:
        await location.call("GetTripTrack", request, location.bearer(role, user_id))
    except grpc.aio.AioRpcError as error:
        return refusal_of(error).reason
    return ""


async def until_refusal(location: LocationProcess, user_id: str, reason: str) -> None:
    async with asyncio.timeout(15):
        while await refusal(location, user_id) != reason:
            await asyncio.sleep(0.02)


async def test_who_has_a_booking_may_follow_and_who_cancelled_may_no_more(
    location: LocationProcess, tell: Tell
) -> None:
    nour, sami = new_id(), new_id()

    await tell(scheduled(location), joined(location, nour), joined(location, sami, 2))
    await until_refusal(location, nour, "")
    assert await refusal(location, sami) == ""
    assert await refusal(location, new_id()) == "NOT_A_FOLLOWER"

    await tell(left(location, nour, 1))
    await until_refusal(location, nour, "NOT_A_FOLLOWER")
    assert await refusal(location, sami) == ""


async def test_followers_see_the_trip_and_what_is_counted_on_board(
    location: LocationProcess, tell: Tell
) -> None:
    nour = new_id()
    await tell(scheduled(location), joined(location, nour, 3))
    await until_refusal(location, nour, "")
    stream = location.follow(metadata=location.bearer("PASSENGER", nour))
    first = await stream.next()
    assert first.snapshot.vehicle_id == location.trip.vehicle_id

    counts = manifest_pb2.BoardingCounts(
        trip_id=location.trip.trip_id, boarded_count=2, expected_count=3
    )
    await tell(events_pb2.BoardingCounted(counts=counts), events_pb2.BoardingCounted(counts=counts))

    update = await stream.next()
    assert (update.boarding.boarded_count, update.boarding.expected_count) == (2, 3)
    counts.boarded_count = 3
    await tell(events_pb2.BoardingCounted(counts=counts))
    # The same count again was told once.
    assert (await stream.next()).boarding.boarded_count == 3
    stream.call.cancel()


async def test_tracking_begins_when_vehicle_and_driver_are_known(
    location: LocationProcess, tell: Tell
) -> None:
    nour = new_id()
    await tell(scheduled(location, driver_id=""), joined(location, nour))
    # A later trip of the same partition shows that the first ones were taken.
    await tell(updated(location, driver_id="", vehicle_id=""))
    assert await refusal(location, nour) == "NOT_A_FOLLOWER"

    await tell(updated(location))

    await until_refusal(location, nour, "")
    assert await drive_refusal(location, location.trip.driver_id) == ""


async def test_only_the_new_driver_may_publish_when_the_crew_changes(
    location: LocationProcess, tell: Tell
) -> None:
    nour, relief = new_id(), new_id()
    await tell(scheduled(location), joined(location, nour))
    await until_refusal(location, nour, "")

    await tell(updated(location, driver_id=relief))

    async with asyncio.timeout(15):
        while await drive_refusal(location, relief):
            await asyncio.sleep(0.02)
    assert await drive_refusal(location, location.trip.driver_id) == "NOT_THE_TRIP_DRIVER"


async def test_a_cancelled_trip_ends_its_followers_streams(
    location: LocationProcess, tell: Tell
) -> None:
    nour = new_id()
    await tell(scheduled(location), joined(location, nour))
    await until_refusal(location, nour, "")
    stream = location.follow(metadata=location.bearer("PASSENGER", nour))
    assert (await stream.next()).HasField("snapshot")

    await tell(events_pb2.TripCancelled(trip_id=location.trip.trip_id, cancel_reason="snow"))

    await stream.rest()
    # What comes late changes nothing any more.
    await tell(updated(location), left(location, nour))
    assert await drive_refusal(location, location.trip.driver_id) == "TRIP_NOT_TRACKED"


async def test_events_that_come_twice_take_effect_once(
    location: LocationProcess, tell: Tell, valkey_url: str
) -> None:
    nour = new_id()
    early = await tell(scheduled(location), joined(location, nour))
    await until_refusal(location, nour, "")
    await tell(left(location, nour))
    await until_refusal(location, nour, "NOT_A_FOLLOWER")

    valkey = open_valkey(valkey_url, cluster=False)
    await again(valkey, location.trip.trip_id, early)
    await valkey.aclose()
    sami = new_id()
    await tell(joined(location, sami))

    await until_refusal(location, sami, "")
    assert await refusal(location, nour) == "NOT_A_FOLLOWER"


async def test_another_tenants_trip_stays_its_own(location: LocationProcess, tell: Tell) -> None:
    nour, stranger = new_id(), new_id()
    await tell(scheduled(location), joined(location, nour))
    await until_refusal(location, nour, "")

    # Told under another tenant, by mistake or malice: that fails, and waits for people.
    await tell(joined(location, stranger), tenant_id=OTHER_TENANT)
    other = new_id()
    await tell(joined(location, other), trip_id=other)

    assert await refusal(location, stranger) == "NOT_A_FOLLOWER"
    assert await refusal(location, nour) == ""
