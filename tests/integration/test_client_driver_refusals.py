"""What ends a driver session of the Python client, and what it waits out."""

from collections.abc import AsyncIterator
from dataclasses import replace

import grpc
import pytest

from tests.support.client_refusal import Refusal
from tests.support.client_server import QUICK, TRIP_ID, ScriptedServer, scripted_server
from tests.support.waiting import until
from wayfare.location.v1 import driver_stream_pb2, trip_pb2
from wayfare_client import DriverSession, SessionClosedError, WayfareError, reasons

Code = grpc.StatusCode
FINAL = [
    (Refusal(code=Code.PERMISSION_DENIED, reason="NOT_THE_TRIP_DRIVER"), "NotTheTripDriverError"),
    (Refusal(code=Code.PERMISSION_DENIED, reason="ACCOUNT_PENDING"), "AccountPendingError"),
    (Refusal(code=Code.FAILED_PRECONDITION, reason="TRIP_NOT_TRACKED"), "TripNotTrackedError"),
    (Refusal(code=Code.INVALID_ARGUMENT, reason="REQUEST_INVALID"), "RequestInvalidError"),
    (Refusal(code=Code.UNAUTHENTICATED, reason="TOKEN_INVALID"), "TokenInvalidError"),
    (Refusal(code=Code.ABORTED, reason="SESSION_SUPERSEDED"), "SessionSupersededError"),
]
PASSING = [
    Refusal(code=Code.UNAVAILABLE),
    Refusal(code=Code.INTERNAL),
    Refusal(code=Code.CANCELLED),
    Refusal(code=Code.RESOURCE_EXHAUSTED, reason="OVERLOADED", retry_after_seconds=0.01),
    Refusal(code=Code.DEADLINE_EXCEEDED, reason="HELLO_TIMEOUT"),
    None,
]


def name_of(case: object) -> str:
    return f"{case.code.name}-{case.reason}" if isinstance(case, Refusal) else str(case)


every_final_refusal = pytest.mark.parametrize(("refusal", "error_name"), FINAL, ids=name_of)


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as running:
        yield running


async def send_until_told(session: DriverSession, server: ScriptedServer, end: Refusal) -> None:
    server.location.driver.end(end)
    await until(lambda: not session.connected)
    await session.send_boarding(3)


async def supersede(session: DriverSession, server: ScriptedServer) -> None:
    server.location.driver.end(Refusal(code=Code.ABORTED, reason="SESSION_SUPERSEDED"))
    await until(lambda: not session.connected)


@every_final_refusal
async def test_a_session_that_cannot_begin_says_why(
    server: ScriptedServer, refusal: Refusal, error_name: str
) -> None:
    server.location.refusals.append(refusal)
    async with server.client() as client:
        with pytest.raises(getattr(reasons, error_name)):
            async with client.drive("bus-14", TRIP_ID):
                pytest.fail("the session was entered")

    assert server.location.opened_count == 1


@every_final_refusal
async def test_a_session_that_ends_for_good_tells_whoever_sends_next(
    server: ScriptedServer, refusal: Refusal, error_name: str
) -> None:
    async with server.client() as client:
        with pytest.raises(getattr(reasons, error_name)):
            async with client.drive("bus-14", TRIP_ID) as session:
                await send_until_told(session, server, refusal)

    assert server.location.opened_count == 1


async def test_a_session_that_ended_unnoticed_says_so_when_it_is_left(
    server: ScriptedServer,
) -> None:
    async with server.client() as client:
        with pytest.raises(reasons.SessionSupersededError):
            async with client.drive("bus-14", TRIP_ID) as session:
                await supersede(session, server)


@pytest.mark.parametrize("end", PASSING, ids=name_of)
async def test_what_passes_is_waited_out(server: ScriptedServer, end: Refusal | None) -> None:
    async with server.client() as client, client.drive("bus-14", TRIP_ID) as session:
        await session.send_status(trip_pb2.TRIP_STATUS_STARTED)
        server.location.driver.end(end)
        await until(lambda: len(server.location.drivers) == 2)
        await session.send_status(trip_pb2.TRIP_STATUS_ENDED)
        await session.wait_acknowledged(10)

        assert session.statistics.accepted_count == 2
        assert session.statistics.reconnect_count == 1


async def test_an_ended_token_is_refreshed_and_the_session_goes_on(
    server: ScriptedServer,
) -> None:
    server.identity.on_session = lambda token: setattr(server.location, "valid_token", token)
    async with server.client() as client:
        client.tokens.use(server.identity.make_session())
        server.location.valid_token = "another"
        async with client.drive("bus-14", TRIP_ID) as session:
            await session.send_boarding(1)
            await session.wait_acknowledged(10)

    assert len(server.identity.refreshes) == 1
    assert server.location.driver.token == server.location.valid_token


async def test_a_drain_because_of_the_token_brings_a_stream_with_a_new_one(
    server: ScriptedServer,
) -> None:
    async with server.client() as client:
        client.tokens.use(server.identity.make_session())
        async with client.drive("bus-14", TRIP_ID) as session:
            old = server.location.driver
            await old.send(drain=driver_stream_pb2.DriverDrain(reason="TOKEN_EXPIRED"))
            await until(lambda: len(server.location.drivers) == 2)
            await session.send_boarding(1)
            await session.wait_acknowledged(10)

    assert server.location.driver.token not in {"", old.token}
    assert len(server.identity.refreshes) == 1


async def test_an_ended_token_without_a_session_to_refresh_ends_it(
    server: ScriptedServer,
) -> None:
    server.location.valid_token = "another"
    async with server.client() as client:
        client.tokens.use_fixed("given")
        with pytest.raises(reasons.TokenExpiredError):
            async with client.drive("bus-14", TRIP_ID):
                pytest.fail("the session was entered")


async def test_a_revoked_log_in_ends_it(server: ScriptedServer) -> None:
    async with server.client() as client:
        client.tokens.use(server.identity.make_session())
        server.location.valid_token = "another"
        server.identity.refusals.append(
            Refusal(code=Code.UNAUTHENTICATED, reason="SESSION_REVOKED")
        )
        with pytest.raises(reasons.SessionRevokedError):
            async with client.drive("bus-14", TRIP_ID):
                pytest.fail("the session was entered")


async def test_what_the_server_asks_to_wait_is_waited(server: ScriptedServer) -> None:
    settings = replace(QUICK, connect_seconds=0.05)
    server.location.refusals.append(
        Refusal(code=Code.RESOURCE_EXHAUSTED, reason="OVERLOADED", retry_after_seconds=60.0)
    )
    async with server.client(settings) as client, client.drive("bus-14") as session:
        connected = session.connected

    assert not connected
    assert server.location.opened_count == 1


async def test_a_session_is_not_used_outside_its_context(server: ScriptedServer) -> None:
    async with server.client() as client:
        session = client.drive("bus-14")
        with pytest.raises(SessionClosedError):
            await session.send_boarding(1)
        async with session:
            pass
        with pytest.raises(SessionClosedError):
            await session.send_boarding(1)


async def test_the_error_of_the_body_is_not_hidden(server: ScriptedServer) -> None:
    async with server.client() as client:
        with pytest.raises(ZeroDivisionError):
            async with client.drive("bus-14") as session:
                await session.send_boarding(1 // 0)


def test_errors_of_sessions_are_wayfare_errors() -> None:
    assert issubclass(reasons.SessionSupersededError, WayfareError)
