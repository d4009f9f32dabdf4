"""BookingService in processes of their own, which tests may kill."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.stack.certificates import write_certificates
from services.stack.ports import choose_port
from tests.support.booking_process import PASSENGER_KEYS, TICKET_KEY_SECRET
from tests.support.location_tokens import TokenMint
from tests.support.location_values import new_id


class BookingProgram:
    """Is a process of the service, and the channel to it."""

    def __init__(self, process: asyncio.subprocess.Process, address: str) -> None:
        self.process = process
        self.channel = grpc.aio.insecure_channel(
            address, options=[("grpc.use_local_subchannel_pool", 1)]
        )

    async def serves(self) -> None:
        """Wait until it serves."""
        stub: Any = health_pb2_grpc.HealthStub(self.channel)
        request = health_pb2.HealthCheckRequest()
        async with asyncio.timeout(20):
            while True:
                try:
                    answer = await stub.Check(request, wait_for_ready=True, timeout=5)
                except grpc.aio.AioRpcError:
                    continue
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
                await asyncio.sleep(0.05)

    async def kill(self) -> None:
        """Kill it without a warning."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def booking_program(
    folder: Path, *, dsn: str, valkey_url: str, mint: TokenMint, **values: str
) -> AsyncIterator[BookingProgram]:
    """Run a process until the block ends; it serves when the block begins."""
    home = folder / new_id()[-8:]
    home.mkdir()
    mint.write_jwks(home / "jwks.json")
    write_certificates(home, ["booking"])
    address = f"127.0.0.1:{choose_port(None, chosen=set()).port}"
    environment = {
        **os.environ,
        "WAYFARE_LISTEN": address,
        "WAYFARE_DATABASE_URL": dsn,
        "WAYFARE_VALKEY_URL": valkey_url,
        "WAYFARE_JWKS_FILE": str(home / "jwks.json"),
        "WAYFARE_MESH_CERTIFICATE_DIR": str(home),
        "WAYFARE_DRAIN_SECONDS": "2",
        "WAYFARE_BOOKING_TICKET_KEY_SECRETS": TICKET_KEY_SECRET,
        "WAYFARE_BOOKING_PASSENGER_KEYS": PASSENGER_KEYS,
        **{f"WAYFARE_{name.upper()}": value for name, value in values.items()},
    }
    with (home / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.booking", env=environment, stdout=log, stderr=log
        )
    program = BookingProgram(process, address)
    try:
        await program.serves()
        yield program
    finally:
        await program.channel.close()
        await program.kill()
