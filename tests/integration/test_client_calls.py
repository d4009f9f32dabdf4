"""Unary calls of the Python client against a scripted server on a real socket."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from tests.support.client_refusal import Refusal
from tests.support.client_server import (
    QUICK,
    TENANT_ID,
    TRIP_ID,
    ScriptedServer,
    scripted_server,
)
from tests.support.waiting import until
from wayfare.location.v1 import location_service_pb2, trip_pb2
from wayfare_client import MemorySessionStore, TripTracking, WayfareClient, WayfareError, reasons

UNAVAILABLE = Refusal(code=grpc.StatusCode.UNAVAILABLE)
ASK = location_service_pb2.GetVehiclePositionRequest(vehicle_id="bus-14")
SET = location_service_pb2.SetPresenceRequest(vehicle_id="bus-14", online=True)


class FakeClock:
    """Tells the time that a test sets."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.start = datetime.now(UTC)

    def now(self) -> datetime:
        return self.start + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as running:
        yield running


def accept_only_the_newest_token(server: ScriptedServer) -> None:
    server.identity.on_session = lambda token: setattr(server.location, "valid_token", token)


async def log_in(client: WayfareClient) -> None:
    await client.log_in("+441514960001", "correct horse")


async def test_calls_carry_the_token_of_the_log_in(server: ScriptedServer) -> None:
    accept_only_the_newest_token(server)
    async with server.client(metadata=[("accept-language", "en-GB")]) as client:
        await log_in(client)
        position = await client.location.GetVehiclePosition(ASK)

    assert position.vehicle_id == "bus-14"
    assert server.identity.log_ins[0].tenant_id == TENANT_ID
    assert server.location.unary_calls[0][2]["accept-language"] == "en-GB"


async def test_an_api_key_is_sent_when_nobody_is_logged_in(server: ScriptedServer) -> None:
    async with server.client(api_key="wf_key_secret") as client:
        await client.location.GetVehiclePosition(ASK)

    assert server.location.unary_calls[0][2]["x-api-key"] == "wf_key_secret"


async def test_the_deadline_is_the_contract_s(server: ScriptedServer) -> None:
    async with server.client() as client:
        await client.location.GetVehiclePosition(ASK)
        await client.location.GetVehiclePosition(ASK, timeout=0.5)

    default, shorter = (call[3] or 0.0 for call in server.location.unary_calls)
    assert 1.0 < default <= 2.1 + QUICK.network_seconds
    assert shorter <= 0.6


async def test_a_read_is_repeated_while_the_server_is_away(server: ScriptedServer) -> None:
    server.location.refusals.extend([UNAVAILABLE, UNAVAILABLE])
    async with server.client() as client:
        position = await client.location.GetVehiclePosition(ASK)

    assert position.vehicle_id == "bus-14"
    assert len(server.location.unary_calls) == 3


async def test_a_repeated_write_is_the_same_request(server: ScriptedServer) -> None:
    server.location.refusals.append(UNAVAILABLE)
    async with server.client() as client:
        await client.location.SetPresence(SET)

    first, second = (call[1] for call in server.location.unary_calls)
    assert first.request_id
    assert first == second


async def test_attempts_are_bounded(server: ScriptedServer) -> None:
    server.location.refusals.extend([UNAVAILABLE] * 10)
    async with server.client() as client:
        with pytest.raises(WayfareError) as caught:
            await client.location.GetVehiclePosition(ASK)

    assert caught.value.code is grpc.StatusCode.UNAVAILABLE
    assert len(server.location.unary_calls) == QUICK.max_attempts


async def test_a_wait_longer_than_the_deadline_is_not_begun(server: ScriptedServer) -> None:
    server.location.refusals.append(
        Refusal(
            code=grpc.StatusCode.UNAVAILABLE, reason="SERVER_DRAINING", retry_after_seconds=60.0
        )
    )
    async with server.client() as client:
        with pytest.raises(reasons.ServerDrainingError) as caught:
            await client.location.GetVehiclePosition(ASK)

    assert caught.value.retry_after_seconds == 60.0


async def test_a_refusal_is_not_repeated(server: ScriptedServer) -> None:
    server.location.refusals.append(
        Refusal(
            code=grpc.StatusCode.INVALID_ARGUMENT,
            reason="REQUEST_INVALID",
            fields={"vehicle_id": "does not match"},
        )
    )
    async with server.client() as client:
        with pytest.raises(reasons.RequestInvalidError) as caught:
            await client.location.GetVehiclePosition(ASK)

    assert caught.value.field_violations[0].field == "vehicle_id"
    assert len(server.location.unary_calls) == 1


async def test_an_ended_token_is_refreshed_once_however_many_calls_meet_it(
    server: ScriptedServer,
) -> None:
    accept_only_the_newest_token(server)
    async with server.client() as client:
        await log_in(client)
        server.location.valid_token = "another"
        server.identity.refresh_gate = asyncio.Event()
        calls = [asyncio.ensure_future(client.location.GetVehiclePosition(ASK)) for _ in range(20)]
        await until(lambda: len(server.location.unary_calls) == 20)
        server.identity.refresh_gate.set()
        answers = await asyncio.gather(*calls)

    assert len(answers) == 20
    assert len(server.identity.refreshes) == 1


async def test_a_call_that_is_cancelled_does_not_stop_the_refresh_of_the_others(
    server: ScriptedServer,
) -> None:
    accept_only_the_newest_token(server)
    async with server.client() as client:
        await log_in(client)
        server.location.valid_token = "another"
        server.identity.refresh_gate = asyncio.Event()
        first = asyncio.ensure_future(client.location.GetVehiclePosition(ASK))
        await until(lambda: server.identity.refreshes)
        second = asyncio.ensure_future(client.location.GetVehiclePosition(ASK))
        first.cancel()
        server.identity.refresh_gate.set()

        assert (await second).vehicle_id == "bus-14"
        assert len(server.identity.refreshes) == 1


async def test_a_token_is_refreshed_before_it_ends(server: ScriptedServer) -> None:
    accept_only_the_newest_token(server)
    clock = FakeClock()
    async with server.client(clock=clock) as client:
        await log_in(client)
        clock.seconds = 900 - QUICK.refresh_margin_seconds - 1
        await client.location.GetVehiclePosition(ASK)
        refreshed_early = len(server.identity.refreshes)
        clock.seconds += 2
        await client.location.GetVehiclePosition(ASK)

    assert (refreshed_early, len(server.identity.refreshes)) == (0, 1)


async def test_a_token_that_is_good_yet_is_used_when_it_cannot_be_refreshed(
    server: ScriptedServer,
) -> None:
    accept_only_the_newest_token(server)
    clock = FakeClock()
    async with server.client(clock=clock) as client:
        await log_in(client)
        server.identity.refusals.extend([UNAVAILABLE] * QUICK.max_attempts)
        clock.seconds = 890

        assert (await client.location.GetVehiclePosition(ASK)).vehicle_id == "bus-14"


async def test_a_refresh_whose_answer_was_lost_is_repeated_under_the_same_id(
    server: ScriptedServer,
) -> None:
    async with server.client() as client:
        await log_in(client)
        server.identity.refusals.extend([UNAVAILABLE] * QUICK.max_attempts)
        with pytest.raises(WayfareError):
            await client.refresh()
        await client.refresh()
        await client.refresh()

    ids = [request.request_id for request in server.identity.refreshes]
    assert len(set(ids[:-1])) == 1
    assert ids[-1] != ids[0]


async def test_a_revoked_session_says_so(server: ScriptedServer) -> None:
    async with server.client() as client:
        await log_in(client)
        server.location.valid_token = "another"
        server.identity.refusals.append(
            Refusal(code=grpc.StatusCode.UNAUTHENTICATED, reason="SESSION_REVOKED")
        )
        with pytest.raises(reasons.SessionRevokedError):
            await client.location.GetVehiclePosition(ASK)


async def test_a_kept_session_needs_no_new_log_in(server: ScriptedServer) -> None:
    accept_only_the_newest_token(server)
    store = MemorySessionStore()
    async with server.client(store=store) as client:
        await log_in(client)
    async with server.client(store=store) as client:
        await client.location.GetVehiclePosition(ASK)
        await client.refresh()

    assert len(server.identity.log_ins) == 1
    kept = store.load()
    assert kept is not None
    assert kept.access_token == server.location.valid_token


async def test_tracking_is_started_over_a_given_channel(server: ScriptedServer) -> None:
    server.location.refusals.append(UNAVAILABLE)
    async with grpc.aio.insecure_channel(server.address) as channel:
        trip = trip_pb2.TrackedTrip(trip_id=TRIP_ID, tenant_id=TENANT_ID)
        started = await TripTracking(channel, QUICK).start(trip)

    assert started.trip_id == TRIP_ID
    assert len(server.location.unary_calls) == 2
    assert "authorization" not in server.location.unary_calls[0][2]
