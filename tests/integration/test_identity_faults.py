"""IdentityService while what it needs is away, and as a process of its own."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from services.stack.migrations import prepare_database, role_of
from services.stack.postgres import PostgresServer
from services.stack.valkey import ValkeyServer
from tests.support.identity_process import (
    ADMIN_PASSWORD,
    ADMIN_PHONE,
    PASSWORD,
    TENANT,
    IdentityProcess,
    health_of,
    new_phone,
    running_identity,
    settings_for,
    sign_up_request,
    until_serving,
)
from tests.support.stack_fixtures import TestDatabase
from wayfare.identity.v1 import identity_service_pb2 as pb
from wayfare.identity.v1.identity_service_pb2_grpc import IdentityServiceStub

pytestmark = pytest.mark.integration


@pytest.fixture
async def own_postgres(identity_folder: Path) -> AsyncIterator[PostgresServer]:
    """Start a PostgreSQL that a test may stop."""
    server = PostgresServer(
        data_folder=identity_folder / "data",
        socket_folder=identity_folder / "run",
        secrets_folder=identity_folder / "secrets",
        log_path=identity_folder / "postgres.log",
        durable=False,
    )
    await server.start()
    await prepare_database(server)
    yield server
    await server.stop()


@pytest.fixture
async def own_valkey(identity_folder: Path) -> AsyncIterator[ValkeyServer]:
    """Start a Valkey that a test may stop."""
    server = ValkeyServer(
        data_folder=identity_folder / "valkey",
        socket_path=identity_folder / "valkey.sock",
        log_path=identity_folder / "valkey.log",
    )
    await server.start()
    yield server
    await server.stop()


async def until_health(identity: IdentityProcess, status: int) -> None:
    async with asyncio.timeout(15):
        while await health_of(identity.channel) != status:
            await asyncio.sleep(0.05)


async def test_without_postgresql_log_in_says_so_and_comes_back_by_itself(
    own_postgres: PostgresServer, valkey_server: ValkeyServer, identity_folder: Path
) -> None:
    settings = settings_for(
        identity_folder,
        dsn=own_postgres.dsn_for(role_of("identity")),
        valkey_url=valkey_server.url,
    )
    log_in = pb.LogInRequest(tenant_id=TENANT, phone=ADMIN_PHONE, password=ADMIN_PASSWORD)
    async with running_identity(settings) as identity:
        await own_postgres.stop()

        refusal = await identity.client().refused("LogIn", log_in)

        assert refusal.code is grpc.StatusCode.UNAVAILABLE
        assert refusal.reason == "DEPENDENCY_UNAVAILABLE"
        assert refusal.metadata == {"dependency": "postgresql"}
        assert refusal.retry_seconds
        await until_health(identity, health_pb2.HealthCheckResponse.NOT_SERVING)
        jwks = await identity.client().call("GetJwks", pb.GetJwksRequest())
        assert jwks.data
        await own_postgres.start()
        await until_health(identity, health_pb2.HealthCheckResponse.SERVING)
        await identity.client().call("LogIn", log_in)


async def test_without_valkey_people_sign_up_and_log_in(
    module_database: TestDatabase, own_valkey: ValkeyServer, identity_folder: Path
) -> None:
    settings = settings_for(
        identity_folder, dsn=module_database.dsn_for("identity"), valkey_url=own_valkey.url
    )
    async with running_identity(settings) as identity:
        await own_valkey.stop()
        phone = new_phone()

        await identity.client().sign_up(phone)
        await identity.client().log_in(phone)

        limited = identity.client()
        request = pb.LogInRequest(tenant_id=TENANT, phone=phone, password=PASSWORD)
        for _ in range(10):
            await limited.call("LogIn", request)
        assert (await limited.refused("LogIn", request)).reason == "RATE_LIMITED"
        await own_valkey.start()


async def test_more_sign_ups_than_can_be_hashed_are_told_to_come_again(
    module_database: TestDatabase, valkey_server: ValkeyServer, identity_folder: Path
) -> None:
    settings = settings_for(
        identity_folder,
        dsn=module_database.dsn_for("identity"),
        valkey_url=valkey_server.url,
        identity_argon2_threads=1,
        identity_argon2_waiting_max=0,
        identity_argon2_passes=50,
    )
    async with running_identity(settings) as identity:

        async def sign_up() -> str:
            try:
                await identity.client().sign_up()
            except grpc.aio.AioRpcError as error:
                return error.code().name
            return "OK"

        codes = await asyncio.gather(*(sign_up() for _ in range(8)))

    assert set(codes) == {"OK", "RESOURCE_EXHAUSTED"}


async def test_a_process_serves_until_it_is_told_to_stop_and_logs_no_phone(
    module_database: TestDatabase, valkey_server: ValkeyServer, identity_folder: Path
) -> None:
    settings = settings_for(
        identity_folder, dsn=module_database.dsn_for("identity"), valkey_url=valkey_server.url
    )
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(sys.path),
        "WAYFARE_INSTANCE": "identity-test",
        "WAYFARE_LISTEN": settings.listen,
        "WAYFARE_DATABASE_URL": settings.database_url.get_secret_value(),
        "WAYFARE_VALKEY_URL": settings.valkey_url.get_secret_value(),
        "WAYFARE_JWKS_FILE": str(settings.jwks_file),
        "WAYFARE_DRAIN_SECONDS": "1",
        "WAYFARE_IDENTITY_SIGNING_KEY_DIR": str(settings.identity_signing_key_dir),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.identity",
        env=environment,
        stderr=asyncio.subprocess.PIPE,
    )
    async with grpc.aio.insecure_channel(settings.listen) as channel:
        await until_serving(channel, seconds=30)
        stub = IdentityServiceStub(channel)
        request = sign_up_request(tenant_id="0198c000-0000-7000-8000-00000000dead")
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.SignUp(request, timeout=10)

    process.send_signal(signal.SIGTERM)
    _, log = await asyncio.wait_for(process.communicate(), 15)

    assert process.returncode == 0
    assert b'"reason": "TENANT_UNKNOWN"' in log
    assert request.phone[1:].encode() not in log
    assert request.password.encode() not in log
