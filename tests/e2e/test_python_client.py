"""The Python client against the whole stack: accounts, driving, following, tokens that end."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.stack.embedded import EmbeddedStack, StackOptions
from services.stack.environments import DEMO_TENANT_ID
from tests.support.e2e_edge import Edge
from tests.support.e2e_people import Account, register
from tests.support.waiting import until
from wayfare.identity.v1 import identity_service_pb2
from wayfare.location.v1 import trip_pb2, trip_update_pb2
from wayfare.policy.v1 import policy_pb2
from wayfare_client import MemorySessionStore, WayfareClient, reasons

pytestmark = pytest.mark.e2e

STARTED, ENDED = trip_pb2.TRIP_STATUS_STARTED, trip_pb2.TRIP_STATUS_ENDED


async def test_a_driver_drives_and_a_passenger_follows_with_real_accounts(edge: Edge) -> None:
    driver, passenger = await register(edge, "DRIVER"), await register(edge, "PASSENGER")
    trip = await edge.track_for(driver.user_id, passenger_id=passenger.user_id)
    seen: list[trip_update_pb2.TripUpdate] = []
    async with (
        _client(edge, driver) as driving,
        _client(edge, passenger) as watching,
        watching.follow_trip(trip.trip_id) as updates,
    ):
        seen.append(await anext(updates))
        async with driving.drive(trip.vehicle_id, trip.trip_id) as bus:
            await bus.send_status(STARTED)
            await bus.send_position(53.4084, -2.9916, speed_meters_per_second=8.3)
            await bus.send_boarding(12)
            await bus.send_status(ENDED)
            await bus.wait_acknowledged(20)
            assert bus.statistics.accepted_count == 4
        seen += [update async for update in updates]

    kinds = [update.WhichOneof("update") for update in seen]
    assert kinds[0] == "snapshot"
    assert [kind for kind in kinds[1:] if kind != "position"] == ["status", "boarding", "status"]
    assert kinds.count("position") == 1


async def test_it_logs_in_and_out(edge: Edge) -> None:
    account = await register(edge, "PASSENGER")
    async with WayfareClient(edge.stack.edge_address, tenant_id=DEMO_TENANT_ID) as client:
        await client.log_in(account.person.phone, account.person.password)
        me = await client.identity.GetMe(identity_service_pb2.GetMeRequest())
        assert me.user_id == account.user_id

        refresh_token = client.session.refresh_token if client.session else ""
        await client.log_out()
        with pytest.raises(reasons.SessionRevokedError):
            await client.identity.RefreshSession(
                identity_service_pb2.RefreshSessionRequest(refresh_token=refresh_token)
            )


async def test_a_refusal_is_an_error_with_a_name(edge: Edge) -> None:
    trip, other = await edge.track(), await edge.track()
    async with edge.client(other.passenger_token) as client, client.follow_trip(trip.trip_id) as f:
        with pytest.raises(reasons.NotAFollowerError) as refused:
            await anext(f)

    assert refused.value.metadata == {"trip_id": trip.trip_id}


async def test_an_expired_token_is_refreshed_before_a_call(edge: Edge) -> None:
    account = await register(edge, "PASSENGER")
    async with _client(edge, _with_token_for(edge, account, seconds=-10)) as client:
        me = await client.identity.GetMe(identity_service_pb2.GetMeRequest())

        assert me.user_id == account.user_id


@pytest.mark.slow
async def test_streams_outlive_the_token_that_opened_them(short_folder: Path) -> None:
    async with _stack_with_short_heartbeats(short_folder) as edge:
        driver, passenger = await register(edge, "DRIVER"), await register(edge, "PASSENGER")
        trip = await edge.track_for(driver.user_id, passenger_id=passenger.user_id)
        async with (
            _client(edge, _with_token_for(edge, driver, seconds=4)) as driving,
            _client(edge, _with_token_for(edge, passenger, seconds=4)) as watching,
            driving.drive(trip.vehicle_id, trip.trip_id) as bus,
            watching.follow_trip(trip.trip_id) as updates,
        ):
            first = [
                client.session.access_token for client in (driving, watching) if client.session
            ]
            following = asyncio.create_task(_statuses(updates))
            await until(lambda: updates.resume_token)
            await bus.send_status(STARTED)
            await until(lambda: bus.statistics.reconnect_count and updates.reconnect_count)
            await bus.send_status(ENDED)

            assert await asyncio.wait_for(following, 10) == [STARTED, ENDED]
            assert updates.gap_count == 0
            second = [
                client.session.access_token for client in (driving, watching) if client.session
            ]
            assert not set(first) & set(second)


async def _statuses(updates: AsyncIterator[trip_update_pb2.TripUpdate]) -> list[int]:
    return [update.status.status async for update in updates if update.HasField("status")]


@asynccontextmanager
async def _stack_with_short_heartbeats(folder: Path) -> AsyncIterator[Edge]:
    # Servers ask for a new stream two heartbeats before the token's end.
    options = StackOptions(settings={"location": {"WAYFARE_LOCATION_HEARTBEAT_SECONDS": "1"}})
    async with EmbeddedStack(home=Path(tempfile.mkdtemp(dir=folder)), options=options) as stack:
        yield Edge(stack)


def _client(edge: Edge, account: Account) -> WayfareClient:
    store = MemorySessionStore()
    store.save(account.session)
    return WayfareClient(edge.stack.edge_address, tenant_id=DEMO_TENANT_ID, store=store)


def _with_token_for(edge: Edge, account: Account, *, seconds: float) -> Account:
    """Give a session an access token that ends so soon, as if it had been issued long ago."""
    end = datetime.now(UTC) + timedelta(seconds=seconds)
    user = account.session.user
    role = policy_pb2.Role.Name(user.role).removeprefix("ROLE_")
    session = type(account.session)()
    session.CopyFrom(account.session)
    session.access_token = edge.mint.token(
        role, sub=user.user_id, exp=int(end.timestamp()), iat=int(end.timestamp()) - 900
    )
    session.access_token_expire_time.FromDatetime(end)
    return Account(person=account.person, session=session)
