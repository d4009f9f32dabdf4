"""Who may call whom through the mesh listener of a real Envoy."""

from pathlib import Path

import grpc
import pytest

from services.stack.certificates import write_certificates
from tests.support.edge_callers import Answer, call_grpc, unary
from tests.support.envoy_fixtures import EnvoyMesh
from tests.support.stub_services import DESCRIPTOR_SET
from wayfare_envoy.policies import Method, read_methods

START_TRACKING = "/wayfare.location.v1.LocationService/StartTracking"
GET_ME = "/wayfare.identity.v1.IdentityService/GetMe"
INTERNAL = [method for method in read_methods(DESCRIPTOR_SET) if method.calling_services]
every_internal_method = pytest.mark.parametrize("method", INTERNAL, ids=lambda m: m.full_name)

REFUSED = Answer(code="PERMISSION_DENIED", reason="SERVICE_NOT_ALLOWED", domain="edge.wayfare")


@pytest.fixture(scope="module")
def caller_certificates(envoy_mesh: EnvoyMesh) -> Path:
    """Issue a certificate of the mesh's authority to every service that a policy names."""
    folder = envoy_mesh.topology.certificate_dir
    named = {service for method in INTERNAL for service in method.calling_services}
    write_certificates(folder, sorted(named | {"stranger"}))
    return folder


@every_internal_method
async def test_a_service_on_the_list_may_call(
    envoy_mesh: EnvoyMesh, caller_certificates: Path, method: Method
) -> None:
    for service in method.calling_services:
        channel = envoy_mesh.mesh_channel(service, folder=caller_certificates)
        answer = await call_grpc(envoy_mesh, method.path, headers={}, channel=channel)

        assert answer.code == "OK"
        assert answer.saw["x-forwarded-client-cert"].endswith(f"URI=spiffe://wayfare/{service}")


@every_internal_method
async def test_a_service_off_the_list_may_not_call(
    envoy_mesh: EnvoyMesh, caller_certificates: Path, method: Method
) -> None:
    channel = envoy_mesh.mesh_channel("stranger", folder=caller_certificates)
    answer = await call_grpc(envoy_mesh, method.path, headers={}, channel=channel)

    assert answer == REFUSED


async def test_a_method_for_people_is_closed_in_the_mesh(
    envoy_mesh: EnvoyMesh, caller_certificates: Path
) -> None:
    channel = envoy_mesh.mesh_channel("booking", folder=caller_certificates)
    answer = await call_grpc(envoy_mesh, GET_ME, headers={}, channel=channel)

    assert answer == REFUSED


async def test_a_certificate_that_the_caller_writes_itself_is_replaced(
    envoy_mesh: EnvoyMesh, caller_certificates: Path
) -> None:
    spoofed = {"x-forwarded-client-cert": "URI=spiffe://wayfare/ledger"}
    channel = envoy_mesh.mesh_channel("booking", folder=caller_certificates)
    answer = await call_grpc(envoy_mesh, START_TRACKING, headers=spoofed, channel=channel)

    assert "ledger" not in answer.saw["x-forwarded-client-cert"]
    assert "spiffe://wayfare/booking" in answer.saw["x-forwarded-client-cert"]


async def test_a_call_keeps_the_request_id_of_the_one_that_caused_it(
    envoy_mesh: EnvoyMesh, caller_certificates: Path
) -> None:
    channel = envoy_mesh.mesh_channel("booking", folder=caller_certificates)
    headers = {"x-request-id": "0198c000-0000-7000-8000-0000000000ff"}
    answer = await call_grpc(envoy_mesh, START_TRACKING, headers=headers, channel=channel)

    assert answer.saw["x-request-id"] == headers["x-request-id"]


async def test_nobody_gets_in_without_a_certificate(envoy_mesh: EnvoyMesh) -> None:
    channel = envoy_mesh.mesh_channel(None)
    answer = await call_grpc(envoy_mesh, START_TRACKING, headers={}, channel=channel)

    assert answer.code == "UNAVAILABLE"


async def test_a_certificate_of_another_authority_is_refused(
    envoy_mesh: EnvoyMesh, tmp_path: Path
) -> None:
    write_certificates(tmp_path, ["booking"])
    channel = envoy_mesh.mesh_channel("booking", folder=tmp_path)
    answer = await call_grpc(envoy_mesh, START_TRACKING, headers={}, channel=channel)

    assert answer.code == "UNAVAILABLE"


async def test_the_mesh_does_not_speak_without_tls(envoy_mesh: EnvoyMesh) -> None:
    channel = grpc.aio.insecure_channel(envoy_mesh.topology.mesh_address)
    answer = await call_grpc(envoy_mesh, START_TRACKING, headers={}, channel=channel)

    assert answer.code == "UNAVAILABLE"


async def test_health_is_open_to_every_service_of_the_mesh(
    envoy_mesh: EnvoyMesh, caller_certificates: Path
) -> None:
    async with envoy_mesh.mesh_channel("stranger", folder=caller_certificates) as channel:
        assert await unary(channel, "/grpc.health.v1.Health/Check")(b"") == b"\x08\x01"
