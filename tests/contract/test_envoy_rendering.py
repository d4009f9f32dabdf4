"""What the renderer makes of the contract's policies, and that Envoy accepts it."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import descriptor_pb2

from services.stack.certificates import write_certificates
from services.stack.programs import envoy_program
from tests.support.envoy_fixtures import TokenSigner
from tests.support.stub_services import DESCRIPTOR_SET
from wayfare_envoy.local_replies import REFUSALS, status_of
from wayfare_envoy.policies import Method, PolicyMissingError, read_methods
from wayfare_envoy.render import main, render_bootstrap
from wayfare_envoy.topology import Endpoint, TlsFiles, Topology, TopologyError

METHODS = read_methods(DESCRIPTOR_SET)
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)


@pytest.fixture(scope="module")
def topology(short_folder: Path) -> Topology:
    folder = short_folder / "rendering"
    write_certificates(folder, ["identity"])
    (folder / "jwks.json").write_text(json.dumps({"keys": [TokenSigner().jwk()]}))
    return Topology(
        edge_address="127.0.0.1:8080",
        mesh_address="127.0.0.1:8443",
        admin_address=f"unix:{folder / 'admin.sock'}",
        services={
            service: [
                Endpoint(instance=f"{service}-{n}", address=f"unix:/run/{service}-{n}.sock")
                for n in (1, 2)
            ]
            for service in {method.service for method in METHODS}
        },
        certificate_dir=folder,
        jwks_file=folder / "jwks.json",
        descriptor_set=DESCRIPTOR_SET,
        cors_origins=["https://app.wayfare.example", "*"],
        allow_instance_choice=True,
    )


def _manager(topology: Topology, listener: str) -> dict[str, Any]:
    listeners = render_bootstrap(topology)["static_resources"]["listeners"]
    chosen = next(entry for entry in listeners if entry["name"] == listener)
    config: dict[str, Any] = chosen["filter_chains"][0]["filters"][0]["typed_config"]
    return config


def _routes(topology: Topology, method: Method, listener: str = "edge") -> list[dict[str, Any]]:
    hosts = _manager(topology, listener)["route_config"]["virtual_hosts"]
    return [
        route
        for host in hosts
        for route in host["routes"]
        if route["match"].get("path") == method.path
    ]


def _filter(topology: Topology, listener: str, name: str) -> dict[str, Any] | None:
    filters = _manager(topology, listener)["http_filters"]
    found = [entry["typed_config"] for entry in filters if entry["name"].endswith(f".{name}")]
    return found[0] if found else None


def _validate(bootstrap: dict[str, Any], folder: Path) -> None:
    config = folder / "validated.json"
    config.write_text(json.dumps(bootstrap))
    result = subprocess.run(
        [envoy_program(), "--mode", "validate", "--config-path", str(config)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]


def test_envoy_accepts_what_is_rendered_for_unix_sockets(
    topology: Topology, tmp_path: Path
) -> None:
    _validate(render_bootstrap(topology), tmp_path)


def test_envoy_accepts_what_is_rendered_for_host_names_and_tls(
    topology: Topology, tmp_path: Path
) -> None:
    folder = topology.certificate_dir
    elsewhere = replace(
        topology,
        services={
            service: [Endpoint(instance=f"{service}-1", address=f"{service}:7000")]
            for service in topology.services
        },
        edge_tls=TlsFiles(certificate=folder / "envoy.pem", key=folder / "envoy.key"),
        allow_instance_choice=False,
        access_log=tmp_path / "access.log",
        trusted_proxies=1,
    )
    _validate(render_bootstrap(elsewhere), tmp_path)


@every_method
def test_a_method_has_a_route_at_the_edge_or_is_refused_there(
    topology: Topology, method: Method
) -> None:
    routes = _routes(topology, method)

    assert routes
    for route in routes:
        if method.public or method.for_users:
            assert route["route"]["cluster"] == method.service
        else:
            assert route["direct_response"] == {"status": 403}


@every_method
def test_a_method_for_users_requires_a_token_and_a_public_one_does_not(
    topology: Topology, method: Method
) -> None:
    requirements = [
        route.get("typed_per_filter_config", {})
        .get("envoy.filters.http.jwt_authn", {})
        .get("requirement_name")
        for route in _routes(topology, method)
    ]

    if method.public or not method.for_users:
        assert requirements == [None]
    elif method.allow_api_key:
        assert requirements == ["token_or_key", "token_required"]
    else:
        assert requirements == ["token_required"]


@every_method
def test_a_route_that_takes_a_key_instead_of_a_token_is_for_calls_with_a_key(
    topology: Topology, method: Method
) -> None:
    for route in _routes(topology, method):
        config = route.get("typed_per_filter_config", {}).get("envoy.filters.http.jwt_authn", {})
        names = [header["name"] for header in route["match"].get("headers", [])]
        assert ("x-api-key" in names) == (config.get("requirement_name") == "token_or_key")


@every_method
def test_streams_have_no_end_but_an_idle_one_and_unary_calls_the_one_of_their_policy(
    topology: Topology, method: Method
) -> None:
    routes = [*_routes(topology, method), *_routes(topology, method, "mesh")]
    for action in (route["route"] for route in routes if "route" in route):
        if method.streaming:
            assert action["timeout"] == "0s"
            assert action["idle_timeout"] == "60s"
            assert action["max_stream_duration"] == {"grpc_timeout_header_max": "0s"}
        else:
            assert method.seconds_max is not None
            seconds = float(action["timeout"].removesuffix("s"))
            assert method.seconds_max < seconds <= method.seconds_max + 2


@every_method
def test_only_reads_are_repeated_after_a_process_refused_them(
    topology: Topology, method: Method
) -> None:
    routes = [*_routes(topology, method), *_routes(topology, method, "mesh")]
    for action in (route["route"] for route in routes if "route" in route):
        conditions = action["retry_policy"]["retry_on"].split(",")
        assert ("unavailable" in conditions) == method.read
        assert "connect-failure" in conditions
        assert action["retry_policy"]["num_retries"] <= 3


@every_method
def test_the_mesh_lets_in_exactly_the_services_of_the_policy(
    topology: Topology, method: Method
) -> None:
    rbac = _filter(topology, "mesh", "rbac")
    assert rbac is not None
    callers = {
        principal["authenticated"]["principal_name"]["exact"]
        for policy in rbac["rules"]["policies"].values()
        for permission in policy["permissions"]
        if permission["url_path"]["path"].get("exact") == method.path
        for principal in policy["principals"]
    }

    assert rbac["rules"]["action"] == "ALLOW"
    assert callers == {f"spiffe://wayfare/{service}" for service in method.calling_services}
    assert bool(_routes(topology, method, "mesh")) == bool(method.calling_services)


def test_every_route_leads_to_a_cluster_or_says_that_it_leads_nowhere(topology: Topology) -> None:
    clusters = {
        cluster["name"] for cluster in render_bootstrap(topology)["static_resources"]["clusters"]
    }
    for listener in ("edge", "mesh"):
        for host in _manager(topology, listener)["route_config"]["virtual_hosts"]:
            named = {
                route["route"]["cluster"]
                for route in host["routes"]
                if "route" in route and route["name"] != "unknown"
            }
            assert named <= clusters


def test_every_service_with_json_is_transcoded(topology: Topology) -> None:
    transcoder = _filter(topology, "edge", "grpc_json_transcoder")
    assert transcoder is not None
    assert set(transcoder["services"]) == {m.full_service for m in METHODS if m.has_json}


def test_a_cluster_holds_more_streams_than_envoy_would_by_default(topology: Topology) -> None:
    for cluster in render_bootstrap(topology)["static_resources"]["clusters"]:
        (thresholds,) = cluster["circuit_breakers"]["thresholds"]
        assert thresholds["max_requests"] >= 100_000
        assert thresholds["max_pending_requests"] >= 100_000
        assert thresholds["max_connections"] >= 100_000


def test_callers_cannot_choose_a_process_unless_the_topology_allows_it(topology: Topology) -> None:
    strict = replace(topology, allow_instance_choice=False)

    assert _filter(topology, "edge", "header_to_metadata") is not None
    assert _filter(strict, "edge", "header_to_metadata") is None
    for cluster in render_bootstrap(strict)["static_resources"]["clusters"]:
        assert "lb_subset_config" not in cluster


def test_every_refusal_of_envoy_carries_one_reason_of_the_contract() -> None:
    for refusal in REFUSALS:
        status = status_of(refusal)
        types = [detail.type_url.rpartition(".")[2] for detail in status.details]
        assert types.count("ErrorInfo") == 1
        assert ("RetryInfo" in types) == (refusal.retry_seconds is not None)


def test_a_service_without_an_endpoint_is_named(topology: Topology) -> None:
    lacking = {name: points for name, points in topology.services.items() if name != "location"}
    with pytest.raises(TopologyError, match="location"):
        render_bootstrap(replace(topology, services=lacking))


@pytest.mark.parametrize(
    "address", ["nowhere", "host:0", "host:port", ":80", "unix:/" + "long/" * 30, "host:70000"]
)
def test_an_address_that_cannot_work_is_refused(topology: Topology, address: str) -> None:
    with pytest.raises(TopologyError):
        render_bootstrap(replace(topology, edge_address=address))


def test_sockets_and_host_names_do_not_mix_in_one_service(topology: Topology) -> None:
    mixed = [
        Endpoint(instance="identity-1", address="unix:/run/identity-1.sock"),
        Endpoint(instance="identity-2", address="identity-2:7000"),
    ]
    with pytest.raises(TopologyError, match="identity"):
        render_bootstrap(replace(topology, services={**topology.services, "identity": mixed}))


def test_a_method_without_a_policy_stops_the_rendering(topology: Topology, tmp_path: Path) -> None:
    files = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTOR_SET.read_bytes())
    file = next(file for file in files.file if file.service)
    file.service[0].method[0].options.Clear()
    bare = tmp_path / "bare.binpb"
    bare.write_bytes(files.SerializeToString())

    with pytest.raises(PolicyMissingError, match=file.service[0].method[0].name):
        render_bootstrap(replace(topology, descriptor_set=bare))


def test_the_command_renders_what_the_stack_renders(topology: Topology, tmp_path: Path) -> None:
    arguments = [
        *("--edge", topology.edge_address, "--mesh", topology.mesh_address),
        *("--admin", topology.admin_address, "--jwks", str(topology.jwks_file)),
        *("--certificates", str(topology.certificate_dir)),
        *("--descriptors", str(DESCRIPTOR_SET), "--allow-instance-choice"),
        *("--cors-origin", topology.cors_origins[0], "--cors-origin", topology.cors_origins[1]),
    ]
    for service, endpoints in topology.services.items():
        for endpoint in endpoints:
            arguments += ["--service", f"{service}={endpoint.instance}@{endpoint.address}"]

    written = [tmp_path / "envoy.yaml", tmp_path / "envoy.json"]
    for path in written:
        assert main([*arguments, "--output", str(path)]) == 0

    assert yaml.safe_load(written[0].read_text()) == render_bootstrap(topology)
    assert json.loads(written[1].read_text()) == render_bootstrap(topology)


def test_the_command_says_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ["--service", "identity", "--jwks", "j", "--certificates", "c"]
    assert main(wrong) == 1
    assert "NAME=INSTANCE@ADDRESS" in capsys.readouterr().err


@every_method
def test_only_documents_may_be_asked_for_by_condition(topology: Topology, method: Method) -> None:
    filters = [route["typed_per_filter_config"] for route in _routes(topology, method)]
    conditional = ["envoy.filters.http.lua" in config for config in filters]

    # The public keys are one too: whoever serves them may say that they are not modified.
    feeds = {"GetVehiclePositionsFeed", "GetTripUpdatesFeed", "GetAlertsFeed", "GetJwks"}
    assert set(conditional) <= {method.name in feeds}
    assert method.document == (method.name in feeds)
