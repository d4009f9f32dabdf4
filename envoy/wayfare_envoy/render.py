"""Puts Envoy's bootstrap together; called by the stack, and by operators as a command."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from wayfare_envoy.clusters import service_cluster
from wayfare_envoy.listeners import edge_listener, mesh_listener
from wayfare_envoy.metrics import admin_cluster, metrics_listener
from wayfare_envoy.policies import Method, read_methods
from wayfare_envoy.topology import (
    Endpoint,
    Limits,
    TlsFiles,
    Topology,
    TopologyError,
    socket_address,
)

__all__ = ["Endpoint", "Limits", "TlsFiles", "Topology", "TopologyError", "render_bootstrap"]


def render_bootstrap(topology: Topology) -> dict[str, Any]:
    """Return the whole bootstrap for one topology; it serialises to JSON as it is.

    Raises:
        TopologyError: An address is malformed, or a service of the contract has no endpoint.
        PolicyMissingError: A method of the contract does not say who may call it.
    """
    methods = read_methods(topology.descriptor_set)
    _require_endpoints(topology, methods)
    listeners = [edge_listener(topology, methods), mesh_listener(topology, methods)]
    clusters = [
        service_cluster(name, endpoints, allow_instance_choice=topology.allow_instance_choice)
        for name, endpoints in sorted(topology.services.items())
    ]
    if topology.metrics_address is not None:
        listeners.append(metrics_listener(topology.metrics_address))
        clusters.append(admin_cluster(topology.admin_address))
    return {
        "node": {"id": "wayfare-envoy", "cluster": "wayfare"},
        "admin": {"address": socket_address(topology.admin_address)},
        "static_resources": {"listeners": listeners, "clusters": clusters},
        "overload_manager": _overload_manager(topology),
    }


def _require_endpoints(topology: Topology, methods: Sequence[Method]) -> None:
    missing = {method.service for method in methods} - set(topology.services)
    if missing:
        raise TopologyError(f"No endpoint is named for: {', '.join(sorted(missing))}.")


def _overload_manager(topology: Topology) -> dict[str, Any]:
    monitors = "envoy.extensions.resource_monitors"
    heap = "envoy.resource_monitors.fixed_heap"
    return {
        "refresh_interval": "0.25s",
        "resource_monitors": [
            {
                "name": "envoy.resource_monitors.global_downstream_max_connections",
                "typed_config": {
                    "@type": f"type.googleapis.com/{monitors}.downstream_connections.v3"
                    ".DownstreamConnectionsConfig",
                    "max_active_downstream_connections": topology.limits.connections_max,
                },
            },
            {
                "name": heap,
                "typed_config": {
                    "@type": f"type.googleapis.com/{monitors}.fixed_heap.v3.FixedHeapConfig",
                    "max_heap_size_bytes": topology.limits.memory_bytes_max,
                },
            },
        ],
        "actions": [
            _action("shrink_heap", heap, 0.85),
            _action("stop_accepting_requests", heap, 0.95),
        ],
    }


def _action(name: str, resource: str, threshold: float) -> dict[str, Any]:
    return {
        "name": f"envoy.overload_actions.{name}",
        "triggers": [{"name": resource, "threshold": {"value": threshold}}],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Render from the command line; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        bootstrap = render_bootstrap(_topology(options))
    except (ValueError, OSError) as error:
        sys.stderr.write(f"render: {error}\n")
        return 1
    as_json = options.output is not None and options.output.suffix == ".json"
    text = (
        json.dumps(bootstrap, indent=2) + "\n"
        if as_json
        else yaml.safe_dump(bootstrap, sort_keys=False)
    )
    if options.output is None:
        sys.stdout.write(text)
    else:
        options.output.write_text(text)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m wayfare_envoy.render",
        description="Render Envoy's bootstrap from the contract's policies and these addresses.",
        epilog="Example: python -m wayfare_envoy.render --service identity=identity-1@identity:7000"
        " --service location=location-1@location-1:7000"
        " --service location=location-2@location-2:7000"
        " --jwks /etc/wayfare/jwks.json --certificates /etc/wayfare/mesh --output envoy.yaml;"
        " then: envoy --mode validate -c envoy.yaml",
    )
    add = parser.add_argument
    add(
        "--service",
        action="append",
        required=True,
        metavar="NAME=INSTANCE@ADDRESS",
        help="a process of a service; ADDRESS is unix:/path or host:port; once per process",
    )
    add("--edge", default="0.0.0.0:8080", metavar="HOST:PORT", help="default %(default)s")
    add("--mesh", default="0.0.0.0:8443", metavar="HOST:PORT", help="default %(default)s")
    add(
        "--admin",
        default="127.0.0.1:9901",
        metavar="ADDRESS",
        help="loopback host:port or unix:/path (it can stop Envoy); default %(default)s",
    )
    add("--metrics", metavar="HOST:PORT", help="serve /metrics for Prometheus here; off by default")
    add("--jwks", type=Path, required=True, help="public keys that verify access tokens (JSON)")
    add("--certificates", type=Path, required=True, help="folder of ca.pem, envoy.pem, envoy.key")
    add("--descriptors", type=Path, default=Path("gen/descriptors.binpb"), help="%(default)s")
    add("--cors-origin", action="append", default=[], metavar="ORIGIN", help="or *; repeatable")
    add("--edge-certificate", type=Path, help="serve TLS at the edge with this chain")
    add("--edge-key", type=Path, help="and this private key")
    add("--access-log", type=Path, help="a file; standard output by default")
    add(
        "--allow-instance-choice",
        action="store_true",
        help="honour x-wayfare-instance: <INSTANCE>; for tests and demonstrations",
    )
    add("--output", type=Path, help="*.json or *.yaml; standard output by default")
    return parser


def _topology(options: argparse.Namespace) -> Topology:
    if (options.edge_certificate is None) != (options.edge_key is None):
        raise TopologyError("--edge-certificate and --edge-key belong together.")
    tls = options.edge_certificate and TlsFiles(
        certificate=options.edge_certificate, key=options.edge_key
    )
    return Topology(
        edge_address=options.edge,
        mesh_address=options.mesh,
        admin_address=options.admin,
        services=_services(options.service),
        certificate_dir=options.certificates,
        jwks_file=options.jwks,
        descriptor_set=options.descriptors,
        metrics_address=options.metrics,
        cors_origins=tuple(options.cors_origin),
        access_log=options.access_log,
        edge_tls=tls,
        allow_instance_choice=options.allow_instance_choice,
    )


def _services(entries: Sequence[str]) -> dict[str, list[Endpoint]]:
    services: dict[str, list[Endpoint]] = {}
    for entry in entries:
        name, is_named, process = entry.partition("=")
        instance, has_address, address = process.partition("@")
        if not (is_named and has_address and name and instance):
            raise TopologyError(f"--service {entry} is not NAME=INSTANCE@ADDRESS.")
        services.setdefault(name, []).append(Endpoint(instance=instance, address=address))
    return services


if __name__ == "__main__":
    sys.exit(main())
