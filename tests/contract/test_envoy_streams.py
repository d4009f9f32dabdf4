"""Streams, retries and failing processes behind a real Envoy."""

import asyncio
import json
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2

from tests.support.edge_callers import Answer, call_grpc, call_json
from tests.support.envoy_fixtures import EnvoyMesh, running_envoy
from tests.support.waiting import until
from wayfare_envoy.topology import Limits

LOCATION = "/wayfare.location.v1.LocationService"
STREAM_DRIVER = f"{LOCATION}/StreamDriver"
GET_VEHICLE = f"{LOCATION}/GetVehiclePosition"
REPORT = f"{LOCATION}/ReportPositions"
GET_ME = "/wayfare.identity.v1.IdentityService/GetMe"
STREAMS = 1_200


def _bearer(mesh: EnvoyMesh) -> dict[str, str]:
    return {"authorization": f"Bearer {mesh.signer.sign()}"}


async def _open_driver(
    channel: grpc.aio.Channel, headers: dict[str, str]
) -> "grpc.aio.StreamStreamCall[bytes, bytes]":
    method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(STREAM_DRIVER)
    call = method(metadata=tuple(headers.items()))
    await call.write(b"position")
    return call


async def _instance_of(call: "grpc.aio.StreamStreamCall[bytes, bytes]") -> str:
    return str(dict(await call.initial_metadata())["x-stub-instance"])


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/other.Service/Stream", "UNIMPLEMENTED"),
        ("/wayfare.location.v1.LocationService/StartTracking", "PERMISSION_DENIED"),
        (STREAM_DRIVER, "UNAUTHENTICATED"),
    ],
)
async def test_a_stream_that_is_refused_is_refused_at_once(
    envoy_mesh: EnvoyMesh, path: str, code: str
) -> None:
    async with envoy_mesh.edge_channel() as channel:
        method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(path)
        call = method(timeout=10)
        # Never ends its side.
        refused_with = await call.code()

    assert refused_with.name == code


async def test_more_streams_than_envoy_takes_by_default_are_open_at_once(
    envoy_mesh: EnvoyMesh,
) -> None:
    headers = _bearer(envoy_mesh)
    stubs = [envoy_mesh.stubs["location-1"], envoy_mesh.stubs["location-2"]]
    async with envoy_mesh.edge_channel() as channel:
        calls = await asyncio.gather(*(_open_driver(channel, headers) for _ in range(STREAMS)))
        echoes = await asyncio.gather(*(call.read() for call in calls))
        assert sum(stub.open_streams for stub in stubs) == STREAMS
        # Envoy counts open streams and gives the next to the process with fewer.
        assert all(stub.open_streams > STREAMS / 3 for stub in stubs)
        await asyncio.gather(*(call.done_writing() for call in calls))
        codes = await asyncio.gather(*(call.code() for call in calls))

    assert set(echoes) == {b"position"}
    assert set(codes) == {grpc.StatusCode.OK}


@pytest.mark.parametrize("instance", ["location-1", "location-2"])
async def test_a_caller_chooses_a_process_where_the_topology_allows_it(
    envoy_mesh: EnvoyMesh, instance: str
) -> None:
    headers = {**_bearer(envoy_mesh), "x-wayfare-instance": instance}
    answers = [await call_grpc(envoy_mesh, GET_VEHICLE, headers=headers) for _ in range(5)]
    over_json = await call_json(envoy_mesh, "GET", "/v1/vehicles/bus-1/position", headers=headers)

    assert {answer.instance for answer in [*answers, over_json]} == {instance}


async def test_a_process_that_does_not_exist_is_no_choice(envoy_mesh: EnvoyMesh) -> None:
    headers = {**_bearer(envoy_mesh), "x-wayfare-instance": "location-9"}
    answer = await call_grpc(envoy_mesh, GET_VEHICLE, headers=headers)

    assert answer.code == "OK"


async def test_a_read_is_repeated_after_unavailable_and_a_write_is_not(
    own_envoy_mesh: EnvoyMesh,
) -> None:
    headers = {**_bearer(own_envoy_mesh), "x-stub-fail": "UNAVAILABLE"}
    for path in (GET_VEHICLE, REPORT):
        answer = await call_grpc(own_envoy_mesh, path, headers=headers)
        assert (answer.code, answer.reason) == ("UNAVAILABLE", "STUB_FAILED")

    stubs = own_envoy_mesh.stubs.values()
    assert sum(stub.calls[GET_VEHICLE] for stub in stubs) == 3
    assert sum(stub.calls[REPORT] for stub in stubs) == 1


async def test_a_process_that_dies_costs_no_call(own_envoy_mesh: EnvoyMesh) -> None:
    mesh, headers = own_envoy_mesh, _bearer(own_envoy_mesh)
    await mesh.stubs["location-1"].stop()

    answers = [await call_grpc(mesh, REPORT, headers=headers) for _ in range(20)]
    await mesh.wait_healthy(without=["location-1"])
    await mesh.stubs["location-1"].start()
    await mesh.wait_healthy()

    assert {(answer.code, answer.instance) for answer in answers} == {("OK", "location-2")}


async def test_a_draining_process_keeps_its_streams_and_gets_no_new_ones(
    own_envoy_mesh: EnvoyMesh,
) -> None:
    mesh, headers = own_envoy_mesh, _bearer(own_envoy_mesh)
    draining = mesh.stubs["location-1"]
    async with mesh.edge_channel() as channel:
        old = await _open_driver(channel, {**headers, "x-wayfare-instance": "location-1"})
        assert await _instance_of(old) == "location-1"
        await draining.say(health_pb2.HealthCheckResponse.NOT_SERVING)
        await mesh.wait_healthy(without=["location-1"])

        new = [await _open_driver(channel, headers) for _ in range(10)]
        instances = {await _instance_of(call) for call in new}
        await old.write(b"still here")
        echoes = [await old.read(), await old.read()]
        for call in [old, *new]:
            call.cancel()

    assert instances == {"location-2"}
    assert echoes == [b"position", b"still here"]


async def test_a_service_that_is_away_is_an_unavailable_dependency(
    own_envoy_mesh: EnvoyMesh,
) -> None:
    mesh, headers = own_envoy_mesh, _bearer(own_envoy_mesh)
    for name in ("location-1", "location-2"):
        await mesh.stubs[name].stop()
    await mesh.wait_healthy(without=["location-1", "location-2"])

    over_grpc = await call_grpc(mesh, REPORT, headers=headers)
    over_json = await call_json(mesh, "GET", "/v1/vehicles/bus-1/position", headers=headers)
    other_service = await call_grpc(mesh, GET_ME, headers=headers)
    async with httpx.AsyncClient(trust_env=False) as client:
        health = await client.get(mesh.url + "/healthz")

    expected = Answer(
        code="UNAVAILABLE",
        reason="DEPENDENCY_UNAVAILABLE",
        domain="edge.wayfare",
        retry_after="given",
    )
    assert over_grpc == expected
    assert (over_json.code, over_json.reason) == (expected.code, expected.reason)
    assert over_json.http_status == 503
    assert other_service.code == "OK"
    assert health.status_code == 503


async def test_a_call_over_its_policy_s_duration_ends(own_envoy_mesh: EnvoyMesh) -> None:
    headers = {**_bearer(own_envoy_mesh), "x-stub-wait": "1"}
    over_grpc, over_json = await asyncio.gather(
        call_grpc(own_envoy_mesh, GET_VEHICLE, headers=headers),
        call_json(own_envoy_mesh, "GET", "/v1/vehicles/bus-1/position", headers=headers),
    )
    for stub in own_envoy_mesh.stubs.values():
        stub.release()

    # Envoy and the service race to say so; only Envoy's answer has a reason here.
    assert over_grpc.code == over_json.code == "DEADLINE_EXCEEDED"
    assert over_json.http_status == 504


async def test_a_process_that_hangs_ends_in_a_passed_deadline(own_envoy_mesh: EnvoyMesh) -> None:
    mesh, headers = own_envoy_mesh, _bearer(own_envoy_mesh)
    hanging = []
    for name in ("location-1", "location-2"):
        await mesh.stubs[name].stop()
        path = mesh.stubs[name].address.removeprefix("unix:")
        hanging.append(await asyncio.start_unix_server(_read_and_say_nothing, path))
    over_grpc, over_json = await asyncio.gather(
        call_grpc(mesh, GET_VEHICLE, headers=headers),
        call_json(mesh, "GET", "/v1/vehicles/bus-1/position", headers=headers),
    )
    await mesh.stop()
    for server in hanging:
        server.close()

    expected = Answer(code="DEADLINE_EXCEEDED", reason="DEADLINE_PASSED", domain="edge.wayfare")
    assert over_grpc == expected
    assert (over_json.code, over_json.reason) == (expected.code, expected.reason)
    assert over_json.http_status == 504


async def _read_and_say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(4096):
        pass
    writer.close()


async def test_a_flood_from_one_address_is_limited_and_another_address_is_not(
    short_folder: Path,
) -> None:
    limits = Limits(requests_per_address_burst=20, requests_per_address_per_second=1)
    async with running_envoy(short_folder / "flooded", limits=limits) as mesh:
        headers = _bearer(mesh)
        answers = [await call_grpc(mesh, GET_ME, headers=headers) for _ in range(30)]
        over_json = await call_json(mesh, "GET", "/v1/me", headers=headers)
        transport = httpx.AsyncHTTPTransport(local_address="127.0.4.2")
        async with httpx.AsyncClient(transport=transport, trust_env=False) as client:
            elsewhere = await client.get(mesh.url + "/v1/me", headers=headers)

    limited = Answer(
        code="RESOURCE_EXHAUSTED", reason="RATE_LIMITED", domain="edge.wayfare", retry_after="given"
    )
    assert [answer.code for answer in answers[:20]] == ["OK"] * 20
    assert limited in answers[20:]
    assert (over_json.http_status, over_json.reason) == (429, "RATE_LIMITED")
    assert elsewhere.status_code == 200


async def test_connections_over_the_limit_are_closed_and_the_others_live_on(
    short_folder: Path,
) -> None:
    async with running_envoy(short_folder / "full", limits=Limits(connections_max=3)) as mesh:
        host, _, port = mesh.topology.edge_address.partition(":")
        connections = [await asyncio.open_connection(host, int(port)) for _ in range(3)]
        await _ask_for_health(*connections[0])
        late_reader, late_writer = await asyncio.open_connection(host, int(port))
        nothing = await asyncio.wait_for(late_reader.read(), timeout=5)
        status = await _ask_for_health(*connections[1])
        for _, writer in [*connections, (late_reader, late_writer)]:
            writer.close()

    assert nothing == b""
    assert status == b"HTTP/1.1 200 OK\r\n"


async def _ask_for_health(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(b"GET /healthz HTTP/1.1\r\nhost: edge\r\n\r\n")
    return await asyncio.wait_for(reader.readline(), timeout=5)


async def test_the_access_log_names_the_method_and_holds_no_secret(
    own_envoy_mesh: EnvoyMesh,
) -> None:
    mesh, token = own_envoy_mesh, own_envoy_mesh.signer.sign()
    headers = {"authorization": f"Bearer {token}", "x-api-key": "wk_secret"}
    path = "/v1/drivers:nearby?location.latitude=53.4084&location.longitude=-2.9916"
    await call_json(mesh, "GET", path, headers=headers)
    await call_json(mesh, "GET", f"/v1/unknown?token={token}", headers={})
    await call_grpc(mesh, GET_ME, headers={})
    await until(lambda: mesh.access_log.exists() and mesh.access_log.read_text().count("\n") >= 3)

    text = mesh.access_log.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert {line["method"] for line in lines} >= {
        "wayfare.location.v1.LocationService/ListNearbyDrivers",
        "wayfare.identity.v1.IdentityService/GetMe",
        "unknown",
    }
    assert all(line["request_id"] and line["listener"] == "edge" for line in lines)
    for secret in (token, "wk_secret", "53.4084", "2.9916"):
        assert secret not in text
