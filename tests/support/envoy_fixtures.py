"""A real Envoy in front of stub services: what the edge and the mesh do, without a database.

tests/conftest.py loads this file as a plugin.
"""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.stack.certificates import write_certificates
from services.stack.ports import choose_port
from services.stack.programs import envoy_program
from tests.support.stub_services import DESCRIPTOR_SET, StubService
from wayfare_envoy.policies import read_methods
from wayfare_envoy.render import render_bootstrap
from wayfare_envoy.topology import Endpoint, Limits, Topology

BROWSER_ORIGIN = "https://app.wayfare.example"
# One process of every service of the contract, two of the one whose streams move.
_PROCESSES = {
    method.service: [f"{method.service}-1"] for method in read_methods(DESCRIPTOR_SET)
} | {"location": ["location-1", "location-2"]}


class TokenSigner:
    """Signs access tokens as IdentityService does, and publishes its key."""

    def __init__(self, key_id: str = "test") -> None:
        """Make a key of its own."""
        self._key = Ed25519PrivateKey.generate()
        self._key_id = key_id

    def jwk(self) -> dict[str, str]:
        """Return the public key."""
        raw = self._key.public_key().public_bytes(
            serialization.Encoding.Raw, serialization.PublicFormat.Raw
        )
        x = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
        return {
            "kty": "OKP",
            "crv": "Ed25519",
            "alg": "EdDSA",
            "use": "sig",
            "kid": self._key_id,
            "x": x,
        }

    def sign(self, *, seconds: float = 900, **claims: Any) -> str:
        """Return a token that ends in `seconds` from now."""
        return jwt.encode(
            self.claims(seconds=seconds, **claims),
            self._key,
            algorithm="EdDSA",
            headers={"kid": self._key_id},
        )

    def claims(self, *, seconds: float = 900, **changed: Any) -> dict[str, Any]:
        """Return the claims of a passenger's token."""
        now = int(time.time())
        return {
            "iss": "wayfare-identity",
            "aud": "wayfare",
            "sub": "0198c000-0000-7000-8000-00000000000a",
            "role": "PASSENGER",
            "iat": now,
            "exp": now + int(seconds),
            **changed,
        }


@dataclass(kw_only=True)
class EnvoyMesh:
    """One Envoy, the stubs behind it and the keys to it."""

    topology: Topology
    signer: TokenSigner
    stubs: Mapping[str, StubService]
    log: Path
    process: asyncio.subprocess.Process | None = field(default=None)

    @property
    def url(self) -> str:
        """Return the URL of the edge."""
        return f"http://{self.topology.edge_address}"

    @property
    def access_log(self) -> Path:
        """Return the file of the access log."""
        assert self.topology.access_log is not None
        return self.topology.access_log

    def edge_channel(self) -> grpc.aio.Channel:
        """Return a channel of its own to the edge."""
        return grpc.aio.insecure_channel(
            self.topology.edge_address, options=[("grpc.use_local_subchannel_pool", 1)]
        )

    def mesh_channel(self, service: str | None, *, folder: Path | None = None) -> grpc.aio.Channel:
        """Return a channel to the mesh with a service's certificate, or with none."""
        trusted = (self.topology.certificate_dir / "ca.pem").read_bytes()
        own = folder or self.topology.certificate_dir
        credentials = grpc.ssl_channel_credentials(
            root_certificates=trusted,
            private_key=(own / f"{service}.key").read_bytes() if service else None,
            certificate_chain=(own / f"{service}.pem").read_bytes() if service else None,
        )
        options = [("grpc.use_local_subchannel_pool", 1)]
        return grpc.aio.secure_channel(self.topology.mesh_address, credentials, options=options)

    async def healthy(self) -> set[str]:
        """Return the processes that may get calls."""
        transport = httpx.AsyncHTTPTransport(uds=self.topology.admin_address.removeprefix("unix:"))
        async with httpx.AsyncClient(transport=transport, trust_env=False) as client:
            try:
                answer = await client.get("http://admin/clusters?format=json")
            except httpx.TransportError:
                return set()
        by_socket = {stub.address.removeprefix("unix:"): stub for stub in self.stubs.values()}
        return {
            by_socket[host["address"]["pipe"]["path"]].instance
            for cluster in answer.json().get("cluster_statuses", [])
            for host in cluster.get("host_statuses", [])
            if cluster["name"] in self.topology.services
            and not set(host["health_status"]) - {"eds_health_status"}
        }

    async def wait_healthy(self, *, without: Sequence[str] = ()) -> None:
        """Wait until all processes but these may get calls, and these may not."""
        async with asyncio.timeout(15):
            while await self.healthy() != set(self.stubs) - set(without):
                await asyncio.sleep(0.02)

    async def start(self) -> None:
        """Start Envoy and wait until it finds every stub healthy."""
        config = self.log.with_name("envoy.json")
        config.write_text(json.dumps(render_bootstrap(self.topology)))
        with self.log.open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(envoy_program(), "--config-path", str(config), "--concurrency", "1"),
                *("--log-level", "warning", "--disable-hot-restart"),
                *("--file-flush-interval-msec", "20"),
                stdout=log,
                stderr=log,
            )
        await self.wait_healthy()

    async def stop(self) -> None:
        """Stop Envoy."""
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
            await asyncio.wait_for(self.process.wait(), timeout=10)


@asynccontextmanager
async def running_envoy(folder: Path, *, limits: Limits | None = None) -> AsyncIterator[EnvoyMesh]:
    """Run an Envoy of one's own in a folder with a short path, with stubs for every process."""
    folder.mkdir(exist_ok=True)
    callers = {name for one in read_methods(DESCRIPTOR_SET) for name in one.calling_services}
    write_certificates(folder / "certificates", sorted(callers | set(_PROCESSES)))
    signer = TokenSigner()
    (folder / "keys").mkdir(exist_ok=True)
    (folder / "keys" / "jwks.json").write_text(json.dumps({"keys": [signer.jwk()]}))
    stubs = {
        instance: StubService(instance, folder / f"{instance}.sock")
        for instances in _PROCESSES.values()
        for instance in instances
    }
    chosen: set[int] = set()
    topology = Topology(
        edge_address=f"127.0.0.1:{choose_port(None, chosen=chosen).port}",
        mesh_address=f"127.0.0.1:{choose_port(None, chosen=chosen).port}",
        admin_address=f"unix:{folder / 'admin.sock'}",
        services={
            service: [Endpoint(instance=name, address=stubs[name].address) for name in instances]
            for service, instances in _PROCESSES.items()
        },
        metrics_address=f"127.0.0.1:{choose_port(None, chosen=chosen).port}",
        certificate_dir=folder / "certificates",
        jwks_file=folder / "keys" / "jwks.json",
        descriptor_set=DESCRIPTOR_SET,
        cors_origins=[BROWSER_ORIGIN],
        access_log=folder / "access.log",
        allow_instance_choice=True,
        limits=limits or Limits(),
    )
    mesh = EnvoyMesh(topology=topology, signer=signer, stubs=stubs, log=folder / "envoy.log")
    for stub in stubs.values():
        await stub.start()
    try:
        await mesh.start()
        yield mesh
    finally:
        await mesh.stop()
        for stub in stubs.values():
            await stub.stop()


@pytest.fixture(scope="session")
async def envoy_mesh(short_folder: Path) -> AsyncIterator[EnvoyMesh]:
    """Run one Envoy for all tests that leave its processes alive."""
    async with running_envoy(short_folder / "envoy") as mesh:
        yield mesh


@pytest.fixture
async def own_envoy_mesh(
    short_folder: Path, request: pytest.FixtureRequest
) -> AsyncIterator[EnvoyMesh]:
    """Run an Envoy for one test that stops processes or reads its log."""
    async with running_envoy(short_folder / f"envoy-{id(request.node):x}") as mesh:
        yield mesh
